"""Solvers of the probability-flow ODE that are exact for a constant estimate of x0.

What they add to the implicit step is a polynomial through several estimates over lambda =
log(a / c), integrated exactly: earlier ones (multistep), or one at the end of the step (Heun).
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.gaussian.marginal import Marginal, broadcast
from irbridge.samplers.base import Query, Steps, Trajectory, must_be, option
from irbridge.samplers.single_step import Implicit


def log_snr(law: Marginal) -> Tensor:
    """Lambda = log(a / c) of a law, float64."""
    return law.level.log().neg()


class Exponential(Implicit):
    """The implicit step, which a subclass corrects."""

    def first_order(
        self, run: Trajectory, x: Tensor, x0: Tensor, t: float, s: float
    ) -> tuple[Tensor, tuple[Marginal, Marginal] | None]:
        """The implicit step, or a draw from the posterior where nothing can correct it.

        A correction divides by the noise at t, and looks back over one step: there is none off a
        pinned end, nor after the small first step of ``boot``.

        Args:
            run: the trajectory.
            x: the state at t.
            x0: the estimate there.
            t: where the step starts.
            s: where it ends.

        Returns:
            The state at s, and the laws at t and s; None instead where it must stay as it is.
        """
        now, then, keep = self.laws(run.bridge, t, s)
        if run.booting or not now.noise > 0:
            return run.move(x, x0, *run.bridge.posterior(t, s)), None
        x = run.move(x, x0, now, then, keep)
        return x, (now, then) if now.clean > 0 else None


class Multistep(Exponential):
    """The slope comes from the estimates of earlier steps, without a further call."""

    @abstractmethod
    def correction(
        self,
        past: list[tuple[Tensor, Tensor]],
        clean: Tensor,
        at: Tensor,
        width: Tensor,
        slope: Tensor,
    ) -> Tensor:
        """What is added to the implicit step.

        Args:
            past: lambda and estimate of earlier calls, at least one, the latest last.
            clean: the share of x0 in the law at the step's end.
            at: lambda at the step's start.
            width: its change over the step.
            slope: of the estimate over lambda, from the latest earlier call to the step's start.
        """

    @override
    def step(self, run: Trajectory, x: Tensor, t: float, s: float, calls: int) -> Steps:
        x0 = (yield Query(float(t), x)).x0
        x, laws = self.first_order(run, x, x0, t, s)
        if laws is None or run.last:
            return x
        now, then = laws
        at = log_snr(now)
        if run.past:
            before, estimate = run.past[-1]
            slope = (x0 - estimate) / broadcast(at - before, x0)
            x = x + self.correction(run.past, then.clean, at, log_snr(then) - at, slope)
        run.past.append((at, x0))
        return x


@dataclass(frozen=True)
class DBIM(Multistep):
    """DBIM's multistep solvers of the probability-flow ODE (Zheng et al., ICLR 2025, App.).

    Args:
        order: 2, a slope; or 3, a slope and a bend.
    """

    order: int = option(2, must_be("2 or 3", lambda v: v in (2, 3)))

    name: ClassVar = "dbim"

    @classmethod
    @override
    def names(cls) -> dict[str, dict[str, Any]]:
        return {"dbim2": {"order": 2}, "dbim3": {"order": 3}}

    @property
    @override
    def rule(self) -> str:
        return f"{self.name}{self.order}"

    @override
    def correction(
        self,
        past: list[tuple[Tensor, Tensor]],
        clean: Tensor,
        at: Tensor,
        width: Tensor,
        slope: Tensor,
    ) -> Tensor:
        flat = -torch.expm1(-width)
        linear = broadcast(clean * (width - flat), slope)
        if self.order == 2 or len(past) == 1:
            return linear * slope
        h1, h2 = at - past[-1][0], past[-1][0] - past[-2][0]
        earlier = (past[-1][1] - past[-2][1]) / broadcast(h2, slope)
        bend = (slope - earlier) / broadcast(h1 + h2, slope)
        slope = slope + broadcast(h1, slope) * bend
        quadratic = broadcast(clean * (width**2 / 2 - width + flat), slope)
        return linear * slope + quadratic * 2 * bend


class ODES3(Exponential):
    """One stochastic step off the degraded end, then Heun's over lambda (arXiv 2412.19992)."""

    name: ClassVar = "odes3"
    solves_ode: ClassVar = True
    most_calls: ClassVar = 2

    @override
    def step(self, run: Trajectory, x: Tensor, t: float, s: float, calls: int) -> Steps:
        x0 = (yield Query(float(t), x)).x0
        x, laws = self.first_order(run, x, x0, t, s)
        if laws is None or calls < 2:
            return x
        now, then = laws
        width = log_snr(then) - log_snr(now)
        again = (yield Query(float(s), x)).x0
        share = then.clean * (width + torch.expm1(-width)) / width
        return x + broadcast(share, x) * (again - x0)

    @override
    def calls_between(self, times: tuple[float, ...]) -> list[int]:
        calls = super().calls_between(times)
        return [1, *calls[1:]] if self.boot else calls
