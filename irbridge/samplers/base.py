"""What every sampler is: it follows a bridge from its degraded to its clean end.

A sampler's ``loop`` is a coroutine. It yields a :class:`Query` for every network call, is sent the
:class:`Estimate` there, and returns the state at the clean end. :func:`drive` runs one against a
function. A new sampler is one class with a ``name`` and a ``step``; the class may be anywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from itertools import pairwise
from pkgutil import iter_modules
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from irbridge.bridges.base import Bridge
from irbridge.errors import UserError
from irbridge.gaussian.marginal import Marginal, draw, marginal
from irbridge.gaussian.transition import step
from irbridge.ranges import CALLS, FALLING, POSITIVE, shown, whole
from irbridge.samplers.spacing import SPACINGS, spaced, split_calls


class Query(NamedTuple):
    """One network call: the bridge's time, and its state there, (B, C, H, W)."""

    t: float
    x: Tensor


class Estimate(NamedTuple):
    """What a network answers.

    Args:
        x0: the estimate of the clean image, (B, C, H, W).
        state: the state that the network saw: the bridge's own, or a prior's.
        law: the marginal of that state.
    """

    x0: Tensor
    state: Tensor
    law: Marginal


Steps = Generator[Query, Estimate, Tensor]
Noise = Callable[[Tensor], Tensor]


@dataclass
class Trajectory:
    """One run of a sampler: what it follows, and what it remembers between steps.

    Args:
        bridge: the process.
        y: the degraded end, (B, C, H, W).
        noise: called with a tensor, gives unit normal noise of its shape.
        fresh: False leaves out all noise after the start.
        booting: whether the present step is the small first one of a sampler with ``boot``.
        last: whether the present step ends at the clean end.
        drawn: the noise of the state that it started at; None where that was given.
        past: log(a / c) and the estimate of earlier calls, for multistep samplers.
    """

    bridge: Bridge
    y: Tensor
    noise: Noise
    fresh: bool = True
    booting: bool = False
    last: bool = False
    drawn: Tensor | None = None
    past: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def start(self, t: float, skipped: bool = False) -> Tensor:
        """The state to begin at: the bridge's own start, or beside the end that is left out.

        Args:
            t: where the first step starts.
            skipped: whether a pinned end is left out because the network can say nothing there. The
                state then has the noise that the step off the end would have drawn, unless the
                sampler draws none; a solver that steps aside by itself (DDBM) starts at y exactly.
        """
        bridge, y = self.bridge, self.y
        if t == bridge.T:
            law = bridge.begin()
        else:
            noisy = (skipped and self.fresh) or not bridge.pinned
            here = bridge.marginal(t)
            mean = 1 if bridge.pinned else here.clean + here.degraded
            law = marginal(0, mean, here.noise if noisy else 0)
        self.drawn = self.noise(y)
        return draw(law, y, y, self.drawn * bridge.scale(y, y))

    def new_noise(self, x0: Tensor) -> Tensor | None:
        """Noise for a step, scaled as the bridge scales its own; None where none is wanted."""
        return self.noise(self.y) * self.bridge.scale(x0, self.y) if self.fresh else None

    def move(
        self, x: Tensor, x0: Tensor, now: Marginal, then: Marginal, keep: Tensor, fresh: bool = True
    ) -> Tensor:
        """The step of the transition equation from one law to the next.

        Args:
            x: the state, of the law ``now``.
            x0: the clean estimate.
            now: the law that the step starts from.
            then: the law that it leads to.
            keep: the std of the state's own noise that survives.
            fresh: False leaves out the noise that ``then`` has beyond it.

        Returns:
            The next state. Noise is drawn only where some is missing.
        """
        missing = fresh and bool((keep < then.noise).any())
        return step(x, x0, self.y, now, then, keep, self.new_noise(x0) if missing else None)


def must_be(wanted: str, fits: Callable[[Any], bool]) -> Callable[[str, Any], None]:
    """A check of an option: UserError says what it must be unless its value fits."""

    def check(name: str, value: Any) -> None:
        try:
            right = fits(value)
        except (TypeError, ValueError):  # a word, a list: no number at all
            right = False
        if not right:
            raise UserError(f"sampler.{name}={shown(value)} must be {wanted}.")

    return check


