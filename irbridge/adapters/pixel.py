"""Pixel."""

from torch import Tensor

from irbridge.adapters.base import Adapter
from irbridge.adapters.pretrained_anchor import load_anchor
from irbridge.adapters.trunk import make_trunk
from irbridge.backbones.pixel import PixelBackbone
from irbridge.errors import UserError


class PixelAdapter(Adapter):
    """What both adapters of pixels share: the trunk, or a pretrained network, that gives g(y).

    Args: backbone: the frozen network that is driven. channels, layers: width per level and depth
        of ``trunk="unet"``. anchor: True: it emits g(y); False: it does not; "spandrel:FILE": g(y)
        is that of a pretrained restoration
            network, frozen and not stored, and the trunk sees both y and g(y).
        anchor_digest: SHA-256 of the pretrained network's file that it was trained with, None: not
            yet.
        trunk: "unet" or "nafnet"; sizes: those of the latter, see
            :func:`irbridge.adapters.trunk.make_trunk`.
        masked: y has a fourth channel, the mask: 1 where the image is to be filled, else -1.
    """

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
