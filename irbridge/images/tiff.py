"""TIFF files of more than 8 bits, at full depth and in the range that their tags declare.

By the TIFF specification (Adobe, revision 6.0). The file's tags decide what black and white are:
BitsPerSample of unsigned integers, 0 and 1 of floats. What these do not decide is refused.
"""

import logging
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from irbridge.images.formats import UnreadError, check_size

UNSIGNED, SIGNED, FLOAT, UNTYPED = 1, 2, 3, 4  # SampleFormat; others are complex numbers
# PhotometricInterpretation -> channels of colour
WHITE_IS_ZERO, COLOURS = 0, {0: 1, 1: 1, 2: 3}
PREMULTIPLIED, STRAIGHT = 1, 2  # ExtraSamples
SAVE = "save it with 8 or 16 unsigned bits, or with floats from 0 to 1"
OVERSHOOT = 1e-3  # beyond 0 and 1, as resampling leaves it; such floats are clipped
MOST_CHANNELS = 8
PACKED_MOST = 10_000  # bytes that one may stand for; Deflate packs 1,032 at most
SEPARATE = 2  # PlanarConfiguration
RAW, DEFLATE = 1, (8, 32946)  # Compression
ROWS = 64  # that are unpacked at once


class Tags(NamedTuple):
    """What a TIFF says of its first page, as it is stored.

    Attributes:
        width: pixels of a row.
        height: rows.
        bits: of a sample; 0 where the channels differ.
        kind: the sample format; 0 where the channels differ.
        photometric: what the values mean.
        channels: with alpha.
        orientation: 1 to 8, as EXIF's.
        icc: the colour profile, or None.
    """

    width: int
    height: int
    bits: int
    kind: int
    photometric: int
    channels: int
    orientation: int
    icc: bytes | None

    @property
    def plain(self) -> bool:
        """Whether Pillow reads all that there is."""
        return 0 < self.bits <= 8 and self.kind in (UNSIGNED, UNTYPED)


class _OtherThreads(logging.Filter):
    """Lets pass what other threads log."""

    def __init__(self):
        super().__init__()
        self.own = threading.get_ident()

    def filter(self, record) -> bool:
        return record.thread != self.own


@contextmanager
def _page(file: BinaryIO) -> Iterator:
    """The first page of a TIFF, by tifffile, which logs nothing of it meanwhile."""
    from tifffile import TiffFile  # late, as most photographs are none

    quiet = _OtherThreads()
    logger = logging.getLogger("tifffile")
    logger.addFilter(quiet)
    file.seek(0)
    try:
        with TiffFile(file) as opened:
            yield opened.pages[0]
    finally:
        logger.removeFilter(quiet)
        file.seek(0)


def read_tags(file: BinaryIO, image: Image.Image | None) -> Tags:
    """The tags of a TIFF that decide how it is read.

    Args:
        file: the TIFF.
        image: the same, where Pillow opens it.

    Raises:
        TooLargeError: it has too many pixels.
        Exception: whatever tifffile raises of a damaged file.
    """
    if image is not None:
        return _tags(image.tag_v2.get)
    with _page(file) as page:
        return _tags(page.tags.valueof)


def _tags(value: Callable) -> Tags:
    """The tags, by a function that gives the value of a tag's number, or None."""

    def number(tag: int, default: int) -> int:
        given = value(tag)
        return default if given is None else _one(given)

    width, height = number(256, 0), number(257, 0)
    check_size(width, height)
    orientation, icc = number(274, 1), value(34675)
    return Tags(
        width,
        height,
        number(258, 1),
        number(339, UNSIGNED),
        number(262, 0),
        number(277, 1),
        orientation if orientation in range(1, 9) else 1,
        icc if isinstance(icc, bytes) and icc else None,
    )


def _one(values) -> int:
    """The value that all channels have; 0 where they differ."""
    several = values if isinstance(values, tuple) else (values,)
    return int(several[0]) if len(set(several)) == 1 else 0


def read_deep(file: BinaryIO, tags: Tags) -> tuple[np.ndarray, bool] | None:
    """The values of a TIFF of more than 8 bits, not turned.

    Returns:
        (H, W, C) of whatever type is stored, black at the lowest, and whether the last channel is
        alpha; None where neither tifffile nor this module can unpack it.

    Raises:
        UnreadError: the tags do not say what is black and white.
        Exception: whatever tifffile raises of a damaged file.
    """
    colours = COLOURS.get(tags.photometric)
    if colours is None or not colours <= tags.channels <= MOST_CHANNELS:
        return None
    with _page(file) as page:
        _check_extent(page, file)
        values = _unpacked(page, file, tags)
        if values is None:
            return None
        if not values.size or values.shape[2] < colours:
            raise ValueError("it has no pixels")
        extra = page.extrasamples
    if tags.photometric == WHITE_IS_ZERO:
        values = np.concatenate([inverted(values[..., :1], tags), values[..., 1:]], axis=2)
    alpha = bool(extra) and extra[0] in (PREMULTIPLIED, STRAIGHT) and tags.channels > colours
    if not alpha:
        return values[..., :colours], False
    values = values[..., : colours + 1]
    return (_straight(values, tags) if extra[0] == PREMULTIPLIED else values), True


