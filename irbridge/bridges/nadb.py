"""NADB (CVPR 2026)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.bridges.base import Bridge, Published, Rates
from irbridge.gaussian.marginal import Marginal, marginal
from irbridge.gaussian.transition import kept
from irbridge.ranges import POSITIVE, option


@dataclass(frozen=True)
class NADB(Bridge):
    """NADB: ``a = 1 - u^alpha, b = u^alpha, c = k u (1 - u)`` with u = t / T.

    It is for an end that a mean network estimates (``endpoint=anchor``). Pinned, though c/a stays
    below k / alpha.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`.
        alpha: the power of time in the means.
        k: the factor of the noise.
    """

    T: float = 1000
    alpha: float = option(0.4, POSITIVE)
    k: float = option(0.75, POSITIVE)
    published: ClassVar = Published("velocity", "l2")

    @override
    def marginal(self, t) -> Marginal:
        u = (torch.as_tensor(t, dtype=torch.float64) / self.T).clamp(0, 1)
        return marginal(1 - u**self.alpha, u**self.alpha, self.k * u * (1 - u))

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        left = self.T - t
        up = self.alpha * (t / self.T) ** self.alpha / t
        fall = up / -torch.expm1(self.alpha * torch.log1p(-left / self.T))  # -a' / a
        noise = 1 / t - 1 / left
        variance = 2 * (self.k * t * left / self.T**2) ** 2 * (noise + fall)
        return Rates(-up, up, noise, 2 * noise + fall, variance)

    @override
    def posterior(self, t, s) -> tuple[Marginal, Marginal, Tensor]:
        """Its own step: a share of the noise is kept.

        The share is u'/u where the step ends below (1 - alpha) / (2 - alpha), and b'/b above.
        """
        now, then = self.marginal(t), self.marginal(s)
        u = torch.as_tensor(s, dtype=torch.float64) / self.T
        late = u >= (1 - self.alpha) / (2 - self.alpha)
        early_share = u * self.T / torch.as_tensor(t, dtype=torch.float64)
        share = torch.where(late, then.degraded / now.degraded, early_share)
        return now, then, kept(now, then, share)
