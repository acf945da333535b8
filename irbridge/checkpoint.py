"""Checkpoints that survive a kill at any moment: safetensors and JSON, never pickles, written aside
and renamed."""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from irbridge.errors import UserError

UMASK = os.umask(0o022)
os.umask(UMASK)


@contextmanager
def naming(path: Path):
    """Within the block what the system refuses is an OSError that names ``path``; a failed write
    alone does not."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors wraps a full disk in its own
        number = getattr(error, "errno", None) or int(
            (re.findall(r"os error (\d+)", str(error)) or [errno.EIO])[0]
        )
        raise OSError(number, getattr(error, "strerror", None) or str(error), str(path)) from error


def write_atomically(path: Path, write) -> None:
    """Call ``write(temporary_path)`` and rename to ``path``; on any failure the old file stays as
    it was, and an OSError names ``path``. Afterwards the file outlasts a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # machines may share a disk
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.tmp")
    try:
        with naming(path):
            write(temporary)
            temporary.chmod(0o666 & ~UMASK)  # safetensors writes files that no one else may read
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # not every file system can do it for a folder
            raise
    finally:
        os.close(handle)


def remove_leftovers(run: Path) -> None:
    """Remove what killed trainings left half-written in a run's folder. Call it under the lock
    alone: what another process is writing looks the same."""
    for left in (*run.glob(".*.tmp"), *run.glob("samples/.*.tmp")):
        left.unlink(missing_ok=True)
    for left in run.glob("checkpoints/.tmp-*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def locked(folder: Path):
    """Within the block the folder, made where it is missing, belongs to this process; the lock dies
    with the process, also by kill -9. UserError if another process has it, or it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{folder} is a file where a folder should be; move it, or choose another folder."
        )
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder} is in use by another process; wait for it to end, or choose another folder."
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); choose a writable folder."
        ) from error
    try:
        yield
    finally:
        # while it is held: whoever has opened it meanwhile sees that it has no name any more
        with suppress(OSError):
            os.unlink(folder / ".lock")
        lock.release()


def write_json(path: Path, value) -> None:
    """Write JSON atomically."""
    write_atomically(path, lambda p: p.write_text(json.dumps(value, indent=2) + "\n"))


def read_json(path: Path) -> dict:
    """Read a JSON object; :class:`UserError` where the file is missing or holds anything else."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; give the folder of a trained run or of a saved model."
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not readable as JSON ({error}); copy it again.") from None
    if not isinstance(value, dict):
        raise UserError(
            f"{path} holds a JSON {type(value).__name__}, not an object; copy it again."
        )
    return value


def append_line(path: Path, value) -> None:
    """Append JSON as one line, on the disk when this returns; an OSError names ``path``."""
    with naming(path), open(path, "a") as handle:
        handle.write(json.dumps(value) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def sha256(path: Path) -> str:
    """Of a file's bytes; UserError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); check the file."
        ) from error


def save_weights(path: Path, tensors: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write tensors as safetensors, atomically, floating ones cast to ``dtype`` where it is
    given."""
    cast = {
        k: (
            (v.to(dtype) if dtype and v.is_floating_point() else v)
            .detach()
            .cpu()
            .contiguous()
            .clone()
        )
        for k, v in tensors.items()
    }
    write_atomically(path, lambda p: save_file(cast, p))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; :class:`UserError` where it is missing or corrupt."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; train first, or give the folder of a finished run."
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file ({error}); copy it again or delete it."
        ) from None


def load_into(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Strictly load tensors into a module; :class:`UserError` names the first name or shape that
    differs."""
    own = module.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        there, here = (tuple(t[name].shape) if name in t else "missing" for t in (tensors, own))
        if there != here:
            raise UserError(
                f"{source} does not fit the configured model: {name} is {there} in the file and"
                f" {here} in the model; use the configuration that it was trained with."
            )
    module.load_state_dict(tensors)


class Checkpoints:
    """The training states of one run, ``<run>/checkpoints/step-N``: weights, EMA, optimizer and
    counters. A folder gets its final name only when it is complete; the older one is removed after
    that."""

    def __init__(self, run: Path):
        self.folder = Path(run) / "checkpoints"

    def latest(self) -> Path | None:
        """The newest complete checkpoint."""
        complete = (p for p in self.folder.glob("step-*") if p.name[5:].isdecimal())
        return max(complete, key=lambda p: int(p.name[5:]), default=None)

    def state(self) -> dict:
        """The counters of the newest checkpoint; empty where there is none, or where it is damaged,
        which :meth:`restore` tells."""
        with suppress(UserError):
            return read_json(self.latest() / "state.json") if self.latest() else {}
        return {}

    def save(
        self,
        step: int,
        module: nn.Module,
        ema: nn.Module,
        optimizer: torch.optim.Optimizer,
        **state,
    ) -> None:
        """Write the state after ``step`` steps; ``state`` is any JSON."""
        final, temporary = self.folder / f"step-{step:08d}", self.folder / f".tmp-{os.getpid()}"
        older = [p for p in self.folder.glob("step-*") if p != final]
        for left in self.folder.glob(".tmp-*"):  # of killed processes
            shutil.rmtree(left, ignore_errors=True)
        try:
            states = {
                "model": module.state_dict(),
                "ema": ema.state_dict(),
                "optimizer": _flatten(optimizer),
            }
            for name, tensors in states.items():
                save_weights(temporary / f"{name}.safetensors", tensors)
            write_json(temporary / "state.json", {"step": step, **state})
            _sync(temporary)
            if final.exists():
                os.replace(final, temporary.with_name(f"{temporary.name}-old"))
            os.replace(temporary, final)
            _sync(self.folder)  # before the older one goes
        except OSError as error:
            raise RuntimeError(
                f"The checkpoint of step {step} could not be written to {self.folder} ({error});"
                " make room and run the same command again: the previous checkpoint is intact."
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for path in (*older, temporary.with_name(f"{temporary.name}-old")):
            shutil.rmtree(path, ignore_errors=True)

    def restore(self, module: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
        """Load the newest checkpoint in place and return its counters; ``{"step": 0}`` where there
        is none. UserError if it is damaged, or of another model."""
        if not (folder := self.latest()):
            return {"step": 0}
        try:
            weights = {
                name: load_weights(folder / f"{name}.safetensors")
                for name in ("model", "ema", "optimizer")
            }
            state = read_json(folder / "state.json")
            if state.get("step") != int(folder.name[5:]):
                raise UserError(
                    f"{folder / 'state.json'} is not readable as the state of that step"
                )
        except UserError as error:
            raise UserError(
                f"{str(error).split(';')[0]}; delete the damaged checkpoint {folder} and run the"
                " same command: the training starts anew."
            ) from None
        for part, name in ((module, "model"), (ema, "ema")):
            load_into(part, weights[name], str(folder))
        _unflatten(optimizer, weights["optimizer"])
        return state


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    flat = {}
    for index, values in optimizer.state_dict()["state"].items():
        # bitsandbytes keeps some one level deeper, and loads them from either
        for key, value in values.items():
            inner = value if isinstance(value, dict) else {key: value}
            flat |= {f"{index}.{k}": torch.as_tensor(v) for k, v in inner.items()}
    return flat


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        if not tensor.dim() and not tensor.is_floating_point():
            tensor = tensor.item()  # a count of steps that was no tensor
        # laid out as the weight: fused steps rely on it
        elif tensor.shape == parameters[int(index)].shape:
            tensor = torch.empty_like(
                parameters[int(index)], dtype=tensor.dtype, device="cpu"
            ).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
