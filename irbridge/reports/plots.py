"""Plots: scores against the training budget, and against network calls."""

import re
from pathlib import Path

import numpy as np

from irbridge.errors import UserError
from irbridge.evaluation.metrics import STANDARD, Metric
from irbridge.evaluation.rows import Row
from irbridge.files import write_atomically
from irbridge.reports.efficiency import UNTRAINED, Budget
from irbridge.reports.table import comparisons
from irbridge.reports.task_table import line_up

PSNR, _, LPIPS = STANDARD
PLOTTED = PSNR, LPIPS
BUDGETS = {"images": "training images seen", "seconds": "seconds of one core"}
PANELS = ("images", PSNR), ("images", LPIPS), ("seconds", PSNR), ("seconds", LPIPS)
CALLS = re.compile(r",?\s*(\d+) calls?\b")  # of a row's label
MOST_BANDS = 6  # more bands would hide each other


def _pyplot():
    """matplotlib, without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure, path: Path, dpi: int) -> None:
    write_atomically(Path(path), lambda aside: figure.savefig(aside, dpi=dpi, format="png"))
    _pyplot().close(figure)


def axis_label(metric: Metric) -> str:
    """Such as "PSNR, dB"."""
    return f"{metric.name}, {metric.unit}" if metric.unit else metric.name


def budget_plot(rows: list[Budget], path: Path) -> None:
    """PNG: PSNR and LPIPS against images seen and against core seconds.

    One line is a recipe, through its means; one dot is a seed. What is not trained has no budget.
    """
    rows = [row for row in rows if row.recipe not in UNTRAINED]
    plt = _pyplot()
    tasks = sorted({row.task for row in rows})
    recipes = list(dict.fromkeys(row.recipe for row in rows))
    marks = _marks(dict.fromkeys(recipes))
    size = (4 * len(PANELS) + 3, max(3.6 * len(tasks), 0.22 * len(marks)))
    figure, axes = plt.subplots(
        len(tasks), len(PANELS), figsize=size, squeeze=False, layout="constrained"
    )
    for task, line in zip(tasks, axes, strict=True):
        for axis, (across, metric) in zip(line, PANELS, strict=True):
            for recipe in recipes:
                own = [r for r in rows if (r.task, r.recipe) == (task, recipe)]
                _draw_budgets(axis, own, across, metric, marks[recipe])
            axis.set(xscale="log", xlabel=BUDGETS[across], ylabel=axis_label(metric), title=task)
            axis.tick_params(axis="x", which="minor", labelbottom=False)
            if across == "images":
                counts = sorted({row.images for row in rows if row.task == task})
                axis.set_xticks(counts, map(str, counts))
            axis.grid(alpha=0.3)
    _legend(figure, marks)
    _save(figure, path, 80)


def _draw_budgets(
    axis, rows: list[Budget], across: str, metric: Metric, mark: dict[str, str]
) -> None:
    """A recipe's line and dots in one panel."""
    scored = [row for row in rows if row.scores.get(metric.key) is not None]
    points = [(getattr(row, across), row.scores[metric.key]) for row in scored]
    means = []
    for count in sorted({row.images for row in scored}):
        at = [point for row, point in zip(scored, points, strict=True) if row.images == count]
        means.append(np.mean(at, axis=0))
    axis.plot(*np.reshape(means, (-1, 2)).T, **mark)
    axis.plot(*np.reshape(points, (-1, 2)).T, ".", color=mark["color"])


def nfe_plot(rows: list[Row], path: str | Path) -> None:
    """PNG: mean PSNR and LPIPS against network calls.

    One line is a method, with its 95 % band where there are few; one column of panels is a task and
    set of images.

    Raises:
        UserError: if no row has a number of calls.
    """
    counted = [row for row in rows if row.nfe is not None]
    if not counted:
        raise UserError(
            'No record says its number of network calls ("nfe"), so there is nothing to draw; score'
            " again."
        )
    plt = _pyplot()
    panels = comparisons(counted)
    lines = [nfe_lines(panel) for panel in panels]
    marks = _marks(dict.fromkeys(label for by_label in lines for label in by_label))
    figure, axes = plt.subplots(
        2,
        len(panels),
        figsize=(5 * len(panels) + 3, max(7, 0.17 * len(marks))),
        squeeze=False,
        layout="constrained",
    )
    for panel, by_label, column in zip(panels, lines, axes.T, strict=True):
        for axis, metric in zip(column, PLOTTED, strict=True):
            _draw_panel(axis, by_label, metric, marks)
            calls = sorted({row.nfe for row in panel})
            axis.set_xticks(calls, map(str, calls))
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        setting = "; ".join([panel[0].task, *panel[0].setting, f"images {len(panel[0].images)}"])
        column[0].set_title(f"{setting}\n{panel[0].protocol}", fontsize=9, parse_math=False)
    _legend(figure, marks)
    _save(figure, Path(path), 90)


