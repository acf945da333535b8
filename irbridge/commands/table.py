"""The command that makes tables, pages and plots: FOLDER [format=...] [output=FILE] [layout=tasks]
[paper=NAME] ...

FOLDER is a run, its results, or a folder of runs. What is text is printed where no output is named.

format=md, latex, csv    tables with 95 % intervals; layout=tasks makes one row per method and three
columns per task format=html              the tables, then pictures with enlarged crops: images=N a
task, 4 by default format=nfe               a PNG of quality against network calls format=fid
FID of each row's saved images: weights=FILE of the Inception network format=iqa
scores without a reference: metrics=niqe,musiq paper=table1             published figures beside
those of the runs of configs/experiment/paper, by default in runs/paper; also
                         table3, table4, fig11; format=md, latex, csv; weights=FILE: with FID where
                         images are saved
"""

from pathlib import Path

from irbridge.errors import UserError
from irbridge.evaluation.fid import fid_of_rows
from irbridge.evaluation.no_reference import quality_of_rows
from irbridge.evaluation.records import read_records
from irbridge.evaluation.rows import aggregate
from irbridge.reports.html_page import page
from irbridge.reports.image_tables import fid_table, quality_table
from irbridge.reports.plots import nfe_plot
from irbridge.reports.table import by_comparison, figures, render
from irbridge.reports.task_table import by_task, task_figures

FORMATS = "md", "latex", "csv", "html", "nfe", "fid", "iqa"
PAPER = "md", "latex", "csv"
LANGUAGES = {"md": "markdown", "latex": "latex", "csv": "csv"}
BELONGS = {
    "layout": ("md", "latex", "csv", "html"),
    "images": ("html",),
    "weights": ("fid",),
    "metrics": ("iqa",),
}
USAGE = "make_tables.py FOLDER [format=md|latex|csv|html|nfe|fid|iqa] [output=FILE] [layout=tasks]"


def main(words: list[str]) -> None:
    """Make what the words ask for, as above; UserError names a wrong word and the choices."""
    folders = [w for w in words if "=" not in w]
    options = dict(w.split("=", 1) for w in words if "=" in w)
    if unknown := sorted(options.keys() - {"format", "output", "paper", *BELONGS}):
        raise UserError(
            f"{unknown[0]!r} is not a key; the keys are format and output, then"
            f" {', '.join(BELONGS)}, paper."
        )
    if "paper" in options:
        _deliver(_paper(folders, options), options)
        return
    if len(folders) != 1:
        raise UserError(f"Give one folder: {USAGE}.")
    folder, form, layout = (
        Path(folders[0]),
        options.get("format", "md"),
        options.get("layout", "methods"),
    )
    if form not in FORMATS:
        raise UserError(f"format={form!r} is not known; use {', '.join(FORMATS)}.")
    if wrong := [k for k in BELONGS if k in options and form not in BELONGS[k]]:
        fitting = " or ".join(BELONGS[wrong[0]])
        raise UserError(
            f"{wrong[0]}= does not go with format={form}; it goes with format={fitting}."
        )
    if layout not in ("methods", "tasks"):
        raise UserError(f"layout={layout!r} is not known; use methods or tasks.")
    arrange = by_task if layout == "tasks" else by_comparison
    if form == "nfe":
        if Path(options.get("output", "")).suffix.lower() != ".png":
            raise UserError("format=nfe draws a picture; name it with output=FILE.png.")
        rows = aggregate(read_records(folder))
        _write(options["output"], lambda p: nfe_plot(rows, p))
        return
    if form == "html":
        text = page(folder, arrange, _count(options.get("images", "4")))
    elif form == "fid":
        weights = options.get("weights")
        text = fid_table(fid_of_rows(folder, weights), weights).render("markdown")
    elif form == "iqa":
        metrics = [m for m in options.get("metrics", "").split(",") if m.strip()]
        text = quality_table(quality_of_rows(folder, metrics)).render("markdown")
    else:
        rows = aggregate(read_records(folder))
        if form == "csv":
            arrange = task_figures if layout == "tasks" else figures
        text = render(arrange(rows), LANGUAGES[form])
    _deliver(text, options)


def _paper(folders: list[str], options: dict) -> str:
    form = options.get("format", "md")
    if form not in PAPER:
        raise UserError(f"format={form!r} does not go with paper=; use {', '.join(PAPER)}.")
    if wrong := sorted(options.keys() - {"format", "output", "paper", "weights"}):
        raise UserError(f"{wrong[0]}= does not go with paper=; leave it out.")
    if len(folders) > 1:
        raise UserError(
            f"paper= takes one folder of runs, not {' '.join(folders)}; by default it is"
            " runs/paper."
        )
    from irbridge.reports.paper_table import paper_figures, paper_table  # late: it imports torch

    table = paper_figures if form == "csv" else paper_table
    found = table(options["paper"], *folders, weights=options.get("weights"))
    return found.render(LANGUAGES[form])


def _deliver(text: str, options: dict) -> None:
    if "output" in options:
        _write(options["output"], lambda p: p.write_text(text + "\n", encoding="utf-8"))
    else:
        print(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"images={text!r} must be a whole number, 1 or more.")
    return int(text)


def _write(output: str, write) -> None:
    try:
        write(Path(output))
        print(f"Wrote: {output}")
    except OSError as error:
        reason = f"output={output!r} cannot be written ({error.strerror})"
        raise UserError(f"{reason}; choose a writable place.") from error
