"""The adapter that sees y alone."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from irbridge.adapters.base import Condition, ZeroConvs, mask_of
from irbridge.adapters.pixel import PixelAdapter
from irbridge.backbones.pixel import PixelBackbone, skip_layout


class StaticAdapter(PixelAdapter):
    """Residuals of y alone, as T2I-Adapter's, computed once an image however many steps follow.

    The arguments are :class:`PixelAdapter`'s.
    """

    suggested: ClassVar = 0
    needs_trunk: ClassVar = True

    def __init__(self, backbone: PixelBackbone, *arguments, **options):
        super().__init__(backbone, *arguments, **options)
        self.layout, own = skip_layout(backbone), self.trunk.features_layout
        sources = [own[min(stride, self.trunk.stride)] for _, stride in self.layout]
        self.zero = ZeroConvs(sources, self.layout)

    @property
    def silent(self) -> bool:
        """Whether all of its convolutions are still 0."""
        return not any(parameter.is_meta or parameter.any() for parameter in self.zero.parameters())

    def condition(self, y: Tensor, state: Tensor | None = None) -> Condition:
        """The anchor and all residuals of y (B, 3 or 4, H, W) in [-1, 1]."""
        anchor = self.estimate(y) if self.pretrained else None
        own, features = self.trunk(y if anchor is None else torch.cat([anchor, y], dim=1))
        at = [self._at(features, stride) for _, stride in self.layout]
        return Condition(y[:, :3], own if anchor is None else anchor, self.zero(at), mask_of(y))

    def _at(self, features: dict[int, Tensor], stride: int) -> Tensor:
        """The trunk's features of a stride, averaged where the trunk has none so coarse."""
        coarsest = self.trunk.stride
        if stride <= coarsest:
            return features[stride]
        return F.avg_pool2d(features[coarsest], stride // coarsest)

    def residuals(self, condition: Condition, z: Tensor, time: Tensor) -> list[Tensor] | None:
        """The residuals of y, the same at every call."""
        return condition.features
