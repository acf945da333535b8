"""From the records of scored images to tables; only scores of the same images and protocol are
ranked."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from irbridge.errors import UserError
from irbridge.metrics import bootstrap_interval

REQUIRED = "name", "task", "row", "protocol", "psnr", "ssim"
# Name, digits, whether higher is better.
CLEAN = {"psnr": ("PSNR", 2, True), "ssim": ("SSIM", 4, True), "lpips": ("LPIPS", 4, False)}
# Those of protocol.reference=vae come after the ones against the clean image, which every record
# has.
SCORES = CLEAN | {f"{key}_vae": (f"{name} to VAE", *rest) for key, (name, *rest) in CLEAN.items()}
TASKS = "derain", "dehaze", "desnow", "raindrop", "lowlight", "inpaint", "deblur", "denoise", "sr"
# The records' "method" and its name, in the order of a table's rows; unknown ones come before the
# last two.
METHODS = {
    "identity": "Degraded input",
    "classical": "Classical",
    "regression": "Plain regression",
    "bridge": "Bridge from scratch",
    "anchor": "Anchor g(y) alone",
    "ddim_noise": "DDIM from noise",
    "ddim": "DDIM",
    "dpmpp": "DPM-Solver++(2M)",
    "irbridge_y": "IRBridge, end y",
    "irbridge": "IRBridge",
}
HELD_BACK = "held-back images"


@dataclass(frozen=True)
class Row:
    """Means over one method's images, several draws (seeds) of one averaged first; None where one
    lacks the score.

    task, row, protocol, method (a short key) and nfe (network calls) are the records'; ``run`` is
    the run's folder below a folder of runs; ``setting`` is what else must agree for a comparison,
    the records' data and size; ``images`` are names; ``scores`` the means under the keys of
    ``SCORES``, PSNR in dB; ``intervals`` the 95 % bootstrap intervals of the means over images,
    likewise."""

    task: str
    row: str
    protocol: str
    run: str
    setting: tuple
    nfe: int | None
    images: frozenset[str]
    scores: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    seconds: float | None
    method: str | None = None

    psnr = property(lambda self: self.scores["psnr"])
    ssim = property(lambda self: self.scores["ssim"])
    lpips = property(lambda self: self.scores["lpips"])

    @property
    def label(self) -> str:
        calls = "" if self.nfe is None or f" {self.nfe} call" in self.row else f", {self.nfe} calls"
        return f"{self.row}{calls}" + (f" [{self.run}]" if self.run else "")

    @property
    def name(self) -> str:
        """The method's name without its settings; the row's label for "outputs" (anyone's images)
        and for none."""
        return (
            self.row if self.method in (None, "outputs") else METHODS.get(self.method, self.method)
        )

    def about(self, key: str) -> str | None:
        """The setting's "data" or "size"."""
        return dict(s.split(" ", 1) for s in self.setting).get(key)

    def bounds(self, score: str) -> tuple[float, float] | None:
        return self.intervals[score]


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
    left out."""

    caption: str
    groups: list[tuple[str, int]]
    headings: list[str]
    body: list[list[str]]


def record_files(path: str | Path) -> list[tuple[Path, str]]:
    """Every ``records*.jsonl`` (one per process of a shared evaluation) below a folder, with its
    run's folder or ""."""
    path, files = Path(path), []
    for file in sorted(path.rglob("records*.jsonl")):
        parts = file.relative_to(path).parts
        depth = next((i for i, part in enumerate(parts) if part in ("results", "evaluations")), 0)
        files.append((file, "/".join(parts[:depth])))
    return files


def read_records(path: str | Path) -> list[dict]:
    """Records of one ``records*.jsonl`` or of all below a folder, each once; a last line cut short
    by a kill is dropped. Below a folder of runs, each record also gets its run's folder as "run".
    UserError if there are no records, or for a corrupt line (names file and line)."""
    path = Path(path)
    files = [(path, "")] if path.is_file() else record_files(path)
    records = [
        record | ({"run": run} if run else {}) for file, run in files for record in _read(file)
    ]
    if not records and not path.is_file():
        raise UserError(f"There are no records below {path}; give the folder of a scored run.")
    once: dict[str, dict] = {}
    for r in records:
        same = [
            r.get(k) for k in (*REQUIRED, *SCORES, "run", "data", "size", "seed", "nfe", "weights")
        ]
        once.setdefault(json.dumps(same), r)
    return list(once.values())


def _read(path: Path) -> list[dict]:
    records, lines = [], path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line) if line.strip() else None
            if record is not None:
                if missing := [k for k in REQUIRED if record.get(k) is None]:
                    raise ValueError(f"no {missing[0]}")
                if wrong := [
                    k for k in SCORES if record.get(k) is not None and not isfinite(record[k])
                ]:
                    raise ValueError(f"{wrong[0]} is no number")
                records.append(record)
        except (ValueError, TypeError, AttributeError) as error:
            if number < len(lines):  # the last piece has no newline: it was being written
                raise UserError(
                    f"{path}, line {number}, is no record ({error}); delete that line."
                ) from None
    return records


def aggregate(records: list[dict]) -> list[Row]:
    """One :class:`Row` per (task, row, protocol) of each run, data, size and nfe; by task, then
    PSNR upwards. UserError if an image has two different scores for one row and seed (two settings
    behind one name)."""
    groups: dict[tuple, dict[str, dict]] = {}
    methods: dict[tuple, str | None] = {}
    for r in records:
        setting = tuple(f"{k} {r[k]}" for k in ("data", "size") if r.get(k) is not None)
        key = r["task"], r["row"], r["protocol"], r.get("run", ""), setting, r.get("nfe")
        methods[key] = methods.get(key) or r.get("method")
        draws = groups.setdefault(key, {}).setdefault(r["name"], {})
        if draws.setdefault(r.get("seed"), r)["psnr"] != r["psnr"]:
            raise UserError(
                f"{r['task']}, {r['row']!r} has two different scores of {r['name']} for one "
                "seed; make the table from one of the results folders."
            )
    rows = []
    for key, images in groups.items():
        values = {
            k: [_mean([d.get(k) for d in draws.values()]) for draws in images.values()]
            for k in (*SCORES, "seconds")
        }
        means = {k: _mean(v) for k, v in values.items()}
        bounds = {k: None if None in values[k] else bootstrap_interval(values[k]) for k in SCORES}
        rows.append(Row(*key, frozenset(images), means, bounds, means.pop("seconds"), methods[key]))
    return sorted(rows, key=lambda row: (row.task, row.protocol, row.setting, row.psnr))


def _mean(values: list) -> float | None:
    return None if None in values else float(np.mean(values))


def shown(rows: list[Row]) -> list[str]:
    """The scores that a table of these rows has columns for: always those against the clean
    image."""
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
    alike."""
    _, digits, higher = SCORES[score]
    cells = [None if v is None else f"{v:.{digits}f}" for v in values]
    order = sorted(set(cells) - {None}, key=float, reverse=higher)
    marks = dict(zip(order, (style.best, style.second))) if len(order) > 1 else {}
    return [style.missing if c is None else marks.get(c, "{}").format(c) for c in cells]


def to_markdown(
    rows: list[Row], layout: Callable[[list[Row], Style], list[Table]] = by_comparison
) -> str:
    """Tables with best in bold, second underlined, missing as an em dash; columns of one title
    share a cell."""
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
    missing."""
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
    graphicx."""
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
            ("", "_low", "_high"), (row and row.scores[k], *(row and row.bounds(k) or (None, None)))
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
