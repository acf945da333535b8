"""A frozen prior as the denoiser that a sampler asks about a bridge's states."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.bridges.base import Bridge
from irbridge.gaussian.marginal import Marginal, draw
from irbridge.gaussian.transition import forward_keep, step
from irbridge.models.timestep_schedule import Timesteps
from irbridge.priors.base import Prior
from irbridge.samplers import Estimate, Query


class PriorState(NamedTuple):
    """What the prior is asked about: its state z, (B, C, H, W), its timestep, and the law there."""

    z: Tensor
    tau: Tensor
    level: Marginal


class PriorDenoiser:
    """Answers a sampler's queries: from the bridge to the prior, ask, and back (Sec. 3.2 and 3.3).

    The transition equation leads from the bridge's state to one of the prior's, at the timestep of
    the schedule. It needs an estimate of x0: the last one, or the degraded end at the first call.

    Args:
        ask: the network: a prior state (B, C, H, W) and its timestep give the clean estimate.
        bridge: the process that the sampler follows.
        prior: the noise schedule of the network.
        timesteps: the prior's timestep for each time of the bridge.
        end: the bridge's degraded end, (B, C, H, W).
        noise: called with a tensor, gives unit normal noise of its shape.

    Attributes:
        z: the prior's state at the last call.
        x0: the estimate of the last call; ``end`` before the first one.
    """

    def __init__(
        self,
        ask: Callable[[Tensor, Tensor], Tensor],
        bridge: Bridge,
        prior: Prior,
        timesteps: Timesteps,
        end: Tensor,
        noise: Callable[[Tensor], Tensor],
    ):
        self.ask, self.bridge, self.prior, self.timesteps = ask, bridge, prior, timesteps
        self.end, self.noise = end, noise
        self.z = self.x0 = end

    def enter(self, query: Query) -> PriorState:
        """The prior's state for a bridge's one, by the forward transition; draws its noise."""
        tau = self.timesteps(self.bridge, self.prior, query.t)
        here, level = self.bridge.marginal(query.t), self.prior.marginal(tau)
        keep, scale = forward_keep(here, level), self.bridge.scale(self.x0, self.end)
        z = step(query.x, self.x0, self.end, here, level, keep, self.noise(self.end), scale)
        return PriorState(z, tau, level)

    def leave(self, at: PriorState) -> Estimate:
        """The answer to the sampler, from the estimate ``x0`` at a state of the prior.

        The noise of the state is multiplied by the bridge's residual, where it has one (RDBM), so
        that a step from the prior enters the bridge with its law.
        """
        scale = self.bridge.scale(self.x0, self.end)
        if not torch.is_tensor(scale):
            return Estimate(self.x0, at.z, at.level)
        mean = draw(at.level, self.x0, self.x0, torch.zeros_like(at.z))
        return Estimate(self.x0, mean + scale * (at.z - mean), at.level)

    def __call__(self, query: Query) -> Estimate:
        """The answer to a query, by one call of the network."""
        at = self.enter(query)
        self.z, self.x0 = at.z, self.ask(at.z, at.tau)
        return self.leave(at)


class DirectDenoiser(PriorDenoiser):
    """Answers a sampler whose states are the prior's already, at their own timesteps.

    Such are those of the prior itself and of E-Bridge: nothing is matched and no noise is added.

    Args:
        ask: the network, as of :class:`PriorDenoiser`.
        bridge: the process that the sampler follows, with ``prior_states``.
        bounded: whether estimates are clipped to [-1, 1] before a step, as those of images are.
    """

    def __init__(
        self,
        ask: Callable[[Tensor, Tensor], Tensor],
        bridge: Bridge,
        bounded: bool,
    ):
        self.ask, self.bridge, self.bounded = ask, bridge, bounded

    @override
    def enter(self, query: Query) -> PriorState:
        return PriorState(query.x, self.bridge.timestep(query.t), self.bridge.marginal(query.t))

    @override
    def leave(self, at: PriorState) -> Estimate:
        x0 = self.x0.clamp(-1, 1) if self.bounded else self.x0
        return Estimate(x0, at.z, at.level)
