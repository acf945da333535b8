"""JPEG's loss."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from irbridge.operators.base import Operator
from irbridge.ranges import check_values, whole

BLOCK = 8
# The example tables of ITU-T T.81, annex K.1, which encoders scale by quality.
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
)
# Full-range YCbCr of JFIF without its offset of 128, which steps of whole numbers do not see.
TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
QUALITY = whole(1, 100)


class JPEG(Operator):
    """What JPEG of a quality leaves of an image: rounded cosine coefficients of 8 x 8 blocks.

    Colours are not subsampled, and the result is not rounded to bytes. Only the rounding is not
    linear; gradients pass it straight through, as if it rounded nothing, so that
    ``differentiable`` is meant in this sense.

    Args:
        size: (C, H, W) of the images; three channels are RGB, others each a luma.
        quality: 1 to 100, as libjpeg's.
    """

    name = "jpeg"
    linear = False

    def __init__(self, size: tuple[int, int, int], quality: int = 10):
        super().__init__(size)
        check_values({"quality": QUALITY}, {"quality": quality}, "")
        self.quality = quality
        colours = self.size[0] == 3
        tables = np.array([LUMA, CHROMA, CHROMA] if colours else [LUMA] * self.size[0], np.float64)
        scale = 5000 / quality if quality < 50 else 200 - 2 * quality
        steps = np.floor((tables * scale + 50) / 100).clip(1, 255)
        self.steps = torch.from_numpy(steps)
        self.colours = torch.tensor(TO_YCBCR if colours else np.eye(self.size[0]).tolist())
        self.colours = self.colours.double()
        self.cosines = _cosines(BLOCK)

    @override
    def __call__(self, x):
        colours, cosines = self.colours.to(x), self.cosines.to(x)
        steps = self.steps.to(x)[:, None, None]
        height, width = x.shape[-2:]
        extra = (0, -width % BLOCK, 0, -height % BLOCK)
        grey = torch.einsum("dc,bchw->bdhw", colours, F.pad(127.5 * x, extra, mode="replicate"))
        rows = grey.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).transpose(-3, -2)
        coefficients = cosines @ rows @ cosines.T / steps
        kept = coefficients + (coefficients.round() - coefficients).detach()
        rows = cosines.T @ (kept * steps) @ cosines
        grey = rows.transpose(-3, -2).flatten(-2, -1).flatten(-3, -2)
        image = torch.einsum("cd,bdhw->bchw", torch.linalg.inv(self.colours).to(x), grey)
        return (image[..., :height, :width] / 127.5).clamp(-1, 1)

    @override
    def inverse(self, m):
        """The compressed image itself, as a new tensor."""
        return m.clone()


def _cosines(n: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) as a matrix (n, n), float64."""
    at = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi / n * at[:, None] * (at + 0.5)) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows
