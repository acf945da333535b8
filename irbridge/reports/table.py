"""A table of text and scores, written for Markdown, LaTeX, CSV and HTML.

Layouts make tables of rows; :meth:`Table.render` writes any of them. Only scores of the same
images and protocol are ranked.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import NamedTuple

from irbridge.evaluation.metrics import Metric
from irbridge.evaluation.records import read_records
from irbridge.evaluation.rows import Row, aggregate

# what a spreadsheet would compute, not show; the last four are the first's wide forms
FORMULA = "=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.IGNORECASE)
# characters that turn the text around them, so that it reads other than it is
TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Cell(NamedTuple):
    """One entry of a table.

    Args:
        text: as it is shown.
        value: as a CSV has it, in full; None: the text.
        mark: "best" or "second" of its column.
        half: half of an interval, shown behind a plus-minus.
        note: what else is shown behind, of numbers alone.
    """

    text: str
    value: float | int | None = None
    mark: str = ""
    half: str = ""
    note: str = ""


Entry = Cell | str | None | tuple[Cell | None, ...]
"""A cell, plain text, None where it is missing, or several cells that share one place."""


@dataclass(frozen=True)
class Language:
    """How a language writes marked and missing entries, plus-minus, and any text."""

    best: str
    second: str
    missing: str
    within: str
    escape: Callable[[str], str]

    def entry(self, entry: Entry) -> str:
        """An entry as the language writes it."""
        if entry is None:
            return self.missing
        if isinstance(entry, str):
            return self.escape(entry)
        if not isinstance(entry, Cell):
            return " / ".join(self.entry(cell) for cell in entry)
        form = {"best": self.best, "second": self.second}.get(entry.mark, "{}")
        half = f"{self.within}{entry.half}" if entry.half else ""
        return form.format(self.escape(entry.text)) + half + entry.note


def plain(text: str) -> str:
    """Text on one line, without what a terminal, a page or a file could not show as it is.

    That is control characters, halves of characters (of file names that are no UTF-8), and
    characters that turn the text around them.
    """
    line = " ".join(text.split())
    return "".join("\ufffd" if _unseen(char) else char for char in line)


def _unseen(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs") or char in TURNING


def _latex_text(text: str) -> str:
    special = {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "—": "---",
        "↑": "$\\uparrow$",
        "↓": "$\\downarrow$",
        "±": "$\\pm$",
    }
    special |= {c: f"\\{c}" for c in "&%$#_{}"}
    line = plain(text)
    # behind the end of a line these would be read as its argument
    guard = "{}" if line.startswith(("[", "*")) else ""
    return guard + "".join(special.get(c, c) for c in line)


# What Markdown reads as markup: signs, the end of a link's text, an underscore at the edge of a
# word, and what makes a link of bare text.
MARKUP = re.compile(
    r"[\\`*<>|~]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.|@(?=\w)|&(?=#|\w+;)",
    re.IGNORECASE,
)


def _markdown_text(text: str) -> str:
    return MARKUP.sub(lambda sign: f"\\{sign[0]}", plain(text))


def _markdown_line(text: str) -> str:
    """Text that begins a line, where some signs would make a heading or a list."""
    return re.sub(r"^(\d*)([-#+=.)])", r"\1\\\2", _markdown_text(text))


def _html_text(text: str) -> str:
    return escape(plain(text))


def _csv_text(text: str) -> str:
    """Text that no spreadsheet takes for a formula; numbers stay numbers."""
    line = plain(text)
    return f"'{line}" if line.startswith(FORMULA) and not NUMBER.fullmatch(line) else line


MARKDOWN = Language("**{}**", "<u>{}</u>", "—", " ±", _markdown_text)
LATEX = Language("\\textbf{{{}}}", "\\underline{{{}}}", "---", " $\\pm$ ", _latex_text)
HTML = Language("<b>{}</b>", "<u>{}</u>", "—", " ±", _html_text)


@dataclass(frozen=True)
class Table:
    """A table that any language can write.

    Args:
        caption: above it; a CSV has none.
        headings: of its columns.
        body: its lines, an entry a column.
        groups: (title, width) of columns under one title, the first column left out.
        left: so many columns are text, and stand at the left.
        tight: Markdown's rule below the headings has no spaces.
    """

    caption: str
    headings: list[str]
    body: list[list[Entry]]
    groups: list[tuple[str, int]] = field(default_factory=list)
    left: int = 1
    tight: bool = False

    def render(self, form: str) -> str:
        """The table as "markdown", "latex", "csv" or "html".

        In Markdown best is bold, second underlined, and columns of one title share a cell. LaTeX
        needs the package booktabs, and graphicx for grouped columns.
        """
        return WRITERS[form](self)


def render(tables: Iterable[Table], form: str) -> str:
    """Tables one after the other."""
    return "\n\n".join(table.render(form) for table in tables)


def _markdown(table: Table) -> str:
    lines = [[MARKDOWN.entry(entry) for entry in line] for line in (table.headings, *table.body)]
    if table.groups:
        lines = [_shared(line, table, MARKDOWN.missing) for line in lines]
        titles = ["", *(f"{MARKDOWN.escape(title)}: " for title, _ in table.groups)]
        lines[0] = [title + cell for title, cell in zip(titles, lines[0], strict=True)]
    rule = ["---"] * table.left + ["---:"] * (len(lines[0]) - table.left)
    written = ["| " + " | ".join(line) + " |" for line in lines]
    written.insert(1, f"|{'|'.join(rule)}|" if table.tight else f"| {' | '.join(rule)} |")
    return f"{_markdown_line(table.caption)}\n\n" + "\n".join(written)


def _shared(line: list[str], table: Table, missing: str) -> list[str]:
    """A line whose entries of one group share a cell; one dash where all of them are missing."""
    joined, rest = line[:1], iter(line[1:])
    for _, width in table.groups:
        cells = [next(rest) for _ in range(width)]
        joined.append(missing if set(cells) == {missing} else " / ".join(cells))
    return joined


def _latex(table: Table) -> str:
    head, *lines = (
        " & ".join(LATEX.entry(entry) for entry in line) + " \\\\"
        for line in (table.headings, *table.body)
    )
    wide = "*" if table.groups else ""
    columns = "l" + "r" * (len(table.headings) - 1)
    return "\n".join(
        [
            f"\\begin{{table{wide}}}",
            "\\centering",
            f"\\caption{{{LATEX.escape(table.caption)}}}",
            *(["\\resizebox{\\textwidth}{!}{%"] if wide else []),
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            *(_latex_titles(table.groups) if wide else []),
            head,
            "\\midrule",
            *lines,
            "\\bottomrule",
            "\\end{tabular}" + ("}" if wide else ""),
            f"\\end{{table{wide}}}",
        ]
    )


def _latex_titles(groups: list[tuple[str, int]]) -> list[str]:
    """The line of titles above the headings, and the rules below them."""
    titles, rules, column = [""], [], 2
    for title, width in groups:
        titles.append(f"\\multicolumn{{{width}}}{{c}}{{{LATEX.escape(title)}}}")
        rules.append(f"\\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    return [" & ".join(titles) + " \\\\", " ".join(rules)]


def _html(table: Table) -> str:
    above = ""
    if table.groups:
        titles = (f'<th colspan="{n}">{HTML.escape(title)}</th>' for title, n in table.groups)
        above = f"<tr><th></th>{''.join(titles)}</tr>\n"
    heads = "".join(f"<th>{HTML.entry(heading)}</th>" for heading in table.headings)
    lines = ("".join(f"<td>{HTML.entry(entry)}</td>" for entry in line) for line in table.body)
    return "\n".join(
        [
            f"<table>\n<caption>{HTML.escape(table.caption)}</caption>",
            f"<thead>\n{above}<tr>{heads}</tr>\n</thead>",
            "<tbody>",
            *(f"<tr>{line}</tr>" for line in lines),
            "</tbody>\n</table>",
        ]
    )


def _csv(table: Table) -> str:
    """Full numbers; missing is empty."""
    titles = [""] + [f"{title} " for title, width in table.groups for _ in range(width)]
    heads = table.headings
    if table.groups:
        heads = [title + heading for title, heading in zip(titles, heads, strict=True)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_csv_text(head) for head in heads])
    writer.writerows([_plain(entry) for entry in line] for line in table.body)
    return out.getvalue().rstrip("\n")


def _plain(entry: Entry) -> str | float | int | None:
    if entry is None:
        return None
    if isinstance(entry, str):
        return _csv_text(entry)
    if isinstance(entry, Cell):
        return _csv_text(entry.text) if entry.value is None else entry.value
    return _csv_text(" / ".join("" if cell is None else cell.text for cell in entry))


WRITERS = {"markdown": _markdown, "latex": _latex, "html": _html, "csv": _csv}


def number(value: float | int | None) -> Cell | None:
    """An entry of a table of full numbers."""
    return None if value is None else Cell(str(value), value)


def dictionaries(lines: list[dict[str, Entry]], caption: str = "") -> Table:
    """A table of dictionaries, whose keys are the headings; what one lacks is missing."""
    heads = list(dict.fromkeys(key for line in lines for key in line))
    return Table(caption, heads, [[line.get(head) for head in heads] for line in lines])


# tables of rows


def shown(rows: list[Row]) -> list[Metric]:
    """The metrics that a table of these rows has columns for.

    Those against the clean image always have one, those against the VAE's round trip where a row
    has a score.
    """
    found = {metric.key: metric for row in rows for metric in row.metrics}
    kept = [
        metric
        for metric in found.values()
        if metric.reference == "clean"
        or any(row.scores.get(metric.key) is not None for row in rows)
    ]
    return sorted(kept, key=lambda metric: metric.reference != "clean")


def comparisons(rows: list[Row]) -> list[list[Row]]:
    """Rows that may be ranked together: of one task, protocol, setting and set of images."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.protocol, row.setting, row.images), []).append(row)
    return list(groups.values())


