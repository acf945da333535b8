"""Resize."""

import numpy as np
from PIL import Image

from irbridge.images.arrays import to_bytes


def centre_crop(image: np.ndarray, size: int | None) -> np.ndarray:
    """The central size x size pixels; a side that is shorter, or all with ``None``, is kept
    whole.
    """
    top, left = (max(0, side - (size or side)) // 2 for side in image.shape[:2])
    return image[top : top + (size or len(image)), left : left + (size or image.shape[1])]


def scaled(image: np.ndarray, shorter: int | None) -> np.ndarray:
    """The image with its shorter side ``shorter`` pixels long and the aspect kept to the nearest
    pixel, or with None as it is. Pillow's bicubic filter (a = -0.5), which widens with the
    reduction and so does not alias; the result is rounded to 8 bits, as a file of that size holds
    it.
    """
    side = min(image.shape[:2])
    if shorter in (None, side):
        return image
    size = [max(1, round(n * shorter / side)) for n in image.shape[1::-1]]
    return (
        np.asarray(
            Image.fromarray(to_bytes(image)).resize(size, Image.Resampling.BICUBIC),
            dtype=np.float32,
        )
        / 255
    )
