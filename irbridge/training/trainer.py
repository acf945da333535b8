"""The one training loop: of adapters, of the regression baseline and of the prior."""

import math
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from irbridge.data.crops import CropStream, device_batches, stream_loader
from irbridge.errors import Failure, UserError
from irbridge.gaussian.noise import StepNoises
from irbridge.models.restorer import Restorer
from irbridge.models.training_step import Batch, TrainingStep
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.growth import Phase, phase_at, phases
from irbridge.training.metrics_log import MetricsLog
from irbridge.training.networks import checkpoint_gradients, compile_networks
from irbridge.training.optimizer import averaged, averaging, build_optimizer, learning_rate
from irbridge.training.options import TrainerOptions
from irbridge.training.pace import Pace, more_seconds, planned_steps
from irbridge.training.precision_trial import best_precision, first_batch
from irbridge.training.signals import stop_signals, stops


class Trainer:
    """Trains what a model's ``trainable()`` names, and goes on from the run's last checkpoint.

    A run that was stopped and resumed ends with the same bits as one that was not: crops, noise and
    times are functions of the seed and the step.

    Args:
        model: what to train.
        stream: the training crops.
        options: how it is trained. ``batch_size`` counts the images of an optimizer step over
            all processes and all of its ``accumulate`` passes, until ``grow`` changes it.
        seed: of the noise and times of every step.
        folder: the run's folder, for ``checkpoints`` and ``metrics.jsonl``.
        on_sample: called as ``on_sample(model, step)`` every ``sample_every`` steps, with the
            averaged weights in place.
        on_save: called at every save with the averaged weights of the trainable module.
        log: called with every line of ``metrics.jsonl``.
        watch: ``watch(part)`` is a block in which a part of a step runs: "data", "backward" or
            "optimizer"; see ``profiling.clock``.
        on_validate: called as ``on_validate(model)`` every ``validate_every`` steps, with the
            averaged weights in place; the scores that it returns go into ``metrics.jsonl``.
        repeats: how many other trainings of as many steps ``minutes`` must also hold, such as that
            of the baseline.
        on_device: crops are made on the device, see ``data.crops.device_batches``.

    Example:
        ``finished = Trainer(model, stream, options, seed=0, folder=Path("runs/derain")).run()``
    """

    def __init__(
        self,
        model: Restorer,
        stream: CropStream,
        options: TrainerOptions,
        seed: int,
        folder: Path,
        on_sample: Callable[[nn.Module, int], None] | None = None,
        on_save: Callable[[dict], None] | None = None,
        log: Callable[[dict], None] | None = None,
        watch: Callable[[str], AbstractContextManager] = nullcontext,
        on_validate: Callable[[nn.Module], dict] | None = None,
        repeats: int = 0,
        on_device: bool = False,
    ):
        self.model, self.stream, self.options = model, stream, options
        self.seed, self.folder = seed, folder
        self.on_sample, self.on_save, self.log = on_sample, on_save, log
        self.watch, self.on_validate = watch, on_validate
        self.repeats, self.on_device = repeats, on_device

    def run(self) -> bool:
        """Train to the last step, or until SIGINT, SIGTERM or the option ``stop`` ends it.

        Returns:
            True when all steps are done. False when it was stopped, also at the last step; all is
            then saved, and running it again goes on.

        Raises:
            RuntimeError: the loss is not finite, which names the step, or a checkpoint cannot be
                written.
            UserError: the options do not fit the model, the machine or the checkpoint.
        """
        self.setup()
        self.resume()
        with self.bar, stop_signals():
            self.model.train()
            while self.step < self.end and not self.stopping():
                self.enter_phase()
                rate = self.set_learning_rate()
                losses = self.accumulate()
                if losses is None:
                    break
                with self.watch("optimizer"):
                    norm = self.clip_and_check(sum(losses.values()))
                    self.update()
                self.settle_pace()
                self.report(self.line(losses, rate, norm))
                self.save_when_due()
            self.save_last()
        return self.finish()

    # Before the loop

    def setup(self) -> None:
        """Check the options and put the model, its optimizer and its average on the device."""
        model, options = self.model, self.options
        self.phases = phases(options.crop, options.batch_size, options.grow)
        self._check_crops()  # before a trial of the precision runs them
        if options.channels_last:
            model.to(memory_format=torch.channels_last)
        if options.checkpointing:
            checkpoint_gradients(model)
        self.checkpoints = Checkpoints(self.folder)
        self.accelerator = self._accelerator()
        self.main = self.accelerator.is_main_process
        self.world = self.accelerator.num_processes
        self.device = self.accelerator.device
        self._check_batches()
        if options.compile:
            compile_networks(model)
        self.module = model.trainable().to(self.device)
        model.to(self.device)
        self.optimizer = build_optimizer(model.parameter_groups(), options, self.device)
        self.ema = AveragedModel(self.module, multi_avg_fn=averaging(options.ema_decay))

    def _check_crops(self) -> None:
        """UserError where crops do not fit the network."""
        stride = self.model.stride
        for phase in self.phases:
            if phase.crop % stride:
                raise UserError(
                    f"{phase.key}.crop={phase.crop} must be a multiple of {stride}, by which"
                    " the network shrinks images."
                )

    def _check_batches(self) -> None:
        """UserError where the images of a step cannot be shared."""
        parts = self.options.accumulate * self.world
        for phase in self.phases:
            if phase.batch_size % parts:
                raise UserError(
                    f"{phase.key}.batch_size={phase.batch_size} does not divide by"
                    f" trainer.accumulate x processes = {parts}."
                )

    def _accelerator(self) -> Accelerator:
        before = self.checkpoints.state().get("precision")
        self.precision = best_precision(self.model, self.options, self.stream, before)
        # not all of an adapter trains at every step
        parallel = DistributedDataParallelKwargs(
            find_unused_parameters=True, broadcast_buffers=False
        )
        return Accelerator(
            mixed_precision=self.precision,
            cpu=self.options.device == "cpu",
            kwargs_handlers=[parallel],
        )

    def resume(self) -> None:
        """Go back to the last checkpoint, or to step 0, and open what goes on from there."""
        state = self.checkpoints.restore(self.module, self.ema, self.optimizer)
        self.step = self.first = self.saved = state["step"]
        self.elapsed = state.get("seconds", 0.0)
        self.worked = state.get("cpu_seconds", 0.0) - time.process_time()
        if self.accelerator.scaler and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        # the model as a distributed wrapper sees it
        self.objective, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        if self.main:
            self.metrics = MetricsLog(self.folder / "metrics.jsonl", self.first)
        self.begin(phase_at(self.step, self.phases))
        self.images_first = self.images()
        self.noises = StepNoises(self.seed, ahead=self.device.type == "cuda")
        self.steps = planned_steps(self.folder, self.options.steps, self.options.minutes)
        self.end = min(self.steps, self.options.stop or self.steps)
        self.pace = Pace(self.folder, self.options.minutes)
        self.bar = tqdm(
            initial=self.first,
            total=None if self.steps == math.inf else self.steps,
            desc="training",
            unit="step",
            disable=not self.main,
            mininterval=1.0,
            dynamic_ncols=True,
        )
        self.started = self.seconds_saved = time.monotonic()

    def begin(self, phase: Phase) -> None:
        """From this step on take crops of a phase."""
        self.phase, self.batch = phase, phase.batch_size
        # images of one forward pass of this process
        self.own = self.batch // (self.options.accumulate * self.world)
        self.draws = None  # the workers of the phase before leave
        self.draws = self._draws()

    def _draws(self):
        """Batches of crops from this step on, endlessly."""
        start, stream = self.images(), self.stream
        if self.phase.crop != self.options.crop:
            stream = stream.sized(self.phase.crop)
        share = {"rank": self.accelerator.process_index, "world": self.world}
        if self.on_device:
            return device_batches(stream, start, self.own, self.device, **share)
        workers = self.options.workers
        if workers and hasattr(stream, "preload"):
            stream.preload()
        return iter(stream_loader(stream, start, self.own, workers, **share))

    def images(self) -> int:
        """The images of all steps so far."""
        return self.phase.images_before(self.step)

    # A step

    def enter_phase(self) -> None:
        """Begin the phase of this step where it is another than that of the one before."""
        if (phase := phase_at(self.step, self.phases)) != self.phase:
            self.begin(phase)

    def stopping(self) -> bool:
        """Whether a stop signal has come, to any of the processes.

        All leave together: a process that left alone would leave the others waiting for its
        gradients.
        """
        if self.world == 1:
            return bool(stops)
        own = torch.tensor(float(bool(stops)), device=self.device)
        # a signal that comes now is told to the others before the next step
        if stopped := bool(self.accelerator.reduce(own, "sum")):
            stops.append(signal.SIGTERM)
        return stopped

    def set_learning_rate(self) -> float:
        """Give the optimizer the rate of this step and return it; a group has its share of it."""
        options = self.options
        shape = options.warmup, options.schedule, options.flat, options.last
        rate = learning_rate(self.step, options.lr, self.steps, *shape)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        return rate

    def accumulate(self) -> dict[str, float] | None:
        """Forward and backward over the images of one optimizer step.

        Returns:
            The mean of each loss over all of them; None where a stop signal has ended the loader's
            workers as well, so that no crops come any more. The weights are then as of ``step``.
        """
        rounds = self.options.accumulate
        sums: dict[str, float] = {}
        try:
            for index in range(rounds):
                means = self._backward(waits=index < rounds - 1 and self.world > 1)
                for key, value in means.items():
                    mean = float(self.accelerator.reduce(value.detach(), "mean"))
                    sums[key] = sums.get(key, 0.0) + mean / rounds
        except (RuntimeError, EOFError, OSError):  # of a loader whose workers have left
            if stops and self.world == 1:
                return None
            raise
        return sums

    def _backward(self, waits: bool) -> dict[str, Tensor]:
        """One forward and backward pass; the mean of each loss over this process's images.

        Args:
            waits: processes add up their gradients in a later pass of the step.
        """
        with self.watch("data"):
            pair = next(self.draws)
            batch = Batch(*(pair[key].to(self.device) for key in Batch._fields))
        step = self._drawn(batch, pair["draw"])
        with self.accelerator.no_sync(self.objective) if waits else nullcontext():
            with self.accelerator.autocast():
                losses = self.objective(batch, step)
            means = {key: value.float().mean() for key, value in losses.items()}
            with self.watch("backward"):
                self.accelerator.backward(sum(means.values()) / self.options.accumulate)
        return means

    def _drawn(self, batch: Batch, draws: Tensor) -> TrainingStep:
        """The random numbers of these images: their part of those of the whole step."""
        shape = (self.batch, *self.model.state_shape(batch.clean.shape[1:]))
        noise, uniform = self.noises(self.step, shape)
        own = (draws - self.phase.images) % self.batch
        return TrainingStep(
            progress=self.step / self.steps,
            uniform=uniform[own].to(self.device),
            noise=noise[own].to(self.device),
            shared=float(uniform[0]),
        )

    def clip_and_check(self, loss: float) -> float:
        """Clip the gradient and return its norm; RuntimeError where it or the loss is not finite.

        Half precision with a scaled loss overflows now and then; its scaler skips such steps.
        """
        clip = self.options.clip
        norm = float(self.accelerator.clip_grad_norm_(self.module.parameters(), clip))
        scaled = self.accelerator.scaler is not None
        if not math.isfinite(loss) or not (scaled or math.isfinite(norm)):
            raise Failure(
                f"The loss is {loss} at step {self.step}, its gradient {norm}; check the data, or"
                " start anew with a lower trainer.lr and name=.... The checkpoint of step"
                f" {self.saved} is kept."
            )
        return norm

    def update(self) -> None:
        """Step the optimizer and the average; the step is then done."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update_parameters(self.module)
        self.step += 1

    def settle_pace(self) -> None:
        """With ``minutes``: once enough steps are timed, settle how many fill them."""
        if self.steps != math.inf or not self.pace.step():
            return
        first = first_batch(self.model, self.stream, self.own, self.device)
        passes = self.batch / self.own / self.world
        later = more_seconds(self.accelerator, self.model, *first) * passes
        settled = self.pace.settle(self.step, later, self.model.first_share, self.repeats)
        (self.steps,) = broadcast_object_list([settled])
        self.end = min(self.steps, self.options.stop or self.steps)
        self.bar.total = self.steps

    # After a step

    def line(self, losses: dict[str, float], rate: float, norm: float) -> dict:
        """What ``metrics.jsonl`` says of the step that was just done; the bar shows some of it."""
        total, spent = sum(losses.values()), time.monotonic() - self.started
        speed = (self.images() - self.images_first) / spent
        self.bar.update()
        self.bar.set_postfix(loss=f"{total:.4f}", images_s=f"{speed:.1f}", refresh=False)
        return {
            "step": self.step,
            "images": self.images(),
            "loss": total,
            **losses,
            "lr": rate,
            "grad_norm": norm,
            "images_per_second": speed,
            "seconds": self.elapsed + spent,
            "cpu_seconds": self.worked + time.process_time(),
            "precision": self.precision,
        }

    def report(self, line: dict) -> None:
        """Validate, log and sample where the step is due for it; the main process alone."""
        if not self.main:
            return
        logged = self._due(self.options.log_every, self.end)
        if self.on_validate and self._due(self.options.validate_every, self.steps):
            line["validation"], logged = self._on_average(self.on_validate), True
        if logged:
            self.metrics.write(line)
        try:
            if logged and self.log:
                self.log(line)
            if self.on_sample and self._due(self.options.sample_every, self.steps):
                self._on_average(self.on_sample, self.step)
        # a picture or a logger must not cost the steps since the last checkpoint
        except Exception:
            with suppress(Exception):
                self.save()
            raise

    def _due(self, every: int | None, last: float) -> bool:
        """Whether what is done every so many steps, None: never, is due: also at the last one."""
        return every is not None and (self.step % every == 0 or self.step == last)

    def _on_average(self, function: Callable, *arguments):
        """``function(model, *arguments)`` with the averaged weights in place."""
        with averaged(self.module, self.ema):
            result = function(self.model, *arguments)
        self.model.train()
        return result

    def save_when_due(self) -> None:
        """Save every ``save_every`` steps, and ``save_seconds`` after the last save."""
        late = time.monotonic() - self.seconds_saved > self.options.save_seconds
        if late or self.step % self.options.save_every == 0:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of this step; the main process alone."""
        if self.main:
            scaler = self.accelerator.scaler
            self.checkpoints.save(
                self.step,
                self.module,
                self.ema,
                self.optimizer,
                seconds=self.elapsed + time.monotonic() - self.started,
                cpu_seconds=self.worked + time.process_time(),
                precision=self.precision,
                threads=torch.get_num_threads(),
                scaler=scaler and scaler.state_dict(),
            )
            self._hand_out()
        self.saved, self.seconds_saved = self.step, time.monotonic()

    def _hand_out(self) -> None:
        if self.on_save:
            self.on_save(self.ema.module.state_dict())

    # After the loop

    def save_last(self) -> None:
        """Save what the loop left unsaved."""
        if self.step > self.saved or not self.checkpoints.latest():
            self.save()
        elif self.main and self.step == self.first:
            # a kill may have come between the checkpoint and this
            self._hand_out()

    def finish(self) -> bool:
        """Put the averaged weights in place; whether the training is complete."""
        self.module.load_state_dict(self.ema.module.state_dict())
        self.accelerator.wait_for_everyone()
        return self.step >= self.steps and not self.stopping()
