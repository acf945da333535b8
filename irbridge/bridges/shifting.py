"""Shifting processes, which are no conditioned diffusion: ResShift, RDDM and DiffUIR."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from irbridge.bridges.base import Bridge, Published, Rates, interpolate, running, slope, whole_times
from irbridge.gaussian.marginal import Marginal, marginal
from irbridge.gaussian.transition import kept
from irbridge.ranges import INSIDE, NOT_NEGATIVE, POSITIVE, option


class _Shifted(Bridge):
    """Shifting processes: Markov only given the residual y - x0.

    Their own posterior moves the residual at a rate of its own.
    """

    def _rates(self, clean: Tensor, degraded: Tensor, noise: Tensor, t: Tensor) -> Rates:
        """The rates from a', b' and c'/c; not pinned, so that nothing nearly cancels."""
        now = self.marginal(t)
        excess = noise - clean / now.clean
        return Rates(clean, degraded, noise, noise + excess, 2 * now.noise**2 * excess)

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
        scaled: a network of its own sees x_t / sqrt(kappa^2 eta + 1), which has unit variance where
            x0 and y have (``GaussianDiffusion._scale_input`` of its code).
    """

    T: int = 15
    kappa: float = option(2.0, POSITIVE)
    min_noise: float = option(0.04, POSITIVE)
    end: float = option(0.99, INSIDE)
    power: float = option(0.3, POSITIVE)
    scaled: bool = True
    steps: ClassVar = True
    published: ClassVar = Published("x0", "l2", nfe=15)

    @override
    def marginal(self, t) -> Marginal:
        root = interpolate(t, self._table())
        return marginal(1 - root**2, root**2, self.kappa * root)

    @override
    def input_scale(self, t) -> Tensor:
        noise = self.marginal(t).noise
        return (noise**2 + 1).rsqrt() if self.scaled else torch.ones_like(noise)

    def _table(self) -> np.ndarray:
        """sqrt(eta) at whole times, (T + 1,)."""
        first = min(self.min_noise / self.kappa, self.min_noise)
        share = np.linspace(0, 1, self.T) ** self.power
        return np.concatenate([[0.0], first * (self.end / first) ** share])

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        root, up = interpolate(t, self._table()), slope(t, self._table(), ahead)
        return self._rates(-2 * root * up, 2 * root * up, up / root, t)


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

    @override
    def published_times(self, steps: int) -> list[int] | None:
        return whole_times(int(self.T), steps)

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        total, left = self.T * (self.T + 1), self.T - t
        up = (1 + 2 * left) / total
        noise = (2 * t + 1) / (2 * t * (t + 1))
        excess = noise + 1 / left + 1 / (left + 1)
        variance = 2 * self.sum_scale * t * (t + 1) / total * excess
        return Rates(-up, up, noise, noise + excess, variance)


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
        log_abar, gone = (interpolate(t, table) for table in self._tables())
        alpha = torch.exp(log_abar / 2)
        return marginal(alpha, 1 - alpha - gone, (-torch.expm1(log_abar)).sqrt())

    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """The log of abar, and D, at whole times, (T + 1,)."""
        log_abar = running(np.log1p(-np.linspace(1e-4, 0.02, self.T)))
        return log_abar, running(np.linspace(1e-6, self.delta_end, self.T)).clip(0, 1)

    @override
    def published_times(self, steps: int) -> list[int] | None:
        return whole_times(int(self.T), steps)

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        tables = self._tables()
        log_abar, (fall, gone) = (
            interpolate(t, tables[0]),
            (slope(t, table, ahead) for table in tables),
        )
        clean = torch.exp(log_abar / 2) * fall / 2
        noise = fall / 2 * torch.exp(log_abar) / torch.expm1(log_abar)
        return self._rates(clean, -clean - gone, noise, t)

    @override
    def begin(self) -> Marginal:
        if self.start != "published":
            return super().begin()
        end = self.marginal(self.T)
        return marginal(0, end.clean + end.degraded, self.start_noise)
