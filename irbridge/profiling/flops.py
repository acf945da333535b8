"""What a model costs in arithmetic and weights, counted without computing anything but shapes."""

from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from irbridge.models.restorer import Restorer


@contextmanager
def replaced(model: Restorer, wrap: Callable):
    """Within the block ``wrap(part, method, name)`` stands in for every method that enters a
    network.
    """
    places = [
        (owner, name, part, name in vars(owner), getattr(owner, name))
        for owner, name, part in model.entries()
    ]
    try:
        for owner, name, part, _, method in places:
            setattr(owner, name, wrap(part, method, name))
        yield
    finally:
        for owner, name, _, own, method in places:
            setattr(owner, name, method) if own else delattr(owner, name)


@torch.no_grad()
def cost(model: Restorer, size: int) -> dict:
    """What one image of ``size`` x ``size`` pixels, rounded up to the model's stride, costs:
    weights in numbers, and GFLOPs (10^9; a multiplication with its addition counts as two) of each
    network's forward pass, convolutions, matrix products and attention alone.

    Returns ``size``; numbers of weights ``trainable``, ``frozen`` (of the frozen network) and
    ``vae``; GFLOPs ``condition`` (the adapter's part that runs once an image), ``residuals`` (that
    of each call), ``network`` (each call; LoRA's layers are inside), ``encode``, ``decode``.
    Nothing is computed but shapes, whatever the size.
    """
    size += -size % model.stride
    work, inside = Counter(), []

    def wrap(part, method, name):
        def counted(*args, **kwargs):
            if inside:  # a condition that asks for its own estimate
                return method(*args, **kwargs)
            inside.append(name)
            with (
                FakeTensorMode(allow_non_fake_inputs=True) as fake,
                FlopCounterMode(display=False) as flops,
            ):
                args, kwargs = tree_map_only(Tensor, fake.from_tensor, (args, kwargs))
                results = method(*args, **kwargs)
            inside.pop()
            work[name if part in ("vae", "adapter") else part] += flops.get_total_flops() / 1e9
            return tree_map_only(
                Tensor, lambda t: torch.zeros(t.shape, dtype=t.dtype, device=image.device), results
            )

        return counted

    image = torch.zeros(1, 3 + model.masked, size, size, device=next(model.parameters()).device)
    training = [module for module in model.modules() if module.training]
    with replaced(model.eval(), wrap):
        model.image(next(iter(model.trajectory(image))).x0)
    for module in training:
        module.training = True
    trained = {id(p) for p in model.trainable().parameters()}
    parts = model.parts()
    sizes = {"trainable": _weights(model.trainable()), "frozen": 0, "vae": 0}
    for name in parts.keys() - {"trainable"}:
        sizes[name] = _weights(parts[name], trained)
    work["condition"] += work.pop("forward", 0.0) + work.pop("estimate", 0.0)
    return {
        "size": size,
        **sizes,
        **{k: work[k] for k in ("condition", "residuals", "network", "encode", "decode")},
    }


def _weights(module: nn.Module, without: set[int] = frozenset()) -> int:
    return sum(p.numel() for p in module.parameters() if id(p) not in without)


def describe_cost(model: Restorer, size: int) -> str:
    """:func:`cost` in one line."""
    return in_words(type(model.trainable()).__name__, cost(model, size))


def in_words(name: str, c: dict) -> str:
    """A :func:`cost` in one line; ``name`` is the adapter's."""
    trains, step = (
        f"{name}: {c['trainable'] / 1e6:.1f} M trainable parameters",
        c["condition"] + c["residuals"],
    )
    if not c["frozen"]:
        return f"{trains}; a forward pass costs {step:.3g} GFLOPs ({c['size']} px)"
    return (
        f"{trains}, {c['frozen'] / 1e6:.1f} M frozen; a step costs {step:.3g} GFLOPs in the"
        f" adapter, {c['network']:.3g} in the frozen network ({c['size']} px)"
    )
