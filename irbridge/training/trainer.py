"""The one training loop: of adapters, of the regression baseline and of the prior."""

import math
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list
from diffusers import AutoencoderKL, AutoencoderTiny, ModelMixin
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from irbridge.data.crops import CropStream, device_batches, stream_loader
from irbridge.errors import UserError
from irbridge.gaussian.noise import step_noise
from irbridge.models.restorer import Restorer
from irbridge.models.training_step import Batch, TrainingStep
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.metrics_log import _Metrics
from irbridge.training.optimizer import _averaging, averaged, build_optimizer, learning_rate
from irbridge.training.pace import Pace, more_seconds, planned_steps
from irbridge.training.precision_trial import best_precision, first_batch
from irbridge.training.signals import _stop_signals, stops


def checkpoint_gradients(model: nn.Module) -> None:
    """Let the diffusers blocks of every network in the model, also of an adapter's copies,
    recompute in the backward pass what they would otherwise keep. Gradients are the same.
    """
    keep = partial(checkpoint, use_reentrant=False)
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing, module._gradient_checkpointing_func = True, keep


def compile_networks(model: nn.Module) -> None:
    """torch.compile every diffusers network in the model in place, so that names of weights stay; a
    VAE, which is not called as a module, is left as it is. The first steps take minutes.
    """
    for module in model.modules():
        if isinstance(module, ModelMixin) and not isinstance(
            module, (AutoencoderKL, AutoencoderTiny)
        ):
            module.compile()


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
    checkpoint cannot be written.
    """
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
            try:
                losses = _accumulate(
                    accelerator,
                    objective,
                    draws,
                    options["accumulate"],
                    batch,
                    seed,
                    step,
                    step / steps,
                    watch,
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
                later = more_seconds(
                    accelerator, model, *first_batch(model, stream, own, accelerator.device)
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
    accelerator, objective, draws, rounds, batch, seed, step, progress, watch
) -> dict[str, float]:
    """Forward and backward over one optimizer step's images; returns the mean of each loss over all
    of them.
    """
    sums, model = {}, accelerator.unwrap_model(objective)
    for index in range(rounds):
        with watch("data"):
            pair = next(draws)
            clean, degraded = (pair[k].to(accelerator.device) for k in ("clean", "degraded"))
        noise, uniform = step_noise(seed, step, (batch, *model.state_shape(clean.shape[1:])))
        own = pair["draw"] % batch
        waits = index < rounds - 1 and accelerator.num_processes > 1
        with accelerator.no_sync(objective) if waits else nullcontext():
            with accelerator.autocast():
                losses = objective(
                    Batch(clean, degraded),
                    TrainingStep(
                        progress,
                        uniform[own].to(clean.device),
                        noise[own].to(clean.device),
                        float(uniform[0]),
                    ),
                )
            means = {key: value.float().mean() for key, value in losses.items()}
            with watch("backward"):
                accelerator.backward(sum(means.values()) / rounds)
        for key, value in means.items():
            sums[key] = (
                sums.get(key, 0.0) + float(accelerator.reduce(value.detach(), "mean")) / rounds
            )
    return sums
