"""What recipes reach with a training budget: the runs of ``experiment=efficiency``."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from irbridge.errors import UserError
from irbridge.evaluation.metrics import STANDARD, Metric
from irbridge.evaluation.records import read_records
from irbridge.files import read_json
from irbridge.reports.sampler_table import DIGITS, NAMES, means
from irbridge.reports.table import Cell, Entry, Table


@dataclass(frozen=True)
class Budget:
    """One scored run.

    Args:
        task: that it trained for.
        recipe: what was trained.
        seed: of the training.
        images: that it saw.
        seconds: of one core.
        parameters: that it trains.
        protocol: of the scores.
        scored: number of scored images.
        size: of their crop in pixels.
        machine: that scored, in words.
        scores: mean scores by the metric's key.
    """

    task: str
    recipe: str
    seed: int
    images: int
    seconds: float
    parameters: int
    protocol: str
    scored: int
    size: int | None
    machine: str | None
    scores: dict[str, float | None]


def budgets(folder: str | Path) -> list[Budget]:
    """The scored runs below a folder of ``experiment=efficiency``; UserError if there is none."""
    found = []
    for path in sorted(Path(folder).glob("*/run.json")):
        run, config = path.parent, read_json(path)
        metrics, results = run / "metrics.jsonl", run / "results"
        if not metrics.is_file() or not list(results.rglob("records.jsonl")):
            continue
        last = json.loads(metrics.read_text("utf-8").splitlines()[-1])
        records = read_records(results)
        about, task = records[0].about, config["task"]["name"]
        found.append(
            Budget(
                task,
                run.name.removeprefix(task + "-").rsplit("-", 2)[0],
                config["seed"],
                last["images"],
                last["cpu_seconds"],
                _weight_count(run / "model.safetensors"),
                about.protocol,
                len(records),
                about.size,
                records[0].machine,
                dict(zip((metric.key for metric in STANDARD), means(records), strict=True)),
            )
        )
    if not found:
        raise UserError(
            f"There is no scored run below {folder}; run scripts/train.py experiment=efficiency"
            " first."
        )
    return found


def _weight_count(path: Path) -> int:
    """Number of weights in a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = file.keys()
        return int(sum(np.prod(file.get_slice(name).get_shape()) for name in names))


def budget_tables(rows: list[Budget]) -> list[Table]:
    """One table a task: mean scores over seeds by images seen, the best of a column marked.

    Further columns are the trainable parameters and the core seconds of the largest budget.
    """
    tasks = sorted({row.task for row in rows})
    return [_task_table(task, [row for row in rows if row.task == task]) for task in tasks]


def _task_table(task: str, rows: list[Budget]) -> Table:
    counts, seeds = sorted({row.images for row in rows}), sorted({row.seed for row in rows})
    recipes = list(dict.fromkeys(row.recipe for row in rows))
    columns = [_column([row for row in rows if row.images == n], recipes) for n in counts]
    body: list[list[Entry]] = []
    for recipe in recipes:
        own = [row for row in rows if row.recipe == recipe]
        longest = [row.seconds for row in own if row.images == counts[-1]]
        body.append(
            [
                _label(recipe, own, seeds),
                f"{own[0].parameters / 1e6:.2f} M",
                *(column[recipe] for column in columns),
                f"{np.mean(longest):.0f}" if longest else None,
            ]
        )
    one, seen = rows[0], ", ".join(map(str, seeds))
    caption = (
        f"{task}: {NAMES} by training images seen; {one.protocol}; size {one.size}; images"
        f" {one.scored}; mean over seeds {seen}; {one.machine}."
    )
    heads = ["recipe", "parameters", *(f"{n} images" for n in counts)]
    return Table(caption, [*heads, f"core s at {counts[-1]}"], body)


def _column(rows: list[Budget], recipes: list[str]) -> dict[str, Entry]:
    """The entries of one budget by recipe, missing where it has no run."""
    found: dict[str, list[Cell]] = {c: [] for c in recipes if any(r.recipe == c for r in rows)}
    for metric in STANDARD:
        texts = {
            recipe: _mean([row for row in rows if row.recipe == recipe], metric) for recipe in found
        }
        said = [text for text in texts.values() if text is not None]
        best = (max if metric.higher_is_better else min)(said, key=float) if said else None
        for recipe, text in texts.items():
            cell = None if text is None else Cell(text, mark="best" if text == best else "")
            found[recipe].append(cell)
    return {recipe: tuple(found[recipe]) if recipe in found else None for recipe in recipes}


def _mean(rows: list[Budget], metric: Metric) -> str | None:
    """The mean over runs as it is shown; None where a run lacks the score."""
    values = [row.scores.get(metric.key) for row in rows]
    return None if None in values else metric.format(float(np.mean(values)), DIGITS)


def _label(recipe: str, own: list[Budget], seeds: list[int]) -> str:
    """The recipe, with its seeds where it lacks some."""
    seen = sorted({row.seed for row in own})
    return recipe if seen == seeds else f"{recipe} (seed {', '.join(map(str, seen))})"