def perception_plot(rows: list[Row], path: str | Path) -> None:
    """PNG: mean LPIPS against PSNR, the trade of perception and distortion.

    One line is a method at several numbers of network calls, which stand beside its points, and one
    panel is a task and set of images.

    Raises:
        UserError: if no row has both scores.
    """
    scored = [row for row in rows if None not in [row.scores.get(m.key) for m in PLOTTED]]
    if not scored:
        raise UserError(
            "No record has both PSNR and LPIPS, so there is nothing to draw; score again."
        )
    panels = comparisons(scored)
    lines = [perception_lines(panel) for panel in panels]
    marks = _marks(dict.fromkeys(label for by_label in lines for label in by_label))
    names = max(3, 0.08 * max(map(len, marks)))  # inches of the legend beside the panels
    figure, axes = _pyplot().subplots(
        1, len(panels), figsize=(6 * len(panels) + names, 5), squeeze=False, layout="constrained"
    )
    for panel, by_label, axis in zip(panels, lines, axes[0], strict=True):
        for label, points in by_label.items():
            across, up = zip(*(point for _, point in points), strict=True)
            axis.plot(across, up, marker="o", markersize=4, **marks[label])
            for calls, point in points:
                axis.annotate(calls, point, (3, 3), textcoords="offset points", fontsize=7)
        psnr, lpips = map(axis_label, PLOTTED)
        axis.set(xlabel=f"{psnr}, higher is better", ylabel=f"{lpips}, lower is better")
        axis.grid(alpha=0.3)
        setting = "; ".join([panel[0].task, *panel[0].setting, f"images {len(panel[0].images)}"])
        axis.set_title(f"{setting}\n{panel[0].protocol}", fontsize=9, parse_math=False)
    _legend(figure, marks)
    _save(figure, Path(path), 90)


def only_dots(rows: list[Row]) -> bool:
    """Whether :func:`perception_plot` draws no line, as no method has two numbers of calls."""
    scored = [row for row in rows if None not in [row.scores.get(m.key) for m in PLOTTED]]
    lines = [perception_lines(panel) for panel in comparisons(scored)]
    return all(len(points) < 2 for by_label in lines for points in by_label.values())


def perception_lines(panel: list[Row]) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """The points of one comparison by run, and by what rows are called without network calls.

    Returns:
        By label the calls of one draw, "" where there are none, and (PSNR, LPIPS); by calls.
    """
    lines: dict[str, dict[int, tuple[float, ...]]] = {}
    for row in panel:
        found = CALLS.search(row.row)
        calls = int(found[1]) if found else row.nfe or 0
        point = tuple(row.scores[metric.key] for metric in PLOTTED)
        label = CALLS.sub("", row.row) + (f" [{row.run}]" if row.run else "")
        lines.setdefault(label, {})[calls] = point
    return {
        label: [(str(calls or ""), points[calls]) for calls in sorted(points)]
        for label, points in lines.items()
    }


def _legend(figure, marks: dict[str, dict[str, str]]) -> None:
    """The names of the lines, beside the panels."""
    line = _pyplot().Line2D
    drawn = [line([], [], marker="o", markersize=4, **mark) for mark in marks.values()]
    legend = figure.legend(drawn, list(marks), loc="outside right upper", fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may hold dollar signs


def _marks(labels: dict[str, None]) -> dict[str, dict[str, str]]:
    """Colour and dashes of each line."""
    styles = "-", "--", ":", "-."
    return {
        label: {"color": f"C{i % 10}", "linestyle": styles[i // 10 % 4]}
        for i, label in enumerate(labels)
    }


def _draw_panel(
    axis, by_label: dict[str, list[Row]], metric: Metric, marks: dict[str, dict[str, str]]
) -> None:
    """The lines of one comparison's score."""
    for label, points in by_label.items():
        scored = [row for row in points if row.scores.get(metric.key) is not None]
        across = [row.nfe for row in scored]
        means = [row.scores[metric.key] for row in scored]
        axis.plot(across, means, marker="o", markersize=4, **marks[label])
        if scored and len(by_label) <= MOST_BANDS:
            low, high = zip(*(row.bounds(metric.key) for row in scored), strict=True)
            axis.fill_between(across, low, high, color=marks[label]["color"], alpha=0.12)
    better = "higher" if metric.higher_is_better else "lower"
    axis.set(
        xscale="log", xlabel="network calls", ylabel=f"{axis_label(metric)}, {better} is better"
    )


def nfe_lines(panel: list[Row]) -> dict[str, list[Row]]:
    """Rows of one comparison by method, sorted by their network calls.

    Settings are named where one method has several.
    """

    def bare(row: Row) -> str:
        return re.sub(rf",?\s*{row.nfe} calls?\b", "", row.row)

    labels = (
        lambda r: r.name if r.method else bare(r),
        bare,
        lambda r: bare(r) + (f" [{r.run}]" if r.run else ""),
    )
    lines: dict[str, list[Row]] = {}
    counts = sorted({row.nfe for row in panel})
    columns = [[row for row in panel if row.nfe == calls] for calls in counts]
    for column in line_up(columns, labels):
        for label, row in column.items():
            lines.setdefault(label, []).append(row)
    return lines
