"""PNG files: those of 16 bits, which Pillow knows of grey alone, and what is checked of all.

By the PNG specification (W3C, third edition); the numbers of sections are its own. Every byte of a
file that comes from elsewhere is checked here, in Python: length, checksum, header and filters.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from irbridge.images.formats import check_size

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEVEL = 4  # of a PNG's compression: 3 % larger than at 6, in a quarter of the time
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
CHANNELS = {kind: channels for channels, kind in COLOUR_TYPES.items()}
PALETTE = 3  # the colour type of numbers of colours
# Bits of a sample, by colour type, sec. 11.2.1.
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PIECE = 2**20  # bytes that are inflated at once where they are only counted
NONE, SUB, UP, AVERAGE, PAETH = range(5)  # the filters of a row, sec. 9
# What a picture's values mean in colour and brightness, sec. 11.3.2, beside the profile.
COLOUR_CHUNKS = (b"cICP", b"mDCV", b"cLLI", b"gAMA", b"cHRM", b"sRGB")
# The passes of an interlaced picture: first row and column, and the steps to the next, sec. 8.
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
BAND = 512  # rows whose filters are undone at once


class Header(NamedTuple):
    """The chunk IHDR, sec. 11.2.1."""

    width: int
    height: int
    bits: int
    kind: int
    compression: int
    filtering: int
    interlace: int


def png16(
    values: np.ndarray, icc: bytes | None = None, exif: bytes = b"", colour: bytes = b""
) -> bytes:
    """A PNG file of 16 bits (chunks of sec. 11).

    Args:
        values: uint16 (H, W, C), C = 1 grey, 2 with alpha, 3 colour, 4 with alpha.
        icc: the colour profile.
        exif: with or without its header.
        colour: further chunks, see :func:`colour_chunks`.

    Returns:
        The bytes of the file.
    """
    height, width, channels = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    chunks = [_chunk(b"IHDR", head), colour]
    if icc:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if exif:
        chunks.append(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks.append(_chunk(b"IDAT", zlib.compress(_filtered(values), LEVEL)))
    chunks.append(_chunk(b"IEND", b""))
    return SIGNATURE + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file: length, name, data and checksum."""
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum


def _filtered(values: np.ndarray) -> np.ndarray:
    """The rows of uint16 (H, W, C) as bytes, by the filter "Sub" (sec. 9)."""
    height, _, channels = values.shape
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = SUB
    filtered[:, 1:] = rows
    pixel = 2 * channels  # bytes
    filtered[:, 1 + pixel :] -= rows[:, :-pixel]
    return filtered


def with_chunks(file: bytes, chunks: bytes) -> bytes:
    """A PNG file with further chunks behind its header."""
    end = len(SIGNATURE) + 25  # of the chunk IHDR
    return file[:end] + chunks + file[end:]


def colour_chunks(file: bytes) -> bytes:
    """The chunks of a PNG file that say what its values mean, as they are stored."""
    found = {}
    if not file.startswith(SIGNATURE):
        return b""
    try:
        for name, body in _chunks(file):
            if name == b"IDAT":  # before which they must be
                break
            if name in COLOUR_CHUNKS:
                found.setdefault(name, _chunk(name, body))
    except ValueError:  # damage behind them is for the pixels' reader to tell
        pass
    return b"".join(found.values())


def has_exif(file: bytes) -> bool:
    """Whether a file may hold EXIF; False of a PNG without a chunk for it.

    To ask Pillow would decode all pixels of such a PNG.
    """
    signs = b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp"
    return not file.startswith(SIGNATURE) or any(sign in file for sign in signs)


def is_png16(file: bytes) -> bool:
    """Whether the header of a PNG file says 16 bits."""
    return file.startswith(SIGNATURE) and file[24:25] == b"\x10"


