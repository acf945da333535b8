"""Lora."""

import warnings
from functools import partial

from torch import Tensor, nn

from irbridge.adapters.base import Adapter, Condition, _reason, _zero, require
from irbridge.backbones.base import Backbone
from irbridge.errors import UserError
from irbridge.ranges import check_values, whole


class LoRA(Adapter):
    """Low-rank updates of the frozen network's attention (LoRA, Hu et al., ICLR 2022), through
    peft. y enters as its latent, by a zero-initialised convolution beside the network's first one,
    as extra input channels would.

    The network carries the low-rank layers, but they count only in calls that come with this
    adapter: without it the network is the frozen one, and several adapters on one network do not
    mix.

    Args: rank: of the updates. alpha: they are scaled by alpha / rank; None: rank. targets: the
        ends of layers' names.
    """

    def __init__(
        self,
        backbone: Backbone,
        rank: int = 16,
        alpha: float | None = None,
        targets: list[str] = ("to_q", "to_k", "to_v", "to_out.0"),
    ):
        super().__init__()
        require(self, backbone, "UNet2DConditionModel", "SD3Transformer2DModel")
        check_values({"rank": whole(1)}, {"rank": rank}, "adapter")
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
    backward pass. A partial of this, unlike a closure, is copied together with the network.
    """
    on, switch["asked"] = switch["asked"], False
    if on != switch["on"]:
        switch["on"] = on
        for module in network.modules():
            if hasattr(module, "set_scale"):
                module.set_scale(name, float(on))
