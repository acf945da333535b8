"""What every bridge is: a function ``t -> Marginal`` on 0 <= t <= T, clean at 0, degraded at T.

t counts the published discrete steps and may be any real number between them: where the official
code counts from 0 and its first index is noisy already, t is that index + 1, so that t = 0 is
exactly clean. Noise constants are in units of the state: a constant published for images in [0, 1]
doubles for images in [-1, 1].
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from irbridge.errors import UserError
from irbridge.gaussian.marginal import Marginal, marginal
from irbridge.gaussian.transition import posterior_keep
from irbridge.ranges import TIMES, check_ranges, finite, shown


def interpolate(t, table: np.ndarray) -> Tensor:
    """The table, of whole times from 0, at any times between; float64."""
    return torch.as_tensor(np.interp(np.asarray(t, dtype=np.float64), np.arange(len(table)), table))


def running(increments: np.ndarray) -> np.ndarray:
    """Running sum that starts with 0, (n + 1,)."""
    return np.concatenate([[0.0], np.cumsum(increments)])


def rest(t, table: np.ndarray) -> Tensor:
    """What a table still rises after any time, exact to the last digits near its end; float64."""
    t = np.asarray(t, dtype=np.float64)
    index = np.clip(np.floor(t), 0, len(table) - 2).astype(int)
    step = table[index + 1] - table[index]
    return torch.as_tensor(table[-1] - table[index + 1] + (index + 1 - t) * step)


def slope(t, table: np.ndarray, ahead: bool = False) -> Tensor:
    """How fast a table rises below any time, or with ``ahead`` above it; float64."""
    t = np.asarray(t, dtype=np.float64)
    index = np.clip(np.floor(t) if ahead else np.ceil(t) - 1, 0, len(table) - 2).astype(int)
    return torch.as_tensor(table[index + 1] - table[index])


class Rates(NamedTuple):
    """How fast a bridge's law changes; float64, each of the time's shape.

    Near a pinned end c'/c and a'/a grow like 1 / (T - t) and nearly cancel in ``pull``, so that a
    bridge gives each from a formula of its own.

    Args:
        clean: a'.
        degraded: b'.
        noise: c' / c, of the probability-flow ODE.
        pull: 2 c' / c - a' / a, of the Markov reverse SDE.
        variance: g^2 = 2 c^2 (c' / c - a' / a), of its noise.
    """

    clean: Tensor
    degraded: Tensor
    noise: Tensor
    pull: Tensor
    variance: Tensor


def whole_times(T: int, steps: int) -> list[int]:
    """Even times from T to 0, cut to whole ones, as ``linspace(-1, T - 1, steps + 1).int() + 1``.

    RDBM, RDDM and DiffUIR (and the code of lucidrains that theirs began as) count so.
    """
    return [T * left // steps for left in range(steps, -1, -1)]


class Published(NamedTuple):
    """How a bridge's authors train and sample a network of their own (``recipe=bridge``).

    Args:
        target: what the network predicts, see :mod:`irbridge.models.bridge_network`.
        loss: of the target, likewise.
        rule: the name of a sampler.
        nfe: its network calls.
        noise: of the sampler, as ``boot`` and ``spacing``.
        boot: share of T that the first step takes.
        spacing: of the times.
    """

    target: str
    loss: str
    rule: str = "posterior"
    nfe: int = 10
    noise: bool = True
    boot: float = 0.0
    spacing: str = "time"


SHORTEST = 1e-6  # of a bridge's T: below it the differences of its times have no digits left


@dataclass(frozen=True)
class Bridge:
    """Base of all bridges.

    A bridge is a frozen dataclass with a ``marginal``; it overrides the rest where it was published
    with something of its own.

    Args:
        T: the time of the degraded end, in steps.
        start: where sampling starts. "marginal": at the law of x_T with y for the unknown x0; "y":
            at y exactly, whatever noise the training had there; "published": a law of the class's
            own, see :meth:`begin`.

    Example:
        >>> from irbridge.bridges import Brownian
        >>> clean, degraded, noise = Brownian(T=100, sigma=0.5).marginal(20)
        >>> float(clean), float(degraded), float(noise)
        (0.8, 0.2, 0.2)
    """

    T: float = 100
    start: str = "marginal"
    lowest: ClassVar[float] = 0.0  # the time of the clean end
    modulated: ClassVar[bool] = False  # whether the noise is multiplied by the residual
    # whether its states are the prior's own, which its network sees unchanged at ``timestep``
    prior_states: ClassVar[bool] = False
    # share of T at which spacings other than "time" end, before the clean end
    near: ClassVar[float] = 0.01
    # True: a published table of T steps, so that a sampler has no more than T
    steps: ClassVar[bool] = False
    published: ClassVar[Published] = Published("x0", "l1")

    def __post_init__(self):
        check_ranges(self, "bridge")
        steps = "a whole number of steps" if self.steps else "positive"
        fits = finite(self.T) and SHORTEST <= self.T <= TIMES
        if not fits or (self.steps and int(self.T) != self.T):
            raise UserError(f"bridge.T={shown(self.T)} must be {steps}, at most {TIMES}.")
        own = type(self).begin is not Bridge.begin
        if self.start not in (choices := ["marginal", "y"] + ["published"] * own):
            raise UserError(
                f"bridge.start={self.start!r} is unknown; choose one of {', '.join(choices)}."
            )

    @classmethod
    def title(cls) -> str:
        """What tables and cards call it: the class, unless that is no name of the field's."""
        return cls.__name__

    def marginal(self, t) -> Marginal:
        """The law of x_t, float64, shaped as t (a number or a tensor of times in [0, T])."""
        raise NotImplementedError

    def on(self, prior) -> "Bridge":
        """The bridge on a prior: itself, but where its law is made of the prior's."""
        return self

    def timestep(self, t) -> Tensor:
        """The prior's timestep of the state at t, float64, where ``prior_states``."""
        raise NotImplementedError

    def clean(self, estimate: Tensor, y: Tensor, tau: Tensor) -> Tensor:
        """What the prior's clean estimate of a state says of x0, where ``prior_states``.

        Args:
            estimate: as :meth:`irbridge.priors.base.Prior.clean` reads the network, (B, C, H, W).
            y: the degraded end, alike.
            tau: the prior's timestep, float64, () or (B,).
        """
        return estimate

    def rates(self, t: Tensor, ahead: bool = False) -> Rates:
        """How fast the law changes at t, off the pinned ends.

        This base takes differences of ``marginal``, which lose digits near a pinned end; a bridge
        with a formula overrides it.

        Args:
            t: time, float64, () or (B,).
            ahead: a published table has a kink at every whole time; True gives the rates above t
                instead of those below it.
        """
        now = self.marginal(t)
        room = torch.where(t < self.T, torch.minimum(t, self.T - t), t)
        width = 1e-6 * room if ahead else -1e-6 * room
        there = self.marginal(t + width)
        da, db, dc = ((then - here) / width for then, here in zip(there, now, strict=True))
        excess = dc / now.noise - da / now.clean
        noise = dc / now.noise
        return Rates(da, db, noise, noise + excess, 2 * now.noise**2 * excess)

    def posterior(self, t, s) -> tuple[Marginal, Marginal, Tensor]:
        """The stochastic step from t to s: the laws that it leads between and the kept std.

        It is the Markov posterior, but where a published process is Markov only given x0 as well,
        or has a step of its own.
        """
        now, then = self.marginal(t), self.marginal(s)
        return now, then, posterior_keep(now, then)

    def published_times(self, steps: int) -> list[int] | None:
        """The times of the published sampler, from T to 0; None: even ones.

        Args:
            steps: as its authors count them, at most T.
        """
        return None

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

    def input_scale(self, t) -> Tensor:
        """What a network of the bridge's own sees x_t multiplied by; 1 but where published."""
        return torch.ones_like(self.marginal(t).noise)

    @property
    def pinned(self) -> bool:
        """Whether x_T is y exactly, so that nothing may divide by its noise."""
        return not self.marginal(self.T).noise > 0
