"""DDNM and DDNM+: the null space from the prior, the rest from the measurement."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.ranges import SHARE, option, whole
from irbridge.solvers.base import CLEAN, Level, Problem, Solver, Step, first_state, predicted_noise


@dataclass
class DDNM(Solver):
    """DDNM (Wang et al., ICLR 2023); with noise DDNM+, by the singular values of A.

    Without noise every step replaces the estimate by ``x0 - A^+ (A x0 - m)``, so that the result
    satisfies A x = m exactly. With eta 0, no noise and many steps it samples the posterior of a
    Gaussian prior in the limit; at finite steps, and with noise, it does not.

    The authors' DDNM+ multiplies the predicted noise by V without V^T for super-resolution; here it
    has both. Their simplified DDNM+ writes alpha-bar where its root belongs, and is not built.

    Args:
        eta: share of new noise in each step. It is not DDIM's: the step's noise has the std sigma_r
            whatever eta is.
        travel_length: levels from one time travel to the next.
        travel_repeat: how often each stretch is gone through.
    """

    name: ClassVar[str] = "ddnm"
    needs_with_noise: ClassVar[tuple[str, ...]] = ("spectral",)

    eta: float = option(0.85, SHARE)
    travel_length: int = option(1, whole(1))
    travel_repeat: int = option(1, whole(1, 1000))

    @property
    def path(self) -> list[int]:
        """Numbers of levels in the order of the calls, falling to 0, with the way back of travels.

        After every ``travel_length`` levels the path climbs back as many, ``travel_repeat - 1``
        times (RePaint, Lugmayr et al. 2022).
        """
        left = dict.fromkeys(
            range(0, self.steps - self.travel_length, self.travel_length), self.travel_repeat - 1
        )
        at, path = self.steps - 1, [self.steps - 1]
        while at > 0 or left.get(at, 0):
            if left.get(at, 0):
                left[at] -= 1
                climb = range(at + 1, at + self.travel_length + 1)
                path += climb
                at = climb[-1]
            else:
                at -= 1
                path.append(at)
        return path

    @property
    @override
    def calls(self) -> int:
        return sum(b < a for a, b in pairwise([*self.path, -1]))

    @override
    def loop(self, problem: Problem) -> Iterator[Step]:
        levels = [CLEAN, *self.levels(problem.prior)[::-1]]
        z = x0 = first_state(problem, levels[-1])
        # a prior of a smaller range has fewer levels at the top
        path = [min(i + 1, len(levels) - 1) for i in self.path]
        for here, there in pairwise([*path, 0]):
            at, to = levels[here], levels[there]
            if there >= here:
                z = to.alpha * x0 + to.sigma * problem.noise(z)
                continue
            seen, x0 = z, problem.denoise(z, at.tau)
            z = self.move(problem, x0, predicted_noise(z, x0, at), to)
            yield Step(at.tau, seen, z if there == 0 else x0)

    def move(self, problem: Problem, x0: Tensor, eps: Tensor, to: Level) -> Tensor:
        """The state at the next level."""
        operator, noise = problem.operator, problem.noise(x0)
        error = operator.inverse(operator(x0) - problem.m)
        kept = math.sqrt(1 - self.eta**2)
        if problem.std == 0:
            return to.alpha * (x0 - error) + to.sigma * (self.eta * noise + kept * eps)

        def limit(s: Tensor) -> Tensor:
            """The noise that a measured direction brings along."""
            return to.alpha * problem.std / torch.where(s > 0, s, 1)

        def share(s: Tensor) -> Tensor:
            most = s * to.sigma * kept / (to.alpha * problem.std)
            return torch.where((s > 0) & (to.sigma < limit(s)), most, 1.0)

        def fresh(s: Tensor) -> Tensor:
            rest = (to.sigma**2 - limit(s) ** 2).clamp(min=0).sqrt()
            return torch.where((s > 0) & (to.sigma > limit(s)), rest, self.eta * to.sigma)

        def predicted(s: Tensor) -> Tensor:
            return torch.where(s > 0, 0 * s, to.sigma * kept)

        mean = to.alpha * (x0 - operator.filter(error, share))
        return mean + operator.filter(noise, fresh) + operator.filter(eps, predicted)
