"""DDRM: denoising in the coordinates of the operator's singular vectors."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.ranges import SHARE, option
from irbridge.solvers.base import STEPS, Level, Problem, Solver, Step, predicted_noise


@dataclass
class DDRM(Solver):
    """DDRM (Kawar et al., NeurIPS 2022), in states z / alpha and their levels sigma / alpha.

    Per singular direction a step trusts the prior, the measurement, or a mixture, by which of the
    two has less noise. It samples no posterior: on a Gaussian prior its variance is too small. With
    eta 1 and noise it forgets the measurement at low levels.

    Args:
        eta: share of new noise where the prior decides.
        eta_measured: share of the measurement where that has less noise, the paper's eta_b.
    """

    name: ClassVar[str] = "ddrm"
    needs: ClassVar[tuple[str, ...]] = ("linear", "spectral")

    steps: int = option(20, STEPS)
    eta: float = option(0.85, SHARE)
    eta_measured: float = option(1.0, SHARE)

    @override
    def loop(self, problem: Problem) -> Iterator[Step]:
        moves = self.moves(problem.prior)
        known = problem.start()
        z = self.begin(problem, known, moves[0][0])
        for at, to in moves:
            x0 = problem.denoise(z, at.tau)
            seen, z = z, self.move(problem, known, x0, predicted_noise(z, x0, at), to)
            # at the clean end no rule but the first applies where there is no noise, so that the
            # authors' result is the network's estimate, which does not meet the measurement
            if to.sigma == 0 and self.returns == "clean" and problem.std == 0:
                z = x0 + problem.operator.inverse(problem.m - problem.operator(x0))
            yield Step(at.tau, seen, z if to.sigma == 0 else x0)

    def begin(self, problem: Problem, known: Tensor, at: Level) -> Tensor:
        """The first state: the measurement at the prior's level, where it has less noise."""
        level, operator = at.sigma / at.alpha, problem.operator

        def measured(s: Tensor) -> Tensor:
            return (s * level > problem.std).to(s)

        def spread(s: Tensor) -> Tensor:
            own = problem.std / torch.where(s > 0, s, 1)
            return torch.where(measured(s) > 0, (level**2 - own**2).clamp(min=0).sqrt(), level)

        noise = problem.noise(known)
        return at.alpha * (operator.filter(known, measured) + operator.filter(noise, spread))

    def move(self, problem: Problem, known: Tensor, x0: Tensor, eps: Tensor, to: Level) -> Tensor:
        """The state at the next level, by the rule of each singular direction.

        With l the next level: where s l < std the measurement is noisier than the state; where
        s l > std it is cleaner; s = 0 and equality leave the prior alone.
        """
        level, operator = to.sigma / to.alpha, problem.operator
        kept = math.sqrt(1 - self.eta**2)

        def noisier(s: Tensor) -> Tensor:
            return (s > 0) & (s * level < problem.std)

        def cleaner(s: Tensor) -> Tensor:
            return (s > 0) & (s * level > problem.std)

        def share(s: Tensor) -> Tensor:
            """Of the measurement; the estimate has the rest."""
            pull = kept * level * s / problem.std if problem.std > 0 else s
            return torch.where(noisier(s), pull, torch.where(cleaner(s), self.eta_measured, 0 * s))

        def fresh(s: Tensor) -> Tensor:
            own = self.eta_measured * problem.std / torch.where(s > 0, s, 1)
            rest = (level**2 - own**2).clamp(min=0).sqrt()
            return torch.where(cleaner(s), rest, self.eta * level)

        def predicted(s: Tensor) -> Tensor:
            return torch.where(noisier(s) | cleaner(s), 0 * s, kept * level)

        mean = x0 + operator.filter(known - x0, share) + operator.filter(eps, predicted)
        return to.alpha * (mean + operator.filter(problem.noise(x0), fresh))
