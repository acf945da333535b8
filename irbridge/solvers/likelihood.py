"""Likelihood-refined noise (after Wang, Liu and Wei, arXiv 2506.13391); experimental."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.ranges import SHARE, one_of, option
from irbridge.solvers.base import (
    Level,
    Problem,
    Solver,
    Step,
    ddim_noise,
    first_state,
    predicted_noise,
)


@dataclass
class Likelihood(Solver):
    """Experimental: DDIM whose predicted noise is refined by a score of the likelihood.

    The paper could not be read; this is what its abstract says, with three guesses of the law of
    x0 given the state, N(centre, r^2 I), by which the score is

        alpha r^2 / sigma^2 A^T (std^2 I + r^2 A A^T)^-1 (m - A centre)

    and needs no gradient of the network. The noise is eps - sigma score, and the clean estimate
    that belongs to it x0 + sigma^2 / alpha score. Of the first two guesses that is DiffPIR's data
    step of rho = std^2 / r^2 without its constants. For a Gaussian prior the results are neither
    the posterior's mean nor samples of it, and nearer the prior's mean than those of DDNM.

    Args:
        guess: "tweedie", the estimate and r^2 = sigma^2 / (alpha^2 + sigma^2), the posterior
            variance of images of std 1; "estimate", the estimate and r^2 = sigma^2 / alpha^2;
            "state", z / alpha and that r^2, which ignores the prior.
        eta: the share of new noise of a DDIM step.
        returns: both words give the refined estimate, as there is no official program.
    """

    name: ClassVar[str] = "likelihood"
    needs: ClassVar[tuple[str, ...]] = ("linear", "spectral")
    experimental: ClassVar[bool] = True

    guess: str = option("tweedie", one_of("tweedie", "estimate", "state"))
    eta: float = option(0.85, SHARE)

    @override
    def loop(self, problem: Problem) -> Iterator[Step]:
        moves = self.moves(problem.prior)
        z = first_state(problem, moves[0][0])
        for at, to in moves:
            x0 = problem.denoise(z, at.tau)
            refined = x0 + self.shift(problem, z, x0, at)
            yield Step(at.tau, z, refined)
            new, kept = ddim_noise(at, to, self.eta)
            z = to.alpha * refined + kept * predicted_noise(z, refined, at)
            if new:
                z = z + new * problem.noise(z)

    def shift(self, problem: Problem, z: Tensor, x0: Tensor, at: Level) -> Tensor:
        """What the score adds to the clean estimate: r^2 A^T (...)^-1 (m - A centre)."""
        level = at.sigma**2 / at.alpha**2
        variance = level / (1 + level) if self.guess == "tweedie" else level
        centre = z / at.alpha if self.guess == "state" else x0

        def weight(s: Tensor) -> Tensor:
            total = problem.std**2 + variance * s**2
            return torch.where(s > 0, variance * s**2 / torch.where(s > 0, total, 1), 0)

        return problem.operator.filter(problem.start() - centre, weight)
