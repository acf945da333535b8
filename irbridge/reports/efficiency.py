"""What recipes reach with a training budget: runs of ``experiment=efficiency``, and the claim's."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from irbridge.errors import UserError
from irbridge.evaluation.metrics import STANDARD, Metric
from irbridge.evaluation.records import EARLIER, Record, read_records, slug
from irbridge.evaluation.rows import draws_of
from irbridge.files import check_fields, read_fields
from irbridge.reports.sampler_table import DIGITS, mean_of
from irbridge.reports.table import Cell, Entry, Table
from irbridge.training.metrics_log import last_line

OWN = (
    "irbridge",
    "irbridge_y",
    "bridge",
    "refine",
    "hidiff",
    "regression",
)  # short names of a run's own row
DEGRADED = "degraded"  # what the row of the degraded images is called
UNTRAINED = DEGRADED, "classical"  # rows that are the same beside any run
BESIDE = "baselines"  # results of a run's adapter in other ways, in a folder beside its own


@dataclass(frozen=True)
class Budget:
    """One row of a scored run.

    Args:
        task: that it trained for.
        recipe: what was trained; with the row's short name where that is not of :data:`OWN`, and
            with the row's label where the run has several rows of that name; :data:`DEGRADED` of
            the degraded images.
        seed: of the training.
        images: that it saw.
        seconds: of one core.
        parameters: that it trains.
        calls: of the network; None: a single pass.
        protocol: of the scores.
        scored: number of scored images.
        size: of their crop in pixels.
        machine: that scored, in words.
        scores: mean scores by the metric's key.
        metrics: those that every image has, in their order.
        records: of the row, which say what was saved.
        folder: of the row, with the images that were saved.
        each: mean seconds of restoring an image; None where its records do not say it.
    """

    task: str
    recipe: str
    seed: int
    images: int
    seconds: float
    parameters: int
    calls: int | None
    protocol: str
    scored: int
    size: int | None
    machine: str | None
    scores: dict[str, float | None]
    metrics: tuple[Metric, ...]
    records: tuple[Record, ...] = field(repr=False)
    folder: Path
    each: float | None = None


def budgets(folder: str | Path, results: str = "results") -> list[Budget]:
    """The scored runs below a folder of ``experiment=efficiency``.

    Args:
        folder: of runs.
        results: the folder in each run that holds its scores.

    Raises:
        UserError: there is no scored run.
    """
    found = []
    for path in sorted(Path(folder).glob("*/run.json")):
        if (path.parent / "metrics.jsonl").is_file():
            found += _of_run(path, results)
    if not found:
        raise UserError(
            f"There is no scored run below {folder}; run scripts/train.py experiment=efficiency"
            " first."
        )
    return found


def _of_run(path: Path, results: str) -> Iterator[Budget]:
    """The run's own row, and those beside it."""
    run, config = path.parent, read_fields(path, seed=int)
    metrics, found = run / "metrics.jsonl", _named_rows(run, results)
    if not found:
        return
    last = check_fields(last_line(metrics), metrics, images=int)
    for recipe, (place, records) in found.items():
        about, shown = records[0].about, _shared(records)
        yield Budget(
            about.task,
            recipe,
            config["seed"],
            last["images"],
            last["cpu_seconds"],
            _weight_count(run / "model.safetensors"),
            about.nfe,
            about.protocol,
            len(records),
            about.size,
            records[0].machine,
            {metric.key: mean_of(records, metric) for metric in shown},
            shown,
            tuple(records),
            place / slug(about.row),
            _seconds_each(records),
        )


def _named_rows(run: Path, results: str) -> dict[str, tuple[Path, list[Record]]]:
    """The rows of a run, (their folder of results, their records), by what tables call them."""
    by_name: dict[str, dict[str, tuple[Path, list[Record]]]] = {}
    for place in (run / results, *([run / BESIDE] if results == "results" else [])):
        for records in _rows(place):
            about = records[0].about
            name = run.name.removeprefix(about.task + "-").rsplit("-", 2)[0]
            own = by_name.setdefault(_called(name, about.method), {})
            own.setdefault(about.row, (place, records))
    found = {}
    for name, own in by_name.items():
        for row, there in own.items():
            # one method at several numbers of calls or of samples
            found[f"{name}: {row}" if len(own) > 1 else name] = there
    return found


def _seconds_each(records: list[Record]) -> float | None:
    """Mean seconds of restoring one image."""
    found = [record.seconds for record in records]
    return None if None in found else float(np.mean(found))


def _called(name: str, method: str | None) -> str:
    """What a row of a run is called."""
    if method == "identity":
        return DEGRADED
    if method == "classical":
        return method  # whatever the run
    return name if method is None or method in OWN else f"{name}, {method}"