def read_png16(file: bytes) -> np.ndarray:
    """The samples of a PNG of 16 bits, at full depth.

    Args:
        file: its bytes.

    Returns:
        uint16 (H, W, C), C = 1 to 4. A colour that the file declares transparent becomes alpha.

    Raises:
        ValueError: the file is damaged or cut short.
        TooLargeError: it declares too many pixels.
    """
    header, stored, key = _contents(file)
    if header.bits != 16:
        raise ValueError("its header is damaged")
    channels = CHANNELS[header.kind]
    samples = np.empty((header.height, header.width, channels), np.uint16)
    places = ADAM7 if header.interlace else ((0, 0, 1, 1),)
    passes = [samples[top::down, left::right] for top, left, down, right in places]
    passes = [part for part in passes if part.size]
    row_bytes = [1 + 2 * part.shape[1] * channels for part in passes]
    length = sum(part.shape[0] * row for part, row in zip(passes, row_bytes, strict=True))
    data, start = _inflated(stored, length), 0
    for part, row in zip(passes, row_bytes, strict=True):
        rows = data[start : start + part.shape[0] * row].reshape(-1, row)
        start += rows.size
        part[:] = _unfiltered(rows, 2 * channels).view(">u2").reshape(part.shape)
    if key is None or channels in (2, 4) or len(key) != 2 * channels:
        return samples
    opaque = (samples != np.frombuffer(key, ">u2")).any(axis=2, keepdims=True)
    return np.concatenate([samples, opaque * np.uint16(65535)], axis=2)


