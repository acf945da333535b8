"""The adapter that sees y, the noisy image and its timestep."""

from copy import deepcopy
from typing import ClassVar

from torch import Tensor, nn

from irbridge.adapters.base import Condition, ZeroConvs, mask_of, set_to_zero
from irbridge.adapters.pixel import PixelAdapter
from irbridge.backbones.pixel import PixelBackbone, skip_layout


class ControlAdapter(PixelAdapter):
    """A trainable copy of the frozen encoder (ControlNet, Zhang et al., ICCV 2023).

    With ``anchor`` a trunk beside the copy emits g(y); without, it is as published. The arguments
    are :class:`PixelAdapter`'s.
    """

    needs_trunk: ClassVar = False

    def __init__(
        self,
        backbone: PixelBackbone,
        channels: list[int] = (32, 64, 96, 128),
        layers: int = 1,
        anchor: bool | str = False,
        *arguments,
        **options,
    ):
        super().__init__(backbone, channels, layers, anchor, *arguments, **options)
        unet = deepcopy(backbone.network).float().requires_grad_(True)
        parts = "conv_in", "time_proj", "time_embedding", "down_blocks", "mid_block"
        self.encoder = nn.ModuleDict({part: getattr(unet, part) for part in parts})
        self.hint = nn.Conv2d(backbone.channels, unet.config.block_out_channels[0], 3, padding=1)
        set_to_zero(self.hint)
        layout = skip_layout(backbone.network)
        self.zero = ZeroConvs([channels for channels, _ in layout], layout)

    def condition(self, y: Tensor, state: Tensor | None = None) -> Condition:
        """The anchor of y (B, 3 or 4, H, W) in [-1, 1]; residuals depend on z and come later."""
        return Condition(y[:, :3], self.estimate(y), None, mask_of(y))

    def residuals(self, condition: Condition, z: Tensor, time: Tensor) -> list[Tensor]:
        """What the encoder's copy makes of z (B, C, H, W), its timestep (B,) and g(y), else y."""
        encoder, z = self.encoder, z.float()  # z has the frozen network's precision
        embedding = encoder["time_embedding"](encoder["time_proj"](time).to(z.dtype))
        guide = condition.y if condition.anchor is None else condition.anchor.detach()
        hidden = encoder["conv_in"](z) + self.hint(guide)
        skips = [hidden]
        for block in encoder["down_blocks"]:
            hidden, outputs = block(hidden, embedding)
            skips += outputs
        return self.zero([*skips, encoder["mid_block"](hidden, embedding)])
