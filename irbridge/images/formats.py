"""Which image files are opened, how, and what is said of those that cannot be read."""

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import (
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from irbridge.errors import UserError, full_disk
from irbridge.files import open_regular

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff"}
READ = "JPEG, PNG, WebP, TIFF and BMP"
# The signs that a file begins with, and what opens it. Pillow itself would also open formats that
# other programs decode, such as EPS by Ghostscript.
OPENERS = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.jpeg_factory,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
    b"II+\0": TiffImagePlugin.TiffImageFile,
    b"MM\0+": TiffImagePlugin.TiffImageFile,
}
TIFF_SIGNS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Formats that people have and that are not read: (signs, where they are in the file, name).
OTHERS = (
    ((b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"), 8, "HEIC"),
    ((b"avif", b"avis"), 8, "AVIF"),
    ((b"GIF8",), 0, "GIF"),
    ((b"%!PS", b"\xc5\xd0\xd3\xc6"), 0, "EPS"),
    ((b"8BPS",), 0, "PSD"),
    ((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), 0, "JPEG 2000"),
    ((b"\0\0\0\x0cJXL ", b"\xff\x0a"), 0, "JPEG XL"),
    ((b"icns",), 0, "ICNS"),
    ((b"%PDF",), 0, "PDF"),
    ((b"v/1\x01",), 0, "OpenEXR"),
    ((b"#?RADIANCE", b"#?RGBE"), 0, "Radiance HDR"),
    ((b"<svg", b"<?xml"), 0, "SVG"),
)
MAX_PIXELS = 2**28  # 268 million: more than telephones take (200 million)
PIXELS_KEY = "IRBRIDGE_MAX_PIXELS"  # the environment variable that raises it


class TooLargeError(Exception):
    """An image declares more pixels than are read."""


class UnreadError(Exception):
    """What an image holds is not read; the text says why, and what to do."""


def max_pixels() -> int:
    """How many pixels an image may have; UserError where the environment's number is none."""
    given = os.environ.get(PIXELS_KEY, "")
    if not given:
        return MAX_PIXELS
    if not given.isdecimal() or len(given) > 15 or int(given) < 1:
        raise UserError(f"{PIXELS_KEY}={given} is no number of pixels; give one such as 900000000.")
    return int(given)


def check_size(width: int, height: int) -> None:
    """Raise :class:`TooLargeError` where an image is larger than :func:`max_pixels`.

    One without pixels is damaged, a ValueError. It is called before anything is unpacked, so that
    a small file cannot fill the memory.
    """
    most = max_pixels()
    if min(width, height) < 1:
        raise ValueError("it has no pixels")
    if width * height > most:
        raise TooLargeError(
            f"declares more pixels ({width} x {height}) than are read ({most}); cut it into smaller"
            f" images, or set {PIXELS_KEY}={width * height} where it is what it says"
        )


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image of the formats that are read, by its first bytes and not by its name.

    Args:
        file: an open file, at its beginning.

    Raises:
        UnreadError: it is of a known format that is not read.
        UnidentifiedImageError: it is of no known format.
        TooLargeError: it has too many pixels.
        Exception: whatever a decoder raises of a damaged file.
    """
    sign = first_bytes(file)
    found = [opener for start, opener in OPENERS.items() if sign.startswith(start)]
    if not found or (sign.startswith(b"RIFF") and sign[8:12] != b"WEBP"):
        raise unknown_format(sign)
    image = found[0](file, "")
    check_size(*image.size)
    return image


def first_bytes(file: BinaryIO) -> bytes:
    """The first bytes of an open file, which is then at its beginning again."""
    file.seek(0)
    sign = file.read(16)
    file.seek(0)
    return sign


def unknown_format(sign: bytes) -> Exception:
    """The error for a file whose first bytes are those of no format that is read."""
    for starts, at, title in OTHERS:
        if any(sign[at:].startswith(start) for start in starts):
            return UnreadError(f"is {title}, and read are {READ}; convert it to PNG or JPEG")
    return UnidentifiedImageError("unknown format")


@contextmanager
def reading(path: str | Path) -> Iterator[BinaryIO]:
    """Within the block an image file is open, and whatever its decoders raise is a UserError.

    Args:
        path: of the file; a pipe, a device or a folder is refused at once.

    Raises:
        UserError: the file is not there, cannot be read, or is no image.
    """
    path = Path(path)
    with told(path):
        if not os.path.lexists(path):
            raise UserError(f"The image {path} does not exist; check the path.")
        if path.is_dir():
            raise UserError(
                f"{path} is a folder where an image file is expected; name one image in it."
            )
        with open_regular(path) as file:
            yield file


@contextmanager
def told(name: str | Path) -> Iterator[None]:
    """Within the block whatever the decoders of an image raise is a UserError that names it.

    Args:
        name: what the image is called.
    """
    try:
        with warnings.catch_warnings():
            # of odd EXIF and damaged tags: what cannot be read is an error, and the rest is read
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:  # decoders raise anything on damaged data
        raise unreadable(name, error) from error


def unreadable(name: str | Path, error: Exception) -> UserError:
    """The error that says why an image cannot be read, and what to do.

    Args:
        name: what the image is called.
        error: what its decoder raised.
    """
    if isinstance(error, (TooLargeError, UnreadError)):
        return UserError(f"{name} {error}.")
    if isinstance(error, Image.DecompressionBombError):  # Pillow's own limit for TIFFs
        return UserError(
            f"{name} declares more pixels than are read of such a file; cut it into smaller images,"
            " or save it as PNG."
        )
    if out_of_memory(error):
        return UserError(
            f"{name} does not fit into the free memory; close other programs, or make the image"
            " smaller."
        )
    if isinstance(error, OSError) and error.errno:
        pipe = error.errno in (errno.EINVAL, errno.ENXIO)  # ENXIO: a socket
        remedy = "give a file" if pipe else "check the file and who may read it"
        return UserError(f"{name} cannot be read ({error.strerror or error}); {remedy}.")
    if isinstance(error, UnidentifiedImageError):
        return UserError(
            f"{name} is not a readable image (unknown format); read are {READ}, so convert, replace"
            " or remove it."
        )
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return UserError(f"{name} is not a readable image ({reason}); replace or remove it.")


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is short, and nothing of the file."""
    # Pillow's decoders and zlib say it in words of their own
    return (
        isinstance(error, MemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
        or "out of memory" in str(error).lower()
    )


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error that says why a file cannot be written, and what to do.

    Args:
        path: of the file.
        error: the system's.
    """
    full = full_disk(error)
    remedy = "make room, or choose another place" if full else "choose a writable folder"
    if error.errno == errno.ENAMETOOLONG:
        remedy = "choose a shorter name"
    return UserError(f"{path} cannot be written ({error.strerror or error}); {remedy}.")