def one_of(choices: tuple[str, ...]) -> Callable[[str, Any], None]:
    """A check of an option: UserError lists the choices unless its value is one of them."""

    def check(name: str, value: Any) -> None:
        if value not in choices:
            raise UserError(
                f"sampler.{name}={shown(value, repr)} is unknown; choose one of"
                f" {', '.join(choices)}."
            )

    return check


def option(default: Any, check: Callable[[str, Any], None]) -> Any:
    """A field of a sampler with its default and the check of its values."""
    return field(default=default, metadata={"check": check})


def _falling(times) -> bool:
    return times is None or FALLING.fits(times)


class Named(NamedTuple):
    """A sampler's class under one of its names, and the fields that the name fixes."""

    kind: type[Sampler]
    fixed: dict[str, Any]


NFE = whole(0, CALLS)
REGISTRY: dict[str, Named] = {}
"""Every sampler by name, as ``sampler.rule`` calls it. Classes enter by being defined."""

# What reports say of every sampler, also of one without such an option: they always have, and the
# same settings must stay equal to what older reports hold.
ALWAYS_RECORDED = {"eta": 1.0, "churn": 0.33}


@dataclass(frozen=True)
class Sampler(ABC):
    """A step, and the times between which it is taken.

    A class enters the registry under its ``name``. Options are dataclass fields; give one its range
    with :func:`option`.

    Args:
        nfe: network calls in all, whatever the step; 0: none, an anchor alone.
        noise: False leaves out all fresh noise, also that of the first step off a pinned end (RDBM
            as published).
        spacing: of the times, see :func:`~irbridge.samplers.spacing.spaced`.
        rho: of spacing "karras".
        boot: share of T that the first step takes (DBIM, ODES3: a small one, before the solver
            starts); 0: like the others.
        times: the times themselves, falling from T to 0, instead of ``nfe`` and ``spacing``.

    Example:
        >>> from irbridge.samplers import make
        >>> make("eta", nfe=5, eta=0.5).describe()
        'eta 0.5'
    """

    nfe: int = option(3, must_be(NFE.wanted, NFE.fits))
    noise: bool = option(True, must_be("true or false", lambda v: isinstance(v, bool)))
    spacing: str = option("time", one_of(SPACINGS))
    rho: float = option(7.0, must_be(POSITIVE.wanted, POSITIVE.fits))
    boot: float = option(0.0, must_be("from 0 to below 1", lambda v: 0 <= v < 1))
    times: tuple[float, ...] | None = option(None, must_be("two or more falling numbers", _falling))

    name: ClassVar[str] = ""
    """What ``sampler.rule`` calls it."""
    on_prior: ClassVar[bool] = False
    """Whether it follows the prior itself, without a bridge: a baseline from the same start."""
    solves_ode: ClassVar[bool] = False
    """Whether it needs an ordinary differential equation that is finite at the degraded end."""
    most_calls: ClassVar[int] = 1
    """Calls of a full step; the last one, to the clean end, takes one less, but at least one."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):  # a base of others
            return
        for name, fixed in cls.names().items():
            held = REGISTRY.get(name)
            own = (cls.__module__, cls.__qualname__)
            if held and (held.kind.__module__, held.kind.__qualname__) != own:
                raise UserError(
                    f"The sampler's name {name!r} is taken by {held.kind.__module__}."
                    f"{held.kind.__qualname__}; give {cls.__qualname__} another one."
                )
            REGISTRY[name] = Named(cls, fixed)

    def __post_init__(self) -> None:
        for at in fields(self):
            if check := at.metadata.get("check"):
                check(at.name, getattr(self, at.name))
        if self.times is not None:
            object.__setattr__(self, "nfe", sum(self.calls_between(self.times)))

    @classmethod
    def names(cls) -> dict[str, dict[str, Any]]:
        """The names of the class, each with the fields that it fixes."""
        return {cls.name: {}}

    @property
    def rule(self) -> str:
        """The name of this one, as configs, records and tables hold it."""
        return self.name

    @abstractmethod
    def step(self, run: Trajectory, x: Tensor, t: float, s: float, calls: int) -> Steps:
        """A coroutine from the state x at time t to that at time s, which it returns.

        Args:
            run: the process, its degraded end and its noise.
            x: the state at t, (B, C, H, W).
            t: where the step starts.
            s: where it ends, below t.
            calls: how many queries it makes, exactly.
        """

    def loop(
        self,
        bridge: Bridge,
        y: Tensor,
        noise: Noise,
        first: float | None = None,
        x: Tensor | None = None,
    ) -> Steps:
        """The whole way: a coroutine that returns the last state.

        Args:
            bridge: the process.
            y: the degraded end, (B, C, H, W).
            noise: called with a tensor, gives unit normal noise of its shape.
            first: the time to start at, instead of T, where the end is skipped: at y, with the
                noise of a step off the end.
            x: the state to start from, instead of the bridge's own start.
        """
        times, calls = self.plan(bridge, first)
        run = Trajectory(bridge, y, noise, fresh=self.noise)
        x = run.start(times[0], first is not None) if x is None else x
        for index, ((t, s), budget) in enumerate(zip(pairwise(times), calls, strict=True)):
            run.booting = index == 0 and self.boot > 0
            run.last = index == len(calls) - 1
            x = yield from self.step(run, x, t, s, budget)
        return x

    def plan(self, bridge: Bridge, first: float | None = None) -> tuple[np.ndarray, list[int]]:
        """The times, and the network calls of each step.

        Args:
            bridge: the process.
            first: where to start, instead of T.

        Returns:
            Falling times, one more than steps; and the calls of each step, ``nfe`` in all.
        """
        if self.times is not None:
            return np.asarray(self.times, np.float64), self.calls_between(self.times)
        first = bridge.T if first is None else first
        if not (self.boot and self.nfe > 1):
            calls = split_calls(self.nfe, self.calls_of_step)
            return self._spaced(bridge, first, len(calls)), calls
        calls = split_calls(self.nfe - 1, self.calls_of_step)
        booted = min(bridge.T * (1 - self.boot), first)
        return np.concatenate([[first], self._spaced(bridge, booted, len(calls))]), [1, *calls]

    def _spaced(self, bridge: Bridge, first: float, count: int) -> np.ndarray:
        return spaced(bridge, first, count, self.spacing, self.rho)

    @property
    def calls_of_step(self) -> int:
        """Network calls of a full step with these options."""
        return self.most_calls

    def calls_between(self, times: tuple[float, ...]) -> list[int]:
        """The network calls of each step between given times."""
        most = self.calls_of_step
        return [most] * (len(times) - 2) + [max(most - 1, 1)]

    def changed(self, rule: str | type[Sampler] | Sampler | None = None, **options) -> Sampler:
        """This sampler with other options, or another one with as many of these as it has.

        Args:
            rule: a sampler's name, class or instance; None: the same sampler.
            options: fields to change. None leaves one as it is, ``steps`` is another name of nfe,
                and an option that only other samplers have is checked and left out. A number of
                calls takes the place of given times.

        Raises:
            UserError: no sampler has that name or such an option, or a value is out of range.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if "steps" in given:
            given = {"nfe": given.pop("steps")} | given
        if "nfe" in given:
            given.setdefault("times", None)
        own = {at.name: getattr(self, at.name) for at in fields(self)}
        if isinstance(rule, Sampler):
            kind, own = type(rule), {at.name: getattr(rule, at.name) for at in fields(rule)}
        elif rule is None:
            kind = type(self)
        else:
            kind, fixed = named(rule)
            given = given | fixed
        return kind(**_known(kind, own | given))

    def describe(self) -> str:
        """The name and what differs from the defaults, in words, as tables say it."""
        words = [
            self.label(),
            f"spacing {self.spacing}" * (self.spacing != "time"),
            "no noise" * (not self.noise),
            f"boot {self.boot:g}" * (self.boot > 0),
        ]
        return ", ".join(filter(None, words))

    def label(self) -> str:
        """The name, with what tells apart samplers of this class."""
        return self.rule

    def record(self) -> dict[str, Any]:
        """What reports and keys of memories hold of it: plain data, equal for equal samplers."""
        fixed = type(self).names()[self.rule]
        own = {name: value for name, value in asdict(self).items() if name not in fixed}
        return {"rule": self.rule, **ALWAYS_RECORDED, **own}

    def check(self, bridge: Bridge, direct: bool = False) -> Sampler:
        """The sampler itself, where the bridge can serve it.

        Args:
            bridge: the process.
            direct: whether the bridge has a network of its own, so that there is no prior.

        Raises:
            UserError: the bridge cannot serve it; the sentence says what to change.
        """
        kind = type(bridge).__name__
        if direct and self.nfe == 0:
            raise UserError(f"sampler.nfe=0 makes no call of {kind}'s own network; give 1 or more.")
        if self.on_prior and not direct:
            return self
        if self.times is not None and self.times[0] > bridge.T:
            raise UserError(
                f"sampler.times starts at {self.times[0]}, beyond {kind}'s T = {bridge.T:g}; start"
                " at T."
            )
        if bridge.steps and self.nfe > bridge.T and self.times is None:
            raise UserError(
                f"sampler.nfe={self.nfe} is more than the {int(bridge.T)} steps of {kind}'s"
                " schedule; use at most as many, or raise bridge.T."
            )
        if self.solves_ode:
            self._check_ode(bridge)
        return self

    def _check_ode(self, bridge: Bridge) -> None:
        """UserError unless the bridge's ODE exists and is finite where the sampler starts."""
        kind, end = type(bridge).__name__, bridge.marginal(bridge.T)
        if bridge.modulated:
            raise UserError(
                f"sampler.rule={self.rule} solves an ODE that {kind}'s residual-modulated noise"
                " does not have; use implicit, posterior or mean, or bridge.pi=one."
            )
        skipped = self.boot or self.times is not None
        if not skipped and not (end.noise > 0 and end.clean > 0):
            raise UserError(
                f"sampler.rule={self.rule} would divide by the"
                f" {'noise' if bridge.pinned else 'share of x0'} at {kind}'s degraded end, which is"
                " 0; set sampler.boot, such as 0.01."
            )


