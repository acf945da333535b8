"""The prior itself as a process, and what follows it: baselines without a bridge."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.bridges.base import Bridge
from irbridge.gaussian.marginal import Marginal, broadcast
from irbridge.priors.base import Prior
from irbridge.samplers.multistep import Multistep
from irbridge.samplers.single_step import Implicit, Renoise


@dataclass(frozen=True)
class PriorPath(Bridge):
    """A generative prior as a process, from the timestep T down to its lowest one.

    It starts at the noised degraded end (SDEdit).

    Args:
        T: the timestep to start at.
        start: as of any bridge.
        prior: the noise schedule.
    """

    prior: Prior | None = None
    prior_states: ClassVar = True

    @property
    @override
    def lowest(self) -> float:
        return self.prior.lowest

    @override
    def marginal(self, t) -> Marginal:
        return self.prior.marginal(t)

    @override
    def timestep(self, t) -> Tensor:
        return torch.as_tensor(t, dtype=torch.float64)


class DDIM(Implicit):
    """DDIM on the prior itself (Song et al., ICLR 2021)."""

    name: ClassVar = "ddim"
    on_prior: ClassVar = True


class FreshDDIM(Renoise):
    """DDIM on the prior itself whose noise is drawn anew after each call, all of it.

    It is what is left of a bridge through the prior whose own noise is far below the prior's
    level: there y cancels, and the next state is the estimate with fresh noise.
    """

    name: ClassVar = "ddim_fresh"
    on_prior: ClassVar = True


class DPMSolverPP(Multistep):
    """DPM-Solver++(2M) on the prior itself (Lu et al., 2022), which weighs the slope as a midpoint.

    With a bridge's own network it follows the bridge, as :class:`DDIM` does.
    """

    name: ClassVar = "dpmpp"
    on_prior: ClassVar = True

    @override
    def correction(
        self,
        past: list[tuple[Tensor, Tensor]],
        clean: Tensor,
        at: Tensor,
        width: Tensor,
        slope: Tensor,
    ) -> Tensor:
        return broadcast(clean * -torch.expm1(-width) * width / 2, slope) * slope
