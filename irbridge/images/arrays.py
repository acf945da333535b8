"""Arrays."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's mode L


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) in [0, 1] to (3, H, W) in [-1, 1], float32."""
    return (
        torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)) * 2 - 1
    )


def to_image(tensor: Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] to float32 (H, W, 3), clipped to [0, 1]."""
    return (tensor.detach().float().cpu() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()


def pad(image: Tensor, stride: int) -> Tensor:
    """Reflect-pad (B, C, H, W) on the right and below to sides divisible by ``stride``."""
    down, right = -image.shape[-2] % stride, -image.shape[-1] % stride
    while down or right:  # reflection reaches at most one image's width at a time
        d, r = min(down, image.shape[-2] - 1), min(right, image.shape[-1] - 1)
        mode = "reflect" if (d or not down) and (r or not right) else "replicate"
        d, r = (d, r) if mode == "reflect" else (down, right)
        image = F.pad(image, (0, r, 0, d), mode=mode)
        down, right = down - d, right - r
    return image


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[0, 1] to uint8, rounded."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
