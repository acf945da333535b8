"""Restoration bridges: each is a function ``t -> Marginal`` on 0 <= t <= T, clean at 0, degraded at
T.

t counts the published discrete steps and may be any real number between them: where the official
code counts from 0 and its first index is noisy already, t is that index + 1, so that t = 0 is
exactly clean. Noise constants are in units of the state: a constant published for images in [0, 1]
doubles for images in [-1, 1]."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from irbridge.errors import UserError
from irbridge.process import Marginal, marginal, posterior_keep


@lru_cache
def cosine_theta(T: int, eps: float = 0.005) -> np.ndarray:
    """Integrated mean-reversion rate, (T + 1,), of IR-SDE and GOUB: 0 at t = 0, -ln(eps) at t = T.
    theta is 1 - abar of a cosine schedule of T + 2 steps (IR-SDE, sde_utils.py; s = 0.008)."""
    phase = (np.arange(1, T + 2) / (T + 2) + 0.008) / 1.008 * np.pi / 2
    theta = 1 - (np.cos(phase) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2
    total = np.cumsum(theta) - theta[0]
    return -np.log(eps) * total / total[-1]


@lru_cache
def alpha_bar_theta(T: int, max_beta: float = 0.999) -> np.ndarray:
    """Integrated rate, (T + 1,), of RDBM: the running sum of the betas of a squared-cosine
    alpha-bar."""
    abar = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.concatenate([[0.0], np.cumsum(np.minimum(1 - abar[1:] / abar[:-1], max_beta))])


def interpolate(t, table: np.ndarray) -> Tensor:
    """The table, of whole times from 0, at any times between; float64."""
    return torch.as_tensor(np.interp(np.asarray(t, dtype=np.float64), np.arange(len(table)), table))


def running(increments: np.ndarray) -> np.ndarray:
    """Running sum that starts with 0, (n + 1,)."""
    return np.concatenate([[0.0], np.cumsum(increments)])


class Published(NamedTuple):
    """How a bridge's authors train and sample a network of their own (``method=bridge``): what the
    network predicts and in which loss (see ``irbridge.direct``), by which step rule of
    ``irbridge.samplers`` and in how many calls."""

    target: str
    loss: str
    rule: str = "posterior"
    nfe: int = 10
    noise: bool = True
    boot: float = 0.0
    spacing: str = "time"


@dataclass(frozen=True)
class Bridge:
    """Base of all bridges. ``T`` is the time of the degraded end, in steps. ``start``: where
    sampling starts. "marginal": at the law of x_T with y for the unknown x0; "y": at y exactly,
    whatever noise the training had there; "published": a law of the class's own."""

    T: float = 100
    start: str = "marginal"
    lowest: ClassVar[float] = 0.0  # the time of the clean end
    modulated: ClassVar[bool] = False  # whether the noise is multiplied by the residual
    # share of T at which spacings other than "time" end, before the clean end
    near: ClassVar[float] = 0.01
    # True: a published table of T steps, so that a sampler has no more than T
    steps: ClassVar[bool] = False
    published: ClassVar[Published] = Published("x0", "l1")

    def __post_init__(self):
        if not self.T > 0 or (self.steps and self.T != int(self.T)):
            raise UserError(
                f"bridge.T={self.T} must be"
                f" {'a whole number of steps' if self.steps else 'positive'}."
            )
        own = type(self).begin is not Bridge.begin
        if self.start not in (choices := ["marginal", "y"] + ["published"] * own):
            raise UserError(
                f"bridge.start={self.start!r} is unknown; choose one of {', '.join(choices)}."
            )

    def marginal(self, t) -> Marginal:
        """The law of x_t, float64, shaped as t (a number or a tensor of times in [0, T])."""
        raise NotImplementedError

    def posterior(self, t, s) -> tuple[Marginal, Marginal, Tensor]:
        """The stochastic step from t to s: the laws that it leads between and the kept std. The
        Markov posterior, but where a published process is Markov only given x0 as well, or steps by
        a rule of its own."""
        now, then = self.marginal(t), self.marginal(s)
        return now, then, posterior_keep(now, then)

    def begin(self) -> Marginal:
        """The law at which sampling starts; its clean part is 0."""
        if self.start == "y":
            return marginal(0, 1, 0)
        end = self.marginal(self.T)
        return marginal(0, end.clean + end.degraded, end.noise)

    def scale(self, x0: Tensor, y: Tensor) -> Tensor | float:
        """What multiplies the noise element-wise; 1 but for residual-modulated bridges."""
        return 1.0

    def spread(self, t) -> Tensor:
        """The std by which a network that predicts ``(x_t - x0) / std`` is scaled."""
        return self.marginal(t).noise

    @property
    def pinned(self) -> bool:
        """Whether x_T is y exactly, so that nothing may divide by its noise."""
        return not self.marginal(self.T).noise > 0


