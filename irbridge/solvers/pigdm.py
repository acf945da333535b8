"""PiGDM: guidance by the pseudo-inverse, through the network's Jacobian."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.ranges import SHARE, option
from irbridge.solvers.base import (
    Level,
    Problem,
    Solver,
    Step,
    ddim_noise,
    predicted_noise,
)


@dataclass
class PiGDM(Solver):
    """PiGDM (Song et al., ICLR 2023): a DDIM step plus a multiple of ``J^T q``.

    J is the Jacobian of the estimate; q is held fixed. Without noise q = A^+ (m - A x0), and its
    multiple is alpha_r alpha_t, as the authors' program has it. With noise q is
    ``A^T (A A^T + (std / r)^2)^-1 (m - A x0)``, r^2 = sigma^2 / (alpha^2 + sigma^2), and the
    multiple alpha_t, as the paper writes it, times the next level's std, which is 1 there. It
    samples no posterior: on a Gaussian prior hidden coordinates over-shoot.

    Args:
        eta: share of new noise, as of DDIM.
        replace: whether measured directions of the estimate are the measurement's own, and are not
            guided. None: as published, for inpainting without noise.
    """

    name: ClassVar[str] = "pigdm"
    needs_with_noise: ClassVar[tuple[str, ...]] = ("spectral",)
    backward: ClassVar[bool] = True
    published: ClassVar[dict] = {"": {"replace": False}, "inpaint": {"replace": True}}

    eta: float = option(1.0, SHARE)
    replace: bool | None = None

    @override
    def loop(self, problem: Problem) -> Iterator[Step]:
        operator, moves = problem.operator, self.moves(problem.prior)
        known, first = problem.start(), moves[0][0]
        z = first.alpha * known + first.sigma * problem.noise(known)
        for at, to in moves:
            x0, guide = self.guided(problem, z, at)
            eps = predicted_noise(z, x0, at)
            if self.replace and problem.std == 0:
                x0 = x0 - operator.inverse(operator(x0) - problem.m)
                guide = guide - operator.inverse(operator(guide))
            new, kept = ddim_noise(at, to, self.eta)
            share = at.alpha * (to.std if problem.std > 0 else to.alpha)
            seen = z
            z = to.alpha * x0 + new * problem.noise(z) + kept * eps + share * guide
            yield Step(at.tau, seen, z if to.sigma == 0 else x0)

    def guided(self, problem: Problem, z: Tensor, at: Level) -> tuple[Tensor, Tensor]:
        """(x0, J^T q) of a state."""
        operator = problem.operator
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x0 = problem.denoise(z, at.tau)
            with torch.no_grad():
                q = operator.inverse(problem.m - operator(x0))
                if problem.std > 0:
                    ratio = problem.std**2 * (at.alpha**2 + at.sigma**2) / at.sigma**2
                    q = operator.filter(q, lambda s: s**2 / (s**2 + ratio))
            (guide,) = torch.autograd.grad(x0, z, q)
        return x0.detach(), guide
