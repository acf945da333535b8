"""Regression."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.restorer import Restorer, State


class Regression(Restorer):
    """Plain regression, the baseline that a bridge must earn its cost against: the adapter's trunk,
    trained by L1.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.stride, self.masked, self.reach = (
            network,
            network.stride,
            network.masked,
            network.reach,
        )

    def trainable(self) -> nn.Module:
        return self.network

    @torch.no_grad()
    def path(self, y: Tensor, tiles: Tiles = WHOLE, **options) -> Iterator[State]:
        y = self.seen(y)

        def network(y: Tensor) -> Tensor:
            with self.networks():
                return self.network(y)[0]

        x0 = tiles.reaching(self.reach)(network, y, stride=self.stride)
        yield State(0.0, x0, y[:, :3], x0)

    def passes(self, **options) -> int:
        return 1

    def loss(
        self, clean: Tensor, degraded: Tensor, noise: Tensor, uniform: Tensor
    ) -> dict[str, Tensor]:
        return {
            "regression": (self.network(self.seen(degraded))[0] - clean).abs().flatten(1).mean(1)
        }
