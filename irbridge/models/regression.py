"""Plain regression, the honest baseline."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from typing_extensions import override

from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.perceptual import perceptual
from irbridge.models.restorer import Restorer, Row, State
from irbridge.models.training_step import Batch, TrainingStep


class Regression(Restorer):
    """One network from the degraded image to the clean one, trained by L1.

    It is the baseline that a bridge must earn its cost against.

    Args:
        network: the adapter's trunk.
        lpips: weight of the LPIPS beside the L1 error.
    """

    def __init__(self, network: nn.Module, lpips: float = 0.0):
        super().__init__()
        self.lpips = lpips
        self.network, self.stride = network, network.stride
        self.masked, self.reach = network.masked, network.reach

    @override
    def trainable(self) -> nn.Module:
        return self.network

    @override
    @torch.no_grad()
    def trajectory(self, y: Tensor, tiles: Tiles = WHOLE, **options) -> Iterator[State]:
        y = self.seen(self.given(y))

        def network(y: Tensor) -> Tensor:
            with self.networks():
                return self.network(y)[0]

        x0 = tiles.reaching(self.reach)(network, y, stride=self.stride)
        yield State(0.0, x0, y[:, :3], x0)

    @override
    def rows(self, **options) -> list[Row]:
        return [Row("Plain regression", "regression", {})]

    @override
    def random(self, **options) -> bool:
        return False

    @override
    def loss(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """L1 error of the network's image, and its LPIPS; nothing in it is random."""
        restored = self.network(self.seen(batch.degraded))[0]
        losses = {"regression": (restored - batch.clean).abs().flatten(1).mean(1)}
        if self.lpips:
            losses["lpips"] = self.lpips * perceptual(restored, batch.clean)
        return losses
