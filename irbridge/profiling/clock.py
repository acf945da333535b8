"""Clock."""

import resource
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch

from irbridge.models.restorer import Restorer
from irbridge.profiling.flops import replaced

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
    """Seconds of named parts, each without the parts inside it, "rest" what is in none. ``with
    clock("vae"): ...``; a lap ends by ``lap``. The device's queue is emptied wherever the clock is
    read, so that time counts where it is spent.
    """

    def __init__(self, device: torch.device):
        self.device, self.inside, self.seconds, self.last = device, ["rest"], Counter(), None

    def _read(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        now = time.perf_counter()
        if self.last is not None:
            self.seconds[self.inside[-1]] += now - self.last
        self.last = now

    @contextmanager
    def __call__(self, part: str):
        self._read()
        self.inside.append(part)
        try:
            yield
        finally:
            self._read()
            self.inside.pop()

    def lap(self) -> dict[str, float]:
        """The seconds of the parts since the last lap ended; the first counts from the first part
        on.
        """
        self._read()
        seconds, self.seconds = self.seconds, Counter()
        return dict(seconds)


def watched(model: Restorer, clock: Clock):
    """A block within which the model's networks count on the clock as "vae", "adapter" and
    "network".
    """

    def wrap(part, method, name):
        def timed(*args, **kwargs):
            with clock(part):
                return method(*args, **kwargs)

        return timed

    return replaced(model, wrap)


def reset_peak(device: torch.device) -> None:
    """Start a new measurement of :func:`peak_memory`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not everywhere allowed; then the peak is that of the process so far
            pass


def peak_memory(device: torch.device) -> int:
    """Bytes: on CUDA the most that tensors took, elsewhere the most physical memory of the whole
    process; since :func:`reset_peak` on CUDA and Linux.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
