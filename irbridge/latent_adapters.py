"""Condition adapters of latent backbones: diffusers' ControlNet, T2I-Adapter and SD3 ControlNet,
and LoRA by peft.

Each is built on a frozen :class:`~irbridge.latent.LatentBackbone`, trains in float32 whatever the
network's precision, changes nothing at initialisation and stores only what it trains.
``condition(y, state)`` takes the degraded image y (B, 3, H, W) in [-1, 1] and its latent (B, C, h,
w); what depends on these alone is computed there, once per image. ``residuals`` returns keyword
arguments of the frozen network's forward, plus optionally "input", which is added to what its first
convolution gives."""

import warnings
from functools import partial

import torch.nn.functional as F
from diffusers import ControlNetModel, SD3ControlNetModel, T2IAdapter
from torch import Tensor, nn

from irbridge.adapters import Adapter, Condition, ZeroConvs, _zero
from irbridge.backbones import Backbone
from irbridge.errors import UserError

FITTING = {
    "UNet2DModel": "static or control",
    "UNet2DConditionModel": "controlnet, controlnet_latent, t2i or lora",
    "SD3Transformer2DModel": "sd3_controlnet or lora",
}


def require(adapter: nn.Module, backbone: Backbone, *networks: str) -> None:
    """UserError, with the adapters that fit, unless the backbone's network is of one of these
    diffusers classes."""
    kind = type(backbone.network).__name__
    if kind not in networks:
        raise UserError(
            f"A {type(adapter).__name__} adapter does not fit a backbone whose network is a {kind};"
            f" choose adapter={FITTING.get(kind, 'lora')}."
        )


def _reason(error: Exception) -> str:
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(line.strip() for line in lines[:2])[:200]


class ControlNet(Adapter):
    """A trainable copy of the frozen UNet's encoder that sees the noisy latent, its timestep, the
    prompt and y (ControlNet, Zhang et al., ICCV 2023), through diffusers' ``ControlNetModel``.

    Args: hint: how y enters. "image": y itself in [0, 1], through ControlNet's small convolutional
        encoder, as IRBridge
            was published (ICML 2025, Sec. 4). "latent": its VAE latent, through zero-initialised
            extra input channels of the copy's first convolution (DiffBIR, ECCV 2024)."""

    def __init__(self, backbone: Backbone, hint: str = "image"):
        super().__init__()
        require(self, backbone, "UNet2DConditionModel")
        if hint not in ("image", "latent"):
            raise UserError(f"adapter.hint={hint!r} is unknown; choose image or latent.")
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


