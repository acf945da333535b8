"""T2I-Adapter beside the UNet of a text-to-image model."""

from typing import ClassVar

import torch.nn.functional as F
from diffusers import T2IAdapter
from torch import Tensor

from irbridge.adapters.base import Adapter, Condition, ZeroConvs, require_fit
from irbridge.adapters.trunk import RANGES
from irbridge.backbones.base import Backbone
from irbridge.errors import UserError
from irbridge.ranges import check_values


class T2I(Adapter):
    """A convolutional encoder of y alone, in [0, 1], that runs once an image.

    It is diffusers' ``T2IAdapter`` (Mou et al., AAAI 2024). As that is not zero at initialisation,
    zero-initialised 1 x 1 convolutions follow it.

    Args:
        backbone: the frozen network that is driven.
        channels: its width at each level of the UNet; None: the UNet's own.
        layers: residual blocks per level.
    """

    networks: ClassVar = ("UNet2DConditionModel",)

    def __init__(self, backbone: Backbone, channels: list[int] | None = None, layers: int = 2):
        super().__init__()
        require_fit(self, backbone)
        check_values(RANGES, {"channels": channels, "layers": layers}, "adapter")
        config = backbone.network.config
        kinds, own = config.down_block_types, list(config.block_out_channels)
        channels = list(channels or own)
        if strange := [k for k in kinds if k not in ("CrossAttnDownBlock2D", "DownBlock2D")]:
            raise UserError(
                f"A T2I adapter cannot enter a UNet's {strange[0]}; choose adapter=controlnet."
            )
        if len(channels) != len(own):
            raise UserError(
                f"adapter.channels={channels} must have {len(own)} widths, one per level of the"
                " UNet."
            )
        self.net = T2IAdapter(
            channels=channels, num_res_blocks=layers, downscale_factor=backbone.factor
        )
        self.zero = ZeroConvs(channels, [(c, 1) for c in own])
        self.stride, self.padding = backbone.stride, config.downsample_padding
        # diffusers adds behind the downsampler in blocks without cross-attention, in front of it in
        # the others.
        self.behind = [k == "DownBlock2D" and level < len(own) - 1 for level, k in enumerate(kinds)]

    def condition(self, y: Tensor, state: Tensor) -> Condition:
        """All residuals of y (B, 3, H, W) in [-1, 1], in the sizes of the UNet's blocks."""
        features, size = [], state.shape[-2:]
        for feature, behind in zip(self.net((y + 1) / 2), self.behind, strict=True):
            # a UNet without padding rounds odd sides down
            smaller = [(side + self.padding) // 2 for side in size]
            height, width = smaller if behind else size
            feature = F.avg_pool2d(feature, 2, ceil_mode=True) if behind else feature
            features.append(feature[..., :height, :width])
            size = smaller
        return Condition(state, None, self.zero(features))

    def residuals(
        self, condition: Condition, z: Tensor, time: Tensor, encoder_hidden_states: Tensor
    ) -> dict:
        """The residuals of y, the same at every call."""
        # a new list, as the UNet empties it
        return {"down_intrablock_additional_residuals": list(condition.features)}
