"""The table of a comparison of samplers: scores by number of network calls."""

import numpy as np

from irbridge.errors import UserError
from irbridge.evaluation.metrics import STANDARD, Metric
from irbridge.evaluation.records import Record
from irbridge.reports.table import Cell, Entry, Table

DIGITS = 3  # at most, as many scores share a line
NAMES = " / ".join(metric.name for metric in STANDARD)
KINDS = "bridge", "rule", "spacing"  # what the records of such a comparison say besides


def means(records: list[Record]) -> list[float | None]:
    """The mean of each standard metric; None where a record lacks it."""
    return [mean_of(records, metric) for metric in STANDARD]


def mean_of(records: list[Record], metric: Metric) -> float | None:
    """The mean of a metric; None where a record lacks it."""
    values = [record.scores.get(metric.key) for record in records]
    return None if None in values else float(np.mean(values))


def shared_cell(values: list[float | None]) -> tuple[Cell | None, ...]:
    """The scores of the standard metrics as one entry, not marked."""
    return tuple(
        None if value is None else Cell(metric.format(value, DIGITS), value)
        for metric, value in zip(STANDARD, values, strict=True)
    )


def _says_its_setting(record: Record) -> bool:
    said = [record.about.more.get(key) for key in KINDS]
    return record.about.nfe is not None and all(isinstance(text, str) for text in said)


def _seconds(values: list[float | None]) -> str | None:
    return None if None in values else f"{np.median(values):.2f}"


def sampler_table(records: list[Record]) -> Table:
    """A line per bridge, rule and spacing; then the seconds an image, by number of calls.

    Args:
        records: of one comparison; those that do not say bridge, rule, spacing and calls are of
            something else, and left out.

    Raises:
        UserError: none says it.
    """
    records = [record for record in records if _says_its_setting(record)]
    if not records:
        raise UserError(
            "No record says its bridge, rule, spacing and number of calls; give the folder of"
            " results of irbridge compare."
        )
    counts = sorted({record.about.nfe for record in records})
    groups: dict[tuple, dict[int, list[Record]]] = {}
    for record in records:
        kind = tuple(record.about.more[key] for key in KINDS)
        groups.setdefault(kind, {}).setdefault(record.about.nfe, []).append(record)
    body: list[list[Entry]] = []
    for kind, by_count in sorted(groups.items()):
        cells = [shared_cell(means(by_count[n])) if n in by_count else None for n in counts]
        body.append([*kind, *cells])
    seconds = [_seconds([r.seconds for r in records if r.about.nfe == n]) for n in counts]
    body.append(["seconds an image, median", "", "", *seconds])
    about, names = records[0].about, {record.name for record in records}
    caption = (
        f"{about.task}: {NAMES} by number of network calls; {about.protocol};"
        f" {about.data}, size {about.size}; images {len(names)}; seed {about.seed};"
        f" {records[0].machine}."
    )
    return Table(caption, [*KINDS, *map(str, counts)], body, left=len(KINDS))
