"""The embedded prior: unconditional training of a diffusers UNet2DModel."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from typing_extensions import override

from irbridge.backbones.pixel import PixelBackbone
from irbridge.gaussian.marginal import draw
from irbridge.gaussian.noise import Noise
from irbridge.gaussian.transition import loss_weight
from irbridge.models.restorer import Restorer, State
from irbridge.models.training_step import Batch, TrainingStep
from irbridge.samplers import DDIM, Estimate, PriorPath, Query, drive


class Pretrainer(Restorer):
    """An unconditional denoiser in training, its backbone thawed.

    Its loss is the squared error of v at the levels that restoration visits.

    Args:
        backbone: the network with its prior.
        median: of noise / clean, which is log-normal.
        spread: the std of its logarithm.
        wide: share of the draws that are instead log-uniform over the prior's whole range.
    """

    def __init__(
        self, backbone: PixelBackbone, median: float = 0.25, spread: float = 1.1, wide: float = 0.1
    ):
        super().__init__()
        self.backbone, self.median, self.spread, self.wide = backbone, median, spread, wide
        self.stride = backbone.stride
        backbone.network.requires_grad_(True)

    @override
    def trainable(self) -> nn.Module:
        return self.backbone.network

    def levels(self, uniform: Tensor) -> Tensor:
        """Noise levels (B,), float64, of uniforms (B,) in [0, 1)."""
        u, prior = uniform.cpu().double().clamp(1e-6, 1 - 1e-6), self.backbone.prior
        low, high = (
            prior.marginal(t).level.clamp(1e-4, 1e3).log() for t in (prior.lowest, prior.highest)
        )
        even = low + (u / max(self.wide, 1e-9)) * (high - low)
        normal = math.log(self.median) + self.spread * torch.special.ndtri(
            (u - self.wide) / (1 - self.wide)
        )
        return torch.where(u < self.wide, even, normal).exp()

    @override
    def loss(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """The squared error of v at levels drawn by :meth:`levels`; only clean images are used."""
        clean = batch.clean
        tau = self.backbone.prior.timestep(self.levels(step.uniform))
        level = self.backbone.prior.marginal(tau)
        error = self.backbone.denoise(draw(level, clean, clean, step.noise), tau) - clean
        return {"prior": error.square().flatten(1).mean(1) * loss_weight(level, "v").to(error) ** 2}

    @override
    def trajectory(
        self, y: Tensor, seeds: list[int] | None = None, steps: int = 25
    ) -> Iterator[State]:
        """Unconditional DDIM samples of y's shape, steps spaced evenly in the timestep."""
        prior = self.backbone.prior
        z = Noise(seeds or list(range(len(y))))(y)

        def ask(query: Query) -> Estimate:
            tau = torch.tensor(query.t, dtype=torch.float64)
            x0 = self.backbone.denoise(query.x, tau).clamp(-1, 1)
            return Estimate(x0, query.x, prior.marginal(tau))

        process = PriorPath(T=prior.highest, prior=prior)
        loop = DDIM(nfe=steps).loop(process, z, torch.zeros_like, x=z)
        for query, estimate in drive(loop, ask):
            yield State(query.t, query.x, query.x, estimate.x0)
