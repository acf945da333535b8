"""ControlNet beside the transformer of Stable Diffusion 3."""

from typing import ClassVar

from diffusers import SD3ControlNetModel
from torch import Tensor

from irbridge.adapters.base import Adapter, Condition, in_one_line, require_fit
from irbridge.backbones.base import Backbone
from irbridge.errors import UserError


class SD3ControlNet(Adapter):
    """A trainable copy of a transformer's first blocks, diffusers' ``SD3ControlNetModel``.

    It sees the noisy latent, its time, the prompt and the latent of y.

    Args:
        backbone: the frozen network that is driven.
        layers: blocks to copy; None: half of the transformer's, which is the most, as the last of
            more go unused.
    """

    networks: ClassVar = ("SD3Transformer2DModel",)

    def __init__(self, backbone: Backbone, layers: int | None = None):
        super().__init__()
        require_fit(self, backbone)
        half = len(backbone.network.transformer_blocks) // 2
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
        try:
            self.net = self._copied(backbone.network, layers)
        except Exception as error:
            raise UserError(
                "The blocks of this transformer cannot be copied into a ControlNet"
                f" ({in_one_line(error)}); choose adapter=lora."
            ) from error
        # a fixed table, hundreds of megabytes in SD3, that no checkpoint needs
        positions = self.net.pos_embed
        positions.register_buffer("pos_embed", positions.pos_embed, persistent=False)
        self.stride = backbone.stride

    @staticmethod
    def _copied(transformer, layers: int) -> SD3ControlNetModel:
        # from_transformer would write its options into the transformer's own config
        net = SD3ControlNetModel.from_config({**transformer.config, "num_layers": layers})
        for part in ("pos_embed", "time_text_embed", "context_embedder"):
            getattr(net, part).load_state_dict(getattr(transformer, part).state_dict())
        net.transformer_blocks.load_state_dict(transformer.transformer_blocks[:layers].state_dict())
        return net

    def condition(self, y: Tensor, state: Tensor) -> Condition:
        """The latent of y alone."""
        return Condition(state, None, None)

    def residuals(self, condition: Condition, z: Tensor, time: Tensor, **context: Tensor) -> dict:
        """What the copy adds behind the transformer's blocks."""
        context = {key: value.float() for key, value in context.items()}
        (samples,) = self.net(z.float(), condition.y, timestep=time, return_dict=False, **context)
        return {"block_controlnet_hidden_states": samples}
