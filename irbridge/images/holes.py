"""Which pixels of a photograph are to be filled.

They come from a mask file, a folder of masks, or the photograph's own alpha channel.
"""

from pathlib import Path

import numpy as np

from irbridge.errors import UserError
from irbridge.images.io import is_image
from irbridge.images.photo import Photo
from irbridge.images.samples import read_samples

MASK = "give mask=FILE, white where the photograph is to be filled and black elsewhere"
CLEAR = (
    "a photograph that is more than half transparent where it is to be filled, and opaque elsewhere"
)


def read_mask(path: str | Path, remedy: str = MASK) -> np.ndarray:
    """Read a mask file, upright.

    White is what lies above the middle between the darkest and the brightest value, so that 0 and 1
    serve as well as 0 and 255. Of a file with an alpha channel the colours count, or where these
    are one the alpha.

    Args:
        path: of the file.
        remedy: what the errors end in.

    Returns:
        bool (H, W), True where the file is white.

    Raises:
        UserError: it is no image, is of one value, or has values that are no numbers.
    """
    samples = read_samples(path)
    values = samples.values
    # whatever their range is: white is above the middle
    if values.dtype.kind not in "uif" or not np.isfinite(values).all():
        raise UserError(f"The mask {path} has values that are no numbers; {remedy}.")
    values = values.astype(np.float64)
    colours = values[..., :-1] if samples.alpha else values
    chosen = colours.mean(axis=2)
    if samples.alpha and np.ptp(chosen) == 0:
        chosen = values[..., -1]
    if np.ptp(chosen) == 0:
        raise UserError(
            f"The mask {path} has one value everywhere, so it does not say what to fill; {remedy}."
        )
    return chosen > (chosen.min() + chosen.max()) / 2


def mask_file(source: Path, given: str) -> Path:
    """The mask of a photograph.

    Args:
        source: the photograph's file.
        given: a mask file, or a folder of masks named like their photographs.

    Raises:
        UserError: there is none, or several.
    """
    at = Path(given).expanduser()
    if not at.is_dir():
        if not at.is_file():
            what = "is a pipe or a device" if at.exists() else "does not exist"
            raise UserError(f"mask={given} {what}; give an image, or a folder of them.")
        return at
    named = sorted(path for path in at.iterdir() if is_image(path) and path.stem == source.stem)
    if not named:
        raise UserError(f"mask={given} has no mask for {source.name}; name it {source.stem}.png.")
    if len(named) > 1:
        raise UserError(
            f"mask={given} has several masks for {source.name}, {named[0].name} and"
            f" {named[1].name}; keep one."
        )
    return named[0]


def holes_of(
    photo: Photo, source: Path, mask: Path | None, remedy: str = MASK + ", or " + CLEAR
) -> np.ndarray:
    """What is to be filled of a photograph.

    Args:
        photo: the photograph.
        source: its file, for the errors.
        mask: a mask file, white there; None: where the photograph is more than half transparent.
        remedy: what the errors end in.

    Returns:
        bool (H, W), True in the holes.

    Raises:
        UserError: without a mask the holes are nowhere or everywhere, or the mask has another size.
    """
    height, width = photo.pixels.shape[:2]
    if mask is None:
        holes = photo.alpha is not None and photo.alpha < (2**photo.bits - 1) / 2
        if np.all(holes) == np.any(holes):
            raise UserError(f"{source.name} does not say what to fill; {remedy}.")
        return holes
    holes = read_mask(mask)
    check_mask_size(holes.shape[::-1], (width, height), mask, source)
    return holes


def check_mask_size(
    given: tuple[int, int], wanted: tuple[int, int], mask: Path, source: Path
) -> None:
    """UserError where a mask is not of its photograph's size.

    Args:
        given: width and height of the mask.
        wanted: those of the photograph.
        mask: its file, for the error.
        source: the photograph's.
    """
    if given != wanted:
        raise UserError(
            f"The mask {mask} is {given[0]} x {given[1]} pixels, but {source.name} is"
            f" {wanted[0]} x {wanted[1]}; give a mask of the photograph's size."
        )
