"""The optimizer, its learning rate, and the running average of the weights."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from irbridge.errors import UserError
from irbridge.training.options import TrainerOptions


def learning_rate(
    step: int,
    lr: float,
    steps: int,
    warmup: int,
    schedule: str,
    flat: float = 0.0,
    last: float = 0.01,
) -> float:
    """The learning rate of a step.

    Args:
        step: counted from 0.
        lr: the highest rate.
        steps: of the whole training.
        warmup: steps in which the rate rises from 0 in a straight line.
        schedule: "constant", or "cosine": it then falls until ``steps``.
        flat: share of the steps before it begins to fall.
        last: share of the rate that is left at ``steps``.
    """
    rate = lr * min(1.0, (step + 1) / max(warmup, 1))
    if schedule == "cosine":
        begin = flat * steps if flat else 0.0  # there may be infinitely many yet
        share = 0.0 if step <= begin else min((step - begin) / max(steps - begin, 1), 1.0)
        return rate * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * share)))
    if schedule == "constant":
        return rate
    raise UserError(f"trainer.schedule={schedule!r} is unknown; choose cosine or constant.")


def build_optimizer(
    groups: list[dict], options: TrainerOptions, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW, or bitsandbytes' version of it, as the options say.

    With ``optimizer=adamw8bit`` both averages take a byte a weight (Dettmers et al., ICLR 2022).

    Args:
        groups: of parameters.
        options: of the training.
        device: of the parameters.

    Raises:
        UserError: bitsandbytes is not installed or cannot work on the device.
    """
    given = {"betas": tuple(options.betas), "weight_decay": options.weight_decay}
    if options.optimizer == "adamw":
        fused = device.type in ("cuda", "cpu")
        return torch.optim.AdamW(groups, options.lr, **given, fused=fused)
    kind = _eight_bit(options.lr, given, device)
    # as its first step would make them: a resumed run must see one layout throughout
    for parameter in (p for group in groups for p in group["params"]):
        parameter.data = parameter.data.contiguous()
    return kind(groups, options.lr, **given)


def _eight_bit(lr: float, given: dict, device: torch.device) -> type[torch.optim.Optimizer]:
    """The class of bitsandbytes; UserError unless a step of it works on the device."""
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
        AdamW8bit([trial], lr, **given).step()
    except Exception as error:  # whatever a build without this device raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise UserError(
            "trainer.optimizer=adamw8bit: the installed bitsandbytes does not work on"
            f" {device.type} ({reason}); use adamw, or a CUDA device."
        ) from error
    return AdamW8bit


def averaging(decay: float) -> Callable[[list, list, Tensor], None]:
    """The update of an exponential average, for torch's ``AveragedModel``.

    Its first steps count more, so that short runs are not held at their start.
    """

    @torch.no_grad()
    def update(averages, current, count):
        weight = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averages, current, weight)

    return update


@contextmanager
def averaged(module: nn.Module, ema: AveragedModel) -> Iterator[None]:
    """Within the block the module carries its averaged weights, in eval mode."""
    own = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict(ema.module.state_dict())
    module.eval()
    try:
        yield
    finally:
        module.load_state_dict(own)
