"""Condition adapters of pixel backbones: the only thing that trains, and the only part that sees
the degraded image y.

An adapter hands the frozen network residuals for its skip tensors, all zero at initialisation. It
may also emit a coarse clean estimate g(y), the anchor, at which a bridge can be pinned instead of
y."""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irbridge.anchors import load_anchor
from irbridge.backbones import PixelBackbone, skip_layout
from irbridge.errors import UserError
from irbridge.trunk import make_trunk


class Condition(NamedTuple):
    """What an adapter knows of one image, computed once: the state of y (for pixels y itself,
    without its mask), the anchor or None, the features that its residuals come from or None, and
    for a task with holes their mask (B, 1, H, W), above 0 where the image is to be filled."""

    y: Tensor
    anchor: Tensor | None
    features: list[Tensor] | Tensor | None
    mask: Tensor | None = None


def mask_of(y: Tensor) -> Tensor | None:
    """The mask that y (B, 4, H, W) has as its last channel."""
    return y[:, 3:] if y.shape[1] > 3 else None


def bare(y: Tensor) -> Condition:
    """What an adapter that is silent knows of y (B, 3 or 4, H, W), and no network need compute."""
    return Condition(y[:, :3], None, None, mask_of(y))


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


class ZeroConvs(nn.Module):
    """One zero-initialised 1 x 1 convolution per skip of the frozen network (ControlNet's zero
    convolutions)."""

    def __init__(self, sources: list[int], layout: list[tuple[int, int]]):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(s, c, 1) for s, (c, _) in zip(sources, layout, strict=True)
        )
        _zero(self)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [conv(f) for conv, f in zip(self.convs, features, strict=True)]


class Adapter(nn.Module):
    """What trains beside a frozen network and sees y.

    ``anchored``: it gives a coarse estimate g(y); ``pretrained``: the frozen networks that give it
    instead of weights of its own; ``masked``: y has its mask as a fourth channel; ``stride``: what
    image sides must divide by."""

    anchored = masked = False
    pretrained: Sequence[nn.Module] = ()
    stride: int

    @property
    def silent(self) -> bool:
        """Whether it hands the frozen network nothing, as after a training of g(y) alone: its
        features need no computing."""
        return False

    def estimate(self, y: Tensor) -> Tensor | None:
        """The coarse estimate g(y) (B, 3, H, W) of y (B, 3 or 4, H, W) in [-1, 1], without the
        features; None where the adapter gives none."""
        return None

    def condition(self, y: Tensor, state: Tensor | None = None) -> Condition:
        """What is computed of y once an image; ``state``: its state in the backbone."""
        raise NotImplementedError

    def residuals(self, condition: Condition, z: Tensor, time: Tensor, **context):
        """What one call of the frozen network on z (B, C, H, W) at its timestep ``time`` (B,) is
        given besides."""
        raise NotImplementedError


class PixelAdapter(Adapter):
    """What both adapters of pixels share: the trunk, or a pretrained network, that gives g(y).

    Args: backbone: the frozen network that is driven. channels, layers: width per level and depth
        of ``trunk="unet"``. anchor: True: it emits g(y); False: it does not; "spandrel:FILE": g(y)
        is that of a pretrained restoration
            network, frozen and not stored, and the trunk sees both y and g(y).
        anchor_digest: SHA-256 of the pretrained network's file that it was trained with, None: not
            yet.
        trunk: "unet" or "nafnet"; sizes: those of the latter, see
            :func:`irbridge.trunk.make_trunk`.
        masked: y has a fourth channel, the mask: 1 where the image is to be filled, else -1."""

    def __init__(
        self,
        backbone: PixelBackbone,
        channels,
        layers,
        anchor: bool | str,
        trunk: str,
        masked: bool,
        needed: bool,
        sizes: dict,
        anchor_digest: str | None = None,
    ):
        if not isinstance(backbone, PixelBackbone):
            raise UserError(
                "adapter=static and adapter=control are for pixel backbones; with a latent one"
                " choose adapter=controlnet, controlnet_latent, t2i, lora or sd3_controlnet."
            )
        super().__init__()
        self.anchored, self.masked, seen = bool(anchor), masked, backbone.channels
        # in a list: no part of the weights
        self.pretrained = [load_anchor(anchor, anchor_digest)] if isinstance(anchor, str) else []
        if self.pretrained:
            seen, anchor = 2 * seen, False
        self.trunk = (
            make_trunk(trunk, anchor, seen, masked, channels=channels, layers=layers, **sizes)
            if needed or anchor
            else None
        )
        self.stride = max(
            [backbone.stride, *(n.stride for n in (self.trunk, *self.pretrained) if n is not None)]
        )

    def estimate(self, y: Tensor) -> Tensor | None:
        if not self.anchored:
            return None
        return self.pretrained[0].to(y.device)(y[:, :3]) if self.pretrained else self.trunk(y)[0]


class StaticAdapter(PixelAdapter):
    """Sees only y (T2I-Adapter style), so that it runs once per image however many steps follow.
    The arguments are :class:`PixelAdapter`'s."""

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
        """y (B, 3 or 4, H, W) in [-1, 1] -> :class:`Condition`."""
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
        (B,)."""
        return condition.features


class ControlAdapter(PixelAdapter):
    """A trainable copy of the frozen encoder that sees z, its timestep and y (ControlNet, ICCV
    2023). With ``anchor`` a trunk beside the copy emits g(y); without, it is as published. The
    arguments are :class:`PixelAdapter`'s."""

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
        """y (B, 3 or 4, H, W) in [-1, 1] -> :class:`Condition`; residuals depend on z and come
        later."""
        return Condition(y[:, :3], self.estimate(y), None, mask_of(y))

    def residuals(self, condition: Condition, z: Tensor, time: Tensor) -> list[Tensor]:
        """Residuals for one call of the frozen network on z (B, C, H, W) at its timestep ``time``
        (B,)."""
        e, z = self.encoder, z.float()  # which has the frozen network's precision
        embedding = e["time_embedding"](e["time_proj"](time).to(z.dtype))
        guide = condition.y if condition.anchor is None else condition.anchor.detach()
        skips = [hidden := e["conv_in"](z) + self.hint(guide)]
        for block in e["down_blocks"]:
            hidden, outputs = block(hidden, embedding)
            skips += outputs
        return self.zero([*skips, e["mid_block"](hidden, embedding)])
