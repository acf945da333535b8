"""From a Hydra config to objects; checks of what the user wrote; one clear sentence for every
mistake."""

import errno
import os
import platform
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import hydra
import numpy as np
import psutil
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from irbridge.errors import UserError
from irbridge.validate import check_values

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
# What a resumed run may change without training differently.
FREE_KEYS = {
    "logger",
    "evaluate",
    "baseline",
    "run_root",
    "run",
    "name",
    "threads",
    "overwrite",
    "start",
    "ship",
    "data.on_device",
    "data.folder",
    "backbone.pretrained",
    "backbone.vae",
} | {
    f"trainer.{key}"
    for key in (
        "steps",
        "minutes",
        "stop",
        "workers",
        "log_every",
        "sample_every",
        "save_every",
        "save_seconds",
        "validate_every",
        "device",
        "checkpointing",
        "compile",
        "accumulate",
    )
}
# of a source of data.mix: it may move, as long as it keeps its name
PATHS = "pairs", "clean", "degraded", "root"
# Keys that runs of older versions lack, and what they did.
ADDED = {
    "_target_": "irbridge.backbones.load_backbone",
    "dtype": "float32",
    "optimizer": "adamw",
    "stand_in": False,
    "cache_latents": False,
    "on_device": False,
    "masked": False,
    "trunk": "unet",
    "trunk_lr": 1.0,
}
WORDS = {"adapter.anchor"}  # keys of another type that a word may replace: spandrel:FILE
stops: list[int] = []  # the stop signals that the present training, which first saves, has had
# keys with a value in the YAML files that may be null
NULLABLE = {"evaluate.size", "size", "data.exclude", "data.validation"}


def run_cli(task, config_name: str) -> None:
    """Run ``task(cfg)`` under Hydra; mistakes end with one sentence and status 2, faults with
    status 1. The traceback is shown with IRBRIDGE_DEBUG=1. A sweep goes on after a job that fails,
    and ends at a stop signal."""
    # so that Hydra raises here instead of printing its own traceback
    os.environ["HYDRA_FULL_ERROR"] = "1"
    raised: list[Exception] = []
    # a file name that the terminal cannot show must not stop a command
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    stops.clear()
    process, debug = os.getpid(), os.environ.get("IRBRIDGE_DEBUG") == "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)
    def main(cfg: DictConfig):
        try:
            check_types(cfg, config_name)
            check_values(plain(cfg))
            task(cfg)
        except Exception as error:  # kept from Hydra, which would print a line of its own
            raised.append(error if debug else _told(error))
            # in a launcher's worker: Hydra takes it to the command's own process
            if os.getpid() != process:
                raise raised[-1] from None
        if stops and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise KeyboardInterrupt

    interrupted = False
    try:
        main()
    except KeyboardInterrupt:
        interrupted = True
    except Exception as error:
        fault = isinstance(error, RuntimeError)  # of a worker; else Hydra could not compose
        raised.append(
            error if debug else (RuntimeError if fault else UserError)(one_sentence(error))
        )
    if raised and debug:
        raise raised[0]
    for error in raised:
        print(f"Error: {error}", file=sys.stderr)
    if interrupted:
        print("Interrupted; what was finished is saved, and the same command goes on.")
    if raised or interrupted:
        sys.exit(min((2 if isinstance(error, UserError) else 1 for error in raised), default=0))


def _told(error: Exception) -> Exception:
    """The error of a job as a UserError where it is a mistake, else as a RuntimeError; its text is
    one sentence, which in a sweep names the job."""
    config, text = HydraConfig.get(), one_sentence(error)
    if config.mode == RunMode.MULTIRUN:
        text = f"Job {config.job.num} ({' '.join(config.overrides.task)}): {text}"
    return (UserError if isinstance(error, (UserError, OmegaConfBaseException)) else RuntimeError)(
        text
    )


def one_sentence(error: Exception) -> str:
    """An exception as one line: its own text, and for Hydra's errors also the innermost cause and
    the choices."""
    cause = _innermost(error)
    error = cause if isinstance(cause, UserError) and not isinstance(error, UserError) else error
    if isinstance(error, OSError) and error.filename:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room there" if full else "check the path and its permissions"
        return (
            f"{error.filename} could not be read or written ({error.strerror}); {remedy}, and the"
            " same command goes on from what was finished."
        )
    lines = [line.strip() for line in str(error).replace("\t", " ").splitlines() if line.strip()]
    if lines and lines[0].startswith("Caught "):  # a worker process hands its traceback on as text
        lines = [lines[-1].split(": ", 1)[-1]]
    kept = [
        line
        for line in lines
        if not line.startswith(("full_key:", "object_type=", "set env", "Set the env"))
    ]
    text = (" ".join(kept) or type(error).__name__).split(" Config search path:")[0]
    hint = "To append to your config use"
    if hint in text:
        text = text.split(hint)[0].strip() + " Check the spelling, or see the keys with --cfg job."
    plainly = isinstance(error, (UserError, RuntimeError)) or type(error).__module__.startswith(
        "hydra"
    )
    return text if plainly else f"{type(error).__name__}: {text}"


