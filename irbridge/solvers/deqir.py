"""DeqIR: a whole sampling chain as one fixed point (Cao et al., CVPR 2024, arXiv 2311.11600)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.ranges import CALLS, NOT_NEGATIVE, POSITIVE, SHARE, number, one_of, option, whole
from irbridge.solvers.base import STEPS, Level, Problem, Solver, Step, first_state, predicted_noise

BETA = number(lambda v: 0 < v <= 1, "above 0 and at most 1")


@dataclass
class DeqIR(Solver):
    """The states of a chain are found all at once, each network call being a batch of all levels.

    The chain is DDNM's without new noise: the estimate's part that the measurement sees is replaced
    by A^+ m, and the state steps down with the predicted noise. Its states are the fixed point of
    :class:`Chain`. As the steps and the prior's highest level grow, the result for a Gaussian prior
    is a sample of the posterior; at 25 steps it is nearer the prior's mean.

    A call costs the memory of ``steps`` times the batch, and Anderson's method keeps 2 ``memory``
    times as many states. It is a gain in time only where a device has room for that: ``serial``
    calls the network on fewer images in all. The residual of every call is in its step. Each image
    has its own mixing weights and stays as it is from where its residual is below ``tol``.

    The published optimisation of the first noise is not built, because it compares with the true
    image. Nor is the official program's factor sqrt(1 - alpha^4) on both noises of operators
    without a singular value decomposition, which is not the paper's.

    Args:
        scheme: "anderson" (accelerated); "picard", plain iteration, exact after ``steps`` calls;
            "serial", one level after the other.
        iterations: network calls at most, of the schemes that iterate.
        memory: how many calls Anderson's method mixes.
        lam: added to the diagonal of the inner products of their residuals.
        beta: the share of f(X) in what is mixed, the rest being of X.
        tol: an image has converged where ||f(X) - X|| is below it, relative to ||f(X)||.
        nw: the share of new noise, one draw for all steps.
        etw: how much less of the predicted noise is kept, sqrt(1 - etw^2). The noise level is kept
            where etw = nw.
        returns: "clean" is f(X) of the last call; "official" is X itself, the mixture of earlier
            calls that it was asked at.
    """

    name: ClassVar[str] = "deqir"
    noiseless: ClassVar[bool] = True

    steps: int = option(25, STEPS)
    scheme: str = option("anderson", one_of("anderson", "picard", "serial"))
    iterations: int = option(15, whole(1, CALLS))
    memory: int = option(5, whole(1, 100))
    lam: float = option(1e-3, POSITIVE)
    beta: float = option(1.0, BETA)
    tol: float = option(1e-3, NOT_NEGATIVE)
    nw: float = option(0.0, SHARE)
    etw: float = option(0.0, SHARE)

    @property
    @override
    def calls(self) -> int:
        """Network calls at most; but for ``serial``, each is of ``steps`` images per image."""
        return self.steps if self.scheme == "serial" else self.iterations

    def shares(self, to: Level) -> tuple[float, float]:
        """(kept, new): the shares of predicted and of new noise in the state at a level."""
        return to.sigma * math.sqrt(1 - self.etw**2), to.sigma * self.nw

    @override
    def loop(self, problem: Problem) -> Iterator[Step]:
        first = first_state(problem, self.levels(problem.prior)[0])
        new = problem.noise(first) if self.nw else torch.zeros_like(first)
        solve = self._serial if self.scheme == "serial" else self._parallel
        yield from solve(problem, first, new)

    def _serial(self, problem: Problem, z: Tensor, new: Tensor) -> Iterator[Step]:
        operator, start = problem.operator, problem.start()
        for at, to in self.moves(problem.prior):
            x0 = problem.denoise(z, at.tau)
            eps = predicted_noise(z, x0, at)
            x0 = x0 + start - operator.inverse(operator(x0))
            yield Step(at.tau, z, x0)
            kept, share = self.shares(to)
            z = to.alpha * x0 + kept * eps + share * new

    def _parallel(self, problem: Problem, first: Tensor, new: Tensor) -> Iterator[Step]:
        chain = Chain(self, problem, first, new)
        x, going = chain.unit.expand(len(chain.taus), *first.shape), None
        past: deque[tuple[Tensor, Tensor]] = deque(maxlen=self.memory)
        for _ in range(self.iterations):
            if past:
                x = torch.where(going, self._next(past), x)  # what has converged stays
            fx = chain(x)
            residual = _norm(fx - x) / (1e-5 + _norm(fx))
            states = chain.inputs(x)
            result = x if self.returns == "official" else fx
            yield Step(chain.taus[-1], states[-1], result[-1], residual)
            still = (residual >= self.tol).reshape(-1, *[1] * (first.dim() - 1))
            going = still if going is None else going & still
            if not going.any():
                break
            past.append((x, fx))

    def _next(self, past: deque[tuple[Tensor, Tensor]]) -> Tensor:
        """The next states: the mixture of past ones of the smallest residual, the weights' sum 1.

        The weights of each level and of each image solve [[0, 1], [1, G G^T + lam]] w = [1, 0],
        where the rows of G are its residuals.
        """
        if self.scheme == "picard" or len(past) < 2:
            return past[-1][1]
        rows = torch.stack([fx - x for x, fx in past], 2).flatten(3)  # (T, B, n, pixels)
        system = torch.ones(*rows.shape[:2], len(past) + 1, len(past) + 1, dtype=torch.float64)
        system[..., 0, 0] = 0
        ridge = self.lam * torch.eye(len(past), dtype=torch.float64)
        system[..., 1:, 1:] = (rows @ rows.mT).cpu().double() + ridge
        one = torch.zeros(*system.shape[:-1], dtype=torch.float64)
        one[..., 0] = 1
        weights = torch.linalg.solve(system, one)[..., 1:].to(rows)
        mixed = torch.zeros_like(past[-1][1])
        for weight, (x, fx) in zip(weights.unbind(-1), past, strict=True):
            weight = weight.reshape(*weight.shape, *[1] * (x.dim() - 2))
            mixed += weight * (self.beta * fx + (1 - self.beta) * x)
        return mixed


class Chain:
    """All states of a chain from the predictions at all states: its fixed point is the chain.

    Of u_k = z_k / alpha_k, the state after step k, the part that A takes to zero is what the first
    state has, with the changes of all steps up to k. The rest is A^+ m with the noise of step k.
    A state depends on earlier ones alone, so that T calls are the serial chain of T steps.

    States stand here over the std that they have for images of std 1, which is 1 in a
    variance-preserving prior; else the highest levels of other priors would outweigh the rest, and
    the first guess, which is the first state at all levels, would be far off at the lowest.

    Args:
        solver: its noise shares.
        problem: what is solved.
        first: the first state, (B, C, H, W).
        new: the noise of all steps, alike.
    """

    def __init__(self, solver: DeqIR, problem: Problem, first: Tensor, new: Tensor):
        moves = solver.moves(problem.prior)
        self.problem, self.first, self.start = problem, first, problem.start()
        self.taus = torch.stack([at.tau for at, _ in moves])

        def column(values) -> Tensor:  # (T, 1, 1, 1, 1), to multiply states with
            row = torch.tensor(values, dtype=torch.float64).to(first)
            return row.reshape(-1, *[1] * first.dim())

        kept, fresh = zip(*[solver.shares(to) for _, to in moves], strict=True)
        alpha, sigma = column([at.alpha for at, _ in moves]), column([at.sigma for at, _ in moves])
        self.alpha, self.sigma, after = alpha, sigma, column([to.alpha for _, to in moves])
        self.std = column([at.std for at, _ in moves])
        self.after = after / column([to.std for _, to in moves])
        self.unit = first / self.std[0]
        self.kept = column(kept) / after
        self.change = self.kept - sigma / alpha
        self.new = new * column(fresh) / after

    def inputs(self, x: Tensor) -> Tensor:
        """The states that the network sees, (T, B, C, H, W), from those after each step, alike."""
        return self.std * torch.cat([self.unit[None], x[:-1]])

    def __call__(self, x: Tensor) -> Tensor:
        """The states after each step from those, (T, B, C, H, W), by one network call."""
        z = self.inputs(x)
        taus = self.taus.repeat_interleave(len(self.first))
        x0 = self.problem.denoise(z.flatten(0, 1), taus).reshape(z.shape)
        eps = (z - self.alpha * x0) / self.sigma
        hidden = self.first / self.alpha[0] + (self.change * eps + self.new).cumsum(0)
        seen = self._seen(hidden - self.kept * eps - self.new)
        return self.after * (hidden + self.start - seen)

    def _seen(self, x: Tensor) -> Tensor:
        """A^+ A x of (T, B, C, H, W)."""
        operator = self.problem.operator
        return operator.inverse(operator(x.flatten(0, 1))).reshape(x.shape)


def _norm(x: Tensor) -> Tensor:
    """Of all levels of each image, (B,)."""
    return x.transpose(0, 1).flatten(1).norm(dim=1)
