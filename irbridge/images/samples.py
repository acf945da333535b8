"""The one reader of image files: what is stored, upright, with what a copy of it must keep."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

from irbridge.images.formats import (
    TIFF_SIGNS,
    UnreadError,
    first_bytes,
    open_image,
    reading,
    told,
)
from irbridge.images.png import (
    SIGNATURE,
    check_whole,
    colour_chunks,
    has_exif,
    is_png16,
    read_png16,
)
from irbridge.images.tiff import (
    SAVE,
    SIGNED,
    UNSIGNED,
    WHITE_IS_ZERO,
    Tags,
    check_parts,
    inverted,
    read_deep,
    read_tags,
    to_16_bits,
)

GREY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
# What a TIFF's directory says of the picture rather than of its storage.
DESCRIPTIVE = (
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.Copyright,
)


@dataclass(frozen=True)
class Samples:
    """What an image file stores, upright.

    Args:
        values: (H, W, C) as they are stored: one channel of grey or three of colour, then alpha.
        alpha: whether the last channel is alpha.
        bits: of a value.
        kind: of its type, as TIFF's SampleFormat.
        icc: the colour profile, or None.
        exif: with the orientation reset, or empty.
        colour: the PNG chunks that say what the values mean.
    """

    values: np.ndarray
    alpha: bool
    bits: int = 8
    kind: int = UNSIGNED
    icc: bytes | None = None
    exif: bytes = b""
    colour: bytes = b""

    def levels(self) -> np.ndarray:
        """The values as uint8, or where there are more than 8 bits as uint16.

        Raises:
            UnreadError: what is black and white is not declared.
        """
        if self.values.dtype == np.uint8:
            return self.values
        return to_16_bits(self.values, self.bits, self.kind)


def read_samples(source: str | Path | BinaryIO, name: str | Path | None = None) -> Samples:
    """Read an image file: JPEG, PNG, WebP, TIFF or BMP of any mode, of several pages the first.

    Args:
        source: a path or an open file.
        name: what errors call an open file.

    Raises:
        UserError: it is missing, no file, of another format, damaged, too large, or does not fit
            into memory.
    """
    if isinstance(source, (str, Path)):
        with reading(source) as file:
            return _samples(file)
    with told(name):
        return _samples(source)


def _samples(file: BinaryIO) -> Samples:
    """The samples of an open file."""
    sign = first_bytes(file)
    if sign.startswith(TIFF_SIGNS):
        return _tiff(file)
    data = file.read()
    image = open_image(BytesIO(data))
    colour = colour_chunks(data)
    if is_png16(data):
        values = read_png16(data)
        alpha, bits = values.shape[2] in (2, 4), 16
    else:
        if sign.startswith(SIGNATURE):
            check_whole(data)
        values, alpha = _loaded(image)
        bits = 8
    # Behind the pixels, as Pillow may load them for it, and forgets that they were damaged.
    turn, exif = read_exif(image) if has_exif(data) else (1, b"")
    return Samples(upright(values, turn), alpha, bits, UNSIGNED, _profile(image), exif, colour)


def _loaded(image: Image.Image) -> tuple[np.ndarray, bool]:
    """The samples of 8 bits that Pillow reads, (H, W, C), and whether the last is alpha."""
    image.load()
    grey, alpha = image.mode in GREY, image.has_transparency_data
    mode = ("L" if grey else "RGB") + "A" * alpha
    image = image if image.mode == mode else image.convert(mode)
    return np.atleast_3d(np.asarray(image)), alpha


def _profile(image: Image.Image) -> bytes | None:
    """The colour profile of an image; None of CMYK, whose profile does not fit what is read."""
    icc = None if image.mode == "CMYK" else image.info.get("icc_profile")
    return icc if isinstance(icc, bytes) and icc else None


def read_exif(image: Image.Image) -> tuple[int, bytes]:
    """The orientation (1 to 8) of an image, and its EXIF without it."""
    try:
        exif = image.getexif()
        turn = exif.get(Base.Orientation, 1)
        if image.format == "TIFF":
            exif = _descriptive(exif)
        elif Base.Orientation in exif:
            exif[Base.Orientation] = 1
        return turn, exif.tobytes() if len(exif) else b""
    except Exception:  # broken EXIF is no reason to give up the picture
        return 1, b""


def _descriptive(exif: Image.Exif) -> Image.Exif:
    """What a TIFF's directory says of the picture rather than of its storage."""
    kept = Image.Exif()
    kept.update({tag: exif[tag] for tag in DESCRIPTIVE if tag in exif})
    for ifd in (IFD.Exif, IFD.GPSInfo):
        kept.get_ifd(ifd).update(exif.get_ifd(ifd))
    return kept


