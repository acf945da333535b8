"""What people look at: one HTML page of tables and pictures, and the plot of quality against
network calls."""

import base64
import io
import re
from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from irbridge.errors import UserError
from irbridge.images import read_image, to_bytes
from irbridge.tables import (
    SCORES,
    Row,
    Style,
    Table,
    aggregate,
    by_comparison,
    comparisons,
    read_records,
    record_files,
)
from irbridge.task_tables import line_up, rank

STYLE = Style("<b>{}</b>", "<u>{}</u>", "—", "↑", "↓", " ±", escape)
# pixels: longest side of a whole image, side of a crop, its height on the page
THUMB, CROP, SHOWN = 256, 48, 192
CSS = f"""body {{ font: 15px sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; margin: 1em 0; }}
caption {{ text-align: left; padding: .4em 0; }}
th, td {{ padding: .25em .7em; text-align: right; white-space: nowrap; }}
th, td {{ border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
.pictures {{ display: flex; flex-wrap: wrap; gap: .8em; margin-bottom: 2em; }}
figure {{ margin: 0; max-width: {THUMB}px; }}
figcaption {{ font-size: .85em; overflow-wrap: anywhere; }}
img {{ display: block; margin-top: .3em; }}
.crop {{ height: {SHOWN}px; image-rendering: pixelated; }}"""


def page(
    folder: str | Path,
    layout: Callable[[list[Row], Style], list[Table]] = by_comparison,
    count: int = 4,
) -> str:
    """One HTML page that needs nothing else: the tables, then per task, data and size the first
    ``count`` images by name with degraded, every method and clean, whole and in one crop enlarged,
    where degraded and clean differ most.

    Pictures are those that ``save_images=true`` wrote: ``<row>/<name>.png`` beside the row's
    records (the row "Degraded input" is the degraded one), and ``clean/<name>.png`` beside the
    row's folder. What is absent is said."""
    rows = aggregate(read_records(folder))
    sections = "\n".join(_section(key, images, count) for key, images in _saved(folder).items())
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            "<title>Restored images and scores</title>",
            f"<style>{CSS}</style>",
            "</head>",
            "<body>",
            "<h1>Restored images and scores</h1>",
            *(_table(table) for table in layout(rows, STYLE)),
            sections,
            "</body>",
            "</html>",
        ]
    )


def _table(table: Table) -> str:
    above = ""
    if table.groups:
        above = (
            "<tr><th></th>"
            + "".join(f'<th colspan="{n}">{title}</th>' for title, n in table.groups)
            + "</tr>\n"
        )
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in table.body]
    heads = "<tr>" + "".join(f"<th>{h}</th>" for h in table.headings) + "</tr>"
    return "\n".join(
        [
            f"<table>\n<caption>{table.caption}</caption>",
            f"<thead>\n{above}{heads}\n</thead>",
            "<tbody>",
            *lines,
            "</tbody>\n</table>",
        ]
    )


def _saved(folder: str | Path) -> dict[tuple, dict[str, dict]]:
    """Per (task, data, size), per image name: {"clean": path or None, "rows": {label: (rank, path,
    PSNR)}}."""
    found: dict[tuple, dict[str, dict]] = {}
    for file, run in record_files(folder):
        for record in read_records(file):
            name, (row,) = record["name"], aggregate([record | {"run": run}])
            image = found.setdefault((row.task, *row.setting), {}).setdefault(
                name, {"clean": None, "rows": {}}
            )
            if (path := file.parent / f"{name}.png").is_file():
                image["rows"].setdefault(row.label, (rank(row), path, row.psnr))
            if (clean := file.parent.parent / "clean" / f"{name}.png").is_file():
                image["clean"] = image["clean"] or clean
    return found


def _section(key: tuple, images: dict[str, dict], count: int) -> str:
    head = f"<h2>{escape(', '.join(key))}</h2>"
    shown = sorted(name for name, image in images.items() if image["rows"])[:count]
    if not shown:
        return f"{head}\n<p>No pictures were saved; score with save_images=true.</p>"
    labels = dict.fromkeys(label for image in images.values() for label in image["rows"])
    return "\n".join(
        [
            head,
            f"<p>The first {len(shown)} of {len(images)} images by name.</p>",
            *(_pictures(name, images[name], list(labels)) for name in shown),
        ]
    )


