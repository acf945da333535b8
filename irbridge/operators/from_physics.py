"""Between deepinv and here: a physics of deepinv's as an operator, and an operator as a physics."""

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.errors import UserError
from irbridge.operators.base import Operator, conjugate_gradient
from irbridge.operators.physics import deepinv

STEPS = 50  # of the conjugate gradients of A^+, where a physics has no decomposition
CLOSE = 1e-3  # relative: how far a decomposition may be from the physics that it is of
LEAST = 1e-5  # of the largest singular value: below it one counts as zero


class FromPhysics(Operator):
    """A physics of deepinv's, such as a user's own, as an operator.

    It is used as it is: in its dtype, on its device, without its noise, on images in [-1, 1].
    A ``LinearPhysics`` is linear, and its adjoint is taken on trust. A ``DecomposablePhysics`` has
    a singular value decomposition, if it holds on a random image; singular values below 1e-5 of
    the largest count as zero. Otherwise A^+ is conjugate gradients. The start of a physics that is
    not linear is its ``A_dagger``. It is differentiable where its result for an image has a
    gradient.

    Args:
        physics: of deepinv's.
        size: (C, H, W) of the images.

    Raises:
        UserError: it is no physics, or takes no image of that size.
    """

    name = "physics"

    def __init__(self, physics, size: tuple[int, int, int]):
        super().__init__(size)
        library = deepinv("operator=physics")
        if not isinstance(physics, library.Physics):
            raise UserError(
                f"FromPhysics takes a physics of deepinv's, not {type(physics).__name__}; give one"
                " such as deepinv.physics.Inpainting."
            )
        self.given = physics
        self.linear = isinstance(physics, library.LinearPhysics)
        image = self._probe()
        try:
            seen = physics.A(image)
        except Exception as error:
            raise UserError(
                f"The physics {type(physics).__name__} takes no image of {self.size} ({error});"
                " give the size that it was made for."
            ) from error
        self.differentiable = seen.requires_grad
        self.spectral = isinstance(physics, library.DecomposablePhysics) and self._holds(image)

    def _probe(self) -> Tensor:
        """A seeded image in the dtype and on the device of the physics."""
        rng = torch.Generator().manual_seed(0)
        image = torch.rand(1, *self.size, generator=rng) * 2 - 1
        own = [*self.given.buffers(), *self.given.parameters()]
        real = [tensor for tensor in own if tensor.is_floating_point()]
        image = image.to(real[0]) if real else image
        return image.requires_grad_()

    @torch.no_grad()
    def _holds(self, image: Tensor) -> bool:
        """Whether V S^2 V^T is A^T A and V has orthonormal columns, on an image."""
        physics = self.given
        try:
            turned = physics.V_adjoint(image)
            again = physics.V_adjoint(physics.V(turned))
            both = physics.V(physics.mask.abs() ** 2 * turned)
            direct = physics.A_adjoint(physics.A(image))
        except (RuntimeError, ValueError, NotImplementedError):
            return False
        pairs = ((turned, again), (direct, both))
        return all(float((a - b).norm()) <= CLOSE * float(a.norm()) for a, b in pairs)

    @property
    def singular(self) -> Tensor:
        """The singular values as the physics holds them, float64."""
        s = self.given.mask.abs().double()
        return torch.where(s < LEAST * s.max(), 0, s)

    @override
    def __call__(self, x):
        return self.given.A(x)

    @override
    def adjoint(self, m):
        return self.given.A_adjoint(m)

    @override
    def inverse(self, m):
        physics = self.given
        if self.spectral:
            s = self.singular
            weights = torch.where(s > 0, 1 / s.clamp(min=1e-300), 0).to(m.real.dtype)
            return physics.V(physics.U_adjoint(m) * weights)
        if not self.linear:
            return physics.A_dagger(m).clone()
        right = self.adjoint(m)
        return conjugate_gradient(
            lambda u: self.adjoint(self(u)), right, torch.zeros_like(right), STEPS
        )

    @override
    def filter(self, x, f):
        physics, s = self.given, self.singular
        lost = f(s.new_zeros(()))
        weights = (f(s) - lost).to(x)
        return lost.to(x) * x + physics.V(weights * physics.V_adjoint(x))


def to_physics(operator: Operator, std: float = 0.0):
    """A linear operator as a deepinv ``LinearPhysics``, for deepinv's own algorithms.

    Args:
        operator: linear. As it is, images may be in [0, 1] as well, as deepinv has them.
        std: of the physics' Gaussian noise, in the units of its images.

    Raises:
        UserError: the operator is not linear, or deepinv is not installed.
    """
    library = deepinv("to_physics")
    if not operator.linear:
        raise UserError(
            f"operator={operator.name} is not linear and cannot be handed to deepinv; choose"
            " another operator."
        )

    class Ours(library.LinearPhysics):
        """An operator of ours."""

        def A(self, x: Tensor, **kwargs) -> Tensor:
            """A x."""
            return operator(x)

        def A_adjoint(self, y: Tensor, **kwargs) -> Tensor:
            """A^T y."""
            return operator.adjoint(y)

        def A_dagger(self, y: Tensor, **kwargs) -> Tensor:
            """A^+ y."""
            return operator.inverse(y)

        def prox_l2(self, z: Tensor, y: Tensor, gamma: float, **kwargs) -> Tensor:
            """The argmin of gamma/2 ||A u - y||^2 + 1/2 ||u - z||^2."""
            return operator.prox(z, y, 1 / gamma)

    return Ours(noise_model=library.GaussianNoise(sigma=std))
