"""Condition adapters of pixel backbones: the only thing that trains, and the only part that sees the degraded image y.

An adapter hands the frozen network residuals for its skip tensors, all zero at initialisation. It may also emit a
coarse clean estimate g(y), the anchor, at which a bridge can be pinned instead of y."""

from copy import deepcopy
from typing import NamedTuple

import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn

from irbridge.backbones import PixelBackbone, skip_layout
from irbridge.errors import UserError


class Condition(NamedTuple):
    """What an adapter knows of one image, computed once: the state of y (y itself for pixels), the anchor or None, and
    the features that its residuals come from, or None."""

    y: Tensor
    anchor: Tensor | None
    features: list[Tensor] | Tensor | None


def _pixels(backbone) -> None:
    if not isinstance(backbone, PixelBackbone):
        raise UserError("adapter=static and adapter=control are for pixel backbones; with a latent one choose "
                        "adapter=controlnet, controlnet_latent, t2i, lora or sd3_controlnet.")


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def unet(channels: list[int], layers: int, inputs: int = 3, outputs: int = 3) -> UNet2DModel:
    """The one network definition of all that trains: a diffusers ``UNet2DModel`` without attention, of the given width
    per level and depth, whose output is 0 at initialisation."""
    n, groups = len(channels), next(g for g in (8, 4, 2, 1) if all(c % g == 0 for c in channels))
    network = UNet2DModel(in_channels=inputs, out_channels=outputs, layers_per_block=layers,
                          block_out_channels=tuple(channels), down_block_types=("DownBlock2D",) * n,
                          up_block_types=("UpBlock2D",) * n, norm_num_groups=groups, add_attention=False)
    _zero(network.conv_out)
    return network


class Trunk(nn.Module):
    """A light :func:`unet` on y alone, its time input held at 0: features per stride and, if ``predicts``, the image
    y + correction, y at initialisation. Alone it is the regression baseline."""

    def __init__(self, channels: list[int], layers: int = 1, predicts: bool = True, image_channels: int = 3):
        super().__init__()
        self.unet = unet(channels, layers, image_channels, image_channels)
        self.predicts, self.stride = predicts, 2 ** (len(channels) - 1)
        if not predicts:
            self.unet.conv_norm_out = self.unet.conv_act = self.unet.conv_out = nn.Identity()

    @property
    def features_layout(self) -> dict[int, int]:
        """stride -> channels of the features."""
        channels = self.unet.config.block_out_channels
        finer = {2 ** (level - 1): channels[level] for level in range(2, len(channels))}
        return {self.stride: channels[-1], **finer, 1: channels[0]}

    def forward(self, y: Tensor) -> tuple[Tensor | None, dict[int, Tensor]]:
        """y (B, C, H, W) in [-1, 1], sides divisible by ``stride`` -> (image or None, stride -> features)."""
        outputs: list[Tensor] = []
        blocks = [self.unet.mid_block, *self.unet.up_blocks]
        handles = [b.register_forward_hook(lambda block, args, out: outputs.append(out)) for b in blocks]
        try:
            correction = self.unet(y, 0).sample
        finally:
            for handle in handles:
                handle.remove()
        features = {y.shape[-1] // o.shape[-1]: o for o in outputs}
        return (y + correction if self.predicts else None), features


class ZeroConvs(nn.Module):
    """One zero-initialised 1 x 1 convolution per skip of the frozen network (ControlNet's zero convolutions)."""

    def __init__(self, sources: list[int], layout: list[tuple[int, int]]):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(s, c, 1) for s, (c, _) in zip(sources, layout, strict=True))
        _zero(self)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [conv(f) for conv, f in zip(self.convs, features, strict=True)]


class StaticAdapter(nn.Module):
    """Sees only y (T2I-Adapter style), so that it runs once per image however many steps follow. ``channels`` and
    ``layers`` are the trunk's width per level and its depth; ``anchor``: it emits g(y) as well."""

    def __init__(self, backbone: PixelBackbone, channels: list[int] = (32, 64, 96, 128), layers: int = 1,
                 anchor: bool = True):
        _pixels(backbone)
        super().__init__()
        self.trunk = Trunk(channels, layers, predicts=anchor, image_channels=backbone.channels)
        self.anchored = anchor
        self.layout, own = skip_layout(backbone.network), self.trunk.features_layout
        self.stride = max(self.trunk.stride, backbone.stride)
        self.zero = ZeroConvs([own[min(s, self.trunk.stride)] for _, s in self.layout], self.layout)

    def condition(self, y: Tensor, state: Tensor | None = None) -> Condition:
        """y (B, C, H, W) in [-1, 1] -> :class:`Condition`."""
        anchor, features = self.trunk(y)
        coarsest = self.trunk.stride
        at = [features[s] if s <= coarsest else F.avg_pool2d(features[coarsest], s // coarsest) for _, s in self.layout]
        return Condition(y, anchor, self.zero(at))

    def residuals(self, condition: Condition, z: Tensor, time: Tensor) -> list[Tensor]:
        """Residuals for one call of the frozen network on z (B, C, H, W) at its timestep ``time`` (B,)."""
        return condition.features


class ControlAdapter(nn.Module):
    """A trainable copy of the frozen encoder that sees z, its timestep and y (ControlNet, ICCV 2023). With ``anchor`` a
    trunk of ``channels`` and ``layers`` beside the copy emits g(y); without, it is as published."""

    def __init__(self, backbone: PixelBackbone, channels: list[int] = (32, 64, 96, 128), layers: int = 1,
                 anchor: bool = False):
        _pixels(backbone)
        super().__init__()
        unet = deepcopy(backbone.network).float().requires_grad_(True)
        parts = "conv_in", "time_proj", "time_embedding", "down_blocks", "mid_block"
        self.encoder = nn.ModuleDict({part: getattr(unet, part) for part in parts})
        self.hint = nn.Conv2d(backbone.channels, unet.config.block_out_channels[0], 3, padding=1)
        _zero(self.hint)
        self.trunk = Trunk(channels, layers, image_channels=backbone.channels) if anchor else None
        self.anchored, layout = anchor, skip_layout(backbone.network)
        self.zero = ZeroConvs([c for c, _ in layout], layout)
        self.stride = max(backbone.stride, self.trunk.stride if anchor else 1)

    def condition(self, y: Tensor, state: Tensor | None = None) -> Condition:
        """y (B, C, H, W) in [-1, 1] -> :class:`Condition`; residuals depend on z and come later."""
        return Condition(y, self.trunk(y)[0] if self.trunk is not None else None, None)

    def residuals(self, condition: Condition, z: Tensor, time: Tensor) -> list[Tensor]:
        """Residuals for one call of the frozen network on z (B, C, H, W) at its timestep ``time`` (B,)."""
        e, z = self.encoder, z.float()   # which has the frozen network's precision
        embedding = e["time_embedding"](e["time_proj"](time).to(z.dtype))
        guide = condition.y if condition.anchor is None else condition.anchor.detach()
        skips = [hidden := e["conv_in"](z) + self.hint(guide)]
        for block in e["down_blocks"]:
            hidden, outputs = block(hidden, embedding)
            skips += outputs
        return self.zero([*skips, e["mid_block"](hidden, embedding)])
