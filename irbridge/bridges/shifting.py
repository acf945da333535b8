"""Shifting processes, which are no conditioned diffusion: ResShift, RDDM and DiffUIR."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from irbridge.bridges.base import Bridge, Published, interpolate, running
from irbridge.gaussian.marginal import Marginal, marginal
from irbridge.gaussian.transition import kept
from irbridge.ranges import INSIDE, NOT_NEGATIVE, POSITIVE, option


class _Shifted(Bridge):
    """Shifting processes: Markov only given the residual y - x0.

    Their own posterior moves the residual at a rate of its own.
    """

    @override
    def posterior(self, t, s) -> tuple[Marginal, Marginal, Tensor]:
        """Kept std ``c'^2 / c``: the noise is a random walk, whatever the means do."""
        now, then = self.marginal(t), self.marginal(s)
        return now, then, kept(now, then, (then.noise / now.noise) ** 2)


@dataclass(frozen=True)
class ResShift(_Shifted):
    """ResShift (NeurIPS 2023): ``a = 1 - eta, b = eta, c = kappa sqrt(eta)``.

    sqrt(eta) rises from min_noise / kappa to ``end`` as ``exp(u^power)``. Not pinned. t is the
    official index + 1.

    Args:
        T: see :class:`Bridge`; 15 steps with min_noise .04, or 4 with .2 (journal).
        start: see :class:`Bridge`.
        kappa: the std of the noise at eta = 1.
        min_noise: the std at the first step.
        end: sqrt(eta) at T.
        power: how fast it rises.
    """

    T: int = 15
    kappa: float = option(2.0, POSITIVE)
    min_noise: float = option(0.04, POSITIVE)
    end: float = option(0.99, INSIDE)
    power: float = option(0.3, POSITIVE)
    steps: ClassVar = True
    published: ClassVar = Published("x0", "l2", nfe=15)

    @override
    def marginal(self, t) -> Marginal:
        first = min(self.min_noise / self.kappa, self.min_noise)
        share = np.linspace(0, 1, self.T) ** self.power
        root = interpolate(t, np.concatenate([[0.0], first * (self.end / first) ** share]))
        return marginal(1 - root**2, root**2, self.kappa * root)


@dataclass(frozen=True)
class RDDM(_Shifted):
    """Residual denoising diffusion (CVPR 2024): ``a = 1 - A, b = A``.

    A sums weights that fall on a straight line, to 1 at T; c^2 sums weights that rise on one. t is
    the official index + 1.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`.
        sum_scale: c^2 at T, 1 for rain drops.
    """

    T: int = 1000
    sum_scale: float = option(0.01, POSITIVE)
    steps: ClassVar = True
    published: ClassVar = Published("residual", "l1", "implicit")

    @override
    def marginal(self, t) -> Marginal:
        t, total = torch.as_tensor(t, dtype=torch.float64), self.T * (self.T + 1)
        share = t * (2 * self.T + 1 - t) / total
        return marginal(1 - share, share, (self.sum_scale * t * (t + 1) / total).sqrt())


@dataclass(frozen=True)
class DiffUIR(_Shifted):
    """DiffUIR (CVPR 2024): ``a = alpha, b = 1 - alpha - D, c = sigma`` of DDPM's linear schedule.

    D is a running sum of linspace(1e-6, delta_end, T). The network is trained up to c_T = 1, but
    sampled from ``(1 - D_T) y + start_noise eps``, the published start; "marginal" starts where the
    training ended. Its update leaves the noise in place. t is the official index + 1.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`.
        delta_end: the last weight of D.
        start_noise: the std at the published start.
    """

    T: int = 1000
    start: str = "published"
    delta_end: float = option(1.8e-3, NOT_NEGATIVE)
    start_noise: float = option(0.1, NOT_NEGATIVE)
    steps: ClassVar = True
    published: ClassVar = Published("residual", "l1", "drift", nfe=3)

    @override
    def marginal(self, t) -> Marginal:
        log_abar = interpolate(t, running(np.log1p(-np.linspace(1e-4, 0.02, self.T))))
        gone = interpolate(t, running(np.linspace(1e-6, self.delta_end, self.T)).clip(0, 1))
        alpha = torch.exp(log_abar / 2)
        return marginal(alpha, 1 - alpha - gone, (-torch.expm1(log_abar)).sqrt())

    @override
    def begin(self) -> Marginal:
        if self.start != "published":
            return super().begin()
        end = self.marginal(self.T)
        return marginal(0, end.clean + end.degraded, self.start_noise)
