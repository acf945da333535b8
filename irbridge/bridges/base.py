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

    def marginal(self, t) -> Marginal:
        """The law of x_t, float64, shaped as t (a number or a tensor of times in [0, T])."""
        raise NotImplementedError

    def posterior(self, t, s) -> tuple[Marginal, Marginal, Tensor]:
        """The stochastic step from t to s: the laws that it leads between and the kept std.

        It is the Markov posterior, but where a published process is Markov only given x0 as well,
        or has a step of its own.
        """
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
