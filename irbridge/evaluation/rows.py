"""From the records of single images to the means of a method, with their intervals."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from irbridge.errors import UserError
from irbridge.evaluation.metrics import Metric, bootstrap_interval
from irbridge.evaluation.records import Record

TASKS = "derain", "dehaze", "desnow", "raindrop", "lowlight", "inpaint", "deblur", "denoise", "sr"
MEAN = "mean of tasks"
DRAWN = re.compile(r", mean of (\d+) samples")
# The records' "method" and its name, in the order of a table's rows; unknown ones come before the
# last two.
METHODS = {
    "identity": "Degraded input",
    "classical": "Classical",
    "regression": "Plain regression",
    "bridge": "Bridge from scratch",
    "refine": "Stochastic refinement",
    "hidiff_oracle": "HI-Diff stage 1, oracle",
    "hidiff": "HI-Diff",
    "anchor": "Anchor g(y) alone",
    "ddim_noise": "DDIM from noise",
    "ddim": "DDIM",
    "dpmpp": "DPM-Solver++(2M)",
    "irbridge_y": "IRBridge, end y",
    "irbridge": "IRBridge",
}


@dataclass(frozen=True)
class Row:
    """Means over one method's images; several draws (seeds) of one image are averaged first.

    Args:
        task: as the records say it; likewise row, protocol, data, size (of the crop in pixels) and
            nfe (network calls).
        row: what they call the method.
        protocol: only rows of one protocol compare.
        run: the run's folder below a folder of runs, or "".
        data: what the images are called.
        size: None: whole images.
        nfe: None where the records do not say it.
        images: their names.
        metrics: what was scored, in the order of a table's columns.
        scores: the means by the metric's key; None where one image lacks the score.
        intervals: the 95 % bootstrap intervals of the means over images, likewise.
        seconds: mean time of an image.
        method: its short key, one of ``METHODS`` or "outputs".
        parts: where images have different tasks, such as in "universal": the row of each task
            alone, then that of the mean of these rows, in which each task counts the same. Their
            task is such as "universal: derain".
        oracle: the method sees the clean image, so that its scores are a bound and not ranked.
    """

    task: str
    row: str
    protocol: str
    run: str
    data: str | None
    size: int | None
    nfe: int | None
    images: frozenset[str]
    metrics: tuple[Metric, ...]
    scores: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    seconds: float | None
    method: str | None = None
    parts: tuple["Row", ...] = ()
    oracle: bool = False

    @property
    def psnr(self) -> float:
        """In dB; every row has it, and rows are sorted by it."""
        return self.scores["psnr"]

    @property
    def setting(self) -> tuple[str, ...]:
        """What else must agree for a comparison, in words: data and size, where they are said."""
        parts = ("data", self.data), ("size", self.size)
        return tuple(f"{key} {value}" for key, value in parts if value is not None)

    @property
    def label(self) -> str:
        """What tables call it, with its network calls and its run."""
        calls = "" if self.nfe is None or f" {self.nfe} call" in self.row else f", {self.nfe} calls"
        return f"{self.row}{calls}" + (f" [{self.run}]" if self.run else "")

    @property
    def name(self) -> str:
        """The method's name without its settings.

        It is the row's own label for "outputs" (anyone's images), and where no method is said.
        """
        if self.method in (None, "outputs"):
            return self.row
        return METHODS.get(self.method, self.method)

    def bounds(self, key: str) -> tuple[float, float] | None:
        """The interval of a score; None where the row has none."""
        return self.intervals.get(key)


def of_draws(label: str, count: int) -> str:
    """What a row is called whose images are means of so many draws."""
    return f"{label}, mean of {count} samples"


def draws_of(label: str) -> int:
    """Of how many draws each image of a row is the mean, by what it is called."""
    found = DRAWN.search(label)
    return int(found[1]) if found else 1


def aggregate(records: Iterable[Record]) -> list[Row]:
    """One :class:`Row` per (task, row, protocol) of each run, data, size and nfe.

    Returns:
        The rows by task, protocol and setting, then PSNR upwards.

    Raises:
        UserError: if an image has two different scores for one row and seed: these are two
            settings behind one name.
    """
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        about = record.about
        said = about.task, about.row, about.protocol, record.run, about.data, about.size, about.nfe
        groups.setdefault(said, []).append(record)
    rows = [_with_parts(group) for group in groups.values()]
    return sorted(rows, key=lambda row: (row.task, row.protocol, row.setting, row.psnr))


def task_order(task: str) -> tuple:
    """Sorts tasks: as in ``TASKS``, others behind them, each with its parts and their mean last."""
    whole, _, part = task.partition(": ")
    places = [TASKS.index(name) if name in TASKS else len(TASKS) for name in (whole, part)]
    return places[0], whole, part == MEAN, places[1] if part else -1, part


def _with_parts(records: list[Record]) -> Row:
    """The row of these records; with its parts where every image says its task and they differ."""
    row, groups = _averaged(records), {}
    for record in records:
        groups.setdefault(f"{row.task}: {record.subtask}", []).append(record)
    if len(groups) < 2 or not all(record.subtask for record in records):
        return row
    parts = [replace(_averaged(groups[task]), task=task) for task in sorted(groups, key=task_order)]
    # what is a score of all images together is none of a task
    metrics = tuple(metric for metric in row.metrics if not metric.whole)
    parts = [_with_metrics(part, metrics) for part in parts]
    scores = {m.key: _mean(part.scores[m.key] for part in parts) for m in metrics}
    mean = replace(
        row,
        task=f"{row.task}: {MEAN}",
        metrics=metrics,
        scores=scores,
        intervals=dict.fromkeys(scores),
        seconds=_mean(part.seconds for part in parts),
    )
    return replace(row, parts=(*parts, mean))


def _with_metrics(row: Row, metrics: tuple[Metric, ...]) -> Row:
    """The row with the scores of these metrics alone."""
    scores = {metric.key: row.scores.get(metric.key) for metric in metrics}
    bounds = {metric.key: row.intervals.get(metric.key) for metric in metrics}
    return replace(row, metrics=metrics, scores=scores, intervals=bounds)


def _averaged(records: list[Record]) -> Row:
    images: dict[str, dict[int | None, Record]] = {}
    for record in records:
        first = images.setdefault(record.name, {}).setdefault(record.about.seed, record)
        if first.scores["psnr"] != record.scores["psnr"]:
            raise UserError(
                f"{record.about.task}, {record.about.row!r} has two different scores of"
                f" {record.name} for one seed; make the table from one of the results folders."
            )
    about = records[0].about
    draws = [list(by_seed.values()) for by_seed in images.values()]
    metrics = _in_order(records)
    values = {
        m.key: [_mean(r.scores.get(m.key) for r in drawn) for drawn in draws] for m in metrics
    }
    return Row(
        about.task,
        about.row,
        about.protocol,
        records[0].run,
        about.data,
        about.size,
        about.nfe,
        frozenset(images),
        metrics,
        {key: _mean(found) for key, found in values.items()},
        {m.key: _interval(values[m.key], m) for m in metrics},
        _mean(_mean(r.seconds for r in drawn) for drawn in draws),
        next((r.about.method for r in records if r.about.method), None),
        oracle=any("oracle" in r.about.more for r in records),
    )


def _interval(found: list[float | None], metric: Metric) -> tuple[float, float] | None:
    """The interval of a mean over images; None where one lacks the score, or it is of no image."""
    return None if metric.whole or None in found else bootstrap_interval(found)


def _in_order(records: list[Record]) -> tuple[Metric, ...]:
    """The metrics of all records, those against the clean image first."""
    found = {metric.key: metric for record in records for metric in record.metrics}
    return tuple(sorted(found.values(), key=lambda metric: metric.reference != "clean"))


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    return None if None in found else float(np.mean(found))
