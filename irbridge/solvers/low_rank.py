"""Low-rank updates that a network carries for the time of one run (Hu et al., ICLR 2022)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from irbridge.errors import UserError

NAME = "measurement"  # of the updates inside peft's layers


class LowRank:
    """Updates of a network's layers, of its own for each image of a batch.

    A layer W becomes W + up down. They are off, and the network gives its own output to the bit,
    but within :meth:`on`.

    Args:
        layers: peft's, which hold the updates.
        rank: of the updates.
        lr: of Adam, one for each image.
        noise: called with a tensor, gives unit normal noise of its shape.
        images: how many the batch has.
    """

    def __init__(
        self,
        layers: list[nn.Module],
        rank: int,
        lr: float,
        noise: Callable[[Tensor], Tensor],
        images: int,
    ):
        self.layers = layers
        self.weights: list[list[nn.Parameter]] = [[] for _ in range(images)]
        for layer in layers:
            down, up = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
            starts = noise(down.detach().expand(images, *down.shape)) / rank
            for own, start in zip(self.weights, starts, strict=True):
                own += [nn.Parameter(start.clone()), nn.Parameter(torch.zeros_like(up))]
        self.optimizers = [torch.optim.Adam(own, lr) for own in self.weights]
        self._off()

    @contextmanager
    def on(self, image: int) -> Iterator[None]:
        """Within the block the network has the updates of one image."""
        own = iter(self.weights[image])
        for layer in self.layers:
            layer.lora_A[NAME].weight, layer.lora_B[NAME].weight = next(own), next(own)
            layer.enable_adapters(True)
        try:
            yield
        finally:
            self._off()

    def step(self, image: int, loss: Tensor) -> None:
        """One step of an image's Adam, of a loss that was computed within :meth:`on`.

        Raises:
            UserError: the loss does not depend on the updates.
        """
        if not loss.requires_grad:
            raise UserError(
                "The backbone passes no gradients to low-rank layers in its network, so that"
                " solver=scd cannot adapt it; load it as it was published."
            )
        self.optimizers[image].zero_grad()
        loss.backward()
        self.optimizers[image].step()

    def _off(self) -> None:
        for layer in self.layers:
            layer.enable_adapters(False)


@contextmanager
def low_rank(
    network: nn.Module, rank: int, lr: float, noise: Callable[[Tensor], Tensor], images: int
) -> Iterator[LowRank]:
    """Within the block a network carries low-rank updates; after it, it is what it was.

    They are of the convolutions and linear layers of its blocks, which are the items of its
    module lists; of all of them where it has no such lists.

    Args:
        network: the frozen network, changed in place.
        rank: of the updates.
        lr: of Adam.
        noise: called with a tensor, gives unit normal noise of its shape.
        images: how many the batch has.

    Raises:
        UserError: peft is not there, the network carries updates already or has no layer for them.
    """
    check_peft()
    from peft import LoraConfig, inject_adapter_in_model

    if hasattr(network, "peft_config"):
        raise UserError(
            "The backbone's network carries low-rank layers already, of an adapter or another run;"
            " load it anew for solver=scd."
        )
    names = _layers(network)
    originals = {name: network.get_submodule(name) for name in names}
    trained = {weight: weight.requires_grad for weight in network.parameters()}
    # a pattern: of a list peft would also take names that end alike
    pattern = "|".join(map(re.escape, names))
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=pattern)
    try:
        with torch.inference_mode(False):
            inject_adapter_in_model(config, network, NAME)
            layers = [network.get_submodule(name) for name in names]
            for layer in layers:
                half = layer.lora_A[NAME].weight.dtype in (torch.float16, torch.bfloat16)
                if half:  # in which Adam's small steps would be lost
                    layer.lora_A.float()
                    layer.lora_B.float()
            updates = LowRank(layers, rank, lr, noise, images)
        yield updates
    finally:
        for name, layer in originals.items():
            network.set_submodule(name, layer)
        vars(network).pop("peft_config", None)
        for weight, wanted in trained.items():
            weight.requires_grad_(wanted)


def _layers(network: nn.Module) -> list[str]:
    """The names of the layers that are updated."""
    found, blocks = [], []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.ModuleList):
            blocks.append(f"{name}.")
        elif isinstance(layer, nn.Conv2d | nn.Conv1d | nn.Linear):
            whole = getattr(layer, "groups", 1) == 1
            if whole and layer.weight.is_floating_point():
                found.append(name)
    if not found:
        raise UserError(
            "solver=scd finds no convolution or linear layer of float weights in the backbone's"
            f" {type(network).__name__}; choose another solver."
        )
    return [name for name in found if name.startswith(tuple(blocks))] or found


def check_peft() -> None:
    """UserError unless peft can be imported."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise UserError(
            'solver=scd needs peft; install it with `pip install -e ".[lora]"`, or give'
            " solver.inner=0, which adapts nothing."
        ) from error
