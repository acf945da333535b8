"""Sd3 controlnet."""

from diffusers import SD3ControlNetModel
from torch import Tensor

from irbridge.adapters.base import Adapter, Condition, _reason, require
from irbridge.backbones.base import Backbone
from irbridge.errors import UserError


class SD3ControlNet(Adapter):
    """A trainable copy of the first blocks of an SD3 transformer that sees the noisy latent, its
    time, the prompt and the latent of y, through diffusers' ``SD3ControlNetModel``.

    Args: layers: blocks to copy; None: half of the transformer's, which is the most, as the last of
        more go unused.
    """

    def __init__(self, backbone: Backbone, layers: int | None = None):
        super().__init__()
        require(self, backbone, "SD3Transformer2DModel")
        transformer, half = backbone.network, len(backbone.network.transformer_blocks) // 2
        if not half:
            raise UserError(
                "A transformer of one block has none that an SD3 ControlNet steers; choose"
                " adapter=lora."
            )
        layers = half if layers is None else layers
        if not 1 <= layers <= half:
            raise UserError(
                f"adapter.layers={layers} must be 1 to {half}, half of the transformer's blocks."
            )
        try:  # not from_transformer, which writes its options into the transformer's own config
            self.net = SD3ControlNetModel.from_config({**transformer.config, "num_layers": layers})
            for part in ("pos_embed", "time_text_embed", "context_embedder"):
                getattr(self.net, part).load_state_dict(getattr(transformer, part).state_dict())
            self.net.transformer_blocks.load_state_dict(
                transformer.transformer_blocks[:layers].state_dict()
            )
        except Exception as error:
            raise UserError(
                "The blocks of this transformer cannot be copied into a ControlNet"
                f" ({_reason(error)}); choose adapter=lora."
            ) from error
        # a fixed table, hundreds of megabytes in SD3, that no checkpoint needs
        positions = self.net.pos_embed
        positions.register_buffer("pos_embed", positions.pos_embed, persistent=False)
        self.stride = backbone.stride

    def condition(self, y: Tensor, state: Tensor) -> Condition:
        return Condition(state, None, None)

    def residuals(
        self, condition: Condition, inputs: Tensor, time: Tensor, **context: Tensor
    ) -> dict:
        context = {key: value.float() for key, value in context.items()}
        (samples,) = self.net(
            inputs.float(), condition.y, timestep=time, return_dict=False, **context
        )
        return {"block_controlnet_hidden_states": samples}
