"""One table of many tasks: a line per method, a group of columns per task."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from irbridge.evaluation.records import HELD_BACK
from irbridge.evaluation.rows import METHODS, Row, task_order
from irbridge.reports.table import (
    Entry,
    Table,
    dictionaries,
    interval,
    number,
    numbers,
    ranked,
    shown,
)

Label = Callable[[Row], str]
BAR = " ± half of the 95 % bootstrap interval over images."


@dataclass(frozen=True)
class Column:
    """The rows of one task and data, by the label of their line. All are of the same images."""

    task: str
    data: str
    rows: dict[str, Row]

    @property
    def images(self) -> int:
        """How many images each of its rows is scored on."""
        return len(next(iter(self.rows.values())).images)


@dataclass(frozen=True)
class Sheet:
    """What one table shows.

    Args:
        protocol: of all its rows.
        size: of the images' crops in pixels, None: whole.
        held_back: whether these are the project's own test images.
        number: how many sheets of the same kind come before, of other sets of images.
        columns: a group of columns each.
    """

    protocol: str
    size: int | None
    held_back: bool
    number: int
    columns: list[Column] = field(default_factory=list)

    @property
    def place(self) -> tuple:
        """Sorts sheets."""
        size = "" if self.size is None else str(self.size)
        return not self.held_back, self.number, (self.protocol, size)

    @property
    def rows(self) -> list[Row]:
        """All rows, column by column."""
        return [row for column in self.columns for row in column.rows.values()]

    def labels(self) -> list[str]:
        """The labels of its lines, those of one kind by the score of the first column."""
        first: dict[str, tuple] = {}
        for column in self.columns:
            for label, row in column.rows.items():
                first.setdefault(label, (*rank(row), row.psnr))
        return sorted(first, key=first.get)

    def title(self, column: Column) -> str:
        """Such as "derain", or of other data "derain (its last two folders)".

        The whole path is there where that names two columns.
        """
        if self.held_back:
            return column.task
        short = _short(column.data)
        alike = [c for c in self.columns if (c.task, _short(c.data)) == (column.task, short)]
        return f"{column.task} ({short if len(alike) == 1 else column.data})"

    def caption(self) -> str:
        """What the table's scores are of."""
        counts = [f"{self.title(column)} {column.images}" for column in self.columns]
        data = [HELD_BACK]
        if not self.held_back:
            data = [f"{column.task} on {column.data}" for column in self.columns]
        parts = [self.protocol, "data " + ", ".join(data)]
        parts += [f"size {self.size}"] if self.size else []
        many = any(len(row.images) > 1 for row in self.rows)
        return "; ".join([*parts, "images " + ", ".join(counts)]) + "." + (BAR if many else "")


def _short(data: str) -> str:
    return "/".join(Path(data).parts[-2:]).lstrip("/")


def by_task(rows: list[Row]) -> list[Table]:
    """Tables of the rows of one protocol and size, with a column per score of each task and data.

    Held-back images are apart from real pairs. Cells of one column are of the same images: where
    methods were scored on other images of the task, the set with the most methods comes first and
    the others are in further tables.
    """
    return [_table(sheet) for sheet in _sheets(rows)]


def _table(sheet: Sheet) -> Table:
    labels, metrics = sheet.labels(), shown(sheet.rows)
    body: list[list[Entry]] = [[label] for label in labels]
    for column in sheet.columns:
        found = [column.rows.get(label) for label in labels]
        for metric in metrics:
            scores = [row and row.scores.get(metric.key) for row in found]
            cells = ranked(scores, metric, [bool(row and row.oracle) for row in found])
            for line, cell, row in zip(body, cells, found, strict=True):
                bounds = row and interval(row, metric)
                if cell and bounds:
                    half = (bounds[1] - bounds[0]) / 2
                    cell = cell._replace(half=f"{half:.{metric.digits - 1}f}")
                line.append(cell)
    heads = [metric.heading(sheet.protocol) for metric in metrics] * len(sheet.columns)
    groups = [(sheet.title(column), len(metrics)) for column in sheet.columns]
    return Table(sheet.caption(), ["Method", *heads], body, groups)