def ou_bridge(theta: Tensor, total: Tensor, variance: float, mean: float = 1.0) -> Marginal:
    """The exact family: an Ornstein-Uhlenbeck process with mean ``mean * y`` held at x0 and at y
    (GOUB, eq. 12, with the mean set free from the end). theta: integrated rate at t, total: at T.
    In decaying exponentials, which cannot overflow: ``a = sinh(th_tT) / sinh(th_T)``, ``b =
    sinh(th_t) / sinh(th_T) + mean (1 - a - the same)``, ``c^2 = 2 variance sinh(th_t) sinh(th_tT) /
    sinh(th_T)``."""
    past, future, whole = (-torch.expm1(-2 * u) for u in (theta, total - theta, total))
    clean, end = torch.exp(-theta) * future / whole, torch.exp(theta - total) * past / whole
    return marginal(
        clean,
        mean * (1 - clean) + (1 - mean) * end,
        (variance * past * future / whole).clamp(min=0).sqrt(),
    )


@dataclass(frozen=True)
class OUBridge(Bridge):
    """The family of :func:`ou_bridge` at a constant rate. Its limits: rate -> 0 with ``2 lam^2 rate
    = sigma^2`` is the Brownian (VE, I2SB) bridge, mean 1 GOUB's and RDBM's law, mean 0 with lam 1
    DDBM's VP. rate is the integral over [0, T], lam the stationary std, mean the share of y in the
    mean."""

    rate: float = 5.3
    lam: float = 30 / 255
    mean: float = 1.0

    def marginal(self, t) -> Marginal:
        theta = self.rate * torch.as_tensor(t, dtype=torch.float64) / self.T
        return ou_bridge(
            theta, torch.tensor(self.rate, dtype=torch.float64), self.lam**2, self.mean
        )


@dataclass(frozen=True)
class Brownian(Bridge):
    """Brownian bridge: ``a = 1 - s, b = s, c = sigma sqrt(s (1 - s))`` with s = t / T. sigma is the
    std that the Brownian motion would reach at T; BBDM (CVPR 2023) has sigma^2 = 2."""

    sigma: float = 2**0.5
    published: ClassVar = Published("difference", "l1")

    def marginal(self, t) -> Marginal:
        s = torch.as_tensor(t, dtype=torch.float64) / self.T
        return marginal(1 - s, s, self.sigma * (s * (1 - s)).clamp(min=0).sqrt())


@dataclass(frozen=True)
class BBDM(Bridge):
    """Brownian bridge diffusion model (CVPR 2023): ``a = 1 - m, b = m, c^2 = 2 max_var m (1 - m)``
    with m from 0.001 to 0.999 in T steps, so not pinned (c_T = 0.0447); sampling starts at y all
    the same. Official index + 1."""

    T: int = 1000
    start: str = "y"
    max_var: float = 1.0
    steps: ClassVar = True
    published: ClassVar = Published("difference", "l1", nfe=200)

    def marginal(self, t) -> Marginal:
        m = interpolate(t, np.concatenate([[0.0], np.linspace(0.001, 0.999, self.T)]))
        return marginal(1 - m, m, (2 * self.max_var * m * (1 - m)).sqrt())


@dataclass(frozen=True)
class OU(Bridge):
    """Mean-reverting Ornstein-Uhlenbeck process of IR-SDE (ICML 2023, eq. 6); not pinned: c_T ~
    lam. lam is the stationary std: 10/255 derain and deblur, 30/255 inpainting, for images in [0,
    1]."""

    lam: float = 10 / 255
    eps: float = 0.005
    steps: ClassVar = True
    published: ClassVar = Published("noise", "likelihood", nfe=100)

    def marginal(self, t) -> Marginal:
        theta = interpolate(t, cosine_theta(self.T, self.eps))
        return marginal(
            torch.exp(-theta), -torch.expm1(-theta), self.lam * (-torch.expm1(-2 * theta)).sqrt()
        )


@dataclass(frozen=True)
class GOUB(Bridge):
    """Generalised Ornstein-Uhlenbeck bridge (ICML 2024, eq. 12), pinned at y: :func:`ou_bridge`
    with mean y; lam = 30/255 for images in [0, 1] (the official option ``lambda_square`` is this
    lam, not its square)."""

    lam: float = 30 / 255
    eps: float = 0.005
    steps: ClassVar = True
    published: ClassVar = Published("noise", "likelihood", nfe=100)

    def marginal(self, t) -> Marginal:
        table = cosine_theta(self.T, self.eps)
        return ou_bridge(interpolate(t, table), interpolate(self.T, table), self.lam**2)


@dataclass(frozen=True)
class UniDB(GOUB):
    """UniDB (ICML 2025): GOUB with a terminal cost gamma in the place of the pin, so that x_T only
    nears y. gamma 1e7 for inpainting and super-resolution, 1e8 for deraining. The published std is
    GOUB's, 0 at T; ``exact=True`` is that of the controlled SDE, ``s_t sqrt((1/gamma + s_tT^2) /
    (1/gamma + s_T^2))``, s_u^2 = lam^2 (1 - exp(-2 th_u))."""

    gamma: float = 1e7
    exact: bool = False

    def marginal(self, t) -> Marginal:
        table, published = cosine_theta(self.T, self.eps), super().marginal(t)
        theta, total = interpolate(t, table), interpolate(self.T, table)
        past, future, whole = (
            -(self.lam**2) * torch.expm1(-2 * u) for u in (theta, total - theta, total)
        )
        share = (1 / self.gamma + future) / (1 / self.gamma + whole)
        clean = torch.exp(-theta) * share
        return marginal(clean, 1 - clean, (past * share).sqrt() if self.exact else published.noise)


