"""Distillation of a bridge to one or a few calls (IBMD, ICML 2025, arXiv 2502.01362)."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from typing_extensions import override

from irbridge.errors import UserError
from irbridge.gaussian.transition import loss_weight
from irbridge.models.irbridge import IRBridge
from irbridge.models.restorer import Row
from irbridge.models.training_step import Batch, TrainingStep

FASTER = 5  # how much faster the follower learns than the pupil: published as 5 steps to 1


def gap(taught: Tensor, followed: Tensor, x0: Tensor) -> Tensor:
    """How much better the follower knows the pupil's images than the teacher does, element-wise.

    Its mean, with the best follower, is 0 where the pupil's images have the teacher's law, and
    above 0 elsewhere, also where the pupil always gives the same one (IBMD, eq. of the inverse
    bridge matching).

    Args:
        taught: the teacher's estimate of x0 from a state of the bridge that ends at x0.
        followed: the follower's.
        x0: the pupil's image.
    """
    return (taught - x0) ** 2 - (followed - x0) ** 2


class Distilled(IRBridge):
    """An adapter for few calls, from a trained one, by inverse bridge matching distillation.

    Three adapters drive one frozen network, all from the teacher's weights: the teacher, the pupil,
    which is the model, and a follower, which learns the bridge of the pupil's images. Clean images
    are not looked at. Published are five steps of the follower to one of the pupil; here both
    step together and the follower's rate is five times the pupil's.

    Args:
        *parts: those of an :class:`IRBridge`; its adapter is the pupil.
        teacher: the trained adapter; None: of a finished pupil, which restores alone.
        **options: likewise of an :class:`IRBridge`.
    """

    first_share = 1.0

    def __init__(self, *parts, teacher: nn.Module | None = None, **options):
        super().__init__(*parts, **options)
        if self.sampler.nfe == 0:
            raise UserError("sampler.nfe=0 leaves no call to distill; give 1 or more.")
        if self.loss_options.lpips:
            raise UserError(
                "loss.lpips needs clean images, and distilling looks at none; use loss.lpips=0."
            )
        if teacher is not None:
            self.adapter.load_state_dict(teacher.state_dict())
            teacher = deepcopy(teacher).eval().requires_grad_(False)
        self.teacher = teacher
        self.follower = deepcopy(self.adapter)

    @override
    def trainable(self) -> nn.Module:
        return nn.ModuleDict({"adapter": self.adapter, "follower": self.follower})

    @override
    def parameter_groups(self) -> list[dict]:
        return [
            {"params": list(self.follower.parameters())},
            {"params": list(self.adapter.parameters()), "share": 1 / FASTER},
        ]

    @override
    def rows(self, **options) -> list[Row]:
        *rows, own = super().rows(**options)
        return [*rows, own._replace(label=own.label.replace("IRBridge", "Distilled", 1))]

    @override
    def loss(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """The follower's error, the gap, and how far the pupil's anchor is from the teacher's."""
        if self.teacher is None:
            raise UserError("This model is distilled already; give teacher=RUN to distill again.")
        degraded, losses = self.seen(batch.degraded), {}
        y = (self.latents or self.backbone.encode)(degraded[:, :3])
        with torch.no_grad():
            known = self.teacher.condition(degraded, y)
            end = self.end(known)
        own = self.adapter.condition(degraded, y)
        if self.learns_anchor:
            away = (own.anchor - known.anchor).abs().flatten(1).mean(1)
            losses["anchor"] = self.loss_options.anchor * away
        z, tau = self.STATES["visited"](self, None, own, step)
        x0 = self.bridge.clean(self.denoise(z, tau, own), self.end(own), tau)
        # apart from the number that chose the pupil's state
        t = (step.uniform.cpu().double() * 7919 % 1).clamp(min=1e-3) * self.bridge.T

        def estimate(x0: Tensor, adapter: nn.Module, condition) -> tuple[Tensor, Tensor]:
            z, tau = self.state(t, x0, end, step)
            return self.bridge.clean(self.denoise(z, tau, condition, adapter), end, tau), tau

        learnt, tau = estimate(x0.detach(), self.follower, self.follower.condition(degraded, y))
        weight = loss_weight(self.backbone.prior.marginal(tau), self.loss_options.weight)
        weight = weight.expand(len(y)).to(y) ** 2
        # twice: the gap, of the same states, takes its gradient back once
        losses["follower"] = 2 * weight * ((learnt - x0.detach()) ** 2).flatten(1).mean(1)
        followed, _ = estimate(x0, self.follower, self.follower.condition(degraded, y))
        taught, _ = estimate(x0, self.teacher, known)
        losses["gap"] = weight * gap(taught, followed, x0).flatten(1).mean(1)
        return losses
