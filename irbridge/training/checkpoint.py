"""Everything that a training needs to go on bit by bit where it was stopped."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from irbridge.errors import Failure, UserError
from irbridge.files import check_fields, read_json, sync, write_json
from irbridge.weights import load_into, load_weights, save_weights

# of a checkpoint's state, what older ones may lack
COUNTERS = "seconds", "cpu_seconds"


class Checkpoints:
    """The training states of one run, ``<run>/checkpoints/step-N``.

    Each holds weights, their average, the optimizer's state and counters. A folder gets its final
    name only when it is complete; the older one is removed after that.
    """

    def __init__(self, run: Path):
        self.folder = Path(run) / "checkpoints"

    def latest(self) -> Path | None:
        """The newest complete checkpoint; None where there is none."""
        complete = (path for path in self.folder.glob("step-*") if path.name[5:].isdecimal())
        return max(complete, key=_step_of, default=None)

    def state(self) -> dict:
        """The counters of the newest checkpoint.

        They are empty where there is none, or where it is damaged, which :meth:`restore` tells.
        """
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
        """Write the state after ``step`` steps.

        Args:
            step: how many are done.
            module: that trains.
            ema: its average.
            optimizer: of its weights.
            state: other counters, any JSON.

        Raises:
            RuntimeError: it cannot be written; the previous checkpoint is intact.
        """
        final, temporary = self.folder / f"step-{step:08d}", self.folder / f".tmp-{os.getpid()}"
        older = [path for path in self.folder.glob("step-*") if path != final]
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
            sync(temporary)
            _put(temporary, final)
            sync(self.folder)  # before the older one goes
        except OSError as error:
            raise Failure(
                f"The checkpoint of step {step} could not be written to {self.folder} ({error});"
                " make room and run the same command again: the previous checkpoint is intact."
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for path in older:
            shutil.rmtree(path, ignore_errors=True)

    def restore(self, module: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
        """Load the newest checkpoint in place.

        Returns:
            Its counters; ``{"step": 0}`` where there is none.

        Raises:
            UserError: it is damaged, or of another model.
        """
        if not (folder := self.latest()):
            return {"step": 0}
        try:
            weights = {
                name: load_weights(folder / f"{name}.safetensors")
                for name in ("model", "ema", "optimizer")
            }
            state = read_json(folder / "state.json")
            if state.get("step") != _step_of(folder):
                raise UserError(
                    f"{folder / 'state.json'} is not readable as the state of that step"
                )
            numbers = {key: (int, float) for key in COUNTERS if key in state}
            check_fields(state, folder / "state.json", **numbers)
        except UserError as error:
            raise UserError(
                f"{str(error).split(';')[0]}; delete the damaged checkpoint {folder} and run the"
                " same command: the training starts anew."
            ) from None
        for part, name in ((module, "model"), (ema, "ema")):
            load_into(part, weights[name], str(folder))
        _unflatten(optimizer, weights["optimizer"])
        return state


def _put(folder: Path, final: Path) -> None:
    """Give a complete folder its final name.

    A checkpoint of the same step that is there already is replaced file by file: each holds the
    state of the same step, so that at any moment the checkpoint is there and whole.
    """
    if not final.exists():
        os.replace(folder, final)
        return
    for path in sorted(folder.iterdir()):
        os.replace(path, final / path.name)
    sync(final)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as tensors named ``<index of the weight>.<name in its state>``."""
    flat = {}
    for index, values in optimizer.state_dict()["state"].items():
        # bitsandbytes keeps some one level deeper, and loads them from either
        for key, value in values.items():
            inner = value if isinstance(value, dict) else {key: value}
            flat |= {f"{index}.{k}": torch.as_tensor(v) for k, v in inner.items()}
    return flat


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimizer the state that :func:`_flatten` returned."""
    state: dict[int, dict] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        weight = parameters[int(index)]
        if not tensor.dim() and not tensor.is_floating_point():
            tensor = tensor.item()  # a count of steps that was no tensor
        # laid out in memory as the weight: fused steps rely on it
        elif tensor.shape == weight.shape:
            laid_out = torch.empty_like(weight, dtype=tensor.dtype, device="cpu")
            tensor = laid_out.copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
