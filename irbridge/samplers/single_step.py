"""Samplers whose step is one estimate and one move: they differ in the noise that survives it."""

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.bridges.base import Bridge
from irbridge.gaussian.marginal import Marginal, draw
from irbridge.gaussian.transition import implicit_keep, step
from irbridge.samplers.base import Noise, Query, Sampler, Steps, Trajectory, must_be, option

Laws = tuple[Marginal, Marginal, Tensor]


class SingleStep(Sampler):
    """One estimate, then one step of the transition equation between two laws."""

    fresh: ClassVar[bool] = True
    """False: the mean of the step alone, which shrinks the variance."""

    @abstractmethod
    def laws(self, bridge: Bridge, t: float, s: float) -> Laws:
        """The laws that the step from t to s leads between, and the kept std."""

    @override
    def step(self, run: Trajectory, x: Tensor, t: float, s: float, calls: int) -> Steps:
        estimate = yield Query(float(t), x)
        return run.move(x, estimate.x0, *self.laws(run.bridge, t, s), fresh=self.fresh)


class Reverse(Sampler):
    """IRBridge's published step: from the prior's state, all of whose noise is kept (Sec. 3.2).

    On a bridge with a network of its own the state is the bridge's, and this is :class:`Implicit`
    but for the pinned end, where no noise is drawn.
    """

    name: ClassVar = "reverse"

    @override
    def step(self, run: Trajectory, x: Tensor, t: float, s: float, calls: int) -> Steps:
        x0, z, level = yield Query(float(t), x)
        then = run.bridge.marginal(s)
        return step(z, x0, run.y, level, then, implicit_keep(level, then))


class Implicit(SingleStep):
    """All noise is kept: DDIM on a bridge, DBIM with eta 0 (Zheng et al., ICLR 2025), RDBM."""

    name: ClassVar = "implicit"

    @override
    def laws(self, bridge: Bridge, t: float, s: float) -> Laws:
        now, then = bridge.marginal(t), bridge.marginal(s)
        return now, then, implicit_keep(now, then)


class Posterior(SingleStep):
    """A draw from p(x_s | x_t, x0, y): DDPM, IR-SDE, GOUB, I2SB, DBIM with eta 1."""

    name: ClassVar = "posterior"

    @override
    def laws(self, bridge: Bridge, t: float, s: float) -> Laws:
        return bridge.posterior(t, s)


@dataclass(frozen=True)
class Eta(SingleStep):
    """Between :class:`Implicit` and :class:`Posterior`, as DDIM's eta.

    Args:
        eta: the fresh noise's std, as a share of the posterior's: 0 (implicit) to 1 (posterior).
    """

    eta: float = option(1.0, must_be("from 0 to 1", lambda v: 0 <= v <= 1))

    name: ClassVar = "eta"

    @override
    def laws(self, bridge: Bridge, t: float, s: float) -> Laws:
        now, then, keep = bridge.posterior(t, s)
        if self.eta == 1:
            return now, then, keep
        variance = then.noise**2 - keep**2
        # the posterior's laws may be another process's; the bridge's own are moved between
        now, then = bridge.marginal(t), bridge.marginal(s)
        keep = (then.noise**2 - self.eta**2 * variance).clamp(min=0).sqrt()
        return now, then, torch.where(now.noise > 0, keep, 0.0)

    @override
    def label(self) -> str:
        return f"{self.rule} {self.eta:g}"


class Mean(Posterior):
    """The posterior's mean alone: "mean-ODE" of GOUB and UniDB++.

    It is not the probability-flow ODE, and shrinks the variance.
    """

    name: ClassVar = "mean"
    fresh: ClassVar = False


class Renoise(SingleStep):
    """No noise is kept: the state is drawn anew from the next law."""

    name: ClassVar = "renoise"

    @override
    def laws(self, bridge: Bridge, t: float, s: float) -> Laws:
        now, then = bridge.marginal(t), bridge.marginal(s)
        return now, then, torch.zeros_like(then.noise)


class Drift(SingleStep):
    """The mean moves and the noise stays as it is: DiffUIR's update (CVPR 2024).

    It keeps the mean of the bridge's law, but has too much noise.
    """

    name: ClassVar = "drift"

    @override
    def laws(self, bridge: Bridge, t: float, s: float) -> Laws:
        now, then = bridge.marginal(t), bridge.marginal(s)
        noisy = then._replace(noise=torch.maximum(now.noise, then.noise))
        return now, noisy, now.noise


class Drawn(Sampler):
    """The noise drawn at the start is put back at every step: E-Bridge's published loop.

    The state keeps the mean of the bridge's law, but its noise and its estimate's depend on each
    other, so that the law is not kept. With the exact denoiser of a pixel of posterior variance .04
    on :class:`~irbridge.bridges.ebridge.EBridge` to .8, the result's is .004 after 3 calls, .014
    after 5, .035 after 10, .068 after 20, .145 after 50, and grows without bound; that of
    :class:`Implicit`, which takes the noise that the estimate implies, tends to .04.
    """

    name: ClassVar = "drawn"
    MOST: ClassVar[int] = 10
    """Calls up to which the result has no more variance than it should."""

    @override
    def loop(
        self,
        bridge: Bridge,
        y: Tensor,
        noise: Noise,
        first: float | None = None,
        x: Tensor | None = None,
    ) -> Steps:
        if self.nfe > self.MOST:
            warnings.warn(
                f"sampler.rule={self.name} has too much variance beyond {self.MOST} calls, and"
                f" ever more of it with more; use fewer than {self.nfe}, or sampler.rule=implicit.",
                stacklevel=2,
            )
        return (yield from super().loop(bridge, y, noise, first, x))

    @override
    def step(self, run: Trajectory, x: Tensor, t: float, s: float, calls: int) -> Steps:
        x0 = (yield Query(float(t), x)).x0
        if run.drawn is None:
            run.drawn = run.noise(run.y)
        return draw(run.bridge.marginal(s), x0, run.y, run.drawn * run.bridge.scale(x0, run.y))
