"""A few random projections of an image."""

import math

import torch
from typing_extensions import override

from irbridge.operators.physics import PhysicsOperator, deepinv
from irbridge.ranges import SEED, check_values, number

RATE = number(lambda v: 0 < v <= 1, "above 0 and at most 1")


class CompressedSensing(PhysicsOperator):
    """Randomly chosen coefficients of a sine transform of the image under random signs.

    The rows are orthonormal (deepinv's StructuredRandom with one layer), so that every singular
    value is 1 or 0 and A^+ is A^T. The signs and the choice come from the seed alone.

    Args:
        size: (C, H, W) of the images; all channels are mixed.
        rate: how many measurements per number of the image, above 0 and at most 1.
        seed: of the signs and of the choice.
    """

    name = "cs"
    spectral = True

    def __init__(self, size: tuple[int, int, int], rate: float = 0.25, seed: int = 0):
        super().__init__(size)
        check_values({"rate": RATE, "seed": SEED}, {"rate": rate, "seed": seed}, "")
        rng = torch.Generator().manual_seed(int(seed))
        self.length = math.prod(self.size)
        self.signs = torch.randint(0, 2, (self.length,), generator=rng) * 2.0 - 1
        chosen = torch.randperm(self.length, generator=rng)
        self.chosen = chosen[: max(1, round(rate * self.length))].sort().values

    @override
    def make(self, dtype, device):
        return deepinv(f"operator={self.name}").StructuredRandom(
            img_size=(self.length,),
            output_size=(self.length,),
            diagonals=[self.signs.to(device, dtype)],
            device=device,
        )

    @override
    def __call__(self, x):
        return super().__call__(x.flatten(1))[:, self.chosen.to(x.device)]

    @override
    def adjoint(self, m):
        full = m.new_zeros(len(m), self.length)
        full = full.index_copy(1, self.chosen.to(m.device), m)
        return super().adjoint(full).view(-1, *self.size)

    @override
    def inverse(self, m):
        return self.adjoint(m)

    @override
    def filter(self, x, f):
        seen, lost = f(torch.tensor([1, 0], dtype=torch.float64)).to(x)
        return lost * x + (seen - lost) * self.adjoint(self(x))
