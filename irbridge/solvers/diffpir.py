"""DiffPIR: the estimate and the measurement meet in a proximal step."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor
from typing_extensions import override

from irbridge.priors import VP
from irbridge.ranges import POSITIVE, SHARE, option
from irbridge.solvers.base import STEPS, Level, Problem, Solver, Step, predicted_noise

LEAST_NOISE = 0.001  # std in [0, 1], so that a measurement without noise has a finite weight


@dataclass
class DiffPIR(Solver):
    """DiffPIR (Zhu et al., CVPRW 2023): plug-and-play half quadratic splitting along the levels.

    The estimate is replaced by argmin ||m - A x||^2 + rho ||x - x0||^2 with
    ``rho = lam s^2 / (sigma / alpha)^2``. There s is the std in [0, 1], while states are in
    [-1, 1]: the value of Bayes' rule is lam = 4. It samples no posterior: on a Gaussian prior its
    variance is too small with zeta 1, and it is pulled to the prior with the published lam.

    "official" is the state at the lowest level, whose noise (std 0.01) is still in it; "clean" the
    estimate there, after its proximal step.

    Args:
        lam: the weight of the prior.
        zeta: share of new noise, in the variance.
        eta: share of DDIM's noise in the rest. As published it is that of one training step,
            whatever the stride; a prior without training steps has that of the whole move.
        clip: estimates are clipped to [-1, 1] before they are used.
    """

    name: ClassVar[str] = "diffpir"
    published: ClassVar[dict] = {
        "": {"lam": 7.0, "zeta": 0.3, "steps": 100},
        "sr": {"lam": 6.0, "zeta": 0.25},
        "inpaint": {"lam": 1.0, "zeta": 1.0, "steps": 20},
    }

    steps: int | None = option(None, STEPS)
    lam: float | None = option(None, POSITIVE)
    zeta: float | None = option(None, SHARE)
    eta: float = option(0.0, SHARE)
    clip: bool = True

    @override
    def indices(self, length: int) -> np.ndarray:
        """Dense near the clean end: the square root of a straight line, from above."""
        falls = np.sqrt(np.linspace(0, length**2, self.steps)).astype(int)
        return length - 1 - np.minimum(falls, length - 1)

    @override
    def loop(self, problem: Problem) -> Iterator[Step]:
        moves = self.moves(problem.prior)
        z = self.begin(problem, moves[0][0])
        for at, to in moves:
            seen, x0 = z, problem.denoise(z, at.tau)
            x0 = x0.clamp(-1, 1) if self.clip and problem.bounded else x0
            rho = self.lam * max(LEAST_NOISE, problem.std / 2) ** 2 / (at.sigma / at.alpha) ** 2
            x0 = problem.operator.prox(x0, problem.m, rho)
            if to.sigma > 0:
                z = self.move(problem, x0, predicted_noise(z, x0, at), (at, to))
            elif self.returns == "official":
                x0 = z
            yield Step(at.tau, seen, x0)

    def begin(self, problem: Problem, first: Level) -> Tensor:
        """The measurement's image at the first level.

        The authors also take the measurement's own noise from that of the level, for some
        operators; its share there is below 1e-6.
        """
        image = problem.operator.view(problem.m)
        return first.alpha * image + first.sigma * problem.noise(image)

    def move(
        self, problem: Problem, x0: Tensor, eps: Tensor, levels: tuple[Level, Level]
    ) -> Tensor:
        """The state at the next level; both noises are drawn, so that eta changes no seed."""
        at, to = levels
        first, second = problem.noise(x0), problem.noise(x0)
        if isinstance(problem.prior, VP):
            law = problem.prior.marginal(at.tau - 1)
            before = Level(at.tau - 1, float(law.clean), float(law.noise))
        else:
            before = to
        beta = at.sigma**2 - (at.alpha * before.sigma / before.alpha) ** 2
        new = self.eta * to.sigma / at.sigma * math.sqrt(beta)
        kept = math.sqrt(to.sigma**2 - new**2)
        own = math.sqrt(1 - self.zeta) * (kept * eps + new * first)
        return to.alpha * x0 + own + math.sqrt(self.zeta) * to.sigma * second
