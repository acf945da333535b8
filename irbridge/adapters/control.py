"""Control."""

from copy import deepcopy

from torch import Tensor, nn

from irbridge.adapters.base import Condition, ZeroConvs, _zero, mask_of
from irbridge.adapters.pixel import PixelAdapter
from irbridge.backbones.pixel import PixelBackbone, skip_layout


class ControlAdapter(PixelAdapter):
    """A trainable copy of the frozen encoder that sees z, its timestep and y (ControlNet, ICCV
    2023). With ``anchor`` a trunk beside the copy emits g(y); without, it is as published. The
    arguments are :class:`PixelAdapter`'s.
    """

    def __init__(
        self,
        backbone: PixelBackbone,
        channels: list[int] = (32, 64, 96, 128),
        layers: int = 1,
        anchor: bool | str = False,
        trunk: str = "unet",
        masked: bool = False,
        anchor_digest: str | None = None,
        **sizes,
    ):
        super().__init__(
            backbone, channels, layers, anchor, trunk, masked, False, sizes, anchor_digest
        )
        unet = deepcopy(backbone.network).float().requires_grad_(True)
        parts = "conv_in", "time_proj", "time_embedding", "down_blocks", "mid_block"
        self.encoder = nn.ModuleDict({part: getattr(unet, part) for part in parts})
        self.hint = nn.Conv2d(backbone.channels, unet.config.block_out_channels[0], 3, padding=1)
        _zero(self.hint)
        layout = skip_layout(backbone.network)
        self.zero = ZeroConvs([c for c, _ in layout], layout)

    def condition(self, y: Tensor, state: Tensor | None = None) -> Condition:
        """Y (B, 3 or 4, H, W) in [-1, 1] -> :class:`Condition`; residuals depend on z and come
        later.
        """
        return Condition(y[:, :3], self.estimate(y), None, mask_of(y))

    def residuals(self, condition: Condition, z: Tensor, time: Tensor) -> list[Tensor]:
        """Residuals for one call of the frozen network on z (B, C, H, W) at its timestep ``time``
        (B,).
        """
        e, z = self.encoder, z.float()  # which has the frozen network's precision
        embedding = e["time_embedding"](e["time_proj"](time).to(z.dtype))
        guide = condition.y if condition.anchor is None else condition.anchor.detach()
        skips = [hidden := e["conv_in"](z) + self.hint(guide)]
        for block in e["down_blocks"]:
            hidden, outputs = block(hidden, embedding)
            skips += outputs
        return self.zero([*skips, e["mid_block"](hidden, embedding)])
