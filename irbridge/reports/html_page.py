"""What people look at: one HTML page of tables and pictures, and the plot of quality against
network calls.
"""

import base64
import io
from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from irbridge.evaluation.records import Row, aggregate, read_records, record_files
from irbridge.images.arrays import to_bytes
from irbridge.images.io import read_image
from irbridge.reports.table import Style, Table, by_comparison
from irbridge.reports.task_table import rank

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
    row's folder. What is absent is said.
    """
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
    PSNR)}}.
    """
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
