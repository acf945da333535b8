"""Step rules, and a sampler: a rule with its times. ``solvers.walk`` runs it. Every rule makes
exactly ``nfe`` network calls; rules of two or three calls a step drop a corrector where the budget
does not divide.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from irbridge.bridges.base import Bridge
from irbridge.errors import UserError
from irbridge.gaussian.marginal import Marginal
from irbridge.gaussian.transition import implicit_keep
from irbridge.priors.base import Prior

Laws = tuple[Marginal, Marginal, Tensor]


def _eta(bridge: Bridge, t, s, eta: float) -> Laws:
    if eta == 1:
        return bridge.posterior(t, s)
    _, law, keep = bridge.posterior(t, s)
    then = bridge.marginal(s)
    variance = law.noise**2 - keep**2
    k = (then.noise**2 - eta**2 * variance).clamp(min=0).sqrt()
    now = bridge.marginal(t)
    return now, then, torch.where(now.noise > 0, k, 0.0)


def _between(bridge: Bridge, t, s, eta: float, keep: Callable) -> Laws:
    now, then = bridge.marginal(t), bridge.marginal(s)
    return now, then, keep(now, then)


class Rule(NamedTuple):
    """A step rule: ``laws(bridge, t, s, eta)`` gives the marginals of a step and the kept std k."""

    laws: Callable[..., Laws] = partial(_between, keep=implicit_keep)
    from_prior: bool = False  # steps from the prior's state z rather than from the bridge's x
    fresh: bool = True  # False: the mean of the step alone, which shrinks the variance
    # a baseline without a bridge: walks the prior itself from the same start
    on_prior: bool = False
    # more than one estimate goes into a step: multistep or heun, see the loop
    solver: str = ""
    order: int = 1
    # network calls of a full step; the last step to the clean end takes one less than that
    calls: int = 1


RULES = {
    "reverse": Rule(from_prior=True),
    "implicit": Rule(),
    "posterior": Rule(lambda bridge, t, s, eta: bridge.posterior(t, s)),
    "eta": Rule(_eta),
    "mean": Rule(lambda bridge, t, s, eta: bridge.posterior(t, s), fresh=False),
    "renoise": Rule(partial(_between, keep=lambda now, then: torch.zeros_like(then.noise))),
    "drift": Rule(partial(_between, keep=lambda now, then: now.noise)),
    "dbim2": Rule(solver="multistep", order=2),
    "dbim3": Rule(solver="multistep", order=3),
    "odes3": Rule(solver="exponential", order=2, calls=2),
    "heun": Rule(solver="hybrid", order=2, calls=3),
    "ddim": Rule(on_prior=True),
    "dpmpp": Rule(on_prior=True, solver="multistep", order=2),
}
"""reverse: IRBridge's published step. implicit, posterior, eta: DBIM's family on the bridge itself.
mean: GOUB's and UniDB++'s "mean-ODE" (not the probability-flow ODE, and not marginal preserving).
renoise: redraw all noise. drift: DiffUIR's update, which moves the mean and leaves the noise as it
is (not marginal preserving). dbim2, dbim3: DBIM's multistep solvers of the probability-flow ODE.
odes3: one stochastic posterior step off the degraded end, then Heun. heun: DDBM's hybrid of
Euler-Maruyama and Heun. ddim, dpmpp: baselines on the prior itself, DDIM and DPM-Solver++(2M)."""
SPACINGS = "time", "logsnr", "karras"


def rule(name: str) -> Rule:
    """The step rule of that name; :class:`UserError` lists the names."""
    if name not in RULES:
        raise UserError(f"sampler.rule={name!r} is unknown; choose one of {', '.join(RULES)}.")
    return RULES[name]


@dataclass(frozen=True)
class Sampler:
    """How a bridge is walked from its degraded to its clean end.

    Args: rule: see :data:`RULES`. nfe: network calls; 0: none, an anchor alone. eta: of rule=eta, 0
        (implicit) to 1 (posterior). churn: of rule=heun, the stochastic share of a step. noise:
        False leaves out all fresh noise, also that of the first step off a pinned end (RDBM as
        published). spacing: of the times: uniform in "time", in "logsnr", or "karras" (uniform in
        t^(1/rho), DDBM). boot: share of T that the first step takes (DBIM, ODES3: a small one,
        before the solver); 0: like the others. times: the times themselves, descending from T to 0,
        instead of nfe and spacing.
    """

    rule: str = "reverse"
    nfe: int = 3
    eta: float = 1.0
    churn: float = 0.33
    noise: bool = True
    spacing: str = "time"
    rho: float = 7.0
    boot: float = 0.0
    times: tuple[float, ...] | None = None

    def __post_init__(self):
        rule(self.rule)
        if self.spacing not in SPACINGS:
            raise UserError(
                f"sampler.spacing={self.spacing!r} is unknown; choose one of {', '.join(SPACINGS)}."
            )
        falling = self.times is None or (
            len(self.times) > 1 and all(t > s for t, s in pairwise(self.times))
        )
        for name, fits, wanted in (
            ("nfe", type(self.nfe) is int and self.nfe >= 0, "a whole number, 0 or more"),
            ("eta", 0 <= self.eta <= 1, "from 0 to 1"),
            ("boot", 0 <= self.boot < 1, "from 0 to below 1"),
            ("churn", 0 <= self.churn < 1, "from 0 to below 1"),
            ("rho", self.rho > 0, "above 0"),
            ("times", falling, "two or more falling numbers"),
        ):
            if not fits:
                raise UserError(f"sampler.{name}={getattr(self, name)} must be {wanted}.")
        if self.times is not None:
            object.__setattr__(self, "nfe", sum(self._calls()))

    def changed(self, **options) -> "Sampler":
        """This sampler with the given fields; None leaves one as it is, and ``steps`` is another
        name of nfe.
        """
        given = {k: v for k, v in options.items() if v is not None}
        if "steps" in given:
            given = {"nfe": given.pop("steps")} | given
        if "nfe" in given:
            given.setdefault("times", None)
        try:
            return replace(self, **given)
        except TypeError:
            unknown = min(given.keys() - self.__dataclass_fields__.keys())
            raise UserError(
                f"{unknown!r} is no sampler option; use {', '.join(self.__dataclass_fields__)}."
            ) from None

    def describe(self) -> str:
        """Rule and what differs from its defaults, in words."""
        words = [
            self.rule + f" {self.eta:g}" * (self.rule == "eta"),
            f"spacing {self.spacing}" * (self.spacing != "time"),
            "no noise" * (not self.noise),
            f"boot {self.boot:g}" * (self.boot > 0),
        ]
        return ", ".join(filter(None, words))

    def check(self, bridge: Bridge, direct: bool = False) -> "Sampler":
        """Itself; UserError if the bridge cannot serve it. ``direct``: there is no prior to walk
        instead.
        """
        how, name = rule(self.rule), type(bridge).__name__
        if direct and self.nfe == 0:
            raise UserError(f"sampler.nfe=0 makes no call of {name}'s own network; give 1 or more.")
        if how.on_prior and not direct:
            return self
        if self.times is not None and self.times[0] > bridge.T:
            raise UserError(
                f"sampler.times starts at {self.times[0]}, beyond {name}'s T = {bridge.T:g}; start"
                " at T."
            )
        if bridge.steps and self.nfe > bridge.T and self.times is None:
            raise UserError(
                f"sampler.nfe={self.nfe} is more than the {int(bridge.T)} steps of {name}'s"
                " schedule; use at most as many, or raise bridge.T."
            )
        if how.calls > 1 and bridge.modulated:
            raise UserError(
                f"sampler.rule={self.rule} solves an ODE that {name}'s residual-modulated noise"
                " does not have; use implicit, posterior or mean, or bridge.pi=one."
            )
        end = bridge.marginal(bridge.T)
        if (
            how.calls > 1
            and not (end.noise > 0 and end.clean > 0)
            and not self.boot
            and self.times is None
        ):
            raise UserError(
                f"sampler.rule={self.rule} would divide by the"
                f" {'noise' if bridge.pinned else 'share of x0'} at {name}'s degraded end, which is"
                " 0; set sampler.boot, such as 0.01."
            )
        return self

    def plan(self, bridge: Bridge, first: float | None = None) -> tuple[np.ndarray, list[int]]:
        """Descending times, one more than steps, and the network calls of each step, nfe in all.
        ``first``: where to start instead of T.
        """
        how, first = rule(self.rule), bridge.T if first is None else first
        most = self._most()
        if self.times is not None:
            return np.asarray(self.times, np.float64), self._calls()
        head = [first] if self.boot and self.nfe > 1 and how.solver != "hybrid" else []
        left = self.nfe - len(head)
        count = left if most == 1 else -(-(left + 1) // most)
        calls = [most] * (count - 1) + [max(most - 1, 1)]
        calls[max(count - 2, 0)] -= sum(calls) - left
        start = first if how.solver != "hybrid" and not head else bridge.T * (1 - self.boot)
        return (
            np.concatenate([head, self._spaced(bridge, min(start, first), count)]),
            [1] * len(head) + calls,
        )

    def _most(self) -> int:
        how = rule(self.rule)
        return how.calls - (how.solver == "hybrid" and not self.churn)

    def _calls(self) -> list[int]:
        """Network calls of the steps between given times."""
        calls = [self._most()] * (len(self.times) - 2) + [max(self._most() - 1, 1)]
        return [1, *calls[1:]] if self.boot and rule(self.rule).solver == "exponential" else calls

    def _spaced(self, bridge: Bridge, first: float, count: int) -> np.ndarray:
        low = bridge.lowest
        near = low + bridge.near * (bridge.T - low)
        if self.spacing == "time" or count == 1 or first <= near:
            return np.linspace(first, low, count + 1)
        if self.spacing == "karras":
            inner = np.linspace(first ** (1 / self.rho), near ** (1 / self.rho), count) ** self.rho
        else:
            times = np.geomspace(near, min(first, 0.99 * bridge.T), 20001)
            level = np.log(bridge.marginal(torch.as_tensor(times)).level.numpy())
            inner = np.interp(np.linspace(level[-1], level[0], count), level, times)
        return np.concatenate([[first], inner[1:], [low]])


@dataclass(frozen=True)
class PriorPath(Bridge):
    """A generative prior as a process to walk, from timestep T down to its lowest; it starts at the
    noised end (SDEdit).
    """

    prior: Prior | None = None

    @property
    def lowest(self) -> float:
        return self.prior.lowest

    def marginal(self, t) -> Marginal:
        return self.prior.marginal(t)
