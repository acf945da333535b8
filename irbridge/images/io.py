"""Reading, writing and listing images: float32 (H, W, 3) in [0, 1]."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from irbridge.errors import UserError
from irbridge.files import full_disk, write_atomically
from irbridge.images.arrays import to_bytes

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
ORIENTATION = 0x0112  # EXIF's tag; from 5 on the picture is shown with its sides swapped
# the value of white in Pillow's deep modes of grey
WHITES = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I": 65535, "F": 1}


def read_image(path: str | Path) -> np.ndarray:
    """Read one image of any common mode: upright, RGB, alpha over white, deep grey at full depth.

    Returns:
        float32 (H, W, 3) in [0, 1].

    Raises:
        UserError: the file is missing, a folder, no image, damaged, or larger than Pillow's
            MAX_IMAGE_PIXELS allows.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(
            f"{path} is a folder where an image file is expected; name one image in it."
        )
    if not path.exists():
        raise UserError(f"The image {path} does not exist; check the path.")
    return decode(path, path)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image as an 8-bit PNG; the file appears whole or not at all.

    Args:
        path: ends in .png.
        image: (H, W, 3) in [0, 1].

    Raises:
        UserError: the name does not end in .png, or the place cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"Results are written as PNG, so {path} must end in .png.")
    picture = Image.fromarray(to_bytes(image))
    try:
        write_atomically(path, lambda file: picture.save(file, format="PNG"))
    except OSError as error:
        remedy = "make room" if full_disk(error) else "choose a writable folder"
        reason = error.strerror or error
        raise UserError(f"{path} cannot be written ({reason}); {remedy}.") from error


def is_image(path: Path) -> bool:
    """Whether the name is that of an image; hidden files are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_images(folder: str | Path) -> list[Path]:
    """The images directly inside a folder, sorted by name.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"The image folder {folder} does not exist; check the path.")
    paths = sorted(path for path in folder.iterdir() if is_image(path) and path.is_file())
    if not paths:
        raise UserError(
            f"The folder {folder} holds no images; put files such as .png or .jpg in it."
        )
    return paths


def decode(file: str | Path | BinaryIO, name: str | Path) -> np.ndarray:
    """The image in a file, as :func:`read_image` gives it.

    Args:
        file: a path or an open file.
        name: what errors call it.

    Raises:
        UserError: it is no image, or damaged.
    """
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode in WHITES:
                grey = np.asarray(image, dtype=np.float32) / WHITES[image.mode]
                return np.repeat(grey.clip(0, 1)[..., None], 3, axis=2)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    except Exception as error:  # decoders raise anything on damaged data
        raise unreadable(name, error) from error


def read_header(
    file: str | Path | BinaryIO, name: str | None = None
) -> tuple[tuple[int, int], str]:
    """The size and mode of an image as it is shown, by its header alone.

    Args:
        file: a path or an open file.
        name: what errors call it; None: the path.

    Returns:
        (width, height) and Pillow's mode.

    Raises:
        UserError: it is no image.
    """
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(ORIENTATION, 1) >= 5
            return (image.size[::-1] if turned else image.size), image.mode
    except Exception as error:
        raise unreadable(name or file, error) from error


def unreadable(name: str | Path, error: Exception) -> UserError:
    """The error that says why an image cannot be read.

    Args:
        name: what the image is called.
        error: what its decoder raised.
    """
    if isinstance(error, Image.DecompressionBombError):
        return UserError(
            f"{name} declares more pixels than Pillow accepts ({2 * Image.MAX_IMAGE_PIXELS}); "
            "replace it, or cut it into smaller images."
        )
    known = str(error).rstrip(".") or type(error).__name__
    reason = "unknown format" if isinstance(error, UnidentifiedImageError) else known
    return UserError(f"{name} is not a readable image ({reason}); replace or remove it.")
