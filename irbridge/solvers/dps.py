"""DPS: the gradient of the measurement's error, through the network."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from typing_extensions import override

from irbridge.ranges import NOT_NEGATIVE, SHARE, option
from irbridge.solvers.base import (
    STEPS,
    Problem,
    Solver,
    Step,
    ddim_noise,
    first_state,
    predicted_noise,
)


@dataclass
class DPS(Solver):
    """DPS (Chung et al., ICLR 2023): a step of the prior, less zeta times a gradient.

    The gradient is of ``||m - A x0(z)||``, the norm, not its square, of each image on its own. The
    noise of the measurement is not used. It samples no posterior: on a Gaussian prior hidden
    coordinates over-shoot whatever the noise. Networks with a learned variance step with the fixed
    one here (fixed_small), as the frozen networks' second half is dropped.

    Args:
        zeta: of the gradient, where states have the std 1; published for 1000 steps, and not
            rescaled for fewer.
        eta: share of new noise, as of DDIM; 1 is the ancestral step of DDPM.
        clip: estimates are clipped to [-1, 1] before they are used.
    """

    name: ClassVar[str] = "dps"
    needs: ClassVar[tuple[str, ...]] = ("differentiable",)
    backward: ClassVar[bool] = True
    published: ClassVar[dict] = {"": {"zeta": 0.3}, "inpaint": {"zeta": 0.5}}

    steps: int = option(1000, STEPS)
    zeta: float | None = option(None, NOT_NEGATIVE)
    eta: float = option(1.0, SHARE)
    clip: bool = True

    @override
    def indices(self, length: int) -> np.ndarray:
        return np.round(np.linspace(length - 1, 0, self.steps))

    @override
    def loop(self, problem: Problem) -> Iterator[Step]:
        moves = self.moves(problem.prior)
        z = first_state(problem, moves[0][0])
        for at, to in moves:
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                x0 = problem.denoise(z, at.tau)
                x0 = x0.clamp(-1, 1) if self.clip and problem.bounded else x0
                error = (problem.m - problem.operator(x0)).flatten(1)
                (gradient,) = torch.autograd.grad(error.norm(dim=1).sum(), z)
            seen, x0 = z.detach(), x0.detach()
            new, kept = ddim_noise(at, to, self.eta)
            z = to.alpha * x0 + kept * predicted_noise(seen, x0, at) + new * problem.noise(seen)
            z = z - self.zeta * at.std * to.std * gradient
            yield Step(at.tau, seen, z if to.sigma == 0 else x0)
