"""Nadb."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from irbridge.bridges.base import Bridge, Published
from irbridge.gaussian.marginal import Marginal, marginal
from irbridge.gaussian.transition import kept
from irbridge.ranges import POSITIVE, option


@dataclass(frozen=True)
class NADB(Bridge):
    """NADB (CVPR 2026): ``a = 1 - u^alpha, b = u^alpha, c = k u (1 - u)``, u = t / T, for an end
    that a mean network estimates (``endpoint=anchor``). Its own step keeps the share u'/u of the
    noise below (1 - alpha) / (2 - alpha), b'/b above. Pinned, though c/a stays below k / alpha.
    """

    T: float = 1000
    alpha: float = option(0.4, POSITIVE)
    k: float = option(0.75, POSITIVE)
    published: ClassVar = Published("velocity", "l2")

    def marginal(self, t) -> Marginal:
        u = (torch.as_tensor(t, dtype=torch.float64) / self.T).clamp(0, 1)
        return marginal(1 - u**self.alpha, u**self.alpha, self.k * u * (1 - u))

    def posterior(self, t, s) -> tuple[Marginal, Marginal, Tensor]:
        now, then, u = (
            self.marginal(t),
            self.marginal(s),
            torch.as_tensor(s, dtype=torch.float64) / self.T,
        )
        late = u >= (1 - self.alpha) / (2 - self.alpha)
        share = torch.where(
            late, then.degraded / now.degraded, u * self.T / torch.as_tensor(t, dtype=torch.float64)
        )
        return now, then, kept(now, then, share)