def task_figures(rows: list[Row]) -> list[Table]:
    """The same as one table of full numbers, for a CSV.

    A line per method of a table; its columns are such as "derain psnr_low".
    """
    lines, metrics = [], shown(rows)
    for count, sheet in enumerate(_sheets(rows), 1):
        for label in sheet.labels():
            size = "" if sheet.size is None else str(sheet.size)
            line: dict[str, Entry] = {"table": number(count), "protocol": sheet.protocol}
            line |= {"size": size, "method": label}
            for column in sheet.columns:
                row = column.rows.get(label)
                values = {"images": number(row and len(row.images)), **numbers(row, metrics)}
                title = sheet.title(column)
                line |= {f"{title} {key}": value for key, value in values.items()}
            lines.append(line)
    return [dictionaries(lines)]


def line_up(columns: list[list[Row]], labels: tuple[Label, ...]) -> list[dict[str, Row]]:
    """Each column's rows by label, so that a method has one label in all columns.

    Rows with the same ``labels[0]`` all get the first of ``labels`` under which no column has two
    of them.
    """
    kinds = dict.fromkeys(labels[0](row) for column in columns for row in column)
    chosen = {kind: _telling(kind, columns, labels) for kind in kinds}
    found = [{chosen[labels[0](row)](row): row for row in column} for column in columns]
    if all(len(a) == len(b) for a, b in zip(found, columns, strict=True)):
        return found
    # two kinds ended with one label
    return [{row.label: row for row in column} for column in columns]


def _telling(kind: str, columns: list[list[Row]], labels: tuple[Label, ...]) -> Label:
    """The first label that tells the rows of a kind apart in each column, else the last one."""
    groups = [[row for row in column if labels[0](row) == kind] for column in columns]
    for label in labels:
        if all(len({label(row) for row in group}) == len(group) for group in groups):
            return label
    return labels[-1]


def rank(row: Row) -> tuple:
    """Sorts rows: the degraded input first, IRBridge last, as in ``METHODS``.

    Unknown methods come before the last two.
    """
    order = list(METHODS)
    key = row.method or next((k for k, name in METHODS.items() if row.row.startswith(name)), None)
    return (order.index(key), "") if key in METHODS else (len(order) - 2.5, row.name)


LABELS: tuple[Label, ...] = (
    lambda row: row.name,
    lambda row: row.row,
    lambda row: f"{row.name} [{row.run.removeprefix(row.task + '-')}]",
    lambda row: row.label,
)


def _sheets(rows: list[Row]) -> list[Sheet]:
    """The tables of these rows, in their order; a row of several tasks is shown by its parts."""
    rows = [part for row in rows for part in row.parts or [row]]
    sheets: dict[tuple, dict[tuple[str, str], list[Row]]] = {}
    for (protocol, size, data, task), group in _kinds(rows).items():
        for count, distinct in enumerate(_image_sets(group)):
            key = protocol, size, data == HELD_BACK, count
            sheets.setdefault(key, {})[task, data] = distinct
    found = []
    for key, columns in sheets.items():
        places = sorted(columns, key=lambda place: (task_order(place[0]), place[1]))
        lined = line_up([columns[place] for place in places], LABELS)
        parts = [Column(*place, own) for place, own in zip(places, lined, strict=True)]
        found.append(Sheet(*key, parts))
    return sorted(found, key=lambda sheet: sheet.place)


def _kinds(rows: list[Row]) -> dict[tuple, list[Row]]:
    """Rows by (protocol, size, data, task)."""
    found: dict[tuple, list[Row]] = {}
    for row in rows:
        key = row.protocol, row.size, row.data or HELD_BACK, row.task
        found.setdefault(key, []).append(row)
    return found


def _image_sets(rows: list[Row]) -> list[list[Row]]:
    """Rows by the images that they were scored on, the set with the most rows first.

    Of rows with one name and equal scores, such as the degraded input of many runs, one is left.
    """
    sets: dict[frozenset[str], dict[tuple, Row]] = {}
    for row in rows:
        same = row.name, *row.scores.values()
        sets.setdefault(row.images, {}).setdefault(same, row)
    order = sorted(sets.items(), key=lambda item: (-len(item[1]), -len(item[0]), sorted(item[0])))
    return [list(distinct.values()) for _, distinct in order]
