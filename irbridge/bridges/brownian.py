"""Brownian bridges: x_t is a straight mix of both ends and noise that is largest between them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from irbridge.bridges.base import Bridge, Published, Rates, interpolate, rest, running, slope
from irbridge.errors import UserError
from irbridge.gaussian.marginal import Marginal, marginal
from irbridge.gaussian.transition import posterior_keep
from irbridge.ranges import POSITIVE, option


@dataclass(frozen=True)
class Brownian(Bridge):
    """Brownian bridge: ``a = 1 - s, b = s, c = sigma sqrt(s (1 - s))`` with s = t / T.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`.
        sigma: the std that the Brownian motion would reach at T; BBDM (CVPR 2023) has sigma^2 = 2.
    """

    sigma: float = option(2**0.5, POSITIVE)
    published: ClassVar = Published("difference", "l1")

    @override
    def marginal(self, t) -> Marginal:
        s = torch.as_tensor(t, dtype=torch.float64) / self.T
        return marginal(1 - s, s, self.sigma * (s * (1 - s)).clamp(min=0).sqrt())

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        left, one = self.T - t, torch.ones_like(t)
        return Rates(
            -one / self.T,
            one / self.T,
            (1 / t - 1 / left) / 2,
            1 / t,
            one * self.sigma**2 / self.T,
        )


@dataclass(frozen=True)
class BBDM(Bridge):
    """Brownian bridge diffusion model (CVPR 2023): ``a = 1 - m, b = m, c^2 = 2 max_var m (1 - m)``.

    m runs from 0.001 to 0.999 in T steps, so that x_T is not pinned (c_T = 0.0447); sampling starts
    at y all the same. t is the official index + 1.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`.
        max_var: half the variance's factor.
    """

    T: int = 1000
    start: str = "y"
    max_var: float = option(1.0, POSITIVE)
    steps: ClassVar = True
    published: ClassVar = Published("difference", "l1", nfe=200)

    @override
    def marginal(self, t) -> Marginal:
        m = interpolate(t, self._table())
        return marginal(1 - m, m, (2 * self.max_var * m * (1 - m)).sqrt())

    @override
    def published_times(self, steps: int) -> list[int] | None:
        if steps < 3:
            return None
        last = int(self.T) - 1
        whole = np.arange(last, 1, -last / (steps - 2)).astype(int)[: steps - 2]
        times = [int(t) + 1 for t in whole] + [2, 1, 0]
        return times if len(set(times)) == steps + 1 else None

    def _table(self) -> np.ndarray:
        return np.concatenate([[0.0], np.linspace(0.001, 0.999, self.T)])

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        m, up = interpolate(t, self._table()), slope(t, self._table(), ahead)
        return Rates(
            -up,
            up,
            up / 2 * (1 / m - 1 / (1 - m)),
            up / m,
            2 * self.max_var * up * torch.ones_like(m),
        )


@dataclass(frozen=True)
class I2SB(Bridge):
    """Image-to-image Schroedinger bridge (ICML 2023): Brownian in the time of summed betas.

    With F the sum before t and G that after it, ``a = G / (F + G), b = F / (F + G),
    c^2 = F G / (F + G)``. t is the official index + 1.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`.
        beta_max: .3 (JPEG, super-resolution), 1 (blur, inpainting).
        official: True counts beta_t in F and in G, as the released checkpoints do.
        convention: "i2sb"; or "dbim", that of DBIM's code for these checkpoints (DBIM, ICLR 2025,
            karras_diffusion.py): its official sums are divided by the sum of all betas instead of F
            + G, so that a + b = 1 + beta_t / total; the noise that it draws anew is that of the
            free Brownian motion; and x_T is y exactly.
    """

    T: int = 1000
    start: str = "y"
    beta_max: float = option(0.3, POSITIVE)
    official: bool = True
    convention: str = "i2sb"
    steps: ClassVar = True
    published: ClassVar = Published("score", "l2", nfe=100)

    def __post_init__(self):
        super().__post_init__()
        if self.convention not in ("i2sb", "dbim"):
            raise UserError(
                f"bridge.convention={self.convention!r} is unknown; choose i2sb or dbim."
            )
        if self.convention == "dbim" and not self.official:
            raise UserError(
                "bridge.convention=dbim has the official sums; give bridge.official=true."
            )

    @override
    def published_times(self, steps: int) -> list[int] | None:
        last = int(self.T) - 1
        # the answer is the last estimate, at the second index: what is left of x there is dropped
        times = [round(left * last / steps) + 1 for left in range(steps, 0, -1)] + [0]
        return times if len(set(times)) == steps + 1 else None

    def _table(self) -> np.ndarray:
        """The running sum of the betas, which rise to the middle and fall again, (T + 1,)."""
        root = np.linspace(1e-4**0.5, (self.beta_max / self.T) ** 0.5, self.T)
        half = root[: (self.T + 1) // 2] ** 2
        return running(np.concatenate([half, half[: self.T // 2][::-1]]))

    def _seen(self, t):
        """The time up to which betas are no more in the sum G."""
        return np.maximum(np.asarray(t, np.float64) - 1, 0) if self.official else t

    def _sums(self, t) -> tuple[Tensor, Tensor]:
        table = self._table()
        return interpolate(t, table), table[-1] - interpolate(self._seen(t), table)

    @override
    def marginal(self, t) -> Marginal:
        past, future = self._sums(t)
        both = self._both(past, future)
        law = marginal(future / both, past / both, (past * future / both).sqrt())
        if self.convention != "dbim":
            return law
        before = torch.as_tensor(t, dtype=torch.float64) < self.T
        return Marginal(
            *(torch.where(before, *pair) for pair in zip(law, marginal(0, 1, 0), strict=True))
        )

    def _both(self, past: Tensor, future: Tensor) -> Tensor:
        """What the sums are shares of."""
        if self.convention == "dbim":
            return torch.full_like(past, float(self._table()[-1]))
        return past + future

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        table, seen = self._table(), self._seen(t)
        past, future = interpolate(t, table), rest(seen, table)
        up, down = slope(t, table, ahead), slope(seen, table, ahead)
        if self.official:  # nothing is taken from G before the second step
            down = torch.where(t > 1 if not ahead else t >= 1, down, 0.0)
        both, grown = self._both(past, future), up - down
        if self.convention == "dbim":  # the share's whole stays as it is
            grown = torch.zeros_like(grown)
        # of c / a, which is (F (F + G) / G)^(1/2)
        excess = (up / past + down / future + grown / both) / 2
        return Rates(
            -(down + future * grown / both) / both,
            (up - past * grown / both) / both,
            (up / past - down / future - grown / both) / 2,
            up / past,
            2 * past * future / both * excess,
        )

    @override
    def posterior(self, t, s) -> tuple[Marginal, Marginal, Tensor]:
        """That of the free Brownian motion, which needs no y.

        It is exactly the bridge's own, but for the official sums. DBIM's has the same new noise,
        between the bridge's own laws.
        """
        if self.convention == "dbim":
            now, then = self.marginal(t), self.marginal(s)
            before, after = (self._sums(u)[0] for u in (t, s))
            variance = after * (1 - after / before)
            keep = (then.noise**2 - variance).clamp(min=0).sqrt()
            return now, then, torch.where(now.noise > 0, keep, 0.0)
        now, then = (marginal(1, 0, self._sums(u)[0].sqrt()) for u in (t, s))
        return now, then, posterior_keep(now, then)

    @override
    def spread(self, t) -> Tensor:
        """The std of the free Brownian motion."""
        return self._sums(t)[0].sqrt()
