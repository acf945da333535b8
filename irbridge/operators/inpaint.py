"""An image with holes."""

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from irbridge.errors import UserError
from irbridge.operators.base import Operator


class Inpaint(Operator):
    """``A x = x`` outside the holes and 0 in them, so that m has the size of the image.

    The singular values are 1 outside the holes and 0 in them. What a measurement holds in the
    holes, such as noise, is never looked at.

    Args:
        size: (C, H, W) of the images.
        holes: bool, (H, W), True where the image is to be filled, as in every mask here.

    Raises:
        UserError: the holes are of another size, or no truth values.
    """

    name = "inpaint"
    spectral = True

    def __init__(self, size: tuple[int, int, int], holes: np.ndarray | Tensor):
        super().__init__(size)
        self.known = ~_truths(holes)
        if tuple(self.known.shape) != self.size[1:]:
            given = " x ".join(map(str, reversed(self.known.shape)))
            raise UserError(
                f"The mask is {given} pixels, but the image is {self.size[2]} x {self.size[1]};"
                " give a mask of the image's size."
            )

    @override
    def __call__(self, x):
        return torch.where(self.known.to(x.device), x, 0)

    @override
    def adjoint(self, m):
        return self(m)

    @override
    def inverse(self, m):
        return self(m)

    @override
    def filter(self, x, f):
        return f(self.known.double()).to(x) * x

    @override
    def read(self, image):
        return self(image)

    @override
    def view(self, m):
        """The measurement with its holes in middle grey."""
        return self(m)


def _truths(holes) -> Tensor:
    """A mask as a bool tensor on the CPU; numbers 0 and 1 are taken for truth values."""
    kind = getattr(holes, "dtype", None)
    given = holes.detach().cpu().numpy() if isinstance(holes, Tensor) else holes
    given = np.asarray(given)
    if kind is None or given.dtype.kind not in "buif" or not np.isin(given, (0, 1)).all():
        raise UserError(
            "The mask must be an array of truth values, True where the image is to be filled; give"
            " such as mask > 0.5."
        )
    return torch.from_numpy(given.astype(bool))
