"""Static."""

import torch
import torch.nn.functional as F
from torch import Tensor

from irbridge.adapters.base import Condition, ZeroConvs, mask_of
from irbridge.adapters.pixel import PixelAdapter
from irbridge.backbones.pixel import PixelBackbone, skip_layout


class StaticAdapter(PixelAdapter):
    """Sees only y (T2I-Adapter style), so that it runs once per image however many steps follow.
    The arguments are :class:`PixelAdapter`'s.
    """

    def __init__(
        self,
        backbone: PixelBackbone,
        channels: list[int] = (32, 64, 96, 128),
        layers: int = 1,
        anchor: bool | str = True,
        trunk: str = "unet",
        masked: bool = False,
        anchor_digest: str | None = None,
        **sizes,
    ):
        super().__init__(
            backbone, channels, layers, anchor, trunk, masked, True, sizes, anchor_digest
        )
        self.layout, own = skip_layout(backbone), self.trunk.features_layout
        self.zero = ZeroConvs([own[min(s, self.trunk.stride)] for _, s in self.layout], self.layout)

    def condition(self, y: Tensor, state: Tensor | None = None) -> Condition:
        """Y (B, 3 or 4, H, W) in [-1, 1] -> :class:`Condition`."""
        anchor = self.estimate(y) if self.pretrained else None
        own, features = self.trunk(y if anchor is None else torch.cat([anchor, y], dim=1))
        coarsest = self.trunk.stride
        at = [
            features[s] if s <= coarsest else F.avg_pool2d(features[coarsest], s // coarsest)
            for _, s in self.layout
        ]
        return Condition(y[:, :3], own if anchor is None else anchor, self.zero(at), mask_of(y))

    @property
    def silent(self) -> bool:
        return not any(parameter.is_meta or parameter.any() for parameter in self.zero.parameters())

    def residuals(self, condition: Condition, z: Tensor, time: Tensor) -> list[Tensor] | None:
        """Residuals for one call of the frozen network on z (B, C, H, W) at its timestep ``time``
        (B,).
        """
        return condition.features
