"""Restoration bridges: each is a function ``t -> Marginal`` on 0 <= t <= T, clean at 0, degraded at T.

t counts the published discrete steps (their integer indices give the published numbers exactly) and may be any real
number between them; T may be any number of steps. Noise constants are in units of the state: a constant published for
images in [0, 1] doubles for images in [-1, 1]."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from irbridge.errors import UserError
from irbridge.process import Marginal, marginal


@lru_cache
def cosine_theta(T: int, eps: float = 0.005) -> np.ndarray:
    """Integrated mean-reversion rate, (T + 1,), of IR-SDE and GOUB: 0 at t = 0, -ln(eps) at t = T. theta is 1 - abar of
    a cosine schedule of T + 2 steps (IR-SDE, sde_utils.py; s = 0.008)."""
    phase = (np.arange(1, T + 2) / (T + 2) + 0.008) / 1.008 * np.pi / 2
    theta = 1 - (np.cos(phase) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2
    total = np.cumsum(theta) - theta[0]
    return -np.log(eps) * total / total[-1]


@lru_cache
def alpha_bar_theta(T: int, max_beta: float = 0.999) -> np.ndarray:
    """Integrated rate, (T + 1,), of RDBM: the running sum of the betas of a squared-cosine alpha-bar."""
    abar = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.concatenate([[0.0], np.cumsum(np.minimum(1 - abar[1:] / abar[:-1], max_beta))])


def _interpolate(t, table: np.ndarray) -> Tensor:
    return torch.as_tensor(np.interp(np.asarray(t, dtype=np.float64), np.arange(len(table)), table))


@dataclass(frozen=True)
class Bridge:
    """Base of all bridges. ``T`` is the time of the degraded end, in steps."""
    T: int = 100

    def __post_init__(self):
        if not self.T > 0:
            raise UserError(f"bridge.T={self.T} must be positive.")

    def marginal(self, t) -> Marginal:
        """The law of x_t, float64, shaped as t (a number or a tensor of times in [0, T])."""
        raise NotImplementedError

    def scale(self, x0: Tensor, y: Tensor) -> Tensor | float:
        """What multiplies the noise element-wise; 1 but for residual-modulated bridges."""
        return 1.0


@dataclass(frozen=True)
class Brownian(Bridge):
    """Brownian bridge: ``a = 1 - s, b = s, c = sigma sqrt(s (1 - s))`` with s = t / T. sigma is the std that the
    Brownian motion would reach at T; BBDM (CVPR 2023) has sigma^2 = 2."""
    sigma: float = 2**0.5

    def marginal(self, t) -> Marginal:
        s = torch.as_tensor(t, dtype=torch.float64) / self.T
        return marginal(1 - s, s, self.sigma * (s * (1 - s)).clamp(min=0).sqrt())


@dataclass(frozen=True)
class OU(Bridge):
    """Mean-reverting Ornstein-Uhlenbeck process of IR-SDE (ICML 2023, eq. 6); not pinned: c_T ~ lam. lam is the
    stationary std: 10/255 derain and deblur, 30/255 inpainting, for images in [0, 1]."""
    lam: float = 10 / 255
    eps: float = 0.005

    def marginal(self, t) -> Marginal:
        theta = _interpolate(t, cosine_theta(self.T, self.eps))
        return marginal(torch.exp(-theta), -torch.expm1(-theta), self.lam * (-torch.expm1(-2 * theta)).sqrt())


def _pinned(theta: Tensor, total: Tensor, variance: float) -> Marginal:
    """OU bridge between x0 and y with mean y, in decaying exponentials that cannot overflow."""
    past, future, whole = (-torch.expm1(-2 * u) for u in (theta, total - theta, total))
    clean = torch.exp(-theta) * future / whole
    return marginal(clean, 1 - clean, (variance * past * future / whole).clamp(min=0).sqrt())


@dataclass(frozen=True)
class GOUB(Bridge):
    """Generalised Ornstein-Uhlenbeck bridge (ICML 2024, eq. 12), pinned at y: ``a = sinh(th_tT) / sinh(th_T)``,
    ``c^2 = 2 lam^2 sinh(th_t) sinh(th_tT) / sinh(th_T)``; lam = 30/255 for images in [0, 1] (the official option
    ``lambda_square`` is this lam, not its square)."""
    lam: float = 30 / 255
    eps: float = 0.005

    def marginal(self, t) -> Marginal:
        table = cosine_theta(self.T, self.eps)
        return _pinned(_interpolate(t, table), _interpolate(self.T, table), self.lam**2)


@dataclass(frozen=True)
class Residual(Bridge):
    """Residual diffusion bridge, RDBM (CVPR 2026): GOUB's law with noise ``(x0 - y) * c * eps``. lam is a variance
    (10/255, images in [-1, 1]; the released code runs 1e-4 and no modulation, which is ``modulated=False``). Time t is
    the official index + 1, so that t = 0 is exactly clean."""
    lam: float = 10 / 255
    modulated: bool = True

    def marginal(self, t) -> Marginal:
        table = alpha_bar_theta(self.T)
        return _pinned(_interpolate(t, table), _interpolate(self.T, table), self.lam)

    def scale(self, x0: Tensor, y: Tensor) -> Tensor | float:
        """The residual x0 - y, with the current estimate of x0 when sampling; multiplied, never divided by."""
        return x0 - y if self.modulated else 1.0