def check_parts(value: Callable, tags: Tags) -> None:
    """ValueError where a TIFF that Pillow reads has fewer strips than its rows need.

    Pillow would show what is missing as black.

    Args:
        value: gives the value of a tag's number, or None.
        tags: of the same page.
    """
    offsets, rows = value(273), value(278)
    if not offsets or value(324):  # in tiles, whose number Pillow checks
        return
    strips = -(-tags.height // min(max(int(rows or tags.height), 1), tags.height))
    planes = tags.channels if value(284) == SEPARATE else 1
    if len(offsets) < strips * planes:
        raise ValueError("it is cut short")


def _check_extent(page, file: BinaryIO) -> None:
    """ValueError unless all stored parts of a page lie within its file."""
    end = file.seek(0, 2)
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if not parts or any(size <= 0 or offset + size > end for offset, size in parts):
        raise ValueError("it is cut short")
    declared = page.imagewidth * page.imagelength * page.samplesperpixel
    declared *= _one(page.bitspersample) // 8
    most = 1 if page.compression == RAW else PACKED_MOST
    if sum(size for _, size in parts) * most < declared:
        raise ValueError("it is cut short")


def _unpacked(page, file: BinaryIO, tags: Tags) -> np.ndarray | None:
    """The values (H, W, C) as they are stored; None of a packing that is not known here."""
    if page.axes not in ("YX", "YXS", "SYX"):
        return None
    if tags.bits not in (8, 16, 32, 64):
        return _odd_bits(page, file, tags)
    try:
        values = page.asarray()
    except ImportError:  # of a packing whose module this Python lacks
        return None
    except (ValueError, NotImplementedError) as error:
        if "imagecodecs" in str(error) or "compression" in str(error).lower():
            return None
        raise
    values = values.transpose(1, 2, 0) if page.axes == "SYX" else values
    return np.atleast_3d(values)


def _odd_bits(page, file: BinaryIO, tags: Tags) -> np.ndarray | None:
    """Values of 9 to 15 bits, which follow one another without gaps within a row."""
    simple = page.compression == RAW or page.compression in DEFLATE
    straight = page.planarconfig == 1 and page.predictor == 1 and page.fillorder == 1
    if not (8 < tags.bits < 16 and simple and straight) or page.is_tiled:
        return None
    row_bits = tags.width * tags.channels * tags.bits
    row = -(-row_bits // 8)
    out = np.empty((tags.height, tags.width, tags.channels), np.uint16)
    done = 0
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        height = min(page.rowsperstrip, tags.height - done)
        file.seek(offset)
        data = file.read(size)
        if page.compression != RAW:
            data = zlib.decompressobj().decompress(data, height * row)
        if height <= 0 or len(data) < height * row:
            raise ValueError("it is cut short")
        packed = np.frombuffer(data, np.uint8, height * row).reshape(height, row)
        for first in range(0, height, ROWS):
            part = _integers(packed[first : first + ROWS], row_bits, tags.bits)
            rows = slice(done + first, done + first + len(part))
            out[rows] = part.reshape(len(part), tags.width, tags.channels)
        done += height
    if done < tags.height:
        raise ValueError("it is cut short")
    return out


def _integers(packed: np.ndarray, row_bits: int, bits: int) -> np.ndarray:
    """The integers of rows of bytes, uint16 (H, N), the highest bit of each first."""
    ones = np.unpackbits(packed, axis=1)[:, :row_bits].reshape(len(packed), -1, bits)
    values = np.zeros(ones.shape[:2], np.uint16)
    for k in range(bits):
        values = values * 2 + ones[..., k]
    return values


def inverted(values: np.ndarray, tags: Tags) -> np.ndarray:
    """Values of which 0 is white, with black as the lowest."""
    if tags.kind == FLOAT:
        return 1 - values
    if tags.kind == SIGNED or not tags.bits:
        return -1 - values
    return values.dtype.type(2**tags.bits - 1) - values


def _straight(values: np.ndarray, tags: Tags) -> np.ndarray:
    """Values (H, W, C) whose colours were multiplied by alpha, with the colours themselves."""
    white = 1.0 if tags.kind == FLOAT else float(2**tags.bits - 1)
    share = values[..., -1:].astype(np.float64) / white
    colours = values[..., :-1] / np.where(share > 0, share, 1)
    colours = np.where(share > 0, colours, 0).clip(0, white)
    colours = colours if tags.kind == FLOAT else np.round(colours)
    return np.concatenate([colours.astype(values.dtype), values[..., -1:]], axis=2)


def to_16_bits(values: np.ndarray, bits: int, kind: int) -> np.ndarray:
    """Values in the range that their tags declare, as uint16.

    Args:
        values: (H, W, C).
        bits: BitsPerSample.
        kind: SampleFormat.

    Raises:
        UnreadError: that range is not declared, or the values do not keep to it.
    """
    if kind in (UNSIGNED, UNTYPED) and bits == 16:
        return values.astype(np.uint16)
    if kind == FLOAT:
        return np.round(_floats(values) * 65535).astype(np.uint16)
    if kind not in (UNSIGNED, UNTYPED) or not bits:
        what = {SIGNED: "signed integers"}.get(kind, "numbers of a kind")
        raise UnreadError(f"stores {what} for which black and white are not defined; {SAVE}")
    most, white = int(values.max()), 2**bits - 1
    if bits > 16 and 0 < most < 2 ** (bits - 8):
        raise UnreadError(
            f"has {bits} bits, of which white is {white}, and no value beyond {most}, so that"
            f" all of it is black; {SAVE}"
        )
    return np.round(values / white * 65535).astype(np.uint16)


def _floats(values: np.ndarray) -> np.ndarray:
    """Floats from 0 to 1, float64."""
    if not np.isfinite(values).all():
        raise UnreadError("has values that are no numbers (NaN or infinite); save it without them")
    least, most = float(values.min()), float(values.max())
    if least < -OVERSHOOT or most > 1 + OVERSHOOT:
        raise UnreadError(
            f"stores floats from {least:.4g} to {most:.4g}, and what is white is not said; divide"
            " them so that they go from 0 to 1"
        )
    return values.astype(np.float64).clip(0, 1)