def _pictures(name: str, image: dict, labels: list[str]) -> str:
    """One image: degraded, the methods, clean; and in words what is absent."""
    rows = sorted(
        (place, label, path, psnr) for label, (place, path, psnr) in image["rows"].items()
    )
    degraded = rows[0][0][0] == 0  # METHODS begins with it
    absent = ["the degraded image"] * (not degraded) + [x for x in labels if x not in image["rows"]]
    pictures = [(f"{label}, {psnr:.2f} dB", read_image(path)) for _, label, path, psnr in rows]
    if image["clean"]:
        pictures.append(("Clean", read_image(image["clean"])))
    else:
        absent.append("the clean image")
    size = pictures[0][1].shape
    absent += [
        f"{caption} (of another size)" for caption, picture in pictures if picture.shape != size
    ]
    pictures = [(caption, picture) for caption, picture in pictures if picture.shape == size]
    box = crop_box(pictures[0][1], pictures[-1][1], CROP)
    ends = (
        "degraded and clean"
        if degraded and pictures[-1][0] == "Clean"
        else "the first and the last picture"
    )
    note = f"Crop where {ends} differ most." + (f" Absent: {', '.join(absent)}." if absent else "")
    figures = [
        f"<figure>{_whole(picture, box, caption)}{_enlarged(picture, box, caption)}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, picture in pictures
    ]
    return "\n".join(
        [
            f"<h3>{escape(name)}</h3>",
            f"<p>{escape(note)}</p>",
            '<div class="pictures">',
            *figures,
            "</div>",
        ]
    )


def crop_box(first: np.ndarray, second: np.ndarray, side: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the square of ``side`` pixels, or less in a smaller image, in
    which two float (H, W, 3) differ most in absolute value; the topmost, then leftmost, of equals.
    """
    height, width = min(side, first.shape[0]), min(side, first.shape[1])
    difference = np.abs(to_bytes(first).astype(int) - to_bytes(second)).sum(axis=-1)
    total = np.pad(difference, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = (
        total[height:, width:]
        - total[:-height, width:]
        - total[height:, :-width]
        + total[:-height, :-width]
    )
    top, left = (int(i) for i in np.unravel_index(np.argmax(inside), inside.shape))
    return left, top, left + width, top + height


def _whole(picture: np.ndarray, box: tuple, caption: str) -> str:
    """The image, at most ``THUMB`` pixels a side, with the crop framed; a JPEG inside the page."""
    image = Image.fromarray(to_bytes(picture))
    scale = min(1, THUMB / max(image.size))
    small = image.resize(
        [max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS
    )
    left, top, right, bottom = (int(edge * scale) for edge in box)
    ImageDraw.Draw(small).rectangle(
        (left, top, max(left, right - 1), max(top, bottom - 1)), outline="red"
    )
    return _inline(
        small, "JPEG", f'alt="{escape(caption)}" width="{small.width}" height="{small.height}"'
    )


def _enlarged(picture: np.ndarray, box: tuple, caption: str) -> str:
    return _inline(
        Image.fromarray(to_bytes(picture)).crop(box),
        "PNG",
        f'alt="Crop of {escape(caption)}" class="crop"',
    )


def _inline(image: Image.Image, form: str, attributes: str) -> str:
    data = io.BytesIO()
    image.save(data, format=form, **({"quality": 88} if form == "JPEG" else {}))
    return (
        f'<img src="data:image/{form.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"'
        f" {attributes}>"
    )


def nfe_plot(rows: list[Row], path: str | Path) -> None:
    """PNG: mean PSNR and LPIPS against network calls, one line a method (with its 95 % band where
    there are few), one column of panels per task and set of images. UserError if no row has a
    number of calls."""
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
    their network calls."""

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