def _innermost(error: Exception) -> Exception:
    """What an exception comes from; a UserError says it, whatever it comes from itself."""
    while error.__cause__ is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def check_types(cfg: DictConfig, config_name: str) -> None:
    """Refuse values whose type differs from the one in the YAML files, the schema; UserError names
    key and type."""
    leaves = list(_leaves(cfg))
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    if not overrides:
        return
    groups = [
        o for o in overrides if (CONFIGS / o.split("=")[0].lstrip("+").split("@")[0]).is_dir()
    ]
    default = composed(config_name, *groups)
    for key, value in leaves:
        expected = OmegaConf.select(default, key)
        if value is None and expected is not None and key not in NULLABLE:
            raise UserError(f"{key}=null must be a value, such as {plain(expected)!r}.")
        if expected is None or value is None:
            continue
        if isinstance(expected, DictConfig):
            raise UserError(
                f"{key}={value!r} is a group of keys; set one of"
                f" {', '.join(f'{key}.{k}' for k in expected)}."
            )
        if isinstance(expected, ListConfig) != isinstance(value, ListConfig):
            wanted = "list" if isinstance(expected, ListConfig) else type(expected).__name__
            raise UserError(f"{key}={value!r} must be a {wanted}, such as {plain(expected)!r}.")
        if isinstance(expected, ListConfig) or key in WORDS and isinstance(value, str):
            continue
        fits = isinstance(value, type(expected)) or (type(expected) is float and type(value) is int)
        if not fits or (type(value) is bool) != (type(expected) is bool):
            raise UserError(
                f"{key}={value!r} must be of type {type(expected).__name__}, such as {expected!r}."
            )


def composed(config_name: str, *overrides: str, folder: Path = CONFIGS) -> DictConfig:
    """The config that a command would get from these overrides, also within a running command;
    ``folder``: another checkout's configs."""
    state, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(str(folder), version_base="1.3"):
            return hydra.compose(config_name, list(overrides))
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = state


def _leaves(cfg, prefix: str = ""):
    for key in cfg:
        if OmegaConf.is_missing(cfg, key):
            raise UserError(
                f"{prefix}{key} has no value; give {prefix}{key}=... on the command line."
            )
        if isinstance(cfg[key], DictConfig):
            yield from _leaves(cfg[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", cfg[key]


def contradiction(saved: dict, wanted: dict, prefix: str = "") -> str | None:
    """The first difference between two configs that would make a resumed run another run, or
    None."""
    for key in sorted(saved.keys() | wanted.keys()):
        name = prefix + key
        if name in FREE_KEYS:
            continue
        a, b = (config.get(key, ADDED.get(key)) for config in (saved, wanted))
        if name == "data.mix":
            a, b = _placeless(a), _placeless(b)
        if isinstance(a, dict) and isinstance(b, dict):
            if found := contradiction(a, b, name + "."):
                return found
        elif a != b and not (key == "signature" and alike(a, b)):
            return f"{name} was {a!r} and is now {b!r}"
    return None


def _placeless(mix):
    """A mix whose sources have names for paths."""
    if not isinstance(mix, list) or not all(isinstance(entry, dict) for entry in mix):
        return mix

    def named(value):
        return (
            [named(v) for v in value]
            if isinstance(value, list)
            else Path(value).name
            if isinstance(value, str)
            else value
        )

    return [{k: named(v) if k in PATHS else v for k, v in entry.items()} for entry in mix]


def alike(a: list[float] | None, b: list[float] | None) -> bool:
    """Whether two backbones' signatures are one, up to rounding; runs of older versions have
    none."""
    return not a or not b or len(a) == len(b) and np.allclose(a, b, rtol=0.02, atol=0.02)


def instantiate(config, *args, **kwargs):
    """Hydra's instantiate, with constructor errors as :class:`UserError`."""
    try:
        return hydra.utils.instantiate(config, *args, **kwargs)
    except Exception as error:
        if isinstance(cause := _innermost(error), UserError):
            raise cause from None
        target = config.get("_target_", "The configured object")
        raise UserError(f"{target} cannot be built: {cause}".strip() + ".") from error


def device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA, then MPS, then the CPU."""
    if name == "auto":
        fallback = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else fallback)
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device={name!r} is not available here ({reason}); use device=auto."
        ) from None


def machine() -> str:
    """The machine in a few words: the GPU, or the processor's architecture and its cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return (
        f"{platform.machine()} CPU, {os.cpu_count()} cores,"
        f" {torch.backends.cpu.get_cpu_capability()}"
    )


def set_threads(requested: int | None = None, before: int | None = None) -> int:
    """Let torch compute with so many threads, and return how many; None: ``OMP_NUM_THREADS`` where
    it is set, else ``before``, what a training that goes on had, else as many as there are cores
    that this process may use and that others leave free."""
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
    """How many of the cores that this process may use others keep busy, measured for so long; those
    that gave way by ``nice`` do not count."""
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
    elapsed, busy, own = (b - a for a, b in zip(before, read()))
    return max(0.0, (busy - own) / elapsed)


def plain(cfg) -> dict:
    """A config, or a value of one, as resolved plain data."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg


@cache
def commit() -> str:
    """The git commit of the code, "+" appended where the tree is modified; "unknown" outside a
    checkout."""

    def git(*words):
        return subprocess.check_output(
            ["git", "-C", str(ROOT), *words], text=True, stderr=subprocess.DEVNULL
        ).strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            "+" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
