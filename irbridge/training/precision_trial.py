"""Which precision a training computes in: a few steps of it, tried in both."""

import hashlib
import json
from dataclasses import asdict

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list

from irbridge.data.crops import CropStream
from irbridge.errors import UserError
from irbridge.gaussian.noise import step_noise
from irbridge.models.precision import frozen_parts, trial
from irbridge.models.restorer import Restorer
from irbridge.models.training_step import Batch, TrainingStep
from irbridge.training.options import TrainerOptions


def best_precision(
    model: Restorer, options: TrainerOptions, stream: CropStream, before: str | None = None
) -> str:
    """The precision that ``trainer.precision`` asks for: "no", which is float32, "bf16" or "fp16".

    "auto" is what a training that goes on had, else bf16 where a few steps of this model on its
    device take less time in it, else float32, as always on MPS. A baseline that follows in the same
    process trains in the model's precision.

    Args:
        model: to train.
        options: of the training.
        stream: its crops, for the trial.
        before: what a training that goes on had.

    Raises:
        UserError: the device, or the dtype of the frozen weights, does not go with it.
    """
    requested, state = options.precision, PartialState(cpu=options.device == "cpu")
    at = state.device
    if requested == "fp16" and at.type != "cuda":
        raise UserError("trainer.precision=fp16 needs a CUDA device; use auto.")
    frozen = getattr(getattr(model, "backbone", None), "dtype", None)
    if frozen == torch.float16 and requested != "fp16":
        raise UserError(
            "backbone.dtype=float16 loses small gradients; train with bfloat16 or float32, or on"
            " CUDA with trainer.precision=fp16, which scales the loss."
        )
    if requested != "auto":
        return requested
    if AcceleratorState._shared_state:
        return AcceleratorState().mixed_precision
    if not _knows_bf16(at):
        return "no"
    if before is None and state.is_main_process:  # two processes might find two answers
        before = _tried_precision(model, options, stream, at)
    return broadcast_object_list([before])[0]


def _knows_bf16(at: torch.device) -> bool:
    if at.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return at.type == "cpu"


def _tried_precision(
    model: Restorer, options: TrainerOptions, stream: CropStream, at: torch.device
) -> str:
    """Whichever takes less time on a device, "bf16" or "no".

    It is tried, or an earlier trial of the same has found it.
    """
    model.to(at)
    batch, drawn = first_batch(model, stream, min(4, options.batch_size), at)
    # with every part that trains
    late = drawn._replace(progress=1.0)

    def step(half: bool) -> None:
        with torch.autocast(at.type, torch.bfloat16, enabled=half):
            dry_step(model, batch, late)

    sampler, loss = (getattr(model, key, None) for key in ("sampler", "loss_options"))
    about = {
        "training": type(model).__name__,
        "shapes": [list(value.shape) for value in model.state_dict().values()],
        "frozen": frozen_parts(model),
        "loss": loss and asdict(loss),
        "sampler": sampler and sampler.record(),
        "cached": getattr(model, "latents", None) is not None,
        "device": at.type,
        "batch": len(batch.clean),
        "crop": options.crop,
        "channels_last": options.channels_last,
        "checkpointing": options.checkpointing,
    }
    said = json.dumps(about, sort_keys=True, default=str)
    key = {"training": hashlib.sha256(said.encode()).hexdigest()}
    return "bf16" if trial(step, key) else "no"


def first_batch(
    model: Restorer, stream: CropStream, count: int, device: torch.device | str
) -> tuple[Batch, TrainingStep]:
    """The arguments of ``model.loss`` for the stream's first ``count`` crops, on the device."""
    pairs = [stream[draw] for draw in range(count)]
    batch = Batch(*(torch.stack([pair[key] for pair in pairs]).to(device) for key in Batch._fields))
    noise, uniform = step_noise(0, 0, (count, *model.state_shape(batch.clean.shape[1:])))
    return batch, TrainingStep(0.0, uniform.to(device), noise.to(device))


def dry_step(model: Restorer, batch: Batch, step: TrainingStep) -> None:
    """Forward and backward of a batch, finished when this returns; nothing is learnt."""
    losses = model(batch, step)
    sum(value.float().mean() for value in losses.values()).backward()
    model.zero_grad(set_to_none=True)
    if batch.clean.device.type == "cuda":
        torch.cuda.synchronize(batch.clean.device)
