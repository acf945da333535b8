"""Png16."""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def png16(values: np.ndarray, icc: bytes | None = None, exif: bytes = b"") -> bytes:
    """A PNG file of 16 bits, which Pillow writes of grey alone: (H, W, C) uint16, C = 1 grey, 2
    with alpha, 3 colour, 4 with alpha. After the PNG specification (W3C, third edition): chunks of
    sec. 11, filter "Sub" of sec. 9.
    """
    height, width, channels = values.shape
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0], filtered[:, 1:] = 1, rows
    step = 2 * channels
    filtered[:, 1 + step :] -= rows[:, :-step]
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", head)]
    chunks += [(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))] if icc else []
    chunks += [(b"eXIf", exif.removeprefix(b"Exif\0\0"))] if exif else []
    chunks += [(b"IDAT", zlib.compress(filtered, LEVEL)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(b)) + name + b + struct.pack(">I", zlib.crc32(name + b))
        for name, b in chunks
    )


def _deep_png(path: Path, image: Image.Image) -> np.ndarray | None:
    """The samples (H, W, C) of a 16-bit PNG; None of others."""
    data = path.read_bytes()
    if data[24] != 16:  # the header's bit depth
        return None
    # late: some builds of torchvision lack it
    from torchvision.io import ImageReadMode, decode_image

    tensor = decode_image(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED
    )
    samples = tensor.permute(1, 2, 0).numpy()
    key = image.info.get("transparency")
    if key is not None and samples.shape[2] in (1, 3):
        opaque = (samples != np.asarray(key, np.uint16)).any(axis=2, keepdims=True)
        samples = np.concatenate([samples, opaque * np.uint16(65535)], axis=2)
    return samples


LEVEL = 4  # of a PNG's compression: 3 % larger than at 6, in a quarter of the time
