"""A clock of named parts, how it watches a model's networks, and the peak of memory."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from irbridge.models.irbridge import IRBridge
from irbridge.models.restorer import Restorer

PARTS = {
    "vae": "VAE",
    "adapter": "adapter, forward",
    "network": "frozen network, forward",
    "backward": "backward pass",
    "optimizer": "clipping, optimizer, average",
    "data": "handing out crops",
    "rest": "bridge arithmetic and loop",
}
NETWORKS = "vae", "adapter", "network", "backward"


class Clock:
    """Seconds of named parts, each without the parts inside it; "rest" is what is in none.

    ``with clock("vae"): ...`` is a part, :meth:`lap` ends a lap. The device's queue is emptied
    wherever the clock is read, so that time counts where it is spent.

    Args:
        device: where the parts compute.
        now: seconds since any moment; those of the processor where others share it.
    """

    def __init__(self, device: torch.device, now: Callable[[], float] = time.perf_counter):
        self.device, self.now = device, now
        self.inside = ["rest"]
        self.seconds = Counter()
        self.last = None

    def _read(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        now = self.now()
        if self.last is not None:
            self.seconds[self.inside[-1]] += now - self.last
        self.last = now

    def enter(self, part: str) -> None:
        """Count on a part, until :meth:`leave`."""
        self._read()
        self.inside.append(part)

    def leave(self) -> None:
        """Count on the part outside of this one again."""
        self._read()
        self.inside.pop()

    @contextmanager
    def __call__(self, part: str):
        """A block that counts on a part."""
        self.enter(part)
        try:
            yield
        finally:
            self.leave()

    def lap(self) -> dict[str, float]:
        """The seconds of the parts since the last lap ended, or since the first part began."""
        self._read()
        seconds, self.seconds = self.seconds, Counter()
        return dict(seconds)


@contextmanager
def watched(model: Restorer, clock: Clock):
    """A block within which a model's networks count on a clock, through forward hooks.

    Args:
        model: its networks count as "vae", "adapter" and "network"; without a frozen network all
            is "adapter".
        clock: on which they count.
    """
    with contextlib.ExitStack() as hooks:
        for module, part in _parts(model):
            for hook in _hooks(module, part, clock):
                hooks.callback(hook.remove)
        yield


def _hooks(module: nn.Module, part: str, clock: Clock) -> list:
    """Handles of the hooks by which a module's forward pass counts on a clock."""

    # the hooks stay out of the graph where the module is compiled
    @torch.compiler.disable
    def enter(module, args):
        clock.enter(part)

    @torch.compiler.disable
    def leave(module, args, output):
        clock.leave()

    return [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, always_call=True),
    ]


def _parts(model: Restorer) -> Iterator[tuple[nn.Module, str]]:
    """A model's networks, and the parts that they are."""
    if not isinstance(model, IRBridge):
        own = model.trainable()
        for module in _called(own) if isinstance(own, nn.ModuleDict) else [own]:
            yield module, "adapter"
        return
    network, vae = model.backbone.network, model.backbone.vae
    yield network, "network"
    frozen = set(network.modules())
    for module in [*_called(model.adapter), *model.adapter.pretrained]:
        if module not in frozen:  # LoRA's layers are called by the network
            yield module, "adapter"
    if vae is not None:
        yield vae.encoder, "vae"
        yield vae.decoder, "vae"


def _called(module: nn.Module) -> Iterator[nn.Module]:
    """The parts of a module that it calls itself: its children, and those of its containers."""
    for child in module.children():
        if isinstance(child, (nn.ModuleDict, nn.ModuleList)):
            yield from _called(child)
        else:
            yield child
