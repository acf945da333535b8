"""SCD: the network itself is adapted to one measurement (Barbano et al., arXiv 2308.14409)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.errors import UserError
from irbridge.operators.base import Operator, conjugate_gradient
from irbridge.ranges import NOT_NEGATIVE, POSITIVE, SHARE, option, whole
from irbridge.solvers.base import (
    Problem,
    Solver,
    Step,
    ddim_noise,
    first_state,
    predicted_noise,
)
from irbridge.solvers.low_rank import LowRank, check_peft, low_rank

LOWEST = 4  # levels that are always adapted to


@dataclass
class SCD(Solver):
    """Steerable conditional diffusion: low-rank updates of the network, learnt while it restores.

    At some levels the updates take ``inner`` steps of Adam on what the estimate, corrected by
    conjugate gradients, misses of the measurement, and on its total variation. Every level then
    corrects the adapted estimate and steps down by DDIM with the noise that the *original* network
    predicts. Without inner steps, or with ``lr=0``, that is DDS (Chung et al., arXiv 2303.05754).
    The result is neither the posterior's mean nor a sample of it.

    Each image of a batch has updates and an Adam of its own. The updates leave the network after
    the run, also where it fails or is given up, and its weights are never written to. Noise of the
    measurement is not looked at: ``gamma`` is the weight of the data, whatever the noise.

    The defaults are those of the official program. Those of its README's walnut command (gamma=0.2,
    tv=1e-3, lr=3e-4, rank=12, inner=18, skip=5) are for a tomography operator of large norm; for
    operators of norm 1, such as blur or a mask, gamma=0.2 makes too little of the measurement. In
    the program "r" is the rank and "K" the inner steps; its help pages say it the other way round.

    Args:
        rank: of the updates.
        inner: steps of Adam at a level that is adapted to.
        lr: of Adam.
        gamma: the correction is the u of the least ||u - x0||^2 + gamma ||A u - m||^2.
        cg: steps of conjugate gradients towards it.
        tv: the weight of the total variation, a sum, beside the data's mean square.
        skip: every ``skip``-th level is adapted to, from the lowest on, and the lowest four.
        eta: the share of new noise of a DDIM step.
        returns: "clean" is the corrected estimate of the last level; "official" the estimate.
    """

    name: ClassVar[str] = "scd"
    needs: ClassVar[tuple[str, ...]] = ("linear", "differentiable")
    backward: ClassVar[bool] = True

    rank: int = option(8, whole(1, 1024))
    inner: int = option(12, whole(0, 10_000))
    lr: float = option(1e-4, NOT_NEGATIVE)
    gamma: float = option(10.0, POSITIVE)
    cg: int = option(3, whole(1, 1000))
    tv: float = option(1e-6, NOT_NEGATIVE)
    skip: int = option(20, whole(1, 10_000))
    eta: float = option(0.2, SHARE)

    @property
    def adapts(self) -> bool:
        """Whether the network is adapted at all."""
        return self.inner > 0 and self.lr > 0

    def adapted(self, levels: int) -> set[int]:
        """The levels that are adapted to, counted from the least noise on."""
        return {*range(0, levels, self.skip), *range(min(LOWEST, levels))}

    @property
    @override
    def calls(self) -> int:
        """Network calls; each inner step is one, and every level takes one of either network."""
        if not self.adapts:
            return self.steps
        return 2 * self.steps + self.inner * len(self.adapted(self.steps))

    @override
    def check(self, operator: Operator, std: float) -> None:
        super().check(operator, std)
        if self.adapts:
            check_peft()

    @override
    def loop(self, problem: Problem) -> Iterator[Step]:
        z = first_state(problem, self.levels(problem.prior)[0])
        if not self.adapts:
            yield from self._descend(problem, z, None)
            return
        if problem.network is None:
            raise UserError("solver.inner above 0 needs the network itself; give Problem.network.")
        with low_rank(problem.network, self.rank, self.lr, problem.noise, len(z)) as updates:
            yield from self._descend(problem, z, updates)

    def _descend(self, problem: Problem, z: Tensor, updates: LowRank | None) -> Iterator[Step]:
        """All levels; without updates the estimates are the original network's."""
        moves = self.moves(problem.prior)
        chosen = self.adapted(len(moves))
        for above, (at, to) in zip(reversed(range(len(moves))), moves, strict=True):
            with torch.no_grad():
                x0 = problem.denoise(z, at.tau)
            eps = predicted_noise(z, x0, at)
            if updates is not None:
                yield Step(at.tau, z, x0)
                for _ in range(self.inner if above in chosen else 0):
                    yield Step(at.tau, z, self._learn(problem, z, at.tau, updates))
                x0 = _adapted(problem, z, at.tau, updates)
            clean = self._corrected(problem.operator, problem.m, x0)
            yield Step(at.tau, z, x0 if self.returns == "official" else clean)
            new, kept = ddim_noise(at, to, self.eta)
            z = to.alpha * clean + kept * eps
            if new:
                z = z + new * problem.noise(z)

    def _learn(self, problem: Problem, z: Tensor, tau: Tensor, updates: LowRank) -> Tensor:
        """One step of every image's updates; returns the estimates before it."""
        estimates = []
        for i in range(len(z)):
            # as copies, the caller's tensors may be of inference mode
            with torch.inference_mode(False), torch.enable_grad(), updates.on(i):
                m = problem.m[i : i + 1].clone()
                x0 = problem.denoise(z[i : i + 1].clone(), tau)
                clean = self._corrected(problem.operator, m, x0)
                loss = (problem.operator(clean) - m).square().mean()
                updates.step(i, loss + self.tv * total_variation(clean))
            estimates.append(x0.detach())
        return torch.cat(estimates)

    def _corrected(self, operator: Operator, m: Tensor, x0: Tensor) -> Tensor:
        """The estimate with ``cg`` steps towards the measurement."""
        return conjugate_gradient(
            lambda u: u + self.gamma * operator.adjoint(operator(u)),
            x0 + self.gamma * operator.adjoint(m),
            x0,
            self.cg,
            0,
        )


def _adapted(problem: Problem, z: Tensor, tau: Tensor, updates: LowRank) -> Tensor:
    """The estimate of each image by the network with its own updates."""
    estimates = []
    for i in range(len(z)):
        with torch.inference_mode(False), torch.no_grad(), updates.on(i):
            estimates.append(problem.denoise(z[i : i + 1].clone(), tau))
    return torch.cat(estimates)


def total_variation(x: Tensor) -> Tensor:
    """The sum of |dx| + |dy| of images, without their last row and column, ()."""
    corner = x[..., :-1, :-1]
    return (x[..., 1:, :-1] - corner).abs().sum() + (x[..., :-1, 1:] - corner).abs().sum()
