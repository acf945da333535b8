"""One table of many tasks: a row per method, a group of columns per task."""

from collections.abc import Callable
from pathlib import Path

from irbridge.evaluation.records import HELD_BACK, METHODS, TASKS, Row
from irbridge.reports.table import Style, Table, between, csv_text, heading, numbers, ranked, shown

Column = tuple[str, str]  # task, data
Labels = tuple[Callable[[Row], str], ...]


def by_task(rows: list[Row], style: Style) -> list[Table]:
    """Tables of the rows of one protocol and size, held-back images apart from real pairs, a column
    per score of each task (and data). Cells of one column are of the same images: where methods
    were scored on other images of the task, the set with the most methods comes first and the
    others are in further tables.
    """
    found = []
    for (protocol, size, held_back, _), columns in _split(rows).items():
        titles = {c: _title(c, list(columns), held_back) for c in columns}
        counts = [
            f"{titles[c]} {len(next(iter(cells.values())).images)}" for c, cells in columns.items()
        ]
        data = [HELD_BACK] if held_back else [f"{task} on {data}" for task, data in columns]
        caption = "; ".join(
            [
                protocol,
                "data " + ", ".join(data),
                *([f"size {size}"] if size else []),
                "images " + ", ".join(counts),
            ]
        )
        body = {label: [label] for label in _ordered(columns)}
        scores = shown([row for cells in columns.values() for row in cells.values()])
        for cells in columns.values():
            for score in scores:
                values = ranked(
                    [cells[b].scores[score] if b in cells else None for b in body], score, style
                )
                for (label, line), value in zip(body.items(), values):
                    half = (
                        between(cells[label], score, style.within + "{half:.{digits}f}")
                        if label in cells
                        else ""
                    )
                    line.append(value + half)
        many = any(len(row.images) > 1 for cells in columns.values() for row in cells.values())
        note = (
            f" {style.within.strip()} half of the 95 % bootstrap interval over images."
            if many
            else ""
        )
        lines = [[style.escape(line[0]), *line[1:]] for line in body.values()]
        heads = ["Method"] + [heading(score, protocol, style) for score in scores] * len(columns)
        found.append(
            Table(
                style.escape(caption + ".") + note.replace("%", style.escape("%")),
                [(style.escape(t), len(scores)) for t in titles.values()],
                heads,
                lines,
            )
        )
    return found


def to_task_csv(rows: list[Row]) -> str:
    """The same tables as one CSV, full numbers: a line per method of a table, columns such as
    "derain psnr_low".
    """
    lines, scores = [], shown(rows)
    for number, ((protocol, size, held_back, _), columns) in enumerate(_split(rows).items(), 1):
        for label in _ordered(columns):
            line = {"table": number, "protocol": protocol, "size": size, "method": label}
            for column, cells in columns.items():
                title = _title(column, list(columns), held_back)
                row = cells.get(label)
                values = {"images": len(row.images) if row else None, **numbers(row, scores)}
                line |= {f"{title} {key}": value for key, value in values.items()}
            lines.append(line)
    return csv_text(lines)


def line_up(columns: list[list[Row]], labels: Labels) -> list[dict[str, Row]]:
    """Each column's rows by label. Rows with the same ``labels[0]`` all get the first of ``labels``
    under which no column has two of them, so that a method has one label in all columns.
    """
    kinds = dict.fromkeys(labels[0](row) for column in columns for row in column)
    chosen = {}
    for kind in kinds:
        groups = [[row for row in column if labels[0](row) == kind] for column in columns]
        chosen[kind] = next(
            (
                label
                for label in labels
                if all(len({label(row) for row in group}) == len(group) for group in groups)
            ),
            labels[-1],
        )
    found = [{chosen[labels[0](row)](row): row for row in column} for column in columns]
    if all(len(a) == len(b) for a, b in zip(found, columns)):
        return found
    # two kinds ended with one label
    return [{row.label: row for row in column} for column in columns]


def rank(row: Row) -> tuple:
    """Sorts rows: the degraded input first, IRBridge last, as in ``METHODS``; unknown methods
    before the last two.
    """
    order = list(METHODS)
    key = row.method or next((k for k, name in METHODS.items() if row.row.startswith(name)), None)
    return (order.index(key), "") if key in METHODS else (len(order) - 2.5, row.name)


def _split(rows: list[Row]) -> dict[tuple, dict[Column, dict[str, Row]]]:
    """Per table, (protocol, size, held back, how many tables of it came before), per column, rows
    by label.
    """
    sets: dict[tuple, dict[frozenset, dict[tuple, Row]]] = {}
    for row in rows:
        data = row.about("data") or HELD_BACK
        same = row.name, *row.scores.values()  # such as the degraded input, scored with every run
        sets.setdefault((row.protocol, row.about("size") or "", data, row.task), {}).setdefault(
            row.images, {}
        ).setdefault(same, row)
    found: dict[tuple, dict[Column, list[Row]]] = {}
    for (protocol, size, data, task), by_images in sets.items():
        largest = sorted(
            by_images.items(), key=lambda item: (-len(item[1]), -len(item[0]), sorted(item[0]))
        )
        for number, (_, distinct) in enumerate(largest):
            found.setdefault((protocol, size, data == HELD_BACK, number), {})[task, data] = list(
                distinct.values()
            )
    labels = (
        lambda r: r.name,
        lambda r: r.row,
        lambda r: f"{r.name} [{r.run.removeprefix(r.task + '-')}]",
        lambda r: r.label,
    )
    lined = {}
    for key in sorted(found, key=lambda key: (not key[2], key[3], key[:2])):
        columns = dict(
            sorted(found[key].items(), key=lambda item: (_task_order(item[0][0]), item[0][1]))
        )
        lined[key] = dict(zip(columns, line_up(list(columns.values()), labels)))
    return lined


def _task_order(task: str) -> tuple:
    return (TASKS.index(task), "") if task in TASKS else (len(TASKS), task)


def _ordered(columns: dict[Column, dict[str, Row]]) -> list[str]:
    """The table's labels, best of the first column last within one kind."""
    first = {}
    for cells in columns.values():
        for label, row in cells.items():
            first.setdefault(label, (*rank(row), row.psnr))
    return sorted(first, key=first.get)


def _title(column: Column, columns: list[Column], held_back: bool) -> str:
    """ "derain", or of other data "derain (its last two folders)", the whole where that names two
    columns.
    """

    def short(data: str) -> str:
        return "/".join(Path(data).parts[-2:]).lstrip("/")

    task, data = column
    if held_back:
        return task
    alone = [(t, short(d)) for t, d in columns].count((task, short(data))) == 1
    return f"{task} ({short(data) if alone else data})"
