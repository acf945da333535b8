"""What a restoration takes: calls of the network, seconds, memory."""

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from irbridge.environment import peak_memory, reset_peak
from irbridge.evaluation.metrics import Metric

FORWARD = Metric("Forward calls", 0, False)
BACKWARD = Metric("Backward calls", 0, False)
MEMORY = Metric("Memory", 0, False, unit="MB")


class Meter:
    """Counts what one restoration after the other takes.

    Calls are counted where they happen: a forward call is an image that the network is given, so
    that a batch of T counts T, and a backward call one through whose output a gradient comes back.

    Memory is the peak above what was taken when the restoration began: on CUDA of tensors, else of
    the process's resident memory, after what it no longer uses was given back to the system.

    Args:
        network: whose calls count; None: there is none.
        device: where it computes.

    Attributes:
        metrics: what it counts besides seconds, as tables show it.
        seconds: of the last restoration.
        scores: the counts of the last restoration, by the metric's key.
    """

    metrics = FORWARD, BACKWARD, MEMORY

    def __init__(self, network: nn.Module | None = None, device: torch.device | None = None):
        self.network, self.device = network, device or torch.device("cpu")
        self.seconds, self.scores = 0.0, {}

    def measured(self, restore: Callable[[], np.ndarray]) -> np.ndarray:
        """What ``restore()`` gives; what it took is then in ``seconds`` and ``scores``."""
        _give_back()
        reset_peak(self.device)
        before = _taken(self.device)
        with self.counting() as counts:
            started = time.perf_counter()
            restored = restore()
            self.seconds = time.perf_counter() - started
        taken = max(0, peak_memory(self.device) - before)
        self.scores = {
            FORWARD.key: counts[0],
            BACKWARD.key: counts[1],
            MEMORY.key: round(taken / 2**20, 1),
        }
        return restored

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """A block within which the network's calls are counted: [forward, backward]."""
        counts = [0, 0]

        def forward(module, inputs, output) -> None:
            images = len(inputs[0])
            counts[0] += images
            made = _tensor(output)
            if made is not None and made.requires_grad:
                made.register_hook(lambda gradient: backward(images))

        def backward(images: int) -> None:
            counts[1] += images

        if self.network is None:
            yield counts
            return
        handle = self.network.register_forward_hook(forward)
        try:
            yield counts
        finally:
            handle.remove()


def _tensor(output) -> Tensor | None:
    """The tensor of what a network gives: itself, or the first of several."""
    if isinstance(output, Tensor):
        return output
    first = output[0]
    return first if isinstance(first, Tensor) else None


def _taken(device: torch.device) -> int:
    """Bytes that are taken now, of what :func:`~irbridge.environment.peak_memory` counts."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if sys.platform == "linux":
        return psutil.Process().memory_info().rss
    return peak_memory(device)  # of a process's peak only the rise can be told


def _give_back() -> None:
    """Give memory that is no longer used back to the system, where that can be asked for."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
