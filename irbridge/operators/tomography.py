"""Computed tomography: the sums of an image along lines."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from irbridge.errors import UserError
from irbridge.operators.base import conjugate_gradient, dot
from irbridge.operators.physics import PhysicsOperator, deepinv
from irbridge.ranges import each, number, shown, whole

COUNT = whole(1, 3600)
DEGREES = each(number(lambda v: abs(v) <= 360, "from -360 to 360"), most=3600)
POWER_STEPS = 4  # of the power iteration for the norm, from a flat image near the solution
STEPS = 20  # of the conjugate gradients of A^+: more would amplify what noise m has


class Tomography(PhysicsOperator):
    """The Radon transform with parallel beams, of every channel (deepinv's).

    The image is put in the middle of a square of its longer side, with 0 around it, so that other
    shapes are served as well. A is divided by its largest singular value, which a power iteration
    finds up to about one in a thousand. Measurements are (B, C, detectors, angles).

    The adjoint is the exact one, by reverse differentiation, and not a rescaled back-projection.
    A^+ is :data:`STEPS` conjugate gradient steps on ``A^T A u = A^T m`` from zero, not a filtered
    back-projection, which would not fit the measurement.

    Args:
        size: (C, H, W) of the images.
        angles: how many, evenly from 0 to below 180 degrees; or the degrees themselves.

    Raises:
        UserError: the angles are no number from 1 and no list of degrees.
    """

    name = "ct"

    def __init__(self, size: tuple[int, int, int], angles: int | Sequence[float] = 60):
        super().__init__(size)
        given = angles.tolist() if hasattr(angles, "tolist") else angles
        if not COUNT.fits(given) and not DEGREES.fits(given):
            raise UserError(
                f"angles={shown(given)} must be {COUNT.wanted}, or a list of degrees from -360 to"
                " 360."
            )
        evenly = COUNT.fits(given)
        self.angles = [180 * i / given for i in range(given)] if evenly else list(given)
        self.norm = 1.0
        self.norm = self._largest()

    def _largest(self) -> float:
        """The largest singular value, of a single channel."""
        image = torch.ones(1, 1, *self.size[1:], dtype=torch.float64)
        with torch.no_grad():
            for _ in range(POWER_STEPS):
                image = self.adjoint(self(image))
                length = dot(image, image).sqrt()
                image = image / length
        return length.sqrt().item()

    @override
    def make(self, dtype, device):
        return deepinv(f"operator={self.name}", "physics.functional").Radon(
            max(self.size[1:]),
            torch.tensor(self.angles, dtype=dtype, device=device),
            parallel_computation=False,  # angle by angle: a fraction of the memory
            dtype=dtype,
            device=device,
        )

    @override
    def __call__(self, x):
        height, width = x.shape[-2:]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = F.pad(x, (left, side - width - left, top, side - height - top))
        return self.physics(x)(square) / self.norm

    @override
    def adjoint(self, m):
        return _Adjoint.apply(m, self)

    @override
    def inverse(self, m):
        right = self.adjoint(m)
        start = torch.zeros_like(right)
        return conjugate_gradient(lambda u: self.adjoint(self(u)), right, start, STEPS)


class _Adjoint(torch.autograd.Function):
    """A^T m as the gradient of <A u, m>, whose own gradient is A."""

    @staticmethod
    def forward(ctx, m: Tensor, operator: Tomography) -> Tensor:
        ctx.operator = operator
        with torch.inference_mode(False), torch.enable_grad():
            image = m.new_zeros(len(m), m.shape[1], *operator.size[1:]).requires_grad_()
            (result,) = torch.autograd.grad(operator(image), image, m.clone())
        return result

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.operator(gradient), None
