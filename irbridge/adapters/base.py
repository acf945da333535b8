"""Condition adapters of pixel backbones: the only thing that trains, and the only part that sees
the degraded image y.

An adapter hands the frozen network residuals for its skip tensors, all zero at initialisation. It
may also emit a coarse clean estimate g(y), the anchor, at which a bridge can be pinned instead of
y.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from irbridge.backbones.base import Backbone
from irbridge.errors import UserError


class Condition(NamedTuple):
    """What an adapter knows of one image, computed once: the state of y (for pixels y itself,
    without its mask), the anchor or None, the features that its residuals come from or None, and
    for a task with holes their mask (B, 1, H, W), above 0 where the image is to be filled.
    """

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
    convolutions).
    """

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
    image sides must divide by.
    """

    anchored = masked = False
    pretrained: Sequence[nn.Module] = ()
    stride: int

    @property
    def silent(self) -> bool:
        """Whether it hands the frozen network nothing, as after a training of g(y) alone: its
        features need no computing.
        """
        return False

    def estimate(self, y: Tensor) -> Tensor | None:
        """The coarse estimate g(y) (B, 3, H, W) of y (B, 3 or 4, H, W) in [-1, 1], without the
        features; None where the adapter gives none.
        """
        return None

    def condition(self, y: Tensor, state: Tensor | None = None) -> Condition:
        """What is computed of y once an image; ``state``: its state in the backbone."""
        raise NotImplementedError

    def residuals(self, condition: Condition, z: Tensor, time: Tensor, **context):
        """What one call of the frozen network on z (B, C, H, W) at its timestep ``time`` (B,) is
        given besides.
        """
        raise NotImplementedError


FITTING = {
    "UNet2DModel": "static or control",
    "UNet2DConditionModel": "controlnet, controlnet_latent, t2i or lora",
    "SD3Transformer2DModel": "sd3_controlnet or lora",
}


def require(adapter: nn.Module, backbone: Backbone, *networks: str) -> None:
    """UserError, with the adapters that fit, unless the backbone's network is of one of these
    diffusers classes.
    """
    kind = type(backbone.network).__name__
    if kind not in networks:
        raise UserError(
            f"A {type(adapter).__name__} adapter does not fit a backbone whose network is a {kind};"
            f" choose adapter={FITTING.get(kind, 'lora')}."
        )


def _reason(error: Exception) -> str:
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(line.strip() for line in lines[:2])[:200]
