"""Interpolants that are no conditioned diffusion: shifting processes with noise of their own
(ResShift, RDDM, DiffUIR) and NADB. Conventions as in ``bridges``.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from irbridge.bridges.base import Bridge, Published, interpolate, running
from irbridge.gaussian.marginal import Marginal, marginal
from irbridge.gaussian.transition import kept
from irbridge.ranges import INSIDE, NOT_NEGATIVE, POSITIVE, option


class _Shifted(Bridge):
    """Shifting processes: Markov only given the residual y - x0, which their own posterior moves at
    a rate of its own.
    """

    def posterior(self, t, s) -> tuple[Marginal, Marginal, Tensor]:
        """Kept std ``c'^2 / c``: the noise is a random walk, whatever the means do."""
        now, then = self.marginal(t), self.marginal(s)
        return now, then, kept(now, then, (then.noise / now.noise) ** 2)


@dataclass(frozen=True)
class ResShift(_Shifted):
    """ResShift (NeurIPS 2023): ``a = 1 - eta, b = eta, c = kappa sqrt(eta)``, sqrt(eta) rising from
    min_noise / kappa to end as ``exp(u^power)``. 15 steps with min_noise .04, or 4 with .2
    (journal). Official index + 1; not pinned.
    """

    T: int = 15
    kappa: float = option(2.0, POSITIVE)
    min_noise: float = option(0.04, POSITIVE)
    end: float = option(0.99, INSIDE)
    power: float = option(0.3, POSITIVE)
    steps: ClassVar = True
    published: ClassVar = Published("x0", "l2", nfe=15)

    def marginal(self, t) -> Marginal:
        first, share = (
            min(self.min_noise / self.kappa, self.min_noise),
            np.linspace(0, 1, self.T) ** self.power,
        )
        root = interpolate(t, np.concatenate([[0.0], first * (self.end / first) ** share]))
        return marginal(1 - root**2, root**2, self.kappa * root)


@dataclass(frozen=True)
class RDDM(_Shifted):
    """Residual denoising diffusion (CVPR 2024): ``a = 1 - A, b = A``; A sums falling, c^2 rising,
    straight weights, to 1 and to sum_scale (.01 by default, 1 for rain drops). Official index + 1.
    """

    T: int = 1000
    sum_scale: float = option(0.01, POSITIVE)
    steps: ClassVar = True
    published: ClassVar = Published("residual", "l1", "implicit")

    def marginal(self, t) -> Marginal:
        t, total = torch.as_tensor(t, dtype=torch.float64), self.T * (self.T + 1)
        share = t * (2 * self.T + 1 - t) / total
        return marginal(1 - share, share, (self.sum_scale * t * (t + 1) / total).sqrt())


@dataclass(frozen=True)
class DiffUIR(_Shifted):
    """DiffUIR (CVPR 2024): ``a = alpha, b = 1 - alpha - D, c = sigma`` of DDPM's linear schedule, D
    a running sum of linspace(1e-6, delta_end, T). Trained up to c_T = 1, but sampled from ``(1 -
    D_T) y + start_noise eps``, the published start; "marginal" starts where the training ended. Its
    update leaves the noise in place. Official index + 1.
    """

    T: int = 1000
    start: str = "published"
    delta_end: float = option(1.8e-3, NOT_NEGATIVE)
    start_noise: float = option(0.1, NOT_NEGATIVE)
    steps: ClassVar = True
    published: ClassVar = Published("residual", "l1", "drift", nfe=3)

    def marginal(self, t) -> Marginal:
        log_abar = interpolate(t, running(np.log1p(-np.linspace(1e-4, 0.02, self.T))))
        gone = interpolate(t, running(np.linspace(1e-6, self.delta_end, self.T)).clip(0, 1))
        alpha = torch.exp(log_abar / 2)
        return marginal(alpha, 1 - alpha - gone, (-torch.expm1(log_abar)).sqrt())

    def begin(self) -> Marginal:
        if self.start != "published":
            return super().begin()
        end = self.marginal(self.T)
        return marginal(0, end.clean + end.degraded, self.start_noise)
