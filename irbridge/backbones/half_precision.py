"""Networks in half precision, whose first and last convolution stay in full."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def working(precision: str, device: torch.device) -> AbstractContextManager:
    """A block within which networks compute in ``precision``, "float32" or "bf16".

    "float32" changes nothing, so that a training's own autocast stays.
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


class FullConv2d(nn.Conv2d):
    """A convolution in the precision of its weights, also under autocast.

    A network's last one is of this class: bfloat16 has 8 bits, as many as the image.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.Conv2d``."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class FirstConv2d(FullConv2d):
    """The same for a network's first one, which gives autocast's precision to what follows it."""

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.Conv2d``."""
        output, kind = super().forward(x), x.device.type
        if not torch.is_autocast_enabled(kind):
            return output
        return output.to(torch.get_autocast_dtype(kind))


def keep_ends(first: nn.Module, last: nn.Module) -> None:
    """Turn a network's first and last convolution into the classes above, in place.

    Layers that are no plain convolutions are left as they are.
    """
    for layer, kind in ((first, FirstConv2d), (last, FullConv2d)):
        if type(layer) is nn.Conv2d:
            layer.__class__ = kind