def upright(samples: np.ndarray, turn: int) -> np.ndarray:
    """Samples (H, W, C), turned and mirrored as EXIF's orientation asks."""
    if turn in (5, 6, 7, 8):
        samples = samples.transpose(1, 0, 2)
    down = -1 if turn in (3, 4, 7, 8) else 1
    right = -1 if turn in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(samples[::down, ::right])


def _tiff(file: BinaryIO) -> Samples:
    """The samples of a TIFF: at 8 bits by Pillow, and of more bits at full depth."""
    image, refusal = _by_pillow(file)
    tags = read_tags(file, image)
    if image is None and tags.plain:
        raise refusal
    # before loading, which turns a TIFF upright and forgets that it did
    exif = read_exif(image)[1] if image else b""
    icc = _profile(image) if image else tags.icc
    if tags.plain:
        check_parts(image.tag_v2.get, tags)
        values, alpha = _loaded(image)
        return Samples(values, alpha, icc=icc, exif=exif)
    deep = read_deep(file, tags)
    if deep is not None:
        values, alpha = deep
        values = upright(values, tags.orientation)
        return Samples(values, alpha, tags.bits, tags.kind, icc, exif)
    if image is None:
        raise UnreadError(f"is packed in a way that is not read; {SAVE}, without compression")
    return _packed_deep(image, tags, icc, exif)


def _by_pillow(file: BinaryIO) -> tuple[Image.Image | None, Exception | None]:
    """A TIFF as Pillow opens it, or why it does not."""
    try:
        return open_image(file), None
    except Exception as error:
        return None, error


def _packed_deep(image: Image.Image, tags: Tags, icc: bytes | None, exif: bytes) -> Samples:
    """A deep TIFF of a packing that Pillow alone unpacks: grey in full, colour at 8 bits."""
    if image.mode not in GREY - {"1", "L", "LA", "La"}:
        if tags.kind != UNSIGNED or not tags.bits:
            raise UnreadError(f"has values that are read only in part; {SAVE}, without compression")
        values, alpha = _loaded(image)
        return Samples(values, alpha, icc=icc, exif=exif)
    image.load()
    values = np.asarray(image)
    if image.mode == "I" and tags.kind != SIGNED:
        values = values.view(np.uint32)
    if tags.photometric == WHITE_IS_ZERO:
        values = inverted(values, tags)
    return Samples(np.atleast_3d(values), False, tags.bits, tags.kind, icc, exif)


def read_header(
    source: str | Path | BinaryIO, name: str | Path | None = None
) -> tuple[tuple[int, int], str]:
    """The size and mode of an image as it is shown, by its header alone.

    Args:
        source: a path or an open file.
        name: what errors call an open file.

    Returns:
        (width, height) and Pillow's mode.

    Raises:
        UserError: as of :func:`read_samples`, save that damage behind the header does not show.
    """
    if isinstance(source, (str, Path)):
        with reading(source) as file:
            return _size(file)
    with told(name):
        return _size(source)


def _size(file: BinaryIO) -> tuple[tuple[int, int], str]:
    """The size and mode of an image in an open file."""
    if not first_bytes(file).startswith(TIFF_SIGNS):
        data = file.read()
        image = open_image(BytesIO(data))
        turn = read_exif(image)[0] if has_exif(data) else 1
        return (image.size[::-1] if turn in (5, 6, 7, 8) else image.size), image.mode
    # by the tags, as releases of Pillow differ in whether they turn the size of a TIFF
    image, refusal = _by_pillow(file)
    tags = read_tags(file, image)
    if image is None and tags.plain:
        raise refusal
    sides = tags.width, tags.height
    mode = image.mode if image else "RGB"
    return (sides[::-1] if tags.orientation >= 5 else sides), mode
