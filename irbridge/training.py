"""The one training loop: of adapters, of the regression baseline and of the prior."""

import hashlib
import json
import math
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from diffusers import AutoencoderKL, AutoencoderTiny, ModelMixin
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from irbridge.checkpoint import Checkpoints, append_line, read_json, write_atomically, write_json
from irbridge.config import stops
from irbridge.data import CropStream, device_batches, stream_loader
from irbridge.errors import UserError
from irbridge.precision import frozen_parts, trial
from irbridge.restorer import Restorer


def learning_rate(step: int, lr: float, steps: int, warmup: int, schedule: str) -> float:
    """The learning rate of a step (0-based): linear warm-up, then "constant" or "cosine" down to 1
    % at ``steps``."""
    rate = lr * min(1.0, (step + 1) / max(warmup, 1))
    if schedule == "cosine":
        return rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0))))
    if schedule == "constant":
        return rate
    raise UserError(f"trainer.schedule={schedule!r} is unknown; choose cosine or constant.")


def best_precision(
    model: Restorer, options: dict, stream: CropStream, before: str | None = None
) -> str:
    """The precision that ``trainer.precision`` asks for. "auto" is ``before``, what a training that
    goes on had, else bf16 where a few steps of this model on its device take less time in it, else
    float32, as always on MPS. A baseline that follows in the same process trains in the model's
    precision."""
    requested, state = options["precision"], PartialState(cpu=options["device"] == "cpu")
    at = state.device
    if requested == "fp16" and at.type != "cuda":
        raise UserError("trainer.precision=fp16 needs a CUDA device; use auto.")
    if (
        getattr(getattr(model, "backbone", None), "dtype", None) == torch.float16
        and requested != "fp16"
    ):
        raise UserError(
            "backbone.dtype=float16 loses small gradients; train with bfloat16 or float32, or on"
            " CUDA with trainer.precision=fp16, which scales the loss."
        )
    if requested != "auto":
        return requested
    if AcceleratorState._shared_state:
        return AcceleratorState().mixed_precision
    if at.type != "cpu" and not (
        at.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        return "no"
    if before is None and state.is_main_process:  # two processes might find two answers
        before = _tried_precision(model, options, stream, at)
    return broadcast_object_list([before])[0]


def _tried_precision(model: Restorer, options: dict, stream: CropStream, at: torch.device) -> str:
    """ "bf16" or "no", whichever takes less time on a device, by trial or as an earlier trial of
    the same found."""
    model.to(at)
    batch = _batch(model, stream, min(4, options["batch_size"]), at)

    def step(half: bool) -> None:
        with torch.autocast(at.type, torch.bfloat16, enabled=half):
            _dry_step(model, batch, progress=1.0)  # with every part that trains

    sampler = getattr(model, "sampler", None)
    about = {
        "training": type(model).__name__,
        "shapes": [list(value.shape) for value in model.state_dict().values()],
        "frozen": frozen_parts(model),
        "loss": getattr(model, "loss_options", None),
        "sampler": sampler and asdict(sampler),
        "cached": getattr(model, "latents", None) is not None,
        "device": at.type,
        "batch": len(batch[0]),
        **{key: options[key] for key in ("crop", "channels_last", "checkpointing")},
    }
    key = {
        "training": (
            hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
        )
    }
    return "bf16" if trial(step, key) else "no"


def _batch(model: Restorer, stream: CropStream, count: int, device) -> list[torch.Tensor]:
    """The arguments of ``model.loss`` for the stream's first crops."""
    pairs = [stream[draw] for draw in range(count)]
    clean, degraded = (torch.stack([pair[key] for pair in pairs]) for key in ("clean", "degraded"))
    return [
        v.to(device)
        for v in (clean, degraded, *step_noise(0, 0, (count, *model.state_shape(clean.shape[1:]))))
    ]


def _dry_step(model: Restorer, batch: list[torch.Tensor], progress: float) -> None:
    """Forward and backward of a batch as at ``progress`` of the training, done when this returns;
    nothing is learnt."""
    model.progress, before = progress, model.progress
    losses = model(*batch)
    sum(value.float().mean() for value in losses.values()).backward()
    model.zero_grad(set_to_none=True)
    model.progress = before
    if batch[0].device.type == "cuda":
        torch.cuda.synchronize(batch[0].device)


def build_optimizer(
    groups: list[dict], options: dict, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW of groups of parameters as the ``trainer`` config says, or with ``optimizer=adamw8bit``
    bitsandbytes', whose two averages take a byte a weight (Dettmers et al., ICLR 2022). UserError
    if that is not installed or cannot work on the device."""
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


def checkpoint_gradients(model: nn.Module) -> None:
    """Let the diffusers blocks of every network in the model, also of an adapter's copies,
    recompute in the backward pass what they would otherwise keep. Gradients are the same."""
    keep = partial(checkpoint, use_reentrant=False)
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing, module._gradient_checkpointing_func = True, keep


def compile_networks(model: nn.Module) -> None:
    """torch.compile every diffusers network in the model in place, so that names of weights stay; a
    VAE, which is not called as a module, is left as it is. The first steps take minutes."""
    for module in model.modules():
        if isinstance(module, ModelMixin) and not isinstance(
            module, (AutoencoderKL, AutoencoderTiny)
        ):
            module.compile()


def step_noise(seed: int, step: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit normal noise (B, C, H, W) and uniforms (B,) of one step: a function of (seed, step)
    alone."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    return torch.randn(shape, generator=generator), torch.rand(shape[0], generator=generator)


@contextmanager
def _stop_signals():
    """Within the block SIGINT and SIGTERM go to ``stops`` alone, so that the loop can save and
    leave. A loader's worker that such a signal to all of the group has ended fails the next read,
    never the middle of an optimizer step."""
    stops.clear()
    previous = {
        s: signal.signal(s, lambda number, _: stops.append(number))
        for s in (signal.SIGINT, signal.SIGTERM)
    }
    if hasattr(signal, "SIGCHLD"):
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def fit(
    model: Restorer,
    stream: CropStream,
    options: dict,
    seed: int,
    run: Path,
    on_sample: Callable[[nn.Module, int], None] | None = None,
    on_save: Callable[[dict], None] | None = None,
    log: Callable[[dict], None] | None = None,
    watch: Callable[[str], AbstractContextManager] = nullcontext,
    on_validate: Callable[[nn.Module], dict] | None = None,
    repeats: int = 0,
    on_device: bool = False,
) -> bool:
    """Train ``model.trainable()`` for ``options["steps"]`` optimizer steps, resuming from the run's
    last checkpoint.

    Args: options: the ``trainer`` config. ``batch_size`` counts the images of an optimizer step
        over all processes. run: where checkpoints and ``metrics.jsonl`` go. on_sample: called with
        the averaged weights in place every ``sample_every`` steps. log: called with every line
            of ``metrics.jsonl``. on_save: called with the averaged weights of the trainable module
            at every save.
        watch: what each part of a step runs in, see ``timing.Clock``: "data", "backward",
            "optimizer".
        on_validate: called with the averaged weights in place every ``validate_every`` steps; the
            scores that it gives go into ``metrics.jsonl``.
        on_device: crops are made on the device, see ``data.device_batches``.
        repeats: trainings of as many steps that ``minutes`` must also hold, such as that of the
            baseline.

    Returns True when all steps are done, False when SIGINT, SIGTERM (also at the last step) or
    ``stop`` ended it, with all saved. RuntimeError if the loss is not finite (names the step) or a
    checkpoint cannot be written."""
    if options["crop"] % model.stride:
        raise UserError(
            f"trainer.crop={options['crop']} must be a multiple of {model.stride}, by which the"
            " network shrinks images."
        )
    if options["channels_last"]:
        model = model.to(memory_format=torch.channels_last)
    if options["checkpointing"]:
        checkpoint_gradients(model)
    checkpoints = Checkpoints(run)
    precision = best_precision(model, options, stream, checkpoints.state().get("precision"))
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=options["device"] == "cpu",
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
        ],
    )
    main, world = accelerator.is_main_process, accelerator.num_processes
    batch, parts = options["batch_size"], options["accumulate"] * world
    if batch % parts:
        raise UserError(
            f"trainer.batch_size={batch} does not divide by trainer.accumulate x processes ="
            f" {parts}."
        )
    if options["compile"]:
        compile_networks(model)
    module = model.trainable().to(accelerator.device)
    model.to(accelerator.device)
    optimizer = build_optimizer(model.parameter_groups(), options, accelerator.device)
    ema = AveragedModel(module, multi_avg_fn=_averaging(options["ema_decay"]))
    state = checkpoints.restore(module, ema, optimizer)
    first, elapsed, worked = (
        state["step"],
        state.get("seconds", 0.0),
        state.get("cpu_seconds", 0.0) - time.process_time(),
    )
    if accelerator.scaler and state.get("scaler"):
        accelerator.scaler.load_state_dict(state["scaler"])
    objective, optimizer = accelerator.prepare(model, optimizer)
    metrics = _Metrics(run / "metrics.jsonl", first) if main else None
    if options["workers"] and not on_device and hasattr(stream, "preload"):
        stream.preload()
    own, share = batch // parts, {"rank": accelerator.process_index, "world": world}
    draws = (
        device_batches(stream, first * batch, own, accelerator.device, **share)
        if on_device
        else iter(stream_loader(stream, first * batch, own, options["workers"], **share))
    )
    steps, pace = planned_steps(run, options), Pace(run, options["minutes"])
    end = min(steps, options["stop"] or steps)

    def save(step: int) -> None:
        if main:
            checkpoints.save(
                step,
                module,
                ema,
                optimizer,
                seconds=elapsed + time.monotonic() - started,
                cpu_seconds=worked + time.process_time(),
                precision=precision,
                threads=torch.get_num_threads(),
                scaler=accelerator.scaler and accelerator.scaler.state_dict(),
            )
            if on_save:
                on_save(ema.module.state_dict())

    # together: a process that left alone would leave the others waiting for its gradients
    def stopping() -> bool:
        if world > 1 and accelerator.reduce(
            torch.tensor(float(bool(stops)), device=accelerator.device), "sum"
        ):
            stops.append(signal.SIGTERM)
        return bool(stops)

    step, started, saved, seconds_saved = first, time.monotonic(), first, time.monotonic()
    bar = tqdm(
        initial=first,
        total=None if steps == math.inf else steps,
        desc="training",
        unit="step",
        disable=not main,
        mininterval=1.0,
        dynamic_ncols=True,
    )
    with bar, _stop_signals():
        model.train()
        while step < end and not stopping():
            rate = learning_rate(step, options["lr"], steps, options["warmup"], options["schedule"])
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
            model.progress = step / steps
            try:
                losses = _accumulate(
                    accelerator, objective, draws, options["accumulate"], batch, seed, step, watch
                )
            except RuntimeError:
                # the signal has ended the loader's workers too; the weights are as of step
                if stops and world == 1:
                    break
                raise
            total = sum(losses.values())
            with watch("optimizer"):
                norm = float(accelerator.clip_grad_norm_(module.parameters(), options["clip"]))
                if not math.isfinite(total) or (
                    accelerator.scaler is None and not math.isfinite(norm)
                ):
                    raise RuntimeError(
                        f"The loss is {total} at step {step}, its gradient {norm}; check the data,"
                        " or start anew with a lower trainer.lr and name=.... The checkpoint of"
                        f" step {saved} is kept."
                    )
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                ema.update_parameters(module)
            step += 1
            if steps == math.inf and pace.step():
                later = _more_seconds(
                    accelerator, model, _batch(model, stream, own, accelerator.device)
                ) * (batch / own / world)
                steps = broadcast_object_list(
                    [pace.settle(step, later, model.first_share, repeats)]
                )[0]
                end, bar.total = min(steps, options["stop"] or steps), steps
            spent = time.monotonic() - started
            speed = (step - first) * batch / spent
            bar.update()
            bar.set_postfix(loss=f"{total:.4f}", images_s=f"{speed:.1f}", refresh=False)
            line = {
                "step": step,
                "images": step * batch,
                "loss": total,
                **losses,
                "lr": rate,
                "grad_norm": norm,
                "images_per_second": speed,
                "seconds": elapsed + spent,
                "cpu_seconds": worked + time.process_time(),
                "precision": precision,
            }
            logged = main and (step % options["log_every"] == 0 or step == end)
            if (
                main
                and on_validate
                and options["validate_every"]
                and (step % options["validate_every"] == 0 or step == steps)
            ):
                with averaged(module, ema):
                    line["validation"], logged = on_validate(model), True
                model.train()
            if logged:
                metrics.write(line)
            try:
                if logged and log:
                    log(line)
                if main and on_sample and (step % options["sample_every"] == 0 or step == steps):
                    with averaged(module, ema):
                        on_sample(model, step)
                    model.train()
            # a picture or a logger must not cost the steps since the last checkpoint
            except Exception:
                with suppress(Exception):
                    save(step)
                raise
            if (
                step % options["save_every"] == 0
                or time.monotonic() - seconds_saved > options["save_seconds"]
            ):
                save(step)
                saved, seconds_saved = step, time.monotonic()
        if step > saved or not checkpoints.latest():
            save(step)
        # a kill may have come between the checkpoint and this
        elif main and on_save and step == first:
            on_save(ema.module.state_dict())
    module.load_state_dict(ema.module.state_dict())
    accelerator.wait_for_everyone()
    return step >= steps and not stopping()


def _accumulate(
    accelerator, objective, draws, rounds, batch, seed, step, watch
) -> dict[str, float]:
    """Forward and backward over one optimizer step's images; returns the mean of each loss over all
    of them."""
    sums, model = {}, accelerator.unwrap_model(objective)
    for index in range(rounds):
        with watch("data"):
            pair = next(draws)
            clean, degraded = (pair[k].to(accelerator.device) for k in ("clean", "degraded"))
        noise, uniform = step_noise(seed, step, (batch, *model.state_shape(clean.shape[1:])))
        model.draw = float(uniform[0])
        own = pair["draw"] % batch
        waits = index < rounds - 1 and accelerator.num_processes > 1
        with accelerator.no_sync(objective) if waits else nullcontext():
            with accelerator.autocast():
                losses = objective(
                    clean, degraded, noise[own].to(clean.device), uniform[own].to(clean.device)
                )
            means = {key: value.float().mean() for key, value in losses.items()}
            with watch("backward"):
                accelerator.backward(sum(means.values()) / rounds)
        for key, value in means.items():
            sums[key] = (
                sums.get(key, 0.0) + float(accelerator.reduce(value.detach(), "mean")) / rounds
            )
    return sums


def planned_steps(run: Path, options: dict) -> float:
    """The steps of a run: ``trainer.steps``; with ``trainer.minutes`` what its first steps came to,
    infinite before. Other minutes than then, of a run that goes on, are filled at the pace that was
    measured."""
    if (minutes := options.get("minutes")) is None:
        return options["steps"]
    path = run / "pace.json"
    if not path.exists():
        return math.inf
    pace = read_json(path)
    if pace["minutes"] == minutes:
        return pace["steps"]
    return max(
        Checkpoints(run).state().get("step", 0), round(minutes * 60 / pace["seconds_per_step"])
    )


class Pace:
    """The clock of ``trainer.minutes``: after ``SKIPPED`` steps, which allocate and prepare, it
    times ``COUNTED`` others."""

    SKIPPED, COUNTED = 3, 12

    def __init__(self, run: Path, minutes: float):
        self.run, self.minutes, self.done, self.started, self.seconds = run, minutes, 0, 0.0, 0.0

    def step(self) -> bool:
        """To be called after each step; whether enough are timed."""
        self.done += 1
        if self.done == self.SKIPPED:
            self.started = time.monotonic()
        self.seconds = (time.monotonic() - self.started) / self.COUNTED
        return self.done == self.SKIPPED + self.COUNTED

    def settle(self, done: int, more: float, first_share: float, repeats: int) -> int:
        """How many steps fill the minutes, kept in ``pace.json``, so that a resumed run has the
        same end.

        Args: done: steps so far. first_share: share of the training whose steps cost as the first
            ones do. more: seconds that a step costs more after that. repeats: other trainings of as
            many steps that share the minutes, at the first steps' cost."""
        early = self.seconds
        seconds = (1 + repeats) * early + (1 - first_share) * more
        steps = max(done, round(self.minutes * 60 / seconds))
        write_json(
            self.run / "pace.json",
            {"steps": steps, "minutes": self.minutes, "seconds_per_step": seconds},
        )
        return steps


def _more_seconds(
    accelerator, model: Restorer, batch: list[torch.Tensor], rounds: int = 3
) -> float:
    """How much longer forward and backward of a batch take in the last part of the training than in
    the first."""
    least = {}
    for _ in range(rounds):
        for progress in (0.0, 1.0):
            started = time.monotonic()
            with accelerator.autocast():
                _dry_step(model, batch, progress)
            least[progress] = min(least.get(progress, math.inf), time.monotonic() - started)
    return max(0.0, least[1.0] - least[0.0])


def _averaging(decay: float):
    """Exponential average whose first steps count more, so that short runs are not held at their
    start."""

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


class _Metrics:
    """``metrics.jsonl``: one line per logged step; lines after the checkpoint that a run resumes
    from are dropped."""

    def __init__(self, path: Path, first: int):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = [
                line
                for line in path.read_text(errors="replace").splitlines()
                if _step_of(line) <= first
            ]
            write_atomically(path, lambda p: p.write_text("".join(line + "\n" for line in kept)))

    def write(self, line: dict) -> None:
        append_line(self.path, line)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the half-written last line of a killed run
        return math.inf
