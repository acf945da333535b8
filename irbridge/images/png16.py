"""PNG files of 16 bits, which Pillow writes of grey alone."""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

LEVEL = 4  # of a PNG's compression: 3 % larger than at 6, in a quarter of the time
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
SUB = 1  # the filter that stores differences to the pixel on the left


def png16(values: np.ndarray, icc: bytes | None = None, exif: bytes = b"") -> bytes:
    """A PNG file of 16 bits (PNG specification, W3C, third edition: chunks of sec. 11).

    Args:
        values: uint16 (H, W, C), C = 1 grey, 2 with alpha, 3 colour, 4 with alpha.
        icc: the colour profile.
        exif: with or without its header.

    Returns:
        The bytes of the file.
    """
    height, width, channels = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    chunks = [_chunk(b"IHDR", head)]
    if icc:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if exif:
        chunks.append(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks.append(_chunk(b"IDAT", zlib.compress(_filtered(values), LEVEL)))
    chunks.append(_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file: length, name, data and checksum."""
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum


def _filtered(values: np.ndarray) -> np.ndarray:
    """The rows of uint16 (H, W, C) as bytes, by the filter "Sub" (sec. 9 of the specification)."""
    height, _, channels = values.shape
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = SUB
    filtered[:, 1:] = rows
    pixel = 2 * channels  # bytes
    filtered[:, 1 + pixel :] -= rows[:, :-pixel]
    return filtered


def read_png16(path: Path, image: Image.Image) -> np.ndarray | None:
    """The samples of a PNG of 16 bits, at full depth.

    Args:
        path: of the file.
        image: the same, opened by Pillow.

    Returns:
        uint16 (H, W, C), C = 1 to 4; None of a PNG of fewer bits.
    """
    data = path.read_bytes()
    if data[24] != 16:  # the header's bit depth
        return None
    # late: some builds of torchvision lack it
    from torchvision.io import ImageReadMode, decode_image

    stored = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    samples = decode_image(stored, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    key = image.info.get("transparency")
    if key is not None and samples.shape[2] in (1, 3):
        opaque = (samples != np.asarray(key, np.uint16)).any(axis=2, keepdims=True)
        samples = np.concatenate([samples, opaque * np.uint16(65535)], axis=2)
    return samples
