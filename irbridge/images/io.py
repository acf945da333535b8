"""Reading, writing and listing images: float32 (H, W, 3) in [0, 1]."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from irbridge.errors import UserError
from irbridge.files import write_atomically
from irbridge.images.arrays import check_range, to_bytes
from irbridge.images.formats import SUFFIXES, cannot_write, told
from irbridge.images.samples import read_samples


def read_image(source: str | Path | BinaryIO, name: str | Path | None = None) -> np.ndarray:
    """Read one image of any common mode: upright, RGB, alpha over white, deep ones at full depth.

    Args:
        source: a path, or an open file.
        name: what errors call an open file.

    Returns:
        float32 (H, W, 3) in [0, 1].

    Raises:
        UserError: the file is missing, a folder, no image, damaged, too large, or does not say what
            is black and white.
    """
    name = source if name is None else name
    samples = read_samples(source, name)
    with told(name):
        return _over_white(samples.levels(), samples.alpha)


def _over_white(levels: np.ndarray, alpha: bool) -> np.ndarray:
    """Levels (H, W, C) as float32 (H, W, 3) in [0, 1], what is transparent over white."""
    white = np.iinfo(levels.dtype).max
    colours = levels[..., :-1] if alpha else levels
    colours = colours.repeat(3, axis=2) if colours.shape[2] == 1 else colours
    if not alpha:
        return colours.astype(np.float32) / white
    if white == 255:  # in the integers that Pillow composes with
        image = Image.fromarray(np.dstack([colours, levels[..., -1:]]))
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(image)[..., :3].astype(np.float32) / 255
    share = levels[..., -1:].astype(np.float32) / white
    return colours.astype(np.float32) / white * share + (1 - share)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image as an 8-bit PNG; the file appears whole or not at all.

    Args:
        path: ends in .png.
        image: float (H, W, 3) in [0, 1].

    Raises:
        UserError: the name does not end in .png, the place cannot be written, or the image is none
            of that kind.
    """
    if not isinstance(path, str | Path):
        raise UserError(
            f"write_image takes a path first and then the image, not {type(path).__name__} first."
        )
    path = Path(path)
    check_range(image, f"The image for {path}")
    if path.suffix.lower() != ".png":
        raise UserError(f"Results are written as PNG, so {path} must end in .png.")
    write_bytes(path, to_bytes(image))


def write_bytes(path: Path, values: np.ndarray) -> None:
    """Write uint8 (H, W, 3) as a PNG; the file appears whole or not at all.

    Raises:
        UserError: the place cannot be written.
    """
    picture = Image.fromarray(values)
    try:
        write_atomically(path, lambda file: picture.save(file, format="PNG"))
    except OSError as error:
        raise cannot_write(path, error) from error


def is_image(path: Path) -> bool:
    """Whether the name is that of an image; hidden files are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_images(folder: str | Path) -> list[Path]:
    """The images directly inside a folder, sorted by name.

    Raises:
        UserError: there is no such folder, no image in it, or one that is no file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"The image folder {folder} does not exist; check the path.")
    paths = sorted(path for path in folder.iterdir() if is_image(path) and not path.is_dir())
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{path} is no file but a pipe, a device or a link to nothing; remove it."
            )
    if not paths:
        raise UserError(
            f"The folder {folder} holds no images; put files such as .png or .jpg in it."
        )
    return paths