def _rows(results: Path) -> list[list[Record]]:
    """The records below a folder, row by row; none where there is no such folder."""
    found: dict[str, list[Record]] = {}
    if results.is_dir() and list(results.rglob("records.jsonl")):
        for record in read_records(results):
            if EARLIER not in record.about.more:
                found.setdefault(record.about.row, []).append(record)
    return list(found.values())


def _shared(records: list[Record]) -> tuple[Metric, ...]:
    """The standard metrics, and further ones that all records have."""
    further = [m for m in records[0].metrics if m.key not in {one.key for one in STANDARD}]
    return *STANDARD, *(m for m in further if all(m.key in r.scores for r in records))


def _weight_count(path: Path) -> int:
    """Number of weights in a safetensors file; UserError where it is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return int(sum(np.prod(file.get_slice(name).get_shape()) for name in names))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as weights ({error}); train again.") from None


def budget_tables(rows: list[Budget]) -> list[Table]:
    """One table a task: mean scores over seeds by images seen, the best of a column marked.

    Further columns are the trainable parameters, the network calls, the core seconds of the largest
    budget, and the seconds of restoring an image.
    """
    tasks = sorted({row.task for row in rows})
    return [_task_table(task, [row for row in rows if row.task == task]) for task in tasks]


def _task_table(task: str, rows: list[Budget]) -> Table:
    counts, seeds = sorted({row.images for row in rows}), sorted({row.seed for row in rows})
    recipes = list(dict.fromkeys(row.recipe for row in rows))
    first = {recipe: place for place, recipe in enumerate(UNTRAINED)}
    recipes.sort(key=lambda recipe: first.get(recipe, len(first)))
    metrics = max((row.metrics for row in rows), key=len)
    columns = [_column([row for row in rows if row.images == n], recipes, metrics) for n in counts]
    body: list[list[Entry]] = []
    for recipe in recipes:
        own = [row for row in rows if row.recipe == recipe]
        longest = [row.seconds for row in own if row.images == counts[-1]]
        trained = recipe not in UNTRAINED
        each = [row.each for row in own if row.each is not None]
        body.append(
            [
                _label(recipe, own, seeds),
                f"{own[0].parameters / 1e6:.2f} M" if trained else None,
                _calls_in_words(own[0]) if trained else None,
                *(column[recipe] for column in columns),
                f"{np.mean(longest):.0f}" if longest and trained else None,
                f"{np.mean(each):.3f}" if each and trained else None,
            ]
        )
    names = " / ".join(metric.name for metric in metrics)
    one, seen = rows[0], ", ".join(map(str, seeds))
    caption = (
        f"{task}: {names} by training images seen; {one.protocol}; size {one.size}; images"
        f" {one.scored}; mean over seeds {seen}; {one.machine}."
    )
    heads = ["recipe", "parameters", "calls", *(f"{n} images" for n in counts)]
    return Table(caption, [*heads, f"core s at {counts[-1]}", "s/image"], body)


def _calls_in_words(row: Budget) -> str:
    """The calls for one image, such as "8 x 10" of the mean of 8 draws of 10 calls each."""
    if row.calls is None:
        return "1 pass"
    draws = draws_of(row.records[0].about.row) if row.records else 1
    return f"{draws} x {row.calls // draws}" if draws > 1 else f"{row.calls}"


def _column(
    rows: list[Budget], recipes: list[str], metrics: tuple[Metric, ...]
) -> dict[str, Entry]:
    """The entries of one budget by recipe, missing where it has no run.

    What sees the clean image is a bound and never marked as the best.
    """
    bounds = {row.recipe for row in rows if any("oracle" in r.about.more for r in row.records[:1])}
    found: dict[str, list[Cell]] = {c: [] for c in recipes if any(r.recipe == c for r in rows)}
    for metric in metrics:
        texts = {
            recipe: _mean([row for row in rows if row.recipe == recipe], metric) for recipe in found
        }
        said = [text for recipe, text in texts.items() if text is not None and recipe not in bounds]
        best = (max if metric.higher_is_better else min)(said, key=float) if said else None
        for recipe, text in texts.items():
            marked = text == best and recipe not in bounds
            cell = None if text is None else Cell(text, mark="best" if marked else "")
            found[recipe].append(cell)
    return {recipe: tuple(found[recipe]) if recipe in found else None for recipe in recipes}


def _mean(rows: list[Budget], metric: Metric) -> str | None:
    """The mean over runs as it is shown; None where a run lacks the score."""
    values = [row.scores.get(metric.key) for row in rows]
    return (
        None
        if None in values
        else metric.format(float(np.mean(values)), DIGITS if metric in STANDARD else None)
    )


def _label(recipe: str, own: list[Budget], seeds: list[int]) -> str:
    """The recipe, with its seeds where it lacks some."""
    seen = sorted({row.seed for row in own})
    return recipe if seen == seeds else f"{recipe} (seed {', '.join(map(str, seen))})"