def named(rule: str | type[Sampler]) -> Named:
    """The sampler of a name, or of a class. UserError lists the names."""
    if isinstance(rule, type) and issubclass(rule, Sampler):
        return Named(rule, {})
    word = rule if isinstance(rule, str) else None
    if word not in REGISTRY:
        _define_all()
    if word not in REGISTRY:
        raise UserError(
            f"sampler.rule={shown(rule, repr)} is unknown; choose one of {', '.join(REGISTRY)}."
        )
    return REGISTRY[word]


def _define_all() -> None:
    """Import every module beside this one, so that a new file's samplers are known by name."""
    package = import_module(__package__)
    for module in iter_modules(package.__path__, f"{__package__}."):
        import_module(module.name)


def make(rule: str | type[Sampler] | Sampler = "reverse", **options) -> Sampler:
    """A sampler by name.

    Args:
        rule: a sampler's name, class or instance; None: the default.
        options: its fields, as :meth:`Sampler.changed` takes them.

    Returns:
        The sampler.

    Raises:
        UserError: no sampler has that name or such an option, or a value is out of range.

    Example:
        >>> from irbridge.samplers import make
        >>> make("dbim3", nfe=10)
        DBIM(nfe=10, noise=True, spacing='time', rho=7.0, boot=0.0, times=None, order=3)
    """
    if isinstance(rule, Sampler):
        return rule.changed(**options)
    kind, fixed = named("reverse" if rule is None else rule)
    return kind(**fixed).changed(**options)


