"""A training as long as one says: how many steps fill the minutes."""

import math
import time
from pathlib import Path

from accelerate import Accelerator

from irbridge.files import read_fields, write_json
from irbridge.models.restorer import Restorer
from irbridge.models.training_step import Batch, TrainingStep
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.precision_trial import dry_step


def planned_steps(run: Path, steps: int, minutes: float | None) -> float:
    """The steps of a run: ``steps``, or what fills ``minutes`` where these are given.

    Its first steps settle what fills the minutes; before, the number is infinite. Other minutes
    than then, of a run that goes on, are filled at the pace that was measured.

    Args:
        run: the run's folder.
        steps: that were asked for.
        minutes: to be filled instead.
    """
    if minutes is None:
        return steps
    path = run / "pace.json"
    if not path.exists():
        return math.inf
    number = int, float
    pace = read_fields(path, minutes=number, steps=int, seconds_per_step=number)
    if pace["minutes"] == minutes:
        return pace["steps"]
    done = Checkpoints(run).state().get("step", 0)
    return max(done, round(minutes * 60 / max(pace["seconds_per_step"], 1e-6)))


class Pace:
    """The clock of ``trainer.minutes``.

    After ``SKIPPED`` steps, which allocate and prepare, it times ``COUNTED`` others.

    Args:
        run: the run's folder.
        minutes: to fill.
    """

    SKIPPED, COUNTED = 3, 12

    def __init__(self, run: Path, minutes: float):
        self.run, self.minutes = run, minutes
        self.done = 0  # steps so far
        self.started = self.seconds = 0.0  # when it began to time, and what a step took

    def step(self) -> bool:
        """To be called after each step; whether enough are timed."""
        self.done += 1
        if self.done == self.SKIPPED:
            self.started = time.monotonic()
        self.seconds = (time.monotonic() - self.started) / self.COUNTED
        return self.done == self.SKIPPED + self.COUNTED

    def settle(self, done: int, more: float, first_share: float, repeats: int) -> int:
        """How many steps fill the minutes.

        The number is kept in ``pace.json``, so that a resumed run has the same end.

        Args:
            done: steps so far.
            more: seconds that a step costs more behind ``first_share``.
            first_share: share of the training whose steps cost as the first ones do.
            repeats: other trainings of as many steps that share the minutes, at the first steps'
                cost.
        """
        early = self.seconds
        seconds = (1 + repeats) * early + (1 - first_share) * more
        steps = max(done, round(self.minutes * 60 / seconds))
        write_json(
            self.run / "pace.json",
            {"steps": steps, "minutes": self.minutes, "seconds_per_step": seconds},
        )
        return steps


def more_seconds(
    accelerator: Accelerator, model: Restorer, batch: Batch, step: TrainingStep, rounds: int = 3
) -> float:
    """Seconds that a step takes longer in the last part of the training than in the first.

    Forward and backward of one batch are timed ``rounds`` times at either end.
    """
    least = {}
    for _ in range(rounds):
        for progress in (0.0, 1.0):
            started = time.monotonic()
            with accelerator.autocast():
                dry_step(model, batch, step._replace(progress=progress))
            least[progress] = min(least.get(progress, math.inf), time.monotonic() - started)
    return max(0.0, least[1.0] - least[0.0])
