"""Which pixels of a photograph are to be filled: a mask file, a folder of masks, or the
photograph's own alpha channel.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from irbridge.errors import UserError
from irbridge.images.io import is_image, unreadable
from irbridge.images.photo import FORMATS, GREY, Photo, read_exif, upright

MASK = "give mask=FILE, white where the photograph is to be filled and black elsewhere"
CLEAR = (
    "a photograph that is more than half transparent where it is to be filled, and opaque elsewhere"
)


def read_mask(path: str | Path) -> np.ndarray:
    """A mask file, upright, as (H, W) bool, True where it is white: above the middle between its
    darkest and its brightest value, so that 0 and 1 serve as well as 0 and 255. Of a file with an
    alpha channel the colours count, or where these are one the alpha. UserError if it is no image,
    or of one value, or has values that are no numbers.
    """
    try:
        # a file, see read_photo
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
            turn = 1 if image.format == "TIFF" else read_exif(image)[0]
            image.load()  # which turns a TIFF
            bands = image.convert("RGBA") if image.has_transparency_data else image
            bands = bands if bands.mode in GREY | {"RGB", "RGBA"} else bands.convert("RGB")
            values = upright(np.atleast_3d(np.asarray(bands, dtype=np.float64)), turn)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything on damaged data
        raise unreadable(path, error) from error
    if not np.isfinite(values).all():
        raise UserError(f"The mask {path} has values that are no numbers; {MASK}.")
    colour, alpha = values[..., :3].mean(axis=2), values[..., 3] if values.shape[2] == 4 else None
    chosen = alpha if alpha is not None and np.ptp(colour) == 0 else colour
    if np.ptp(chosen) == 0:
        raise UserError(
            f"The mask {path} has one value everywhere, so it does not say what to fill; {MASK}."
        )
    return chosen > (chosen.min() + chosen.max()) / 2


def mask_file(source: Path, given: str) -> Path:
    """The mask of a photograph: the file itself, or the one of its name in a folder. UserError
    where there is none.
    """
    at = Path(given).expanduser()
    if not at.is_dir():
        if not at.is_file():
            raise UserError(f"mask={given} does not exist; check the path.")
        return at
    named = sorted(p for p in at.iterdir() if is_image(p) and p.stem == source.stem)
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
    """What is to be filled of a photograph, (H, W) bool: the mask file's white, or where the
    photograph is more than half transparent. UserError, which ends in ``remedy``, if that is
    nowhere or everywhere; also if the mask has another size.
    """
    height, width = photo.pixels.shape[:2]
    if mask is None:
        holes = photo.alpha is not None and photo.alpha < (2**photo.bits - 1) / 2
        if np.all(holes) == np.any(holes):
            raise UserError(f"{source.name} does not say what to fill; {remedy}.")
        return holes
    holes = read_mask(mask)
    if holes.shape != (height, width):
        raise UserError(
            f"The mask {mask} is {holes.shape[1]} x {holes.shape[0]} pixels, but {source.name} is"
            f" {width} x {height}; give a mask of the photograph's size."
        )
    return holes
