"""From the records of scored images to tables; only scores of the same images and protocol are
ranked.
"""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass

from irbridge.evaluation.records import CLEAN, SCORES, Row


@dataclass(frozen=True)
class Style:
    """How a language writes best, second and missing cells, the arrows, plus-minus and any text."""

    best: str
    second: str
    missing: str
    up: str
    down: str
    within: str
    escape: Callable[[str], str]


@dataclass(frozen=True)
class Table:
    """Formatted cells; ``groups`` are (title, width) of columns under one title, the first column
    left out.
    """

    caption: str
    groups: list[tuple[str, int]]
    headings: list[str]
    body: list[list[str]]


def shown(rows: list[Row]) -> list[str]:
    """The scores that a table of these rows has columns for: always those against the clean
    image.
    """
    return [k for k in SCORES if k in CLEAN or any(row.scores[k] is not None for row in rows)]


def comparisons(rows: list[Row]) -> list[list[Row]]:
    """Rows that may be ranked together: of one task, protocol, setting and set of images."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.protocol, row.setting, row.images), []).append(row)
    return list(groups.values())


def by_comparison(rows: list[Row], style: Style) -> list[Table]:
    """One table per comparison, a row per method."""
    return [_one_task(group, style) for group in comparisons(rows)]


def _one_task(group: list[Row], style: Style) -> Table:
    row = group[0]
    caption = "; ".join([f"{row.task}: {row.protocol}", *row.setting, f"images {len(row.images)}"])
    columns = {"Method": [style.escape(r.label) for r in group]}
    for score in shown(group):
        cells = ranked([r.scores[score] for r in group], score, style)
        columns[heading(score, row.protocol, style)] = [
            cell + between(r, score, " [{:.{digits}f}, {:.{digits}f}]")
            for cell, r in zip(cells, group)
        ]
    columns["s/image"] = [style.missing if r.seconds is None else f"{r.seconds:.3f}" for r in group]
    brackets = " Brackets: 95 % bootstrap interval over images." if len(row.images) > 1 else ""
    body = [list(line) for line in zip(*columns.values())]
    return Table(style.escape(f"{caption}.{brackets}"), [], list(columns), body)


def heading(score: str, protocol: str, style: Style) -> str:
    name, _, higher = SCORES[score]
    luma = protocol.startswith("y,") and not score.startswith("lpips")
    return f"{name}{' (Y)' * luma} {style.up if higher else style.down}"


def between(row: Row, score: str, form: str) -> str:
    """The interval (low, high, half its width) as text; empty where one image leaves none."""
    bounds = row.bounds(score)
    if bounds is None or len(row.images) < 2:
        return ""
    return form.format(*bounds, half=(bounds[1] - bounds[0]) / 2, digits=SCORES[score][1] - 1)


def ranked(values: list, score: str, style: Style) -> list[str]:
    """Formatted cells, ranked as they are shown, so that values that look equal are marked
    alike.
    """
    _, digits, higher = SCORES[score]
    cells = [None if v is None else f"{v:.{digits}f}" for v in values]
    order = sorted(set(cells) - {None}, key=float, reverse=higher)
    marks = dict(zip(order, (style.best, style.second))) if len(order) > 1 else {}
    return [style.missing if c is None else marks.get(c, "{}").format(c) for c in cells]


def to_markdown(
    rows: list[Row], layout: Callable[[list[Row], Style], list[Table]] = by_comparison
) -> str:
    """Tables with best in bold, second underlined, missing as an em dash; columns of one title
    share a cell.
    """
    text = []
    style = Style(
        "**{}**",
        "<u>{}</u>",
        "—",
        "↑",
        "↓",
        " ±",
        lambda s: " ".join(s.split()).replace("|", "\\|"),
    )
    for table in layout(rows, style):
        lines = [_shared(line, table, style.missing) for line in [table.headings, *table.body]]
        titles = ["", *(f"{title}: " for title, _ in table.groups)]
        lines[0] = [t + cell for t, cell in zip(titles, lines[0])] if table.groups else lines[0]
        lines.insert(1, ["---"] + ["---:"] * (len(lines[0]) - 1))
        text.append(
            f"{table.caption}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)
        )
    return "\n\n".join(text)


def _shared(line: list[str], table: Table, missing: str) -> list[str]:
    """A line whose cells of one group are joined by slashes; one dash where all of them are
    missing.
    """
    if not table.groups:
        return line
    joined, rest = line[:1], iter(line[1:])
    for _, width in table.groups:
        cells = [next(rest) for _ in range(width)]
        joined.append(missing if set(cells) == {missing} else " / ".join(cells))
    return joined


def to_latex(
    rows: list[Row], layout: Callable[[list[Row], Style], list[Table]] = by_comparison
) -> str:
    """The same tables for LaTeX, which needs the package booktabs; grouped columns also need
    graphicx.
    """
    text = []
    style = Style(
        "\\textbf{{{}}}",
        "\\underline{{{}}}",
        "---",
        "$\\uparrow$",
        "$\\downarrow$",
        " $\\pm$ ",
        _escape,
    )
    for table in layout(rows, style):
        head, *lines = (" & ".join(line) + " \\\\" for line in [table.headings, *table.body])
        wide, titles = ("*", _titles(table.groups)) if table.groups else ("", [])
        start = f"\\begin{{tabular}}{{l{'r' * (len(table.headings) - 1)}}}"
        fit = ["\\resizebox{\\textwidth}{!}{%"] if wide else []
        text.append(
            "\n".join(
                [
                    f"\\begin{{table{wide}}}",
                    "\\centering",
                    f"\\caption{{{table.caption}}}",
                    *fit,
                    start,
                    "\\toprule",
                    *titles,
                    head,
                    "\\midrule",
                    *lines,
                    "\\bottomrule",
                    "\\end{tabular}" + "}" * bool(wide),
                    f"\\end{{table{wide}}}",
                ]
            )
        )
    return "\n\n".join(text)


def _titles(groups: list[tuple[str, int]]) -> list[str]:
    """The line of titles above the headings, and the rules below them."""
    titles, rules, column = [""], [], 2
    for title, width in groups:
        titles.append(f"\\multicolumn{{{width}}}{{c}}{{{title}}}")
        rules.append(f"\\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    return [" & ".join(titles) + " \\\\", " ".join(rules)]


def _escape(text: str) -> str:
    special = {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "—": "---",
    }
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)


def to_csv(rows: list[Row]) -> str:
    """All rows with full numbers, the protocol and the image count in columns; missing is empty."""
    scores = shown(rows)
    return csv_text(
        [
            {
                "task": r.task,
                "method": r.label,
                "protocol": r.protocol,
                "setting": ", ".join(r.setting),
                "images": len(r.images),
                **numbers(r, scores),
                "seconds": r.seconds,
            }
            for r in rows
        ]
    )


def numbers(row: Row | None, scores: list[str]) -> dict[str, float | None]:
    """Scores and their intervals under the names of a CSV's columns; None without a row."""
    return {
        f"{k}{end}": value
        for k in scores
        for end, value in zip(
            ("", "_low", "_high"),
            (row and row.scores[k], *((row and row.bounds(k)) or (None, None))),
        )
    }


def csv_text(lines: list[dict]) -> str:
    """CSV of dictionaries, whose keys are the columns; missing is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(
        out, list(dict.fromkeys(k for line in lines for k in line)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().rstrip("\n")
