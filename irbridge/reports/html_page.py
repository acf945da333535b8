"""One HTML page of tables and pictures."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from irbridge.evaluation.metrics import psnr
from irbridge.evaluation.records import read_records, record_files
from irbridge.evaluation.rows import Row, aggregate
from irbridge.evaluation.saved_images import is_own
from irbridge.images.arrays import to_bytes
from irbridge.images.io import read_image
from irbridge.reports.table import HTML, Table, by_comparison
from irbridge.reports.task_table import rank

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


@dataclass(frozen=True)
class Shot:
    """A row's picture of an image: where the row stands among the others, its file, PSNR in dB."""

    place: tuple
    path: Path
    psnr: float


@dataclass
class Pictures:
    """The saved pictures of one image: the clean one, and each row's by its label."""

    clean: Path | None = None
    rows: dict[str, Shot] = field(default_factory=dict)


def page(
    folder: str | Path,
    layout: Callable[[list[Row]], list[Table]] = by_comparison,
    count: int = 4,
) -> str:
    """One HTML page that needs nothing else: the tables, then pictures.

    Per task, data and size it shows the first ``count`` images by name with degraded, every method
    and clean, whole and in one crop enlarged, where degraded and clean differ most. Pictures are
    those that ``save_images=true`` wrote: ``<row>/<name>.png`` beside the row's records (the row
    "Degraded input" is the degraded one), and ``clean/<name>.png`` beside the row's folder. What is
    absent is said.

    Args:
        folder: of records.
        layout: of the tables.
        count: of images a task.
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
            *(table.render("html") for table in layout(rows)),
            sections,
            "</body>",
            "</html>",
        ]
    )


def _saved(folder: str | Path) -> dict[tuple[str, ...], dict[str, Pictures]]:
    """Per (task, data, size), per image name, what was saved of it."""
    found: dict[tuple[str, ...], dict[str, Pictures]] = {}
    for file, run in record_files(folder):
        for record in read_records(file):
            (row,) = aggregate([replace(record, run=run)])
            images = found.setdefault((row.task, *row.setting), {})
            image = images.setdefault(record.name, Pictures())
            path = file.parent / f"{record.name}.png"
            clean = file.parent.parent / "clean" / path.name
            if is_own(record, path):
                image.rows.setdefault(row.label, Shot(rank(row), path, row.psnr))
            if is_own(record, clean, "clean"):
                image.clean = image.clean or clean
    return found


def _section(key: tuple[str, ...], images: dict[str, Pictures], count: int) -> str:
    head = f"<h2>{HTML.escape(', '.join(key))}</h2>"
    shown = sorted(name for name, image in images.items() if image.rows)[:count]
    if not shown:
        return f"{head}\n<p>No pictures were saved; score with save_images=true.</p>"
    labels = dict.fromkeys(label for image in images.values() for label in image.rows)
    return "\n".join(
        [
            head,
            f"<p>The first {len(shown)} of {len(images)} images by name.</p>",
            *(_pictures(name, images[name], list(labels)) for name in shown),
        ]
    )


def _pictures(name: str, image: Pictures, labels: list[str]) -> str:
    """One image: degraded, the methods, clean; and in words what is absent."""
    rows = sorted((shot.place, label, shot) for label, shot in image.rows.items())
    degraded = rows[0][0][0] == 0  # METHODS begins with it
    pictures = [
        (f"{label}, {psnr.format(shot.psnr)} dB", read_image(shot.path)) for _, label, shot in rows
    ]
    absent = [] if degraded else ["the degraded image"]
    absent += [label for label in labels if label not in image.rows]
    if image.clean:
        pictures.append(("Clean", read_image(image.clean)))
    else:
        absent.append("the clean image")
    size = pictures[0][1].shape
    absent += [f"{label} (of another size)" for label, shot in pictures if shot.shape != size]
    pictures = [(caption, picture) for caption, picture in pictures if picture.shape == size]
    box = crop_box(pictures[0][1], pictures[-1][1], CROP)
    both = degraded and pictures[-1][0] == "Clean"
    ends = "degraded and clean" if both else "the first and the last picture"
    note = f"Crop where {ends} differ most." + (f" Absent: {', '.join(absent)}." if absent else "")
    figures = [
        f"<figure>{_whole(picture, box, caption)}{_enlarged(picture, box, caption)}"
        f"<figcaption>{HTML.escape(caption)}</figcaption></figure>"
        for caption, picture in pictures
    ]
    return "\n".join(
        [
            f"<h3>{HTML.escape(name)}</h3>",
            f"<p>{HTML.escape(note)}</p>",
            '<div class="pictures">',
            *figures,
            "</div>",
        ]
    )


def crop_box(first: np.ndarray, second: np.ndarray, side: int) -> tuple[int, int, int, int]:
    """The square in which two images differ most in absolute value.

    Args:
        first: float (H, W, 3) in [0, 1].
        second: likewise.
        side: of the square in pixels; less in a smaller image.

    Returns:
        (left, top, right, bottom); of equal squares the topmost, then leftmost.
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
    sides = [max(1, round(side * scale)) for side in image.size]
    small = image.resize(sides, Image.Resampling.LANCZOS)
    left, top, right, bottom = (int(edge * scale) for edge in box)
    frame = left, top, max(left, right - 1), max(top, bottom - 1)
    ImageDraw.Draw(small).rectangle(frame, outline="red")
    size = f'width="{small.width}" height="{small.height}"'
    return _inline(small, "JPEG", f'alt="{HTML.escape(caption)}" {size}')


def _enlarged(picture: np.ndarray, box: tuple, caption: str) -> str:
    """The crop, shown enlarged; a PNG inside the page."""
    crop = Image.fromarray(to_bytes(picture)).crop(box)
    return _inline(crop, "PNG", f'alt="Crop of {HTML.escape(caption)}" class="crop"')


def _inline(image: Image.Image, form: str, attributes: str) -> str:
    data = io.BytesIO()
    image.save(data, format=form, **({"quality": 88} if form == "JPEG" else {}))
    text = base64.b64encode(data.getvalue()).decode()
    return f'<img src="data:image/{form.lower()};base64,{text}" {attributes}>'
