"""The bridges of DDBM (Zhou et al., ICLR 2024)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.bridges.base import Bridge, Published, Rates
from irbridge.bridges.ornstein_uhlenbeck import ou_bridge, ou_rates
from irbridge.gaussian.marginal import Marginal, marginal
from irbridge.ranges import NOT_NEGATIVE, POSITIVE, option


@dataclass(frozen=True)
class DDBMVE(Bridge):
    """Variance-exploding bridge of DDBM: a Brownian bridge in the time t^2.

    Args:
        T: its sigma_max.
        start: see :class:`Bridge`.
    """

    T: float = 80.0
    near: ClassVar = 0.002 / 80
    # its code starts at sigma_max - 1e-4
    published: ClassVar = Published("edm", "l2", "heun", 119, boot=1e-4 / 80, spacing="karras")

    @override
    def marginal(self, t) -> Marginal:
        t = torch.as_tensor(t, dtype=torch.float64)
        s = (t / self.T) ** 2
        return marginal(1 - s, s, t * (1 - s).clamp(min=0).sqrt())

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        up = 2 * t / self.T**2
        left = (self.T - t) * (self.T + t)
        return Rates(-up, up, 1 / t - t / left, 2 / t, 2 * t)


@dataclass(frozen=True)
class DDBMVP(Bridge):
    """Variance-preserving bridge of DDBM: :func:`ou_bridge` with mean 0 and lam 1.

    Its rate is (beta_min + beta_d t) / 2. a + b < 1 between the ends.

    Args:
        T: see :class:`Bridge`; 1 as published.
        start: see :class:`Bridge`.
        beta_d: the rate's growth.
        beta_min: twice the rate at the clean end.
    """

    T: float = 1.0
    beta_d: float = option(2.0, NOT_NEGATIVE)
    beta_min: float = option(0.1, POSITIVE)
    near: ClassVar = 1e-4
    published: ClassVar = Published("edm", "l2", "heun", 119, boot=1e-4, spacing="karras")

    @override
    def marginal(self, t) -> Marginal:
        theta, total = (
            0.25 * self.beta_d * u**2 + 0.5 * self.beta_min * u
            for u in (
                torch.as_tensor(t, dtype=torch.float64),
                torch.tensor(self.T, dtype=torch.float64),
            )
        )
        return ou_bridge(theta, total, 1.0, mean=0.0)

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        past = t * (0.25 * self.beta_d * t + 0.5 * self.beta_min)
        future = (self.T - t) * (0.25 * self.beta_d * (self.T + t) + 0.5 * self.beta_min)
        return ou_rates(past, future, 0.5 * (self.beta_d * t + self.beta_min), 1.0, mean=0.0)
