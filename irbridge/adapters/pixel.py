"""What both adapters of pixel backbones share."""

from typing import ClassVar

from torch import Tensor, nn

from irbridge.adapters.base import Adapter
from irbridge.adapters.pretrained_anchor import load_anchor
from irbridge.adapters.trunk import make_trunk
from irbridge.backbones.pixel import PixelBackbone
from irbridge.errors import UserError


class PixelAdapter(Adapter):
    """An adapter with a trunk, or a pretrained network, that gives g(y).

    Args:
        backbone: the frozen network that is driven.
        channels: width per level of ``trunk="unet"``.
        layers: residual blocks per level of ``trunk="unet"``.
        anchor: True: it emits g(y); False: it does not; "spandrel:FILE": g(y) is that of a
            pretrained restoration network, frozen and not stored, and the trunk sees y and g(y).
        trunk: "unet" or "nafnet".
        masked: y has a fourth channel, the mask: 1 where the image is to be filled, else -1.
        anchor_digest: SHA-256 of the file of the pretrained network that it was trained with; None:
            not yet trained.
        sizes: those of ``trunk="nafnet"``, see :func:`irbridge.adapters.trunk.make_trunk`.
    """

    networks: ClassVar = ("UNet2DModel",)
    needs_trunk: ClassVar[bool]  # also where it emits no g(y)

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
        if not isinstance(backbone, PixelBackbone):
            raise UserError(
                "adapter=static and adapter=control are for pixel backbones; with a latent one"
                " choose adapter=controlnet, controlnet_latent, t2i, lora or sd3_controlnet."
            )
        super().__init__()
        self.anchored, self.masked, self.trunk = bool(anchor), masked, None
        # a tuple, which hides it from nn.Module: it is no part of the weights
        self.pretrained = (load_anchor(anchor, anchor_digest),) if isinstance(anchor, str) else ()
        emits = self.anchored and not self.pretrained
        if self.needs_trunk or emits:
            seen = backbone.channels * (2 if self.pretrained else 1)
            sizes |= {"channels": channels, "layers": layers}
            self.trunk = make_trunk(trunk, emits, seen, masked, **sizes)
        networks: list[nn.Module] = [backbone, *self.pretrained]
        if self.trunk is not None:
            networks.append(self.trunk)
            # how far a pretrained anchor sees, which sees y as well, is not known
            self.reach = None if self.pretrained else self.trunk.reach
        self.stride = max(network.stride for network in networks)

    def estimate(self, y: Tensor) -> Tensor | None:
        """g(y) (B, 3, H, W) of y (B, 3 or 4, H, W); None without an anchor."""
        if not self.anchored:
            return None
        if self.pretrained:
            return self.pretrained[0].to(y.device)(y[:, :3])
        return self.trunk(y)[0]