def check_whole(file: bytes) -> None:
    """Refuse a PNG file of any depth whose parts are damaged or whose samples are too few or many.

    Pillow checks neither the samples' checksums nor their number, and would show black or what is
    left of them.

    Args:
        file: its bytes.

    Raises:
        ValueError: the file is damaged or cut short.
        TooLargeError: it declares too many pixels.
    """
    header, stored, _ = _contents(file)
    pixel = header.bits * CHANNELS.get(header.kind, 1)  # bits
    length = 0
    for top, left, down, right in ADAM7 if header.interlace else ((0, 0, 1, 1),):
        rows, columns = -(-(header.height - top) // down), -(-(header.width - left) // right)
        length += rows * (1 + -(-columns * pixel // 8)) if min(rows, columns) > 0 else 0
    inflate, count = zlib.decompressobj(), 0
    try:
        while count <= length and not inflate.eof:
            piece = inflate.decompress(stored, PIECE)
            stored = inflate.unconsumed_tail
            if not piece and not inflate.eof:
                break
            count += len(piece)
    except zlib.error as error:
        raise ValueError(f"its samples are damaged: {error}") from error
    if count != length or not inflate.eof:
        raise ValueError("it holds fewer or more samples than it declares")


def _contents(file: bytes) -> tuple[Header, bytes, bytes | None]:
    """The header, the compressed samples and the transparent colour of a PNG file."""
    chunks = _chunks(file)
    name, body = next(chunks)
    if name != b"IHDR" or len(body) != 13:
        raise ValueError("its header is damaged")
    header = Header(*struct.unpack(">IIBBBBB", body))
    known = header.bits in DEPTHS.get(header.kind, ()) and not header.compression
    sides = min(header.width, header.height) > 0 and max(header.width, header.height) < 2**31
    if not (known and sides and not header.filtering and header.interlace in (0, 1)):
        raise ValueError("its header is damaged")
    check_size(header.width, header.height)
    parts, key, ended, palette = [], None, False, header.kind != PALETTE
    for name, body in chunks:
        if name == b"IDAT":
            if ended:
                raise ValueError("its samples are not in one place")
            parts.append(body)
            continue
        ended = bool(parts)
        palette = palette or name == b"PLTE"
        if name == b"tRNS":
            key = body
        elif name[:1].isupper() and name not in (b"PLTE", b"IEND"):
            raise ValueError(f"it has an unknown part {name!r}")
    if not parts:
        raise ValueError("it holds no samples")
    if not palette:
        raise ValueError("its palette is missing")
    return header, b"".join(parts), key


def _chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG file up to its end, (name, data), those of damaged remarks left out.

    Raises:
        ValueError: a chunk that the picture needs has another checksum, or the file is cut short.
    """
    at, name = len(SIGNATURE), b""
    while name != b"IEND":
        if at + 12 > len(file):
            raise ValueError("it is cut short")
        length, name = struct.unpack(">I4s", file[at : at + 8])
        if at + 12 + length > len(file):
            raise ValueError("it is cut short")
        if not name.isalpha():
            raise ValueError("it is damaged where a part begins")
        body = file[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", file[at + 8 + length : at + 12 + length])
        at += 12 + length
        if checksum == zlib.crc32(name + body):
            yield name, body
        elif name[:1].isupper():
            raise ValueError(f"the checksum of its part {name.decode()} is wrong")


def _inflated(stored: bytes, length: int) -> np.ndarray:
    """The bytes that were compressed, no more of them than there should be.

    Raises:
        ValueError: there are fewer or more, or their checksum (Adler-32) is wrong.
    """
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(stored, length + 1)
        # where all samples are there, only the checksum is left
        data += inflate.decompress(inflate.unconsumed_tail, length + 1 - len(data) or 1)
    except zlib.error as error:
        raise ValueError(f"its samples are damaged: {error}") from error
    if len(data) != length or not inflate.eof:
        raise ValueError("it holds fewer or more samples than it declares")
    return np.frombuffer(data, np.uint8)


def _unfiltered(rows: np.ndarray, pixel: int) -> np.ndarray:
    """Undo the filters of the rows of a picture (sec. 9).

    Args:
        rows: uint8 (H, 1 + W * pixel), each with its filter before it.
        pixel: bytes of a pixel.

    Returns:
        uint8 (H, W * pixel).

    Raises:
        ValueError: a filter is none of the five.
    """
    filters = rows[:, 0]
    if filters.max() > PAETH:
        raise ValueError(f"its row {int(filters.argmax())} has the unknown filter {filters.max()}")
    values = rows[:, 1:].reshape(len(rows), -1, pixel)
    out = np.empty_like(values)
    above = np.zeros_like(values[0])
    for first in range(0, len(rows), BAND):
        band = slice(first, first + BAND)
        undo = _by_rows if filters[band].max() <= UP else _by_diagonals
        out[band] = undo(values[band], filters[band], above)
        above = out[band][-1]
    return out.reshape(len(rows), -1)


def _by_rows(values: np.ndarray, filters: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Rows of the filters None, Sub and Up, which whole rows undo.

    Args:
        values: uint8 (H, W, pixel), filtered.
        filters: (H,).
        above: (W, pixel), the row before the first.
    """
    out = np.empty_like(values)
    for k, kind in enumerate(filters):
        if kind == SUB:
            out[k] = np.cumsum(values[k], axis=0, dtype=np.uint8)  # modulo 256
        else:
            out[k] = values[k] + above if kind == UP else values[k]
        above = out[k]
    return out


def _by_diagonals(values: np.ndarray, filters: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Rows of any filters: one pixel of every row at a time, each row a pixel behind the one above.

    So its left neighbour and the two above are known. ``known[d + 2, k + 1]`` is pixel ``d - k`` of
    row k, and ``k = -1`` the row above.

    Args:
        values: uint8 (H, W, pixel), filtered.
        filters: (H,).
        above: (W, pixel), the row before the first.
    """
    height, width, pixel = values.shape
    known = np.zeros((height + width + 1, height + 1, pixel), np.int16)
    known[1 : width + 1, 0] = above
    # stored[d, k] is pixel d - k of row k, and of no meaning where a row has no such pixel
    flat = values.astype(np.int16).ravel()
    step = flat.itemsize
    stored = np.lib.stride_tricks.as_strided(
        flat,
        (height + width - 1, height, pixel),
        (pixel * step, (width - 1) * pixel * step, step),
        writeable=False,
    )
    kinds = [(filters == kind)[:, None] for kind in (SUB, UP, AVERAGE, PAETH)]
    for d in range(height + width - 1):
        low, high = max(0, d - width + 1), min(height, d + 1)
        left = known[d + 1, low + 1 : high + 1]
        up, corner = known[d + 1, low:high], known[d, low:high]
        guess = _predicted([kind[low:high] for kind in kinds], left, up, corner)
        known[d + 2, low + 1 : high + 1] = (stored[d, low:high] + guess) & 255
    rows = np.arange(height)[:, None]
    return known[np.arange(width) + rows + 2, rows + 1].astype(np.uint8)


def _predicted(
    kinds: list[np.ndarray], left: np.ndarray, up: np.ndarray, corner: np.ndarray
) -> np.ndarray:
    """What the filters take from pixels, by their neighbours (sec. 9.2 and 9.4).

    Args:
        kinds: (N, 1) of each filter but None, True where it is.
        left: (N, pixel), int16, and so are ``up`` and ``corner``, the one above on the left.
        up: see ``left``.
        corner: see ``left``.
    """
    sub, above, average, paeth = kinds
    # how far the guess left + up - corner is from each of the three
    from_left, from_up = up - corner, left - corner
    to_corner = np.abs(from_left + from_up)
    to_left, to_up = np.abs(from_left), np.abs(from_up)
    near = np.where(to_up <= to_corner, up, corner)
    near = np.where((to_left <= to_up) & (to_left <= to_corner), left, near)
    guess = np.where(paeth, near, 0)
    guess = np.where(average, (left + up) >> 1, guess)
    return np.where(sub, left, np.where(above, up, guess))
