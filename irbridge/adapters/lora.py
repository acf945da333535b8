"""Low-rank updates inside the frozen network."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from irbridge.adapters.base import Adapter, Condition, in_one_line, require_fit, set_to_zero
from irbridge.backbones.base import Backbone
from irbridge.errors import UserError
from irbridge.ranges import check_values, whole


class LoRA(Adapter):
    """Low-rank updates of the frozen network's attention (Hu et al., ICLR 2022), through peft.

    y enters as its latent, by a zero-initialised convolution beside the network's first one, as
    extra input channels would.

    The network carries the low-rank layers, but they count only in calls within :meth:`active`:
    otherwise the network is the frozen one, and several adapters on one network do not mix.

    Args:
        backbone: the frozen network that is driven.
        rank: of the updates.
        alpha: the updates are scaled by alpha / rank; None: rank.
        targets: the ends of layers' names.
    """

    networks: ClassVar = ("UNet2DConditionModel", "SD3Transformer2DModel")
    suggested: ClassVar = 2

    def __init__(
        self,
        backbone: Backbone,
        rank: int = 16,
        alpha: float | None = None,
        targets: list[str] = ("to_q", "to_k", "to_v", "to_out.0"),
    ):
        super().__init__()
        require_fit(self, backbone)
        check_values({"rank": whole(1)}, {"rank": rank}, "adapter")
        network, first = backbone.network, backbone.first
        self.name = _inject(network, rank, rank if alpha is None else alpha, list(targets))
        self.low_rank = nn.ModuleDict()
        for path, layer in network.eval().named_modules():
            if self.name in getattr(layer, "lora_A", ()):
                own = {"A": layer.lora_A[self.name], "B": layer.lora_B[self.name]}
                self.low_rank[path.replace(".", "/")] = nn.ModuleDict(own).float()
        self.input = nn.Conv2d(
            backbone.channels, first.out_channels, first.kernel_size, first.stride, first.padding
        )
        set_to_zero(self.input)
        self.stride = backbone.stride

    def condition(self, y: Tensor, state: Tensor) -> Condition:
        """What the latent of y adds to the first convolution."""
        return Condition(state, None, [self.input(state)])

    def residuals(self, condition: Condition, z: Tensor, time: Tensor, **context: Tensor) -> dict:
        """What the latent of y adds to the first convolution, the same at every call."""
        return {"input": condition.features[0]}

    @contextmanager
    def active(self, network: nn.Module) -> Iterator[None]:
        """Within the block the low-rank layers of this adapter count, and no other's."""
        use = network.low_rank_use
        before, use.asked = use.asked, self.name
        try:
            yield
        finally:
            use.asked = before


@dataclass
class LowRankUse:
    """Which of the low-rank adapters inside a network count; the network's own record.

    Args:
        asked: the adapter whose block the calls are in, None outside of all.
        set: the one that the layers are set to, None: none of them; "all" as peft adds them.
    """

    asked: str | None = None
    set: str | None = "all"


def _inject(network: nn.Module, rank: int, alpha: float, targets: list[str]) -> str:
    """Add low-rank layers to a network, off outside of :meth:`LoRA.active`; returns their name."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
    except ImportError as error:
        raise UserError(
            'adapter=lora needs peft; install it with `pip install -e ".[lora]"`.'
        ) from error
    name = f"irbridge_{len(getattr(network, 'peft_config', {}))}"
    try:
        with warnings.catch_warnings():
            # each has its own name
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)
            inject_adapter_in_model(config, network, name)
    except ValueError as error:
        raise UserError(
            f"adapter.rank={rank} with adapter.targets={targets} fits no layer of the"
            f" {type(network).__name__} ({in_one_line(error)}); give ends of its layers' names."
        ) from error
    for layer in network.modules():
        if isinstance(layer, LoraLayer):
            layer.set_adapter([*layer.lora_A])  # peft leaves the newest alone active
    if not hasattr(network, "low_rank_use"):
        network.register_forward_pre_hook(_turn)
    network.low_rank_use = LowRankUse()
    return name


def _turn(network: nn.Module, args: tuple) -> None:
    """Before each call of the network: turn on the layers that are asked for, all others off.

    They stay so until the next call, also after the block of :meth:`LoRA.active`, because gradient
    checkpointing calls layers again in the backward pass.
    """
    use = network.low_rank_use
    if use.set == use.asked:
        return
    for layer in network.modules():
        for name in getattr(layer, "lora_A", ()):
            layer.set_scale(name, float(name == use.asked))
    use.set = use.asked