def all_options() -> list[str]:
    """The fields of all samplers, ``rule`` first."""
    kinds = [Sampler, *(entry.kind for entry in REGISTRY.values())]
    return list(dict.fromkeys(["rule", *(at.name for kind in kinds for at in fields(kind))]))


def _known(kind: type[Sampler], given: dict[str, Any]) -> dict[str, Any]:
    """The given options that a class has. The others are checked by a class that has them."""
    if unknown := given.keys() - all_options() - {at.name for at in fields(kind)}:
        raise UserError(f"{min(unknown)!r} is no sampler option; use {', '.join(all_options())}.")
    own = {at.name for at in fields(kind)}
    others = {at.name: at for entry in REGISTRY.values() for at in fields(entry.kind)}
    for name in given.keys() - own:
        if check := others[name].metadata.get("check"):
            check(name, given[name])
    return {name: value for name, value in given.items() if name in own}


def drive(
    loop: Steps, denoise: Callable[[Query], Estimate]
) -> Generator[tuple[Query, Estimate], None, Tensor]:
    """Run a sampler's loop against a function that answers its queries.

    Args:
        loop: of a sampler.
        denoise: asks the network.

    Yields:
        Each query with its answer, before the step that the answer leads to.

    Returns:
        The last state.
    """
    query = next(loop)
    while True:
        estimate = denoise(query)
        yield query, estimate
        try:
            query = loop.send(estimate)
        except StopIteration as end:
            return end.value
