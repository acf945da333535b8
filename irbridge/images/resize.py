"""Crops, reductions and enlargements of whole images."""

import numpy as np
from PIL import Image

from irbridge.images.arrays import to_bytes


def centre_crop(image: np.ndarray, size: int | None) -> np.ndarray:
    """The central ``size`` x ``size`` pixels of an image (H, W, C).

    A side that is shorter is kept whole, and with None all is.
    """
    height, width = image.shape[:2]
    if not size:
        return image
    top, left = max(0, height - size) // 2, max(0, width - size) // 2
    return image[top : top + size, left : left + size]


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image with other sides, by Pillow's bicubic filter (a = -0.5) and without rounding.

    Args:
        image: float32 (H, W, 3).
        height: of the result, in pixels.
        width: of it.

    Returns:
        float32 (height, width, 3), which may overshoot the image's range at edges.
    """
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    size, bicubic = (width, height), Image.Resampling.BICUBIC
    return np.dstack([Image.fromarray(plane).resize(size, bicubic) for plane in planes])


def scaled(image: np.ndarray, shorter: int | None) -> np.ndarray:
    """The image with another length of its shorter side, the aspect kept to the nearest pixel.

    Pillow's bicubic filter (a = -0.5) widens with the reduction and so does not alias. The result
    is rounded to 8 bits, as a file of that size holds it.

    Args:
        image: (H, W, 3) in [0, 1].
        shorter: pixels of the shorter side; None: the image as it is.

    Returns:
        float32 (h, w, 3) in [0, 1].
    """
    side = min(image.shape[:2])
    if shorter in (None, side):
        return image
    size = [max(1, round(n * shorter / side)) for n in image.shape[1::-1]]
    resized = Image.fromarray(to_bytes(image)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32) / 255
