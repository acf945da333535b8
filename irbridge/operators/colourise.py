"""A grey image that is to get its colours."""

import math

import torch
from typing_extensions import override

from irbridge.operators.base import Operator


class Colourise(Operator):
    """The mean of the channels, (B, 1, H, W), as DDRM's and DDNM's programs take it.

    It is not the luma of Rec. 601, whose weights differ. The one singular value of a pixel is
    ``1 / sqrt(C)``, along grey; the other directions of colour are lost.
    """

    name = "colour"
    spectral = True

    @override
    def __call__(self, x):
        return x.mean(1, keepdim=True)

    @override
    def adjoint(self, m):
        return self.inverse(m / self.size[0])

    @override
    def inverse(self, m):
        return m.expand(-1, self.size[0], -1, -1).clone()

    @override
    def read(self, image):
        return self(image)

    @override
    def filter(self, x, f):
        kept, lost = f(torch.tensor([1 / math.sqrt(self.size[0]), 0], dtype=torch.float64)).to(x)
        if self.size[0] == 1:  # nothing is lost
            return kept * x
        return lost * x + (kept - lost) * self(x)
