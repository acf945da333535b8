"""Images as arrays and as tensors: conversions and padding."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from irbridge.errors import UserError

# How far floats may be outside [0, 1] before they are taken for values of another range, such as
# 0 to 255: what a filter leaves beyond an edge is clipped.
OVERSHOOT = 1.0
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's mode L


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) in [0, 1] to (3, H, W) in [-1, 1], float32."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(planes) * 2 - 1


def to_image(tensor: Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] to float32 (H, W, 3), clipped to [0, 1]."""
    image = tensor.detach().float().cpu() / 2 + 0.5
    return image.clamp(0, 1).permute(1, 2, 0).numpy()


def check_range(image: np.ndarray, title: str) -> None:
    """Refuse what is no image of floats in [0, 1].

    Args:
        image: what is given.
        title: what the error calls it.

    Raises:
        UserError: it is of integers, of another shape than (H, W, 3), has values that are no
            numbers, or is of another range.
    """
    kind = getattr(image, "dtype", None)
    if getattr(kind, "kind", "") != "f":
        what = type(image).__name__ if kind is None else kind
        raise UserError(f"{title} must be float in [0, 1], not {what}; use irbridge.read_image.")
    if image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise UserError(
            f"{title} must be of shape (H, W, 3), not {image.shape}; use irbridge.read_image."
        )
    least, most = float(image.min()), float(image.max())
    if not np.isfinite([least, most]).all():
        raise UserError(f"{title} has values that are no numbers (NaN or infinite); repair them.")
    if least < -OVERSHOOT or most > 1 + OVERSHOOT:
        raise UserError(
            f"{title} must be in [0, 1], and its values go from {least:.4g} to {most:.4g}; divide"
            " them by their white, such as 255."
        )


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[0, 1] to uint8, rounded."""
    values = np.asarray(np.clip(image, 0, 1))
    values *= 255  # in its place, as photographs are large
    return np.round(values, out=values).astype(np.uint8)


def pad(image: Tensor, stride: int) -> Tensor:
    """Pad by reflection on the right and below, to sides divisible by ``stride``.

    Args:
        image: (B, C, H, W). A side of one pixel, which has nothing to reflect, is repeated.
        stride: what the sides must divide by.
    """
    down, right = -image.shape[-2] % stride, -image.shape[-1] % stride
    while down or right:  # reflection reaches at most one image's width at a time
        d, r = min(down, image.shape[-2] - 1), min(right, image.shape[-1] - 1)
        reflects = (d or not down) and (r or not right)
        if not reflects:
            d, r = down, right
        image = F.pad(image, (0, r, 0, d), mode="reflect" if reflects else "replicate")
        down, right = down - d, right - r
    return image
