"""Optimizer."""

import math
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from irbridge.errors import UserError


def learning_rate(step: int, lr: float, steps: int, warmup: int, schedule: str) -> float:
    """The learning rate of a step (0-based): linear warm-up, then "constant" or "cosine" down to 1
    % at ``steps``.
    """
    rate = lr * min(1.0, (step + 1) / max(warmup, 1))
    if schedule == "cosine":
        return rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0))))
    if schedule == "constant":
        return rate
    raise UserError(f"trainer.schedule={schedule!r} is unknown; choose cosine or constant.")


def build_optimizer(
    groups: list[dict], options: dict, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW of groups of parameters as the ``trainer`` config says, or with ``optimizer=adamw8bit``
    bitsandbytes', whose two averages take a byte a weight (Dettmers et al., ICLR 2022). UserError
    if that is not installed or cannot work on the device.
    """
    kind, given = (
        options["optimizer"],
        {"betas": tuple(options["betas"]), "weight_decay": options["weight_decay"]},
    )
    if kind == "adamw":
        return torch.optim.AdamW(
            groups, options["lr"], **given, fused=device.type in ("cuda", "cpu")
        )
    if kind != "adamw8bit":
        raise UserError(f"trainer.optimizer={kind!r} is unknown; choose adamw or adamw8bit.")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise UserError(
            'trainer.optimizer=adamw8bit needs bitsandbytes; pip install -e ".[bnb]", or use adamw.'
        ) from None
    # fewer weights than 4096 would be kept in float32
    trial = nn.Parameter(torch.ones(8192, device=device))
    trial.grad = torch.ones_like(trial)
    try:
        AdamW8bit([trial], options["lr"], **given).step()
    except Exception as error:  # whatever a build without this device raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise UserError(
            "trainer.optimizer=adamw8bit: the installed bitsandbytes does not work on"
            f" {device.type} ({reason}); use adamw, or a CUDA device."
        ) from error
    # as its first step would make them: a resumed run must see one layout throughout
    for parameter in (p for group in groups for p in group["params"]):
        parameter.data = parameter.data.contiguous()
    return AdamW8bit(groups, options["lr"], **given)


def averaging(decay: float):
    """Exponential average whose first steps count more, so that short runs are not held at their
    start.
    """

    @torch.no_grad()
    def update(averages, current, count):
        weight = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averages, current, weight)

    return update


@contextmanager
def averaged(module: nn.Module, ema: AveragedModel):
    """Within the block the module carries its averaged weights, in eval mode."""
    own = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(ema.module.state_dict())
    module.eval()
    try:
        yield
    finally:
        module.load_state_dict(own)
