"""What every known degradation is: ``m = A(x) + noise``.

Images x are (B, 3, H, W) in [-1, 1]; a measurement m has the shape and the units that A gives it.
Solvers ask an operator for its parts by the names below, and say which parts they need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from irbridge.errors import UserError
from irbridge.ranges import SIDE, each, joined, shown, whole

SIZE = each(whole(1, SIDE), 3)
CG_STEPS = 200  # at most; a prox of the operators here converges in fewer
CG_ROUNDING = 1e3  # times the rounding of the numbers: the least residual, relative, that is sought


class Operator(ABC):
    """A known degradation A of images of one size.

    Attributes:
        name: its word, as in ``operator=blur``.
        linear: A is linear, so that it has an adjoint, a pseudo-inverse and a proximal step.
        spectral: its singular value decomposition is at hand, by :meth:`filter`.
        differentiable: gradients pass through A.
        size: (C, H, W) of the images.

    Args:
        size: (C, H, W) of the images.

    Raises:
        UserError: the size is none.
    """

    name: ClassVar[str]
    linear: bool = True
    spectral: bool = False
    differentiable: bool = True

    def __init_subclass__(cls, **options):
        """Have constructors make tensors that gradients may pass, wherever they are called."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = torch.inference_mode(mode=False)(cls.__init__)

    def __init__(self, size: tuple[int, int, int]):
        if not SIZE.fits(size):
            raise UserError(
                f"{joined(self.name, 'size')}={shown(size)} must be (channels, height, width), each"
                f" a whole number from 1 to {SIDE}."
            )
        self.size = tuple(map(int, size))

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A(x) of images (B, C, H, W)."""

    @abstractmethod
    def inverse(self, m: Tensor) -> Tensor:
        """A^+ m, (B, C, H, W); of a non-linear operator an image to start from.

        It is always a new tensor: a solver that changes it leaves the measurement as it is.
        """

    def adjoint(self, m: Tensor) -> Tensor:
        """A^T m, (B, C, H, W), of a linear operator."""
        raise NotImplementedError

    def filter(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        """V f(S) V^T x, where A = U S V^T.

        Args:
            x: images, (B, C, H, W).
            f: of singular values, a float64 tensor of any shape, their weights, alike. Directions
                that A takes to zero have the singular value 0 exactly.
        """
        raise NotImplementedError

    def prox(self, x: Tensor, m: Tensor, rho: float) -> Tensor:
        """The image nearest both: argmin over u of ||m - A u||^2 + rho ||u - x||^2.

        Args:
            x: images, (B, C, H, W).
            m: their measurements.
            rho: above 0.
        """
        if self.spectral:
            known = self.filter(self.inverse(m), lambda s: s**2 / (s**2 + rho))
            return known + self.filter(x, lambda s: rho / (s**2 + rho))
        return conjugate_gradient(
            lambda u: self.adjoint(self(u)) + rho * u, self.adjoint(m) + rho * x, x
        )

    def read(self, image: Tensor) -> Tensor:
        """The measurement that an image file holds, (B, C, H, W) in [-1, 1]: its pixels."""
        return image

    def view(self, m: Tensor) -> Tensor:
        """The measurement as an image to look at, (B, C, H, W) with the C of the images."""
        return self.inverse(m)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each image of a batch with its partner, (B, 1, 1, ...)."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.dim() - 1))


def conjugate_gradient(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    start: Tensor,
    steps: int = CG_STEPS,
    tolerance: float | None = None,
) -> Tensor:
    """The solution of ``apply(u) = b`` by conjugate gradients, for each image on its own.

    An image whose residual is zero or below the tolerance stays as it is, so that neither an exact
    solution divides 0 by 0 nor a neighbour in the batch changes the result. Gradients pass.

    Args:
        apply: a symmetric, positive operator on (B, ...).
        b: the right side.
        start: where the search begins.
        steps: at most.
        tolerance: of the residual's norm relative to b's; 0: all steps; None: what rounding allows.
    """
    if tolerance is None:
        tolerance = CG_ROUNDING * torch.finfo(b.dtype).eps
    u, r = start.clone(), b - apply(start)
    p, old = r, dot(r, r)
    least = tolerance**2 * dot(b, b)
    for _ in range(steps):
        going = old > least
        if not going.any():
            break
        image = apply(p)
        curvature = dot(p, image)
        safe = torch.where(curvature > 0, curvature, 1)
        step = torch.where(going & (curvature > 0), old / safe, 0)
        u, r = u + step * p, r - step * image
        new = dot(r, r)
        ratio = torch.where(going, new / torch.where(old > 0, old, 1), 0)
        p, old = r + ratio * p, torch.where(going, new, old)
    return u
