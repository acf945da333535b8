"""Which timestep of the prior serves which time of the bridge (IRBridge, Sec. 3.2 and 5.1).

A schedule is knots ``{percent of the bridge's time: timestep}`` joined by straight lines. Above
``offset``'s lowest knot the value is added to the critical timestep; elsewhere it stands for
itself. Timesteps are on the published scale of 0 to 999 and stretched to the prior's own range.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from irbridge.bridges.base import Bridge
from irbridge.errors import UserError
from irbridge.priors.base import Prior
from irbridge.ranges import Range, check_values, number, shown

TIMESTEP = number(lambda v: 0 <= v <= 999, "from 0 to 999, the timesteps of a prior")
OFFSET = number(lambda v: abs(v) <= 1e4, "from -10000 to 10000; the sum is cut to 0 to 999")


@dataclass(frozen=True)
class Timesteps:
    """Piecewise linear timestep schedule.

    Args:
        offset: knots of what is added to the critical timestep; ``{0: 0}`` alone is the critical
            schedule.
        absolute: knots of the timestep itself.
        at_least_critical: clamp below at the critical timestep, without which the x0-free forward
            transition does not exist; False reproduces the paper's figures as printed.
        free_end: a pinned bridge's very end keeps the schedule's own timestep. False: it is clamped
            as a hundredth before it, so that no timestep rises after the first call.
    """

    offset: dict = field(default_factory=dict)
    absolute: dict = field(default_factory=dict)
    at_least_critical: bool = True
    free_end: bool = False

    def __post_init__(self):
        if not self.offset and not self.absolute:
            raise UserError("timesteps needs knots: give timesteps.offset or timesteps.absolute.")
        if not isinstance(self.at_least_critical, bool):
            raise UserError(
                f"timesteps.at_least_critical={shown(self.at_least_critical)} must be true or"
                " false."
            )
        # a config's own kind of dict is slow to read at every step
        object.__setattr__(self, "offset", _knots("offset", self.offset, OFFSET))
        object.__setattr__(self, "absolute", _knots("absolute", self.absolute, TIMESTEP))

    def __call__(self, bridge: Bridge, prior: Prior, t) -> Tensor:
        """The prior's timestep for each time of the bridge.

        Args:
            bridge: the process.
            prior: the noise schedule.
            t: numbers in [0, T], of any shape.

        Returns:
            tau, float64, shaped as t, clamped to the prior's range.
        """
        t = np.asarray(t, dtype=np.float64)
        percent, last = 100 * t / bridge.T, self.last(bridge)
        critical = prior.critical(bridge.marginal(np.minimum(t, last))).numpy()
        unit = (prior.highest - prior.lowest) / 999
        tau = critical + unit * _line(self.offset, percent) if self.offset else critical
        if self.absolute:
            own = prior.lowest + unit * _line(self.absolute, percent)
            tau = np.where(percent >= min(self.offset), tau, own) if self.offset else own
        if self.at_least_critical:
            free = self.free_end & (t > last)
            tau = np.where(free, tau, np.maximum(tau, critical))
        return torch.as_tensor(np.clip(tau, prior.lowest, prior.highest))

    def from_anchor(self) -> "Timesteps":
        """The schedule of a bridge whose end is an anchor g(y), see ``free_end``.

        The anchor is near the clean image, and noised to a low timestep it is a state of the prior,
        while the bridge's noise just before the end would drown what it knows.
        """
        return replace(self, free_end=True)

    @staticmethod
    def last(bridge: Bridge) -> float:
        """The latest time with a critical timestep: T, or a hundredth before a pinned end.

        There no noise is left to preserve (the paper skips that step).
        """
        return bridge.T if bridge.marginal(bridge.T).noise > 0 else 0.99 * bridge.T


def _knots(name: str, given, fits: Range) -> dict[float, float]:
    """The knots of a schedule as numbers; UserError where one is none, or out of range."""
    key = f"timesteps.{name}"
    if not isinstance(given, Mapping):
        raise UserError(
            f"{key}={shown(given)} must be knots, percent: timestep, such as {{100: 550, 1: 1}}."
        )
    knots = {}
    for percent, value in given.items():
        try:
            place = float(percent)
        except (TypeError, ValueError):
            place = -1.0
        if not 0 <= place <= 100:
            raise UserError(
                f"{key} has a knot at {shown(percent, repr)}; it must be a percentage of the"
                " bridge's time, from 0 to 100."
            )
        check_values({shown(percent): fits}, {shown(percent): value}, key)
        knots[place] = float(value)
    return knots


def _line(knots: dict, percent: np.ndarray) -> np.ndarray:
    return np.interp(percent, sorted(knots), [knots[key] for key in sorted(knots)])


def critical(offset: float = 0.0) -> Timesteps:
    """The critical timestep plus a constant."""
    check_values({"offset": OFFSET}, {"offset": offset}, "timesteps")
    return Timesteps(offset={0: offset})


def linear(start: float, end: float = 1) -> Timesteps:
    """A straight line from ``start`` at the degraded end to ``end``, one percent from the other."""
    check_values({"start": TIMESTEP, "end": TIMESTEP}, {"start": start, "end": end}, "timesteps")
    return Timesteps(absolute={100: start, 1: end})


PAPER = {
    "S1": linear(550),
    "S2": linear(850),
    "S3": Timesteps(absolute={100: 550, 50: 550, 1: 1}),
    "S4": Timesteps(absolute={100: 550, 50: 850, 1: 1}),
    "S5": Timesteps(absolute={100: 850, 50: 850, 1: 1}),
    "S6": critical(100),
    "S7": critical(300),
    **dict.fromkeys(("S8", "derain", "raindrop"), Timesteps(offset={100: 300, 0: 0})),
    "dehaze": Timesteps(offset={100: 195, 71: 27}, absolute={71: 36, 1: 1}),
    "desnow": linear(550),
    "lowlight": Timesteps(absolute={100: 850, 50: 800, 1: 50}),
    "inpaint": Timesteps(absolute={100: 800, 30: 400, 1: 1}),
}
"""The paper's schedules: S1 to S8 of its Fig. 11 and, by task, those of its Fig. 4 (read off the
figures)."""


def paper(name: str) -> Timesteps:
    """The paper's schedule of that name; :class:`UserError` lists the names."""
    if not isinstance(name, str) or name not in PAPER:
        raise UserError(
            f"timesteps.name={shown(name, repr)} is not a schedule of the paper; choose one of"
            f" {', '.join(PAPER)}."
        )
    return PAPER[name]