def by_comparison(rows: list[Row]) -> list[Table]:
    """One table per comparison, a line per method.

    Where images have different tasks, a second one has a group of columns for each task and for the
    mean of the tasks.
    """
    tables = []
    for group in comparisons(rows):
        tables.append(_comparison(group))
        if any(row.parts for row in group):
            tables.append(_of_parts(group))
    return tables


def _of_parts(group: list[Row]) -> Table:
    """The scores of each task of a comparison, and their mean."""
    row = next(row for row in group if row.parts)
    *single, mean = row.parts
    titles = {part.task: part.task.removeprefix(f"{row.task}: ") for part in row.parts}
    counts = ", ".join(f"{titles[part.task]} {len(part.images)}" for part in single)
    caption = "; ".join([f"{row.task} by task: {row.protocol}", *row.setting, f"images {counts}"])
    metrics = mean.metrics
    body: list[list[Entry]] = [[other.label] for other in group]
    for task in titles:
        found = [next((p for p in other.parts if p.task == task), None) for other in group]
        for metric in metrics:
            scores = [part and part.scores.get(metric.key) for part in found]
            cells = ranked(scores, metric, [row.oracle for row in group])
            for line, cell in zip(body, cells, strict=True):
                line.append(cell)
    heads = [metric.heading(row.protocol) for metric in metrics] * len(titles)
    groups = [(title, len(metrics)) for title in titles.values()]
    return Table(f"{caption}. The mean counts each task once.", ["Method", *heads], body, groups)


