"""The tables of a comparison on inverse problems: scores by problem, and what each row takes."""

from collections.abc import Iterable

import numpy as np

from irbridge.data.problems import PROBLEMS
from irbridge.errors import UserError
from irbridge.evaluation.meter import BACKWARD, FORWARD, MEMORY
from irbridge.evaluation.metrics import STANDARD, Metric
from irbridge.evaluation.records import EARLIER, Record
from irbridge.reports.sampler_table import DIGITS, means
from irbridge.reports.table import Cell, Entry, Table
from irbridge.solvers.base import SOLVERS

SAID = "problem", "noise"  # by records of such a comparison
FIRST = "identity", "classical"
NAMES = " / ".join(f"{metric.name} {metric.arrow}" for metric in STANDARD)


def inverse_tables(records: Iterable[Record], names: list[str] | None = None) -> list[Table]:
    """A table of scores for each level of noise, then one of what each row takes.

    Args:
        records: of one comparison; others are left out.
        names: of the images that count; None: all.

    Raises:
        UserError: none is of such a comparison.
    """
    kept = [r for r in records if _counts(r) and (names is None or r.name in names)]
    if not kept:
        raise UserError(
            "No record says its problem and its noise; give the folder of results of irbridge"
            " inverse."
        )
    levels = sorted({record.about.more["noise"] for record in kept})
    by_level = {at: [r for r in kept if r.about.more["noise"] == at] for at in levels}
    return [*(_scores(found, at) for at, found in by_level.items()), _costs(kept)]


def _counts(record: Record) -> bool:
    more = record.about.more
    return all(key in more for key in SAID) and EARLIER not in more


def _groups(records: list[Record]) -> dict[str, dict[str, list[Record]]]:
    """Records by row and problem; degraded images first, then solvers, trained models last."""
    found: dict[str, dict[str, list[Record]]] = {}
    for record in sorted(records, key=_place):
        row = found.setdefault(record.about.row, {})
        row.setdefault(record.about.more["problem"], []).append(record)
    return found


def _place(record: Record) -> tuple:
    about = record.about
    if about.method in FIRST:
        return 0, FIRST.index(about.method), about.row
    solver = about.more.get("solver")
    if solver is None:
        return 2, 0, about.row
    return 1, SOLVERS.index(solver) if solver in SOLVERS else len(SOLVERS), about.row


def _problems(records: list[Record]) -> list[str]:
    said = {record.about.more["problem"] for record in records}
    return sorted(said, key=lambda name: [*PROBLEMS, name].index(name))


def _scores(records: list[Record], noise: float) -> Table:
    """The scores at one level of noise; the best of each problem are marked."""
    groups, problems = _groups(records), _problems(records)
    images = max(len(found) for row in groups.values() for found in row.values())
    columns = {
        problem: {row: means(found[problem]) for row, found in groups.items() if problem in found}
        for problem in problems
    }
    best = {problem: _best(list(rows.values())) for problem, rows in columns.items()}
    body: list[list[Entry]] = []
    for row, found in groups.items():
        cells: list[Entry] = []
        for problem in problems:
            there = len(found.get(problem, ()))
            cells.append(_cell(columns[problem].get(row), best[problem], there, images))
        body.append([row, *cells])
    about = records[0].about
    caption = (
        f"noise {noise:g}: {NAMES}; {about.protocol}; {about.data}, size {about.size};"
        f" images {images}; seed {about.seed}."
    )
    return Table(caption, ["", *problems], body)


def _best(rows: list[list[float | None]]) -> list[float | None]:
    """The best value of each standard metric."""
    found: list[float | None] = []
    for metric, values in zip(STANDARD, zip(*rows, strict=True), strict=True):
        known = [value for value in values if value is not None]
        pick = max if metric.higher_is_better else min
        found.append(pick(known) if known else None)
    return found


def _cell(
    values: list[float | None] | None, best: list[float | None], there: int, images: int
) -> tuple[Cell | None, ...] | None:
    """The scores of a row on one problem; how many images there are, where not all are done."""
    if values is None:
        return None
    cells = []
    for metric, value, top in zip(STANDARD, values, best, strict=True):
        text = None if value is None else metric.format(value, DIGITS)
        mark = "best" if value is not None and value == top else ""
        cells.append(None if text is None else Cell(text, value, mark))
    if there < images and cells[-1] is not None:
        cells[-1] = cells[-1]._replace(note=f" ({there} of {images} images)")
    return tuple(cells)


def _costs(records: list[Record]) -> Table:
    """Calls, seconds and memory of each row, from the least to the most of its problems."""
    body: list[list[Entry]] = []
    for row, by_problem in _groups(records).items():
        # what differs by noise alone is averaged
        groups = list(by_problem.values())
        calls = [_range([_mean(found, metric) for found in groups], 0) for metric in CALLS]
        seconds = [[r.seconds for r in found if r.seconds is not None] for found in groups]
        taken = _range([float(np.median(found)) if found else None for found in seconds], 2)
        memory = _range([_mean(found, MEMORY) for found in groups], 0)
        body.append([row, *calls, taken, memory])
    machines = sorted({record.machine for record in records if record.machine})
    caption = (
        "what an image takes, from the problem that takes least to the one that takes most: calls"
        " of the network forward and backward, an image each; seconds, median, after a first call;"
        " peak of memory in MB above what was taken before, as the process's resident memory or on"
        f" a GPU of tensors; {', '.join(machines)}."
    )
    headings = ["", "forward", "backward", "seconds", "MB"]
    return Table(caption, headings, body)


CALLS = FORWARD, BACKWARD


def _mean(records: list[Record], metric: Metric) -> float | None:
    values = [record.scores.get(metric.key) for record in records]
    return None if None in values else float(np.mean(values))


def _range(values: list[float | None], digits: int) -> Entry:
    """Least and most, once where they read the same."""
    if None in values:
        return None
    least, most = (f"{pick(values):.{digits}f}" for pick in (min, max))
    return least if least == most else f"{least} to {most}"
