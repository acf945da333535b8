"""What every zero-shot solver is: it restores by a frozen prior and a known operator alone.

Nothing is trained. A solver is one class of a screen whose fields are its constants; its ``loop``
yields a :class:`Step` for every call of the network, and the last one's ``x0`` is the result. A
level is known by (alpha, sigma) of the prior's state ``z = alpha x0 + sigma eps``, so that
variance-preserving, variance-exploding and flow priors serve alike.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from importlib import import_module
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from irbridge.errors import UserError, unknown
from irbridge.operators.base import Operator
from irbridge.priors import VP, Prior
from irbridge.priors.vp import vp_alphas_cumprod
from irbridge.ranges import CALLS, Options, one_of, option, whole

# The schedule of all published constants: DDPM's linear betas. A prior without timesteps of its own
# is asked at the levels of this one, by equal noise / clean.
PUBLISHED = VP(vp_alphas_cumprod({}))

RETURNS = one_of("clean", "official")
STEPS = whole(1, CALLS)


class Level(NamedTuple):
    """A noise level of a prior.

    Args:
        tau: the prior's timestep there, float64, ().
        alpha: the share of the clean image.
        sigma: the std of the noise.
    """

    tau: Tensor
    alpha: float
    sigma: float

    @property
    def std(self) -> float:
        """Of the states of images of std 1; 1 in a variance-preserving prior."""
        return math.hypot(self.alpha, self.sigma)


CLEAN = Level(torch.tensor(0.0, dtype=torch.float64), 1.0, 0.0)


class Step(NamedTuple):
    """One network call of a solver.

    Args:
        tau: the prior's timestep.
        z: the state that the network saw, (B, C, H, W).
        x0: the estimate after the call; the last step's is the result.
        residual: of a solver of a fixed point, how far each image is from it, relative, (B,).
    """

    tau: Tensor
    z: Tensor
    x0: Tensor
    residual: Tensor | None = None


@dataclass
class Problem:
    """What a solver is given.

    Args:
        denoise: the clean estimate of a state z (B, C, H, W) at a timestep (), or (B,) where images
            are at timesteps of their own; gradients pass.
        prior: the noise schedule of the network.
        operator: the known degradation.
        m: the measurement.
        std: of the measurement's noise, in the units of m, where images are in [-1, 1]: twice what
            a user calls ``noise``.
        noise: called with a tensor, gives unit normal noise of its shape.
        network: the frozen network behind ``denoise``, for a solver that adapts it (SCD).
        bounded: states are images in [-1, 1], so that estimates may be clipped.
    """

    denoise: Callable[[Tensor, Tensor], Tensor]
    prior: Prior
    operator: Operator
    m: Tensor
    std: float
    noise: Callable[[Tensor], Tensor]
    network: nn.Module | None = None
    bounded: bool = True

    def start(self) -> Tensor:
        """A^+ m as a new tensor, (B, C, H, W)."""
        return self.operator.inverse(self.m)


def first_state(problem: Problem, at: Level) -> Tensor:
    """Noise of the std that the states of images of std 1 have at a level, (B, C, H, W).

    In a variance-preserving prior that is unit noise, as the published programs start from.
    """
    like = problem.start()
    return at.std * problem.noise(like).to(like)


def predicted_noise(z: Tensor, x0: Tensor, at: Level) -> Tensor:
    """Eps of a state and its clean estimate."""
    return (z - at.alpha * x0) / at.sigma


def ddim_noise(at: Level, to: Level, eta: float) -> tuple[float, float]:
    """(new, kept): shares of new and of predicted noise of a DDIM step (Song et al. 2021, eq. 16).

    In general notation new = eta sigma_r sqrt(1 - (alpha_t sigma_r / (alpha_r sigma_t))^2).
    """
    ratio = at.alpha * to.sigma / (to.alpha * at.sigma)
    new = eta * to.sigma * math.sqrt(max(0.0, 1 - ratio**2))
    return new, math.sqrt(max(0.0, to.sigma**2 - new**2))


def strided(length: int, steps: int) -> np.ndarray:
    """``steps`` indices of a table, falling to 0 by ``length // steps``, as DDRM's and DDNM's."""
    return np.arange(steps)[::-1] * (length // steps)


@dataclass
class Solver(Options):
    """A method and its constants; the published ones are the defaults.

    A solver serves the operators that have what it ``needs``; :meth:`check` says so before any
    work. None of them samples the posterior exactly at finite steps; each class says what it does
    instead.

    Args:
        steps: network levels, from noise to clean; like every constant that is None, as published
            for the operator, see :meth:`settled`.
        returns: "clean" is the estimate that a user wants; "official" the array that the authors'
            program saves, where that is another.
    """

    KEY: ClassVar[str] = "solver"
    name: ClassVar[str]
    published: ClassVar[dict[str, dict]] = {}  # constants by operator; "" for all others
    needs: ClassVar[tuple[str, ...]] = ("linear",)
    needs_with_noise: ClassVar[tuple[str, ...]] = ()
    noiseless: ClassVar[bool] = False  # serves measurements without noise alone
    backward: ClassVar[bool] = False  # asks for gradients through the network
    experimental: ClassVar[bool] = False  # its paper or code could not be read

    steps: int | None = option(100, STEPS)
    returns: str = option("clean", RETURNS)

    def settled(self, operator: str) -> Solver:
        """The solver with the published constants of an operator where its own are None."""
        values = {**self.published.get("", {}), **self.published.get(operator, {})}
        return replace(self, **{k: v for k, v in values.items() if getattr(self, k) is None})

    def run(self, problem: Problem) -> Iterator[Step]:
        """One :class:`Step` for every call of the network; the last one's x0 is the result.

        Constants that are None are as published for the problem's operator.
        """
        return self.settled(problem.operator.name).loop(problem)

    @abstractmethod
    def loop(self, problem: Problem) -> Iterator[Step]:
        """:meth:`run`, every constant being settled."""

    def indices(self, length: int) -> np.ndarray:
        """The levels as falling indices of a table of so many timesteps."""
        return strided(length, self.steps)

    @property
    def calls(self) -> int:
        """Calls of the network."""
        return self.steps

    def levels(self, prior: Prior) -> list[Level]:
        """The levels of a prior from the most noise on, without the clean end.

        A prior of training timesteps (VP) is asked at its own; others at the levels of
        :data:`PUBLISHED`, by equal noise / clean. Levels beyond a prior's range are its last one,
        once.

        Raises:
            UserError: more steps are asked for than the prior has timesteps.
        """
        table = prior if isinstance(prior, VP) else PUBLISHED
        length = len(table.log_level)
        if self.steps > length:
            raise UserError(
                f"solver.steps={self.steps} is more than the {length} timesteps of the prior; give"
                f" at most {length}."
            )
        taus = prior.timestep(table.marginal(self.indices(length)).level)
        if table is prior:  # the way back is exact but for rounding
            taus = taus.round()
        taus = torch.unique_consecutive(taus)
        law = prior.marginal(taus)
        return [
            Level(tau, float(alpha), float(sigma))
            for tau, alpha, sigma in zip(taus, law.clean, law.noise, strict=True)
        ]

    def moves(self, prior: Prior) -> list[tuple[Level, Level]]:
        """(from, to) of every step; the last one leads to the clean end."""
        return list(pairwise([*self.levels(prior), CLEAN]))

    def check(self, operator: Operator, std: float) -> None:
        """UserError where the solver cannot serve such a measurement.

        Args:
            operator: the known degradation.
            std: of the noise.
        """
        for need in self.needs:
            self.require(operator, need, std)
        for need in self.needs_with_noise if std > 0 else ():
            self.require(operator, need, std, " with noise")
        if self.noiseless and std > 0:
            raise UserError(
                f"solver={self.name} holds the measurement as exact and would keep its noise; give"
                f" noise=0, or use {serving(operator, std)}."
            )

    def require(self, operator: Operator, need: str, std: float, when: str = "") -> None:
        """UserError unless an operator has what the solver needs.

        Args:
            operator: the known degradation.
            need: a word of :data:`WORDS`.
            std: of the noise.
            when: in which case it is needed, such as " with noise".
        """
        if getattr(operator, need):
            return
        raise UserError(
            f"solver={self.name} needs{when} an operator that {WORDS[need]}, and this"
            f" operator={operator.name} is not such; use {serving(operator, std)}."
        )


WORDS = {
    "linear": "is linear",
    "spectral": "has a singular value decomposition at hand (a blur: operator.padding=circular)",
    "differentiable": "is differentiable",
}
"""What an operator can do, as sentences say it."""

SOLVERS = ("ddrm", "ddnm", "dps", "pigdm", "diffpir", "reddiff", "deqir", "scd", "likelihood")


def solver_class(name: str) -> type[Solver]:
    """The class of a solver by its word; UserError lists them."""
    if name not in SOLVERS:
        remedy = f"choose one of {', '.join(SOLVERS)}"
        raise unknown(f"solver={name!r} is unknown", name, SOLVERS, remedy)
    module = import_module(f"irbridge.solvers.{name}")
    return next(
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Solver) and kind.__dict__.get("name") == name
    )


def solver(name: str, **constants) -> Solver:
    """A solver by its word.

    Args:
        name: one of :data:`SOLVERS`.
        constants: fields of its class; what is not given is as published.

    Raises:
        UserError: there is no such solver or constant, or a value is out of range.
    """
    kind = solver_class(name)
    known = [at.name for at in fields(kind)]
    for word in constants:
        if word not in known:
            remedy = f"give one of {', '.join(known)}"
            raise unknown(f"solver.{word} is no constant of {name}", word, known, remedy)
    return kind(**constants)


def serving(operator: Operator, std: float) -> str:
    """The solvers that serve measurements of an operator with such noise, as a sentence says it."""
    found = []
    for name in SOLVERS:
        kind = solver_class(name)
        with_noise = (*kind.needs, *(kind.needs_with_noise if std > 0 else ()))
        if all(getattr(operator, need) for need in with_noise) and not (kind.noiseless and std > 0):
            found.append(f"solver={name}")
    return " or ".join(found) or "another operator"