def _comparison(group: list[Row]) -> Table:
    row = group[0]
    caption = "; ".join([f"{row.task}: {row.protocol}", *row.setting, f"images {len(row.images)}"])
    brackets = " Brackets: 95 % bootstrap interval over images." if len(row.images) > 1 else ""
    columns: dict[str, list[Entry]] = {"Method": [r.label for r in group]}
    for metric in shown(group):
        scores = [r.scores.get(metric.key) for r in group]
        entries = ranked(scores, metric, [r.oracle for r in group])
        columns[metric.heading(row.protocol)] = [
            entry and entry._replace(note=_brackets(r, metric))
            for entry, r in zip(entries, group, strict=True)
        ]
    columns["s/image"] = [None if r.seconds is None else f"{r.seconds:.3f}" for r in group]
    body = [list(line) for line in zip(*columns.values(), strict=True)]
    return Table(f"{caption}.{brackets}", list(columns), body)


def _brackets(row: Row, metric: Metric) -> str:
    """The interval of a row's score; empty where one image leaves none."""
    bounds = interval(row, metric)
    if bounds is None:
        return ""
    low, high = (f"{edge:.{max(0, metric.digits - 1)}f}" for edge in bounds)
    return f" [{low}, {high}]"


def interval(row: Row, metric: Metric) -> tuple[float, float] | None:
    """(low, high) of a row's score over its images; None where one image leaves none."""
    return row.bounds(metric.key) if len(row.images) > 1 else None


def ranked(
    values: list[float | None], metric: Metric, bounds: list[bool] | None = None
) -> list[Cell | None]:
    """Cells of a column, ranked as they are shown: values that look equal are marked alike.

    Args:
        values: of the column's lines; None where one is missing.
        metric: that they are of.
        bounds: which values are an oracle's, a bound that is shown and not ranked; None: none.
    """
    bounds = bounds or [False] * len(values)
    texts = [None if value is None else metric.format(value) for value in values]
    competing = {text for text, bound in zip(texts, bounds, strict=True) if not bound} - {None}
    order = sorted(competing, key=float, reverse=metric.higher_is_better)
    marks = dict(zip(order, ("best", "second"), strict=False)) if len(order) > 1 else {}
    return [
        None if text is None else Cell(text, value, "" if bound else marks.get(text, ""))
        for text, value, bound in zip(texts, values, bounds, strict=True)
    ]


def figures(rows: list[Row]) -> list[Table]:
    """All rows in one table of full numbers, for a CSV: protocol and setting are columns.

    A row of several tasks is followed by its parts.
    """
    metrics = shown(rows)
    lines = [
        {
            "task": row.task,
            "method": row.label,
            "protocol": row.protocol,
            "setting": ", ".join(row.setting),
            "images": number(len(row.images)),
            **numbers(row, metrics),
            "seconds": number(row.seconds),
        }
        for row in (part for whole in rows for part in (whole, *whole.parts))
    ]
    return [dictionaries(lines)]


def numbers(row: Row | None, metrics: list[Metric]) -> dict[str, Cell | None]:
    """Scores and their intervals under the names of a CSV's columns; missing without a row."""
    found = {}
    for metric in metrics:
        low, high = (row and row.bounds(metric.key)) or (None, None)
        found[metric.key] = number(row and row.scores.get(metric.key))
        found[f"{metric.key}_low"], found[f"{metric.key}_high"] = number(low), number(high)
    return found


def print_scores(results: Path) -> str:
    """Print, and return, the Markdown tables of all that is scored below a folder."""
    text = render(by_comparison(aggregate(read_records(results))), "markdown")
    print(f"\n{text}\n")
    return text
