"""Plots."""

import re
from pathlib import Path

import numpy as np

from irbridge.errors import UserError
from irbridge.evaluation.records import SCORES, Row
from irbridge.reports.table import comparisons
from irbridge.reports.task_table import line_up


def budget_plot(rows: list[dict], path: Path) -> None:
    """PNG: PSNR and LPIPS against images seen and against core seconds, one line a contender, one
    dot a seed.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks, panels = (
        sorted({r["task"] for r in rows}),
        [("images", "psnr"), ("images", "lpips"), ("seconds", "psnr")],
    )
    labels = {
        "images": "training images seen",
        "seconds": "seconds of one core",
        "psnr": "PSNR, dB",
        "lpips": "LPIPS",
    }
    figure, axes = plt.subplots(len(tasks), 3, figsize=(13, 3.6 * len(tasks)), squeeze=False)
    for task, line in zip(tasks, axes):
        for axis, (across, up) in zip(line, panels):
            for contender in dict.fromkeys(r["contender"] for r in rows):
                own = [r for r in rows if (r["task"], r["contender"]) == (task, contender)]
                counts = sorted({r["images"] for r in own})
                means = [
                    [np.mean([r[k] for r in own if r["images"] == n]) for n in counts]
                    for k in (across, up)
                ]
                drawn = axis.plot(*means, label=contender)
                axis.plot(
                    [r[across] for r in own], [r[up] for r in own], ".", color=drawn[0].get_color()
                )
            axis.set(xscale="log", xlabel=labels[across], ylabel=labels[up], title=task)
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def nfe_plot(rows: list[Row], path: str | Path) -> None:
    """PNG: mean PSNR and LPIPS against network calls, one line a method (with its 95 % band where
    there are few), one column of panels per task and set of images. UserError if no row has a
    number of calls.
    """
    counted = [row for row in rows if row.nfe is not None]
    if not counted:
        raise UserError(
            'No record says its number of network calls ("nfe"), so there is nothing to draw; score'
            " again."
        )
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = comparisons(counted)
    lines = [nfe_lines(panel) for panel in panels]
    marks = {
        label: {"color": f"C{i % 10}", "linestyle": ("-", "--", ":", "-.")[i // 10 % 4]}
        for i, label in enumerate(dict.fromkeys(label for by_label in lines for label in by_label))
    }
    figure, axes = plt.subplots(
        2,
        len(panels),
        figsize=(5 * len(panels) + 3, max(7, 0.17 * len(marks))),
        squeeze=False,
        layout="constrained",
    )
    for panel, by_label, column in zip(panels, lines, axes.T):
        calls = sorted({r.nfe for r in panel})
        for axis, score in zip(column, ("psnr", "lpips")):
            for label, points in by_label.items():
                scored = [r for r in points if getattr(r, score) is not None]
                across = [r.nfe for r in scored]
                axis.plot(
                    across,
                    [getattr(r, score) for r in scored],
                    marker="o",
                    markersize=4,
                    **marks[label],
                )
                if scored and len(by_label) <= 6:  # more bands would hide each other
                    bounds = zip(*(r.bounds(score) for r in scored))
                    axis.fill_between(across, *bounds, color=marks[label]["color"], alpha=0.12)
            name, _, higher = SCORES[score]
            axis.set(
                xscale="log",
                xlabel="network calls",
                ylabel=(
                    f"{name}{', dB' * (score == 'psnr')}, "
                    f"{'higher' if higher else 'lower'} is better"
                ),
            )
            axis.set_xticks(calls, map(str, calls))
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        setting = "; ".join([panel[0].task, *panel[0].setting, f"images {len(panel[0].images)}"])
        column[0].set_title(f"{setting}\n{panel[0].protocol}", fontsize=9, parse_math=False)
    drawn = [plt.Line2D([], [], marker="o", markersize=4, **mark) for mark in marks.values()]
    for text in figure.legend(
        drawn, list(marks), loc="outside right upper", fontsize=8
    ).get_texts():
        text.set_parse_math(False)  # a name may hold dollar signs
    figure.savefig(path, dpi=90, format="png")
    plt.close(figure)


def nfe_lines(panel: list[Row]) -> dict[str, list[Row]]:
    """Rows of one comparison by method, settings named where one method has several, sorted by
    their network calls.
    """

    def bare(row: Row) -> str:
        return re.sub(rf",?\s*{row.nfe} calls?\b", "", row.row)

    labels = (
        lambda r: r.name if r.method else bare(r),
        bare,
        lambda r: bare(r) + (f" [{r.run}]" if r.run else ""),
    )
    lines: dict[str, list[Row]] = {}
    columns = [
        [row for row in panel if row.nfe == calls] for calls in sorted({row.nfe for row in panel})
    ]
    for column in line_up(columns, labels):
        for label, row in column.items():
            lines.setdefault(label, []).append(row)
    return lines
