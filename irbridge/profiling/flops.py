"""What a model costs in arithmetic and weights, counted without computing anything but shapes."""

from collections import Counter
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from irbridge.adapters.base import bare
from irbridge.models.bridge_network import BridgeNetwork
from irbridge.models.irbridge import IRBridge
from irbridge.models.refinement import Refinement
from irbridge.models.restorer import Restorer

WORK = "condition", "residuals", "network", "encode", "decode"


class Work:
    """Floating point operations by part: what runs in ``with work("network"): ...`` counts there.

    Convolutions, matrix products and attention are counted; a multiplication with its addition is
    two operations.
    """

    def __init__(self):
        self.operations = Counter()

    @contextmanager
    def __call__(self, part: str):
        """A block whose operations are added to a part."""
        with FlopCounterMode(display=False) as counter:
            yield
        self.operations[part] += counter.get_total_flops()

    def gflops(self, part: str) -> float:
        """The operations of a part in 10^9."""
        return self.operations[part] / 1e9


@torch.no_grad()
def cost(model: Restorer, size: int) -> dict:
    """What one image costs: weights, and operations of each network's forward pass.

    Nothing is computed but shapes, whatever the size. The model is left as it was.

    Args:
        model: any method.
        size: sides of the image in pixels, rounded up to the model's stride.

    Returns:
        ``size``; numbers of weights ``trainable``, ``frozen`` (of the frozen network) and ``vae``;
        GFLOPs ``condition`` (the adapter's part that runs once an image, or all that a model
        without a frozen network computes), ``residuals`` (the adapter's part of each call),
        ``network`` (each call of the frozen network; LoRA's layers are inside), ``encode`` and
        ``decode`` (of the VAE).
    """
    size += -size % model.stride
    work = Work()
    device = next(model.parameters()).device
    training = [module for module in model.modules() if module.training]
    model.eval()
    # asked here, as it looks at the weights' values
    silent = isinstance(model, IRBridge) and model.adapter.silent
    with FakeTensorMode(allow_non_fake_inputs=True), model.networks():
        image = torch.zeros(1, 3 + model.masked, size, size, device=device)
        if isinstance(model, IRBridge):
            _count_bridge(model, image, silent, work)
        else:
            _count_network(model, image, work)
    for module in training:
        module.training = True
    return {"size": size, **_sizes(model), **{part: work.gflops(part) for part in WORK}}


def _count_network(model: Restorer, image: Tensor, work: Work) -> None:
    """Count a call of a model that is one network, or a predictor and one call of its denoiser."""
    inputs = [image]
    if isinstance(model, Refinement):
        with work("condition"):
            model.predict(image)
        with work("residuals"):
            model.denoiser(torch.cat([image[:, :3], image], dim=1), image.new_zeros(1))
        return
    if isinstance(model, BridgeNetwork):  # it sees the bridge's state and its time as well
        inputs = [torch.cat([image[:, :3], image], dim=1), image.new_zeros(1)]
    with work("condition"):
        model.trainable()(*inputs)


def _count_bridge(model: IRBridge, image: Tensor, silent: bool, work: Work) -> None:
    """Count the parts of a restoration with one call of the frozen network.

    Args:
        model: whose parts are called one by one, as its ``trajectory`` does.
        image: (1, 3 or 4, H, W), of any values.
        silent: the adapter hands the network nothing, so that its features are not computed.
        work: where they count.
    """
    adapter, backbone = model.adapter, model.backbone
    if model.sampler.nfe == 0:  # the anchor alone
        with work("condition"):
            state = adapter.estimate(image)
        with work("decode"):
            backbone.decode(state)
        return
    with work("encode"):
        state = backbone.encode(image[:, :3])
    condition = bare(image)
    with work("condition"):
        if not silent:
            condition = adapter.condition(image, state)
        elif model.endpoint == "anchor":
            adapter.estimate(image)

    def residuals(inputs: Tensor, time: Tensor, **context):
        with work("residuals"):
            return adapter.residuals(condition, inputs, time, **context)

    with work("network"):
        backbone.predict(state.to(backbone.dtype), image.new_zeros(1), residuals)
    # the adapter was asked within
    work.operations["network"] -= work.operations["residuals"]
    with work("decode"):
        backbone.decode(state)


def _sizes(model: Restorer) -> dict[str, int]:
    """Numbers of weights: ``trainable``, ``frozen`` and ``vae``."""
    trained = {id(parameter) for parameter in model.trainable().parameters()}
    sizes = {"trainable": _weights(model.trainable()), "frozen": 0, "vae": 0}
    for name, part in model.parts().items():
        if name != "trainable":
            sizes[name] = _weights(part, trained)
    return sizes


def _weights(module: nn.Module, without: set[int] = frozenset()) -> int:
    """The number of a module's weights, but for the parameters of these ids."""
    return sum(p.numel() for p in module.parameters() if id(p) not in without)


def describe_cost(model: Restorer, size: int) -> str:
    """:func:`cost` in one line."""
    return in_words(type(model.trainable()).__name__, cost(model, size))


def in_words(name: str, cost: dict) -> str:
    """The result of :func:`cost` in one line.

    Args:
        name: the adapter's, or the network's.
        cost: what it costs.
    """
    trains = f"{name}: {cost['trainable'] / 1e6:.1f} M trainable parameters"
    step = cost["condition"] + cost["residuals"]
    size = f"({cost['size']} px)"
    if not cost["frozen"]:
        return f"{trains}; a forward pass costs {step:.3g} GFLOPs {size}"
    return (
        f"{trains}, {cost['frozen'] / 1e6:.1f} M frozen; a step costs {step:.3g} GFLOPs in the"
        f" adapter, {cost['network']:.3g} in the frozen network {size}"
    )
