"""E-Bridge: a path of the prior's own states, around an image that moves from x0 to y."""

from copy import copy
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.bridges.base import Bridge, Published, Rates
from irbridge.errors import UserError
from irbridge.gaussian.marginal import Marginal, broadcast, marginal
from irbridge.ranges import HORIZON, option

NEAR = 3e-5  # of a time, for the slope of alpha there, which cancels in nothing


class Schedule(Protocol):
    """What a bridge needs of a prior; see :class:`irbridge.priors.base.Prior`."""

    highest: float

    def marginal(self, tau) -> Marginal:
        """The law of the prior's state at its timestep tau."""

    def timestep(self, level) -> Tensor:
        """The timestep at which noise / clean equals a level."""


@dataclass(frozen=True)
class EBridge(Bridge):
    """E-Bridge (arXiv 2604.10983, ICLR 2026): ``a = alpha (1 - s), b = alpha s, c = sigma``.

    s = t / T, and (alpha, sigma) is the prior's law at the share ``T0 s`` of its range. So the
    states are the prior's own, of the moving image ``(1 - s) x0 + s y``: the network sees them
    unchanged, at their own timestep. x_T has nothing of x0 and is not pinned.

    The share is measured in sigma / (alpha + sigma), which is the time of a rectified flow, from 0
    to the prior's last one: the same horizon means about the same signal-to-noise ratio for
    every prior. Without a prior the bridge is that of a rectified flow, as it was published.

    Args:
        T: see :class:`Bridge`.
        start: "marginal" alone: the first state must be one of the prior's.
        T0: the horizon, where sampling starts; published .7 (denoising), .8 (super-resolution) and
            .9 (others).
    """

    T: float = 1.0
    T0: float = option(0.9, HORIZON)
    schedule: Schedule | None = field(default=None, init=False, repr=False)
    prior_states: ClassVar = True
    published: ClassVar = Published("x0", "l1", "implicit")

    def __post_init__(self):
        super().__post_init__()
        if self.start != "marginal":
            raise UserError(
                f"bridge.start={self.start} is no state of the prior; EBridge takes"
                " bridge.start=marginal."
            )

    @override
    def on(self, prior: Schedule) -> "EBridge":
        bound = copy(self)
        object.__setattr__(bound, "schedule", prior)
        return bound

    @property
    def _last(self) -> float:
        """The noise share sigma / (alpha + sigma) at T."""
        if self.schedule is None:
            return self.T0
        return self.T0 * float(_noise_share(self.schedule.marginal(self.schedule.highest)))

    def _share(self, t) -> Tensor:
        """The noise share at t."""
        return torch.as_tensor(t, dtype=torch.float64) / self.T * self._last

    @override
    def timestep(self, t) -> Tensor:
        share = self._share(t)
        return share if self.schedule is None else self.schedule.timestep(share / (1 - share))

    def _own(self, tau: Tensor) -> Marginal:
        """The prior's law at its timestep."""
        if self.schedule is None:
            return marginal(1 - tau, 0, tau)
        return self.schedule.marginal(tau)

    @override
    def marginal(self, t) -> Marginal:
        t = torch.as_tensor(t, dtype=torch.float64)
        s, (alpha, _, sigma) = t / self.T, self._own(self.timestep(t))
        # a prior's lowest level is not 0, but the clean end is clean
        here = t > 0
        return Marginal(
            torch.where(here, alpha * (1 - s), 1.0), alpha * s, torch.where(here, sigma, 0.0)
        )

    @override
    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        s, share = t / self.T, self._share(t)
        alpha, _, sigma = self._own(self.timestep(t))
        after, before = (self._own(self.timestep(t * by)).clean for by in (1 + NEAR, 1 - NEAR))
        slope = (after - before) / (2 * NEAR * t)
        # of sigma / alpha, and of c / a
        level = 1 / (t * (1 - share))
        excess = level + 1 / (self.T - t)
        noise = slope / alpha + level
        return Rates(
            slope * (1 - s) - alpha / self.T,
            slope * s + alpha / self.T,
            noise,
            noise + excess,
            2 * sigma**2 * excess,
        )

    @override
    def clean(self, estimate: Tensor, y: Tensor, tau: Tensor) -> Tensor:
        """As published: the network's ``v = eps - x0`` is that of x0, not of the moving image.

        With m the prior's own reading of its network, and u the noise share, that is
        ``x0 = (m - (1 - u) s y) / (1 - (1 - u) s)``. The denominator is 1 at the clean end, at
        least T0 at the other, and never below min(T0, 1 - 1 / (4 T0)).
        """
        share = _noise_share(self._own(tau))
        known = (1 - share) * (share / self._last).clamp(max=1)
        return (estimate - broadcast(known, estimate) * y) / broadcast(1 - known, estimate)


def _noise_share(law: Marginal) -> Tensor:
    """Sigma / (alpha + sigma) of a prior's law: the time of a rectified flow."""
    return law.noise / (law.clean + law.noise)