class T2I(Adapter):
    """A convolutional encoder of y alone, in [0, 1], that runs once per image however many steps
    follow (T2I-Adapter, Mou et al., AAAI 2024), through diffusers' ``T2IAdapter``. As that is not
    zero at initialisation, zero-initialised 1 x 1 convolutions follow it.

    Args: channels: its width at each level of the UNet; None: the UNet's own. layers: residual
        blocks per level."""

    def __init__(self, backbone: Backbone, channels: list[int] | None = None, layers: int = 2):
        super().__init__()
        require(self, backbone, "UNet2DConditionModel")
        config = backbone.network.config
        kinds, own = config.down_block_types, list(config.block_out_channels)
        channels = list(channels or own)
        if strange := [k for k in kinds if k not in ("CrossAttnDownBlock2D", "DownBlock2D")]:
            raise UserError(
                f"A T2I adapter cannot enter a UNet's {strange[0]}; choose adapter=controlnet."
            )
        if len(channels) != len(own):
            raise UserError(
                f"adapter.channels={channels} must have {len(own)} widths, one per level of the"
                " UNet."
            )
        self.net = T2IAdapter(
            channels=channels, num_res_blocks=layers, downscale_factor=backbone.factor
        )
        self.zero = ZeroConvs(channels, [(c, 1) for c in own])
        self.stride, self.padding = backbone.stride, config.downsample_padding
        # diffusers adds behind the downsampler in blocks without cross-attention, in front of it in
        # the others.
        self.behind = [k == "DownBlock2D" and level < len(own) - 1 for level, k in enumerate(kinds)]

    def condition(self, y: Tensor, state: Tensor) -> Condition:
        features, size = [], state.shape[-2:]
        for feature, behind in zip(self.net((y + 1) / 2), self.behind):
            # a UNet without padding rounds odd sides down
            smaller = [(side + self.padding) // 2 for side in size]
            height, width = smaller if behind else size
            feature = F.avg_pool2d(feature, 2, ceil_mode=True) if behind else feature
            features.append(feature[..., :height, :width])
            size = smaller
        return Condition(state, None, self.zero(features))

    def residuals(
        self, condition: Condition, inputs: Tensor, time: Tensor, encoder_hidden_states: Tensor
    ) -> dict:
        # anew, as the UNet empties the list
        return {"down_intrablock_additional_residuals": list(condition.features)}


class SD3ControlNet(Adapter):
    """A trainable copy of the first blocks of an SD3 transformer that sees the noisy latent, its
    time, the prompt and the latent of y, through diffusers' ``SD3ControlNetModel``.

    Args: layers: blocks to copy; None: half of the transformer's, which is the most, as the last of
        more go unused."""

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


class LoRA(Adapter):
    """Low-rank updates of the frozen network's attention (LoRA, Hu et al., ICLR 2022), through
    peft. y enters as its latent, by a zero-initialised convolution beside the network's first one,
    as extra input channels would.

    The network carries the low-rank layers, but they count only in calls that come with this
    adapter: without it the network is the frozen one, and several adapters on one network do not
    mix.

    Args: rank: of the updates. alpha: they are scaled by alpha / rank; None: rank. targets: the
        ends of layers' names."""

    def __init__(
        self,
        backbone: Backbone,
        rank: int = 16,
        alpha: float | None = None,
        targets: list[str] = ("to_q", "to_k", "to_v", "to_out.0"),
    ):
        super().__init__()
        require(self, backbone, "UNet2DConditionModel", "SD3Transformer2DModel")
        try:
            from peft import LoraConfig, inject_adapter_in_model
            from peft.tuners.lora import LoraLayer
        except ImportError as error:
            raise UserError(
                'adapter=lora needs peft; install it with `pip install -e ".[lora]"`.'
            ) from error
        network, first = backbone.network, backbone.first
        name = f"irbridge_{len(getattr(network, 'peft_config', {}))}"
        try:
            with warnings.catch_warnings():
                # each has its own name
                warnings.filterwarnings("ignore", message="Already found a `peft_config`")
                config = LoraConfig(
                    r=rank,
                    lora_alpha=rank if alpha is None else alpha,
                    target_modules=list(targets),
                )
                inject_adapter_in_model(config, network, name)
        except ValueError as error:
            raise UserError(
                f"adapter.rank={rank} with adapter.targets={list(targets)} fits no layer of the "
                f"{type(network).__name__} ({_reason(error)}); give ends of its layers' names."
            ) from error
        self.low_rank = nn.ModuleDict()
        for path, layer in network.eval().named_modules():
            if isinstance(layer, LoraLayer):
                layer.set_adapter([*layer.lora_A])  # peft leaves the newest alone active
                if name in layer.lora_A:
                    own = {"A": layer.lora_A[name], "B": layer.lora_B[name]}
                    self.low_rank[path.replace(".", "/")] = nn.ModuleDict(own).float()
        self.input = nn.Conv2d(
            backbone.channels, first.out_channels, first.kernel_size, first.stride, first.padding
        )
        _zero(self.input)
        self.stride, self.switch = backbone.stride, {"asked": False, "on": None}
        network.register_forward_pre_hook(partial(_turn, name, self.switch))

    def condition(self, y: Tensor, state: Tensor) -> Condition:
        return Condition(state, None, [self.input(state)])

    def residuals(
        self, condition: Condition, inputs: Tensor, time: Tensor, **context: Tensor
    ) -> dict:
        self.switch["asked"] = True
        return {"input": condition.features[0]}


def _turn(name: str, switch: dict[str, bool], network: nn.Module, args: tuple) -> None:
    """Before each call of the network: its LoRA ``name`` on if residuals have been asked for, else
    off. It stays so until the next call, because gradient checkpointing calls layers again in the
    backward pass. A partial of this, unlike a closure, is copied together with the network."""
    on, switch["asked"] = switch["asked"], False
    if on != switch["on"]:
        switch["on"] = on
        for module in network.modules():
            if hasattr(module, "set_scale"):
                module.set_scale(name, float(on))
