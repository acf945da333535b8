"""DDBM's hybrid sampler (Zhou et al., ICLR 2024, Algorithm 1)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from irbridge.bridges.base import Bridge
from irbridge.gaussian.marginal import broadcast, draw
from irbridge.samplers.base import Query, Sampler, Steps, Trajectory, must_be, option
from irbridge.samplers.spacing import split_calls


def velocity(
    bridge: Bridge,
    t: Tensor,
    x: Tensor,
    x0: Tensor,
    y: Tensor,
    markov: bool = False,
    ahead: bool = False,
) -> tuple[Tensor, Tensor]:
    """The rate of change of a bridge's state, given x0.

    With a, b, c the bridge's marginal and e = c c' - (a' / a) c^2, the Markov reverse SDE is
    ``a' x0 + b' y + (c' / c + e / c^2) (x - a x0 - b y)`` with ``g^2 = 2 e``. The
    probability-flow ODE lacks the term with e.

    Args:
        bridge: the process.
        t: time, float64, () or (B,), off the pinned ends.
        x: the state at t, (B, C, H, W).
        x0: the clean image, or its estimate.
        y: the degraded end.
        markov: whether it is the SDE's drift; else the probability-flow ODE's.
        ahead: derivatives are one-sided, so that a published table gives the rate below t, or with
            ``ahead`` the rate above it.

    Returns:
        (dx / dt, g^2), the second float64 of t's shape.
    """
    t = torch.as_tensor(t, dtype=torch.float64)
    rates = bridge.rates(t, ahead)
    mean = draw(bridge.marginal(t), x0, y, torch.zeros_like(x))
    towards = broadcast(rates.clean, x) * x0 + broadcast(rates.degraded, x) * y
    pull = rates.pull if markov else rates.noise
    return towards + broadcast(pull, x) * (x - mean), rates.variance


@dataclass(frozen=True)
class DDBMHeun(Sampler):
    """Euler-Maruyama over a share of the step, then Heun, both in t; Euler to the clean end.

    It starts at y at (1 - boot) T, just off a pinned end.

    Args:
        churn: the stochastic share of a step; 0: none, and a step takes one call less.
    """

    churn: float = option(0.33, must_be("from 0 to below 1", lambda v: 0 <= v < 1))

    name: ClassVar = "heun"
    solves_ode: ClassVar = True
    most_calls: ClassVar = 3

    @property
    @override
    def calls_of_step(self) -> int:
        return self.most_calls if self.churn else self.most_calls - 1

    @override
    def plan(self, bridge: Bridge, first: float | None = None) -> tuple[np.ndarray, list[int]]:
        if self.times is not None:
            return super().plan(bridge, first)
        calls = split_calls(self.nfe, self.calls_of_step)
        start = min(bridge.T * (1 - self.boot), bridge.T if first is None else first)
        return self._spaced(bridge, start, len(calls)), calls

    @override
    def step(self, run: Trajectory, x: Tensor, t: float, s: float, calls: int) -> Steps:
        t, s = torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
        if self.churn and calls == (2 if run.last else 3):
            t, x = yield from self._churned(run, x, t, s)
        x0 = (yield Query(float(t), x)).x0
        slope, _ = velocity(run.bridge, t, x, x0, run.y)
        euler = x + broadcast(s - t, x) * slope
        if run.last or calls < 2:
            return euler
        again = (yield Query(float(s), euler)).x0
        corrected, _ = velocity(run.bridge, s, euler, again, run.y, ahead=True)
        return x + broadcast((s - t) / 2, x) * (slope + corrected)

    def _churned(self, run: Trajectory, x: Tensor, t: Tensor, s: Tensor) -> Steps:
        """Euler-Maruyama over the share ``churn`` of the step; returns (time, state)."""
        x0 = (yield Query(float(t), x)).x0
        middle = t + self.churn * (s - t)
        slope, variance = velocity(run.bridge, t, x, x0, run.y, markov=True)
        x = x + broadcast(middle - t, x) * slope
        wiener = run.new_noise(x0)
        if wiener is not None:
            x = x + broadcast((variance.clamp(min=0) * (t - middle)).sqrt(), x) * wiener
        return middle, x
