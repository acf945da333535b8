"""The machine, its devices and threads, and where its user keeps things."""

import atexit
import contextlib
import gc
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
import torch
from torch import nn

from irbridge.assets import CHECKOUT, __version__
from irbridge.errors import UserError


def device(name: str = "auto") -> torch.device:
    """The device of this name; "auto" is CUDA where there is one, then MPS, then the CPU."""
    if name == "auto":
        fallback = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else fallback)
    try:
        found = torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device={name!r} is not available here ({reason}); use device=auto."
        ) from None
    if found.type == "meta":
        raise UserError("device='meta' holds no values and computes nothing; use device=auto.")
    return found


def processes(**options):
    """The processes of this command, which leave one another in order when the command ends.

    A group that is still there when Python ends has threads that may abort the process, after all
    its work.

    Args:
        **options: of :class:`accelerate.PartialState`.

    Returns:
        The :class:`accelerate.PartialState`.
    """
    # Defaults of its functions are the group that there is when it is imported, which
    # DistributedDataParallel does; a group that a default keeps is never freed.
    import torch.distributed.nn  # noqa: F401
    from accelerate import PartialState  # late: restoring needs none of it

    state = PartialState(**options)
    if state.num_processes > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)
    return state


def _leave() -> None:
    if torch.distributed.is_initialized():
        gc.collect()  # networks in cycles keep the group as well
        torch.distributed.destroy_process_group()


def machine() -> str:
    """The machine in a few words: the GPU, or the processor's architecture and its cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return (
        f"{platform.machine()} CPU, {os.cpu_count()} cores,"
        f" {torch.backends.cpu.get_cpu_capability()}"
    )


def memory() -> int:
    """Bytes of this machine's memory, or of its GPU's where that has more."""
    total = psutil.virtual_memory().total
    if torch.cuda.is_available():
        return max(total, torch.cuda.get_device_properties(0).total_memory)
    return total


def affordable(make: Callable[[], nn.Module], keys: str) -> nn.Module:
    """What ``make()`` gives, where this machine has the memory for its weights.

    Args:
        make: builds a network.
        keys: the settings that make it smaller, for the error.

    Raises:
        UserError: it would take more than there is. Nothing was allocated.
    """
    with torch.device("meta"):  # which has shapes alone
        weights = sum(p.numel() for p in make().parameters())
    if 4 * weights > memory():
        raise UserError(
            f"A network of {weights / 1e9:.0f} billion weights takes {4 * weights / 1e9:.0f} GB,"
            f" and this machine has {memory() / 1e9:.0f}; give a smaller {keys}."
        )
    return make()


def set_threads(requested: int | None = None, before: int | None = None) -> int:
    """Let torch compute with so many threads, and return how many.

    Args:
        requested: the number; None: ``OMP_NUM_THREADS`` where it is set, else ``before``, else as
            many as there are cores that this process may use and that others leave free.
        before: what a training that goes on had.
    """
    if requested is None and not os.environ.get("OMP_NUM_THREADS"):
        requested = before or max(1, len(own_cores()) - round(busy_cores()))
    if requested is not None:
        torch.set_num_threads(requested)
    return torch.get_num_threads()


def own_cores() -> set[int]:
    """The numbers of the cores that this process may use."""
    return (
        os.sched_getaffinity(0)
        if hasattr(os, "sched_getaffinity")
        else set(range(os.cpu_count() or 1))
    )


def busy_cores(seconds: float = 0.1) -> float:
    """How many of the cores that this process may use others keep busy, measured for so long.

    Processes that gave way by ``nice`` do not count.
    """
    cores = own_cores()

    def read() -> tuple[float, float, float]:
        busy = 0.0
        for times in (t for core, t in enumerate(psutil.cpu_times(percpu=True)) if core in cores):
            idle = sum(
                getattr(times, kind, 0.0)
                for kind in ("idle", "iowait", "nice", "guest", "guest_nice")
            )
            busy += sum(times) - idle
        return time.perf_counter(), busy, time.process_time()

    before = read()
    time.sleep(seconds)
    elapsed, busy, own = (b - a for a, b in zip(before, read(), strict=True))
    return max(0.0, (busy - own) / elapsed)


@cache
def commit() -> str:
    """The git commit of the code, with a "+" where the tree is modified.

    "unknown" outside a checkout.
    """
    # A repository around an installed package is another project's.
    if CHECKOUT is None:
        return "unknown"

    def git(*words):
        return subprocess.check_output(
            ["git", "-C", str(CHECKOUT), *words], text=True, stderr=subprocess.DEVNULL
        ).strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            "+" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine_key() -> dict:
    """What of the machine and its software decides how fast it computes."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "irbridge": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": _processor(),
        "gpu": gpu,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    """The processor's model as the system calls it."""
    with suppress(OSError):
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def reset_peak(device: torch.device) -> None:
    """Start a new measurement of :func:`peak_memory`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        # not everywhere allowed; then the peak is that of the process so far
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """The peak of memory since :func:`reset_peak`; on macOS since the process began.

    Returns:
        Bytes: on CUDA the most that tensors took, elsewhere the most physical memory of the whole
        process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