@dataclass(frozen=True)
class Residual(Bridge):
    """Residual diffusion bridge, RDBM (CVPR 2026): GOUB's law with noise ``pi * c * eps``; official
    index + 1. pi is "residual" (x0 - y, as published), "one" (as the released code runs, with lam
    1e-4 and x0 prediction) or "zero" (no noise), the paper's ablation. lam is a variance, for
    images in [-1, 1]."""

    lam: float = 10 / 255
    pi: str = "residual"
    steps: ClassVar = True

    def __post_init__(self):
        super().__post_init__()
        if self.pi not in ("residual", "one", "zero"):
            raise UserError(f"bridge.pi={self.pi!r} is unknown; choose residual, one or zero.")

    @property
    def modulated(self) -> bool:
        return self.pi == "residual"

    @property
    def published(self) -> Published:
        return Published("x0" if self.pi == "zero" else "product", "l1", "implicit", noise=False)

    def marginal(self, t) -> Marginal:
        table = alpha_bar_theta(self.T)
        return ou_bridge(interpolate(t, table), interpolate(self.T, table), self.lam)

    def scale(self, x0: Tensor, y: Tensor) -> Tensor | float:
        """The residual x0 - y, with the current estimate of x0 when sampling; multiplied, never
        divided by."""
        return {"residual": x0 - y, "one": 1.0, "zero": 0.0}[self.pi]


@dataclass(frozen=True)
class I2SB(Bridge):
    """Image-to-image Schroedinger bridge (ICML 2023): a Brownian bridge in the time of summed
    betas, F before and G after t: ``a = G / (F + G), b = F / (F + G), c^2 = F G / (F + G)``.
    beta_max .3 (JPEG, super-resolution), 1 (blur, inpainting). official index + 1.
    ``official=True`` counts beta_t in F and in G, as the released checkpoints do."""

    T: int = 1000
    start: str = "y"
    beta_max: float = 0.3
    official: bool = True
    steps: ClassVar = True
    published: ClassVar = Published("score", "l2", nfe=100)

    def _sums(self, t) -> tuple[Tensor, Tensor]:
        half = (
            np.linspace(1e-4**0.5, (self.beta_max / self.T) ** 0.5, self.T)[: (self.T + 1) // 2]
            ** 2
        )
        table = running(np.concatenate([half, half[: self.T // 2][::-1]]))
        seen = np.maximum(np.asarray(t, np.float64) - 1, 0) if self.official else t
        return interpolate(t, table), table[-1] - interpolate(seen, table)

    def marginal(self, t) -> Marginal:
        past, future = self._sums(t)
        return marginal(
            future / (past + future),
            past / (past + future),
            (past * future / (past + future)).sqrt(),
        )

    def posterior(self, t, s) -> tuple[Marginal, Marginal, Tensor]:
        """That of the free Brownian motion, which needs no y: exactly the bridge's own but for the
        official sums."""
        now, then = (marginal(1, 0, self._sums(u)[0].sqrt()) for u in (t, s))
        return now, then, posterior_keep(now, then)

    def spread(self, t) -> Tensor:
        """The std of the free Brownian motion."""
        return self._sums(t)[0].sqrt()


@dataclass(frozen=True)
class DDBMVE(Bridge):
    """Variance-exploding bridge of DDBM (ICLR 2024): a Brownian bridge in the time t^2, T its
    sigma_max."""

    T: float = 80.0
    near: ClassVar = 0.002 / 80
    published: ClassVar = Published("edm", "l2", "heun", 119, boot=1e-4, spacing="karras")

    def marginal(self, t) -> Marginal:
        t = torch.as_tensor(t, dtype=torch.float64)
        s = (t / self.T) ** 2
        return marginal(1 - s, s, t * (1 - s).clamp(min=0).sqrt())


@dataclass(frozen=True)
class DDBMVP(Bridge):
    """Variance-preserving bridge of DDBM (ICLR 2024): :func:`ou_bridge` with mean 0, lam 1 and rate
    (beta_min + beta_d t) / 2; T = 1. a + b < 1 between the ends."""

    T: float = 1.0
    beta_d: float = 2.0
    beta_min: float = 0.1
    near: ClassVar = 1e-4
    published: ClassVar = Published("edm", "l2", "heun", 119, boot=1e-4, spacing="karras")

    def marginal(self, t) -> Marginal:
        theta, total = (
            0.25 * self.beta_d * u**2 + 0.5 * self.beta_min * u
            for u in (
                torch.as_tensor(t, dtype=torch.float64),
                torch.tensor(self.T, dtype=torch.float64),
            )
        )
        return ou_bridge(theta, total, 1.0, mean=0.0)
