"""Condition adapters of latent backbones: diffusers' ControlNet, T2I-Adapter and SD3 ControlNet,
and LoRA by peft.

Each is built on a frozen :class:`~irbridge.latent.LatentBackbone`, trains in float32 whatever the
network's precision, changes nothing at initialisation and stores only what it trains.
``condition(y, state)`` takes the degraded image y (B, 3, H, W) in [-1, 1] and its latent (B, C, h,
w); what depends on these alone is computed there, once per image. ``residuals`` returns keyword
arguments of the frozen network's forward, plus optionally "input", which is added to what its first
convolution gives.
"""

from diffusers import ControlNetModel
from torch import Tensor, nn

from irbridge.adapters.base import Adapter, Condition, _reason, _zero, require
from irbridge.backbones.base import Backbone
from irbridge.errors import UserError
from irbridge.ranges import check_values, one_of


class ControlNet(Adapter):
    """A trainable copy of the frozen UNet's encoder that sees the noisy latent, its timestep, the
    prompt and y (ControlNet, Zhang et al., ICCV 2023), through diffusers' ``ControlNetModel``.

    Args: hint: how y enters. "image": y itself in [0, 1], through ControlNet's small convolutional
        encoder, as IRBridge
            was published (ICML 2025, Sec. 4). "latent": its VAE latent, through zero-initialised
            extra input channels of the copy's first convolution (DiffBIR, ECCV 2024).
    """

    def __init__(self, backbone: Backbone, hint: str = "image"):
        super().__init__()
        require(self, backbone, "UNet2DConditionModel")
        check_values({"hint": one_of("image", "latent")}, {"hint": hint}, "adapter")
        levels = backbone.factor.bit_length()  # each but the first halves the image
        if backbone.factor != 2 ** (levels - 1):
            raise UserError(
                f"A VAE that shrinks by {backbone.factor}, no power of 2, has no ControlNet for"
                " images; choose adapter=controlnet_latent."
            )
        widths = [16, 32, 96, *[256] * levels][:levels]
        try:
            self.net = ControlNetModel.from_unet(
                backbone.network, conditioning_embedding_out_channels=widths
            ).float()
        except Exception as error:
            raise UserError(
                f"The encoder of this UNet cannot be copied into a ControlNet ({_reason(error)});"
                " choose adapter=lora."
            ) from error
        self.image, self.stride = hint == "image", backbone.stride
        # Outside of the copy, the hint is encoded once per image instead of at every call.
        self.hint, self.net.controlnet_cond_embedding = (
            self.net.controlnet_cond_embedding,
            nn.Identity(),
        )
        if not self.image:
            self.hint = nn.Conv2d(backbone.channels, self.net.conv_in.out_channels, 3, padding=1)
            _zero(self.hint)

    def condition(self, y: Tensor, state: Tensor) -> Condition:
        return Condition(state, None, [self.hint((y + 1) / 2 if self.image else state)])

    def residuals(
        self, condition: Condition, inputs: Tensor, time: Tensor, encoder_hidden_states: Tensor
    ) -> dict:
        (hint,) = condition.features
        down, mid = self.net(
            inputs.float(), time, encoder_hidden_states.float(), hint, return_dict=False
        )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
