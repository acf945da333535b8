"""From the records of scored images to tables; only scores of the same images and protocol are ranked."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from irbridge.errors import UserError
from irbridge.metrics import bootstrap_interval

REQUIRED = "name", "task", "row", "protocol", "psnr", "ssim"


@dataclass(frozen=True)
class Row:
    """Means over one method's images, several draws (seeds) of one averaged first; None where one lacks the score.

    task, row and protocol are the records'; ``run`` is the run's folder below a folder of runs; ``setting`` is what
    else must agree for a comparison, the records' data and size; ``images`` are names; psnr is in dB, ``interval`` the
    95 % bootstrap interval of its mean."""
    task: str
    row: str
    protocol: str
    run: str
    setting: tuple
    images: frozenset[str]
    psnr: float
    interval: tuple[float, float]
    ssim: float
    lpips: float | None
    seconds: float | None

    @property
    def label(self) -> str:
        return f"{self.row} [{self.run}]" if self.run else self.row


def read_records(path: str | Path) -> list[dict]:
    """Records of one ``records.jsonl`` or of all below a folder; a last line cut short by a kill is dropped. Below a
    folder of runs, each record also gets its run's folder as "run". UserError if there are no records, or for a corrupt
    line (names file and line)."""
    path = Path(path)
    if path.is_file():
        return _read(path)
    records = []
    for file in sorted(path.rglob("records.jsonl")):
        parts = file.relative_to(path).parts
        depth = next((i for i, part in enumerate(parts) if part in ("results", "evaluations")), 0)
        records += [record | ({"run": "/".join(parts[:depth])} if depth else {}) for record in _read(file)]
    if not records:
        raise UserError(f"There are no records below {path}; give the folder of a scored run.")
    return records


def _read(path: Path) -> list[dict]:
    records, lines = [], path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line) if line.strip() else None
            if record is not None:
                if missing := [k for k in REQUIRED if record.get(k) is None]:
                    raise ValueError(f"no {missing[0]}")
                records.append(record)
        except (ValueError, AttributeError) as error:
            if number < len(lines):   # the last piece has no newline: it was being written
                raise UserError(f"{path}, line {number}, is no record ({error}); delete that line.") from None
    return records


def aggregate(records: list[dict]) -> list[Row]:
    """One :class:`Row` per (task, row, protocol) of each run, data and size; by task, then PSNR upwards. UserError if
    an image has two different scores for one row and seed (two settings behind one name)."""
    groups: dict[tuple, dict[str, dict]] = {}
    for r in records:
        setting = tuple(f"{k} {r[k]}" for k in ("data", "size") if r.get(k) is not None)
        key = r["task"], r["row"], r["protocol"], r.get("run", ""), setting
        draws = groups.setdefault(key, {}).setdefault(r["name"], {})
        if draws.setdefault(r.get("seed"), r)["psnr"] != r["psnr"]:
            raise UserError(f"{r['task']}, {r['row']!r} has two different scores of {r['name']} for one "
                            "seed; make the table from one of the results folders.")
    rows = []
    for key, images in groups.items():
        scores = {k: [_mean([d.get(k) for d in draws.values()]) for draws in images.values()]
                  for k in ("psnr", "ssim", "lpips", "seconds")}
        means = {k: _mean(v) for k, v in scores.items()}
        rows.append(Row(*key, frozenset(images), interval=bootstrap_interval(scores["psnr"]), **means))
    return sorted(rows, key=lambda row: (row.task, row.protocol, row.setting, row.psnr))


def _mean(values: list) -> float | None:
    return None if None in values else float(np.mean(values))


def to_markdown(rows: list[Row]) -> str:
    """One table per comparison: best in bold, second underlined, missing as an em dash."""
    text, style = [], ("**{}**", "<u>{}</u>", "—", lambda s: s.replace("|", "\\|"), "↑", "↓")
    for caption, headings, body in _tables(rows, *style):
        lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *body]
        text.append(f"{caption}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(text)


def to_latex(rows: list[Row]) -> str:
    """The same tables for LaTeX, which needs the package booktabs."""
    text, style = [], ("\\textbf{{{}}}", "\\underline{{{}}}", "---", _escape, "$\\uparrow$", "$\\downarrow$")
    for caption, headings, body in _tables(rows, *style):
        head, *lines = (" & ".join(line) + " \\\\" for line in [headings, *body])
        start = f"\\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}"
        text.append("\n".join(["\\begin{table}", "\\centering", f"\\caption{{{caption}}}", start, "\\toprule",
                               head, "\\midrule", *lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]))
    return "\n\n".join(text)


def to_csv(rows: list[Row]) -> str:
    """All rows with full numbers, the protocol and the image count in columns; missing is empty."""
    lines = [{"task": r.task, "method": r.label, "protocol": r.protocol, "setting": ", ".join(r.setting),
              "images": len(r.images), "psnr": r.psnr, "psnr_low": r.interval[0], "psnr_high": r.interval[1],
              "ssim": r.ssim, "lpips": r.lpips, "seconds": r.seconds} for r in rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().rstrip("\n")


def _tables(rows: list[Row], best: str, second: str, missing: str, escape, up: str, down: str):
    """Yields (caption, headings, cells) per set of rows that may be ranked together."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.protocol, row.setting, row.images), []).append(row)
    for (task, protocol, setting, images), group in groups.items():
        caption = escape("; ".join([f"{task}: {protocol}", *setting, f"images {len(images)}"]) + ".")
        luma = " (Y)" * protocol.startswith("y,")
        columns = {
            "Method": [escape(r.label) for r in group],
            f"PSNR{luma} {up}": _ranked([r.psnr for r in group], 2, True, best, second, missing),
            escape("95 %"): [f"{r.interval[0]:.2f} to {r.interval[1]:.2f}" for r in group],
            f"SSIM{luma} {up}": _ranked([r.ssim for r in group], 4, True, best, second, missing),
            f"LPIPS {down}": _ranked([r.lpips for r in group], 4, False, best, second, missing),
            "s/image": [missing if r.seconds is None else f"{r.seconds:.3f}" for r in group]}
        yield caption, list(columns), [list(line) for line in zip(*columns.values())]


def _ranked(values: list, digits: int, higher: bool, best: str, second: str, missing: str) -> list[str]:
    """Formatted cells, ranked as they are shown, so that values that look equal are marked alike."""
    cells = [None if v is None else f"{v:.{digits}f}" for v in values]
    order = sorted(set(cells) - {None}, key=float, reverse=higher)
    marks = dict(zip(order, (best, second))) if len(order) > 1 else {}
    return [missing if c is None else marks.get(c, "{}").format(c) for c in cells]


def _escape(text: str) -> str:
    special = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "—": "---"}
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)
