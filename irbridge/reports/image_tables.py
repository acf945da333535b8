"""Tables of scores that need saved images, or no reference."""

from irbridge.evaluation.fid import RowFid, weights_in_words
from irbridge.evaluation.no_reference import RowQuality, mean
from irbridge.evaluation.records import Record
from irbridge.reports.table import Cell, Table


def fid_table(rows: list[RowFid], weights: str) -> Table:
    """FID of each row's saved images against the clean ones; ``weights``: the network's file."""
    caption = (
        f"FID by torch-fidelity, Inception weights {weights_in_words(weights)}; few images bias it"
        " upwards."
    )
    body = []
    for row in rows:
        cell = None if row.value is None else Cell(f"{row.value:.2f}", row.value)
        body.append([row.task, row.label, cell, Cell(str(row.images), row.images)])
    return Table(caption, ["Task", "Method", "FID ↓", "images"], body, left=2, tight=True)


def quality_table(rows: list[RowQuality]) -> Table:
    """The mean of each metric without a reference over each row's saved images."""
    metrics = list(rows[0].means)
    body = []
    for row in rows:
        cells = [_cell(row.means[m], 4) for m in metrics]
        body.append([row.task, row.label, *cells, Cell(str(row.images), row.images)])
    caption = "Means of pyiqa's metrics without a reference."
    return Table(caption, ["Task", "Method", *metrics, "images"], body, left=2, tight=True)


def _cell(value: float | None, digits: int) -> Cell | None:
    return None if value is None else Cell(f"{value:.{digits}f}", value)


def photograph_table(records: list[Record]) -> Table:
    """The mean of each metric over the photographs of each row."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.about.row, []).append(record)
    metrics, about = records[0].metrics, records[0].about
    body = []
    for label, group in groups.items():
        # by the name: a key has no hyphens, and pyiqa's names do
        cells = [_cell(mean([r.scores.get(m.name) for r in group]), m.digits) for m in metrics]
        body.append([label, *cells, Cell(str(len(group)), len(group))])
    caption = f"Photographs {about.data}, size {about.size or 'whole'}; pyiqa's metrics."
    return Table(caption, ["Method", *(m.name for m in metrics), "images"], body, tight=True)
