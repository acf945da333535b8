"""Bridges of the Ornstein-Uhlenbeck process, whose mean reverts to the degraded image."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from irbridge.bridges.base import Bridge, Published, Rates, interpolate, rest, slope, whole_times
from irbridge.errors import UserError
from irbridge.gaussian.marginal import Marginal, marginal
from irbridge.ranges import INSIDE, NOT_NEGATIVE, POSITIVE, SHARE, Range, option

# of UniDB's cost, which is used by its inverse alone: at the most it is GOUB
PENALTY = Range(
    lambda v: type(v) in (int, float) and 0 < v <= 1e30, "a number above 0, at most 1e30"
)


@lru_cache
def cosine_theta(T: int, eps: float = 0.005) -> np.ndarray:
    """Integrated mean-reversion rate of IR-SDE and GOUB: 0 at t = 0, -ln(eps) at t = T.

    The rate is 1 - abar of a cosine schedule of T + 2 steps (IR-SDE, sde_utils.py; s = 0.008).

    Args:
        T: number of steps.
        eps: the share of x0 that is left at T.

    Returns:
        The integral at whole times, (T + 1,).
    """
    phase = (np.arange(1, T + 2) / (T + 2) + 0.008) / 1.008 * np.pi / 2
    theta = 1 - (np.cos(phase) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2
    total = np.cumsum(theta) - theta[0]
    return -np.log(eps) * total / total[-1]


@lru_cache
def alpha_bar_theta(T: int, max_beta: float = 0.999) -> np.ndarray:
    """Integrated rate of RDBM: the running sum of the betas of a squared-cosine alpha-bar.

    Args:
        T: number of steps.
        max_beta: what a beta is at most.

    Returns:
        The integral at whole times, (T + 1,).
    """
    abar = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.concatenate([[0.0], np.cumsum(np.minimum(1 - abar[1:] / abar[:-1], max_beta))])


def ou_bridge(theta: Tensor, total: Tensor, variance: float, mean: float = 1.0) -> Marginal:
    """The exact family: an Ornstein-Uhlenbeck process with mean ``mean * y`` held at x0 and at y.

    It is GOUB's eq. 12 with the mean set free from the end: ``a = sinh(th_tT) / sinh(th_T)``,
    ``b = sinh(th_t) / sinh(th_T) + mean (1 - a - the same)``, ``c^2 = 2 variance sinh(th_t)
    sinh(th_tT) / sinh(th_T)``. It is computed in decaying exponentials, which cannot overflow.

    Args:
        theta: the integrated rate at t, th_t.
        total: the integrated rate at T, th_T; th_tT is the rest.
        variance: the stationary variance.
        mean: the share of y in the mean.
    """
    past, future, whole = (-torch.expm1(-2 * u) for u in (theta, total - theta, total))
    clean, end = torch.exp(-theta) * future / whole, torch.exp(theta - total) * past / whole
    return marginal(
        clean,
        mean * (1 - clean) + (1 - mean) * end,
        (variance * past * future / whole).clamp(min=0).sqrt(),
    )


def coth(u: Tensor) -> Tensor:
    """The hyperbolic cotangent of positive numbers."""
    return (1 + torch.exp(-2 * u)) / -torch.expm1(-2 * u)


def ou_rates(
    past: Tensor, future: Tensor, speed: Tensor, variance: float, mean: float = 1.0
) -> Rates:
    """The rates of :func:`ou_bridge`'s law.

    Args:
        past: the integrated rate at t, th_t.
        future: the rest of it, th_tT, with all its digits near the end.
        speed: the rate itself, th_t'.
        variance: the stationary variance.
        mean: the share of y in the mean.
    """
    whole = -torch.expm1(-2 * (past + future))
    clean = -speed * torch.exp(-past) * (1 + torch.exp(-2 * future)) / whole
    end = speed * torch.exp(-future) * (1 + torch.exp(-2 * past)) / whole
    return Rates(
        clean,
        (1 - mean) * end - mean * clean,
        speed / 2 * (coth(past) - coth(future)),
        speed * coth(past),
        2 * variance * speed,
    )


@dataclass(frozen=True)
class OUBridge(Bridge):
    """The family of :func:`ou_bridge` at a constant rate.

    Its limits: rate -> 0 with ``2 lam^2 rate = sigma^2`` is the Brownian (VE, I2SB) bridge, mean 1
    GOUB's and RDBM's law, mean 0 with lam 1 DDBM's VP.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`.
        rate: the integral over [0, T].
        lam: the stationary std.
        mean: the share of y in the mean.
    """

    rate: float = option(5.3, POSITIVE)
    lam: float = option(30 / 255, NOT_NEGATIVE)
    mean: float = option(1.0, SHARE)

    @override
    def marginal(self, t) -> Marginal:
        theta = self.rate * torch.as_tensor(t, dtype=torch.float64) / self.T
        return ou_bridge(
            theta, torch.tensor(self.rate, dtype=torch.float64), self.lam**2, self.mean
        )

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        speed = torch.full_like(t, self.rate / self.T)
        return ou_rates(speed * t, speed * (self.T - t), speed, self.lam**2, self.mean)


@dataclass(frozen=True)
class IRSDE(Bridge):
    """Mean-reverting Ornstein-Uhlenbeck process of IR-SDE (ICML 2023, eq. 6).

    Not pinned: c_T is about lam.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`.
        lam: the stationary std: 10/255 derain and deblur, 30/255 inpainting, for images in [0, 1].
        eps: the share of x0 that is left at T.
    """

    lam: float = option(10 / 255, POSITIVE)
    eps: float = option(0.005, INSIDE)
    steps: ClassVar = True
    published: ClassVar = Published("noise", "likelihood", nfe=100)

    @override
    def marginal(self, t) -> Marginal:
        theta = interpolate(t, cosine_theta(self.T, self.eps))
        return marginal(
            torch.exp(-theta), -torch.expm1(-theta), self.lam * (-torch.expm1(-2 * theta)).sqrt()
        )

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        table = cosine_theta(self.T, self.eps)
        theta, speed = interpolate(t, table), slope(t, table, ahead)
        fall = speed * torch.exp(-theta)
        noise = speed / torch.expm1(2 * theta)
        return Rates(-fall, fall, noise, speed * coth(theta), 2 * self.lam**2 * speed)


@lru_cache
def linear_betas(T: int, first: float, last: float) -> np.ndarray:
    """The share ``sqrt(abar)`` of x0 that DDPM's linear betas leave.

    Args:
        T: number of steps.
        first: the first beta.
        last: the last beta; of a single step the only one.

    Returns:
        The share at whole times, (T + 1,), 1 at t = 0.
    """
    betas = np.linspace(first, last, T) if T > 1 else np.array([last])
    return np.concatenate([[1.0], np.sqrt(np.cumprod(1 - betas))])


@dataclass(frozen=True)
class LinearOU(Bridge):
    """IR-SDE's process at the pace of DDPM's linear betas: ``a = sqrt(abar), b = 1 - a``.

    ``x_t - y`` is then the state of a DDPM of the residual x0 - y, and the posterior of the one is
    that of the other: the process of stochastic refinement (Whang et al., CVPR 2022), whose end is
    the estimate g(y). Between whole times a is a straight line, so that a uniform time draws the
    noise level as WaveGrad and SR3 do. The defaults are SR3's training schedule.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`; "published": at the end with noise of std lam.
        lam: the stationary std: 1 as published; the residual's std gives a residual of unit size.
        first: the first beta.
        last: the last beta.
    """

    T: float = 2000
    start: str = "published"
    lam: float = option(1.0, POSITIVE)
    first: float = option(1e-6, INSIDE)
    last: float = option(1e-2, INSIDE)
    steps: ClassVar = True
    published: ClassVar = Published("noise", "l1", nfe=500)

    @override
    @classmethod
    def title(cls) -> str:
        return "refinement process"

    @classmethod
    def down_to(cls, left: float, steps: int, lam: float = 1.0) -> "LinearOU":
        """The process of so many steps whose betas rise from 1e-6 to leave ``abar_T = left``.

        Args:
            left: the squared share of x0 at T, between 0 and 1.
            steps: of the grid.
            lam: the stationary std.

        Raises:
            UserError: so many steps, whose first beta is 1e-6, leave less or more than that.
        """
        low, high = 1e-6, 1.0
        for _ in range(200):  # bisection, to the last digit
            last = (low + high) / 2
            over = linear_betas.__wrapped__(steps, 1e-6, last)[-1] ** 2 > left
            low, high = (last, high) if over else (low, last)
        found = cls(T=steps, lam=lam, last=min(max(low, 2e-6), 1 - 1e-12))
        reached = float(found.marginal(steps).clean) ** 2
        if abs(reached - left) > 1e-3 * min(left, 1 - left):
            nearer = "smaller" if left > 0.5 else "larger"
            raise UserError(
                f"refine.end={left:g} is out of reach of {steps} steps; give a {nearer} one."
            )
        return found

    @property
    def _table(self) -> np.ndarray:
        return linear_betas(int(self.T), self.first, self.last)

    @override
    def begin(self) -> Marginal:
        return marginal(0, 1, self.lam) if self.start == "published" else super().begin()

    @override
    def marginal(self, t) -> Marginal:
        clean = interpolate(t, self._table)
        noise = ((1 - clean) * (1 + clean)).clamp(min=0).sqrt()
        return marginal(clean, 1 - clean, self.lam * noise)

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        clean, change = interpolate(t, self._table), slope(t, self._table, ahead)
        noise = -change * clean / ((1 - clean) * (1 + clean))
        fall = change / clean
        return Rates(change, -change, noise, 2 * noise - fall, -2 * self.lam**2 * fall)


@dataclass(frozen=True)
class GOUB(Bridge):
    """Generalised Ornstein-Uhlenbeck bridge (ICML 2024, eq. 12): :func:`ou_bridge` with mean y.

    Pinned at y.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`.
        lam: the stationary std, 30/255 for images in [0, 1] (the official option ``lambda_square``
            is this lam, not its square).
        eps: exp(-rate), integrated over [0, T].
    """

    lam: float = option(30 / 255, POSITIVE)
    eps: float = option(0.005, INSIDE)
    steps: ClassVar = True
    published: ClassVar = Published("noise", "likelihood", nfe=100)

    @override
    def marginal(self, t) -> Marginal:
        table = cosine_theta(self.T, self.eps)
        return ou_bridge(interpolate(t, table), interpolate(self.T, table), self.lam**2)

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        table = cosine_theta(self.T, self.eps)
        past, future = interpolate(t, table), rest(t, table)
        return ou_rates(past, future, slope(t, table, ahead), self.lam**2)


@dataclass(frozen=True)
class UniDB(GOUB):
    """UniDB (ICML 2025): GOUB with a terminal cost in the place of the pin: x_T only nears y.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`.
        lam: see :class:`GOUB`.
        eps: see :class:`GOUB`.
        gamma: the cost: 1e7 for inpainting and super-resolution, 1e8 for deraining.
        exact: the published std is GOUB's, 0 at T; True is that of the controlled SDE, ``s_t
            sqrt((1/gamma + s_tT^2) / (1/gamma + s_T^2))`` with s_u^2 = lam^2 (1 - exp(-2 th_u)).
    """

    gamma: float = option(1e7, PENALTY)
    exact: bool = False

    @override
    def marginal(self, t) -> Marginal:
        table, published = cosine_theta(self.T, self.eps), super().marginal(t)
        theta, total = interpolate(t, table), interpolate(self.T, table)
        past, future, whole = (
            -(self.lam**2) * torch.expm1(-2 * u) for u in (theta, total - theta, total)
        )
        share = (1 / self.gamma + future) / (1 / self.gamma + whole)
        clean = torch.exp(-theta) * share
        return marginal(clean, 1 - clean, (past * share).sqrt() if self.exact else published.noise)

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        table, now = cosine_theta(self.T, self.eps), self.marginal(t)
        past, future, speed = interpolate(t, table), rest(t, table), slope(t, table, ahead)
        slack = 1 / (self.gamma * self.lam**2)
        left = -torch.expm1(-2 * future)
        towards = 2 * torch.exp(-2 * future) / (slack + left)  # of the terminal cost, per rate
        clean = -now.clean * speed * (1 + towards)
        if self.exact:
            noise = 2 / torch.expm1(2 * past) - towards
            noise, pull = speed * noise / 2, speed * coth(past)
            excess = speed * (1 / torch.expm1(2 * past) + 1 + towards / 2)
        else:
            # its noise is GOUB's, which the pin of infinite gamma pulls to 0
            unpinned = speed * towards * slack / left
            noise = speed / 2 * (coth(past) - coth(future))
            pull = speed * coth(past) - unpinned
            excess = speed / 2 * (coth(past) + coth(future)) - unpinned
        return Rates(clean, -clean, noise, pull, 2 * now.noise**2 * excess)


@dataclass(frozen=True)
class RDBM(Bridge):
    """Residual diffusion bridge, RDBM (CVPR 2026): GOUB's law with noise ``pi * c * eps``.

    t is the official index + 1.

    Args:
        T: see :class:`Bridge`.
        start: see :class:`Bridge`.
        lam: a variance, for images in [-1, 1].
        pi: "residual" (x0 - y, as published), "one" (as the released code runs, with lam 1e-4 and
            x0 prediction) or "zero" (no noise), the paper's ablation.
    """

    lam: float = option(10 / 255, POSITIVE)
    pi: str = "residual"
    steps: ClassVar = True

    def __post_init__(self):
        super().__post_init__()
        if self.pi not in ("residual", "one", "zero"):
            raise UserError(f"bridge.pi={self.pi!r} is unknown; choose residual, one or zero.")

    @property
    @override
    def modulated(self) -> bool:
        return self.pi == "residual"

    @property
    @override
    def published(self) -> Published:
        return Published("x0" if self.pi == "zero" else "product", "l1", "implicit", noise=False)

    @override
    def marginal(self, t) -> Marginal:
        table = alpha_bar_theta(self.T)
        return ou_bridge(interpolate(t, table), interpolate(self.T, table), self.lam)

    @override
    def published_times(self, steps: int) -> list[int] | None:
        return whole_times(int(self.T), steps)

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        table = alpha_bar_theta(self.T)
        past, future = interpolate(t, table), rest(t, table)
        return ou_rates(past, future, slope(t, table, ahead), self.lam)

    @override
    def scale(self, x0: Tensor, y: Tensor) -> Tensor | float:
        """The residual x0 - y, with the current estimate of x0 when sampling.

        Noise is multiplied by it; nothing is divided by it.
        """
        return {"residual": x0 - y, "one": 1.0, "zero": 0.0}[self.pi]
