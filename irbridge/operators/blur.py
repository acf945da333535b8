"""Convolution with a known kernel."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from irbridge.errors import UserError
from irbridge.operators.base import conjugate_gradient
from irbridge.operators.kernels import kernel_of
from irbridge.operators.physics import PhysicsOperator, deepinv
from irbridge.ranges import FRACTION, check_values, one_of

PADDING = one_of("circular", "reflect", "replicate")
THRESHOLD = 0.03  # of the largest singular value, as the programs of DDRM and its kin have it
LEAST = 1e-10  # of the largest: below it a singular value is rounding
STEPS = 50  # of the conjugate gradients of A^+: more would amplify what noise m has


class Blur(PhysicsOperator):
    """A true convolution, every channel with the same kernel, the result as large as the image.

    The kernel is divided by its sum. Its centre is pixel ``side // 2`` of either side: the middle
    of an odd one, and of an even one the pixel right of and below the middle.

    With circular padding (deepinv's BlurFFT) the singular values are those of the Fourier
    transform. A itself and its proximal step have them as they are; A^+ and :meth:`filter` hold
    those below ``threshold`` times the largest for zero, so that a measurement's noise is not
    amplified beyond ``1 / threshold``.

    With the other paddings (deepinv's Blur) A has no decomposition at hand. A^+ is then
    :data:`STEPS` conjugate gradient steps on ``A^T A u = A^T m`` from zero, the proximal step up to
    :data:`~irbridge.operators.base.CG_STEPS`.

    Args:
        size: (C, H, W) of the images.
        kernel: (h, w); or a word or file of :func:`~irbridge.operators.kernels.kernel_of`.
        padding: how the image goes on beyond its edge: "circular", "reflect" or "replicate".
        threshold: from 0 to below 1; 0: only what is rounding counts as zero.
        numbers: those of a kernel that is given by its word, such as ``std=3``.

    Raises:
        UserError: the kernel is no table of numbers, has the sum 0, or is larger than the image.
    """

    name = "blur"

    def __init__(
        self,
        size: tuple[int, int, int],
        kernel: np.ndarray | Tensor | str | Path = "gaussian",
        padding: str = "circular",
        threshold: float = THRESHOLD,
        **numbers,
    ):
        super().__init__(size)
        given = {"padding": padding, "threshold": threshold}
        check_values({"padding": PADDING, "threshold": FRACTION}, given, "")
        if isinstance(kernel, str | Path):
            kernel = kernel_of(kernel, **numbers)
        elif numbers:
            raise UserError(
                f"{next(iter(numbers))}= belongs to a kernel that is given by its word, and here"
                " the kernel is an array; leave it out."
            )
        self.padding, self.threshold = padding, threshold
        self.kernel = _checked(kernel, self.size)
        self.spectral = padding == "circular"
        if self.spectral:
            here = self.physics(self.kernel).mask
            least = max(threshold, LEAST) * here.max()
            self.singular = torch.where(here < least, 0, here)

    @override
    def make(self, dtype, device):
        kernel = self.kernel.to(device, dtype)
        library = deepinv(f"operator={self.name}")
        if self.padding == "circular":
            # one channel, whose singular values then serve all
            size = (1, *self.size[1:])
            return library.BlurFFT(img_size=size, filter=kernel[None, None], device=device)
        height, width = kernel.shape  # made odd, so that its centre is its middle
        kernel = F.pad(kernel, (0, 1 - width % 2, 0, 1 - height % 2))
        padding = self.padding if kernel.numel() > 1 else "valid"  # of one pixel deepinv warns
        return library.Blur(filter=kernel[None, None], padding=padding, use_fft=True, device=device)

    @override
    def filter(self, x, f):
        physics = self.physics(x)
        return physics.V(f(self.singular).to(x) * physics.V_adjoint(x))

    @override
    def inverse(self, m):
        if not self.spectral:
            start = torch.zeros_like(m)
            return conjugate_gradient(
                lambda u: self.adjoint(self(u)), self.adjoint(m), start, STEPS
            )
        physics, s = self.physics(m), self.singular
        weights = torch.where(s > 0, 1 / s.clamp(min=1e-300), 0).to(m)
        return physics.V(physics.U_adjoint(m) * weights)

    @override
    def prox(self, x, m, rho):
        if not self.spectral:
            return super().prox(x, m, rho)
        physics = self.physics(x)
        sums = physics.mask * physics.U_adjoint(m) + rho * physics.V_adjoint(x)
        return physics.V(sums / (physics.mask**2 + rho))

    @override
    def view(self, m):
        """The blurred image itself."""
        return m.clone()


def _checked(kernel, size: tuple[int, int, int]) -> Tensor:
    """The kernel (h, w) in float64, its sum 1."""
    remedy = "give a two-dimensional table of numbers with a sum above 0"
    try:
        given = kernel.detach().cpu().numpy() if isinstance(kernel, Tensor) else kernel
        values = np.asarray(given).astype(np.float64, casting="same_kind")
        kernel = torch.from_numpy(values)
    except (TypeError, ValueError) as error:
        raise UserError(f"The kernel is no table of numbers ({error}); {remedy}.") from error
    shape = " x ".join(map(str, reversed(kernel.shape)))
    if kernel.dim() != 2 or not kernel.numel():
        raise UserError(f"The kernel has the shape {tuple(kernel.shape)}; {remedy}.")
    if not kernel.isfinite().all():
        raise UserError(f"The kernel has values that are no numbers (NaN or infinite); {remedy}.")
    if kernel.shape[0] > size[1] or kernel.shape[1] > size[2]:
        raise UserError(
            f"The kernel is {shape} pixels, larger than the image of {size[2]} x {size[1]}; give a"
            " smaller kernel."
        )
    total = kernel.sum()
    if total <= 1e-9 * kernel.abs().sum():
        raise UserError(f"The kernel has the sum {total:g} and cannot be made to sum 1; {remedy}.")
    return kernel / total
