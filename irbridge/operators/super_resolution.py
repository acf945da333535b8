"""A smaller image."""

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from irbridge.errors import UserError
from irbridge.operators.base import Operator
from irbridge.operators.physics import PhysicsOperator, deepinv
from irbridge.ranges import check_values, one_of, whole

FACTOR = whole(2, 16)
KERNEL = one_of("bicubic", "average")
TAPS = 4  # of the bicubic filter, per pixel of the small image
LEAST = 1e-8  # of the largest singular value squared: below it a direction counts as lost


class SuperResolution(PhysicsOperator):
    """The image reduced by a whole factor: by the mean of blocks, or by a bicubic filter.

    "average" is the mean of every ``factor`` x ``factor`` pixels; A^+ repeats each pixel. Every
    singular value is ``1 / factor`` or 0, and deepinv is not needed.

    "bicubic" is deepinv's Downsampling with the anti-aliased bicubic filter (a = -0.5), the image
    continued periodically. A pixel of the small image is centred on its block, as in Pillow and
    MATLAB, so that a bicubic enlargement with the usual alignment lies on the original without a
    shift. deepinv keeps the upper left pixel of each block, so the image is rolled before by whole
    pixels: what is kept is pixel ``(factor - 1) // 2`` of a block, and half a pixel beyond it
    where the factor is even.

    ``A A^T`` is a convolution of the small image. With its eigenvalues s^2 all functions of the
    singular values follow from ``V f(S) V^T = f(0) + A^T (f(S) - f(0)) / S^2 A``.

    Args:
        size: (C, H, W) of the images, sides divisible by the factor.
        factor: from 2 to 16.
        kernel: "bicubic" or "average".

    Raises:
        UserError: a side is not divisible by the factor, or smaller than the filter.
    """

    name = "sr"
    spectral = True

    def __init__(self, size: tuple[int, int, int], factor: int = 4, kernel: str = "bicubic"):
        check_values({"factor": FACTOR, "kernel": KERNEL}, {"factor": factor, "kernel": kernel}, "")
        self.factor, self.kernel = int(factor), kernel
        if kernel == "average":
            Operator.__init__(self, size)
        else:
            super().__init__(size)
        self._check_sides()
        self.gram = self._gram()

    def _check_sides(self) -> None:
        sides = self.size[1:]
        shown = f"{sides[1]} x {sides[0]}"
        if any(side % self.factor for side in sides):
            raise UserError(
                f"operator=sr divides sides by factor={self.factor}, and the image is {shown}; crop"
                " it to sides that can be divided, or choose another factor."
            )
        if self.kernel == "bicubic" and min(sides) < TAPS * self.factor:
            raise UserError(
                f"operator=sr kernel=bicubic factor={self.factor} has a filter of"
                f" {TAPS * self.factor} pixels, and the image is {shown}; give a larger image, a"
                " smaller factor, or kernel=average."
            )

    def _gram(self) -> Tensor:
        """The eigenvalues of A A^T, float64: of one pixel, or of frequencies (h, w)."""
        if self.kernel == "average":
            return torch.tensor(1 / self.factor**2, dtype=torch.float64)
        down, right = (self._spectrum(side // self.factor) for side in self.size[1:])
        squares = torch.outer(down, right)
        return torch.where(squares > LEAST * squares.max(), squares, 0)

    def _spectrum(self, side: int) -> Tensor:
        """The eigenvalues of A A^T along one side of the small image, float64 (side,).

        A A^T convolves it with every ``factor``-th value of the taps' autocorrelation.
        """
        taps = _taps(self.factor)
        shifts = range(-TAPS + 1, TAPS)
        response = torch.zeros(side, dtype=torch.float64)
        for shift in shifts:
            at = abs(shift) * self.factor
            response[shift % side] += taps[at:] @ taps[: len(taps) - at]
        return torch.fft.fft(response).real

    @override
    def make(self, dtype, device):
        taps = _taps(self.factor).to(device, dtype)
        weights = torch.outer(taps, taps)[None, None]
        return deepinv(f"operator={self.name}").Downsampling(
            img_size=self.size,
            filter=weights,
            factor=self.factor,
            padding="circular",
            device=device,
        )

    @override
    def __call__(self, x):
        if self.kernel == "average":
            return F.avg_pool2d(x, self.factor)
        return super().__call__(_rolled(x, -((self.factor - 1) // 2)))

    @override
    def adjoint(self, m):
        if self.kernel == "average":
            return self._repeated(m) / self.factor**2
        return _rolled(super().adjoint(m), (self.factor - 1) // 2)

    @override
    def inverse(self, m):
        if self.kernel == "average":
            return self._repeated(m)
        return self.adjoint(self._weighted(m, _reciprocal(self.gram)))

    @override
    def filter(self, x, f):
        lost = f(self.gram.new_zeros(()))
        weights = (f(self.gram.sqrt()) - lost) * _reciprocal(self.gram)
        return lost.to(x) * x + self.adjoint(self._weighted(self(x), weights))

    @override
    def view(self, m):
        """The small image enlarged by a bicubic filter."""
        return F.interpolate(m, self.size[1:], mode="bicubic", align_corners=False)

    def _repeated(self, m: Tensor) -> Tensor:
        return m.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)

    def _weighted(self, m: Tensor, weights: Tensor) -> Tensor:
        """A function of A A^T, given by its eigenvalues, of small images."""
        if self.kernel == "average":
            return weights.to(m) * m
        return torch.fft.ifft2(torch.fft.fft2(m) * weights.to(m)).real


def _reciprocal(squares: Tensor) -> Tensor:
    """1 / s^2, and 0 where nothing is left."""
    return torch.where(squares > 0, 1 / squares.clamp(min=1e-300), 0)


def _rolled(x: Tensor, pixels: int) -> Tensor:
    return x.roll((pixels, pixels), (-2, -1))


def _taps(factor: int) -> Tensor:
    """Keys' cubic filter (a = -0.5) widened by a factor, around the centre of a block; float64.

    An even factor has ``4 factor`` taps, an odd one ``4 factor - 1``, as its outermost are zero.
    """
    reach = TAPS * factor / 2 - 0.5 - 0.5 * (factor % 2)
    x = torch.arange(-reach, reach + 1, dtype=torch.float64).abs() / factor
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    taps = torch.where(x <= 1, near, far)
    return taps / taps.sum()
