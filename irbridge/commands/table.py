"""The command ``irbridge table``: tables, pages and plots of scored runs."""

from collections.abc import Callable
from pathlib import Path

from irbridge.commands.options import TableOptions
from irbridge.errors import UserError, unknown
from irbridge.evaluation.fid import fid_of_rows
from irbridge.evaluation.no_reference import quality_of_rows
from irbridge.evaluation.records import read_records
from irbridge.evaluation.rows import aggregate
from irbridge.own_files import check_writable, write_result, write_text_result
from irbridge.reports.contenders import contender_picture
from irbridge.reports.efficiency import budget_tables, budgets
from irbridge.reports.html_page import page
from irbridge.reports.image_tables import fid_table, quality_table
from irbridge.reports.plots import budget_plot, nfe_plot, only_dots, perception_plot
from irbridge.reports.table import by_comparison, figures, render
from irbridge.reports.task_table import by_task, task_figures

FORMATS = "md", "latex", "csv", "html", "nfe", "pd", "fid", "iqa"
PLOTS = {"nfe": nfe_plot, "pd": perception_plot}
LAYOUTS = "methods", "tasks", "budgets"
JPEG = ".jpg", ".jpeg"
PAPER = "md", "latex", "csv"
LANGUAGES = {"md": "markdown", "latex": "latex", "csv": "csv"}
# the formats that an option goes with
BELONGS = {
    "layout": ("md", "latex", "csv", "html"),
    "images": ("html",),
    "weights": ("fid",),
    "metrics": ("iqa",),
    "plot": ("md",),
    "picture": ("md",),
    "results": ("md",),
}
USAGE = "irbridge table FOLDER [format=md|latex|csv|html|nfe|pd|fid|iqa] [output=FILE]"
USAGE += " [layout=tasks]"


def table_run(options: TableOptions) -> None:
    """Make what the options ask for.

    Raises:
        UserError: an option is wrong or does not go with the others, or there are no scores.
    """
    for key in ("output", "plot", "picture"):  # before anything is computed
        if place := getattr(options, key):
            check_writable(place, key)
    if options.paper is not None:
        _deliver(_paper(options), options.output)
        return
    if len(options.folder) != 1:
        raise UserError(f"Give one folder: {USAGE}.")
    for what, given in (("The folder", options.folder[0]), ("output=", options.output)):
        if given == "":  # which Path takes for the current folder
            raise UserError(f"{what} is empty; name it, {USAGE}.")
    form, layout = options.format or "md", options.layout or "methods"
    _check(options, form, layout)
    folder = Path(options.folder[0])
    if form in PLOTS:
        if Path(options.output or "").suffix.lower() != ".png":
            raise UserError(f"format={form} draws a picture; name it with output=FILE.png.")
        _plot(form, folder, options.output)
    elif layout == "budgets":
        runs = budgets(folder, options.results or "results")
        _deliver(render(budget_tables(runs), "markdown"), options.output)
        if options.plot:
            _write("plot", options.plot, lambda path: budget_plot(runs, path))
        if options.picture:
            shown = contender_picture(runs)
            form = "JPEG" if Path(options.picture).suffix.lower() in JPEG else "PNG"
            _write("picture", options.picture, lambda path: shown.save(path, form))
    else:
        _deliver(_text(options, folder, form, layout), options.output)


def _plot(form: str, folder: Path, output: str) -> None:
    """Write one of ``PLOTS``, and say where it can show less than one expects."""
    rows = aggregate(read_records(folder))
    _write("output", output, lambda path: PLOTS[form](rows, path))
    if form == "pd" and only_dots(rows):
        print(
            "No method here has two numbers of calls, so that there are dots and no lines; score"
            " one with others as well, such as sampler.nfe=2,10."
        )


def _check(options: TableOptions, form: str, layout: str) -> None:
    """Refuse what is not known or does not go together."""
    if form not in FORMATS:
        raise unknown(f"format={form!r} is not known", form, FORMATS, f"use {', '.join(FORMATS)}")
    for key, forms in BELONGS.items():
        if getattr(options, key) is not None and form not in forms:
            raise UserError(
                f"{key}= does not go with format={form}; it goes with format={' or '.join(forms)}."
            )
    if layout not in LAYOUTS:
        fault = f"layout={layout!r} is not known"
        raise unknown(fault, layout, LAYOUTS, "use methods or tasks, or budgets")
    if layout == "budgets" and form != "md":
        raise UserError(f"layout=budgets does not go with format={form}; leave the format out.")
    if options.plot and layout != "budgets":
        raise UserError("plot= goes with layout=budgets; format=nfe draws quality against calls.")
    if options.results and layout != "budgets":
        raise UserError("results= goes with layout=budgets; elsewhere give the folder itself.")
    if options.picture and layout != "budgets":
        raise UserError(
            "picture= goes with layout=budgets; format=html shows pictures of any rows."
        )


def _text(options: TableOptions, folder: Path, form: str, layout: str) -> str:
    """The table or the page."""
    arrange = by_task if layout == "tasks" else by_comparison
    if form == "html":
        return page(folder, arrange, _count(options.images or "4"))
    if form == "fid":
        found = fid_of_rows(folder, options.weights)
        return fid_table(found, options.weights).render("markdown")
    if form == "iqa":
        names = (options.metrics or "").split(",")
        found = quality_of_rows(folder, [name for name in names if name.strip()])
        return quality_table(found).render("markdown")
    rows = aggregate(read_records(folder))
    if form == "csv":
        arrange = task_figures if layout == "tasks" else figures
    return render(arrange(rows), LANGUAGES[form])


def _paper(options: TableOptions) -> str:
    """Published figures beside those of one's own runs."""
    form = options.format or "md"
    if form not in PAPER:
        raise UserError(f"format={form!r} does not go with paper=; use {', '.join(PAPER)}.")
    for key in sorted(BELONGS.keys() - {"weights"}):
        if getattr(options, key) is not None:
            raise UserError(f"{key}= does not go with paper=; leave it out.")
    if len(options.folder) > 1:
        raise UserError(
            f"paper= takes one folder of runs, not {' '.join(options.folder)}; by default it is"
            " runs/paper."
        )
    from irbridge.reports.paper_table import paper_figures, paper_table  # late: it imports torch

    table = paper_figures if form == "csv" else paper_table
    found = table(options.paper, *options.folder, weights=options.weights)
    return found.render(LANGUAGES[form])


def _deliver(text: str, output: str | None) -> None:
    """Print a text, or write it where an output is named."""
    if output is None:
        print(text)
    else:
        write_text_result(output, text + "\n")
        print(f"Wrote: {output}")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"images={text!r} must be a whole number, 1 or more.")
    return int(text)


def _write(key: str, output: str, write: Callable[[Path], object]) -> None:
    """Let ``write`` make the file that a key names, and say so."""
    write_result(output, write, key)
    print(f"Wrote: {output}")
