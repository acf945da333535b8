"""ControlNet beside the UNet of a text-to-image model.

Adapters of latents are built on a frozen :class:`~irbridge.backbones.latent.LatentBackbone`, train
in float32 whatever the network's precision, and store only what they train. Their ``residuals`` are
keyword arguments of the frozen network's forward, plus optionally "input", which is added to what
its first convolution gives.
"""

from typing import ClassVar

from diffusers import ControlNetModel
from torch import Tensor, nn

from irbridge.adapters.base import Adapter, Condition, in_one_line, require_fit, set_to_zero
from irbridge.backbones.base import Backbone
from irbridge.errors import UserError
from irbridge.ranges import check_values, one_of


class ControlNet(Adapter):
    """A trainable copy of the UNet's encoder that sees the noisy latent, its timestep, prompt, y.

    It is diffusers' ``ControlNetModel`` (Zhang et al., ICCV 2023).

    Args:
        backbone: the frozen network that is driven.
        hint: how y enters. "image": y itself in [0, 1], through ControlNet's small convolutional
            encoder, as IRBridge was published (ICML 2025, Sec. 4). "latent": its VAE latent,
            through zero-initialised extra input channels of the copy's first convolution (DiffBIR,
            ECCV 2024).
    """

    networks: ClassVar = ("UNet2DConditionModel",)

    def __init__(self, backbone: Backbone, hint: str = "image"):
        super().__init__()
        require_fit(self, backbone)
        check_values({"hint": one_of("image", "latent")}, {"hint": hint}, "adapter")
        self.image, self.stride = hint == "image", backbone.stride
        self.net = self._copied(backbone)
        # Outside of the copy, the hint is encoded once per image instead of at every call.
        self.hint, self.net.controlnet_cond_embedding = (
            self.net.controlnet_cond_embedding,
            nn.Identity(),
        )
        if not self.image:
            self.hint = nn.Conv2d(backbone.channels, self.net.conv_in.out_channels, 3, padding=1)
            set_to_zero(self.hint)

    @staticmethod
    def _copied(backbone: Backbone) -> ControlNetModel:
        levels = backbone.factor.bit_length()  # each but the first halves the image
        if backbone.factor != 2 ** (levels - 1):
            raise UserError(
                f"A VAE that shrinks by {backbone.factor}, no power of 2, has no ControlNet for"
                " images; choose adapter=controlnet_latent."
            )
        widths = [16, 32, 96, *[256] * levels][:levels]
        try:
            return ControlNetModel.from_unet(
                backbone.network, conditioning_embedding_out_channels=widths
            ).float()
        except Exception as error:
            raise UserError(
                "The encoder of this UNet cannot be copied into a ControlNet"
                f" ({in_one_line(error)}); choose adapter=lora."
            ) from error

    def condition(self, y: Tensor, state: Tensor) -> Condition:
        """The encoded hint of y (B, 3, H, W) in [-1, 1], or of its latent ``state``."""
        return Condition(state, None, [self.hint((y + 1) / 2 if self.image else state)])

    def residuals(
        self, condition: Condition, z: Tensor, time: Tensor, encoder_hidden_states: Tensor
    ) -> dict:
        """What the copy adds to the UNet's skips and to its middle."""
        (hint,) = condition.features
        down, mid = self.net(
            z.float(), time, encoder_hidden_states.float(), hint, return_dict=False
        )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
