"""A picture of what the runs of a comparison restored, beside one another."""

from pathlib import Path

import numpy as np
from PIL import Image

from irbridge.errors import UserError
from irbridge.evaluation.saved_images import is_own
from irbridge.images.arrays import to_bytes
from irbridge.images.grid import caption, grid
from irbridge.images.io import read_image
from irbridge.reports.efficiency import DEGRADED, Budget

SMALL = 100  # pixels; images of a smaller side are shown twice as large


def contender_picture(rows: list[Budget], count: int = 8) -> Image.Image:
    """What every recipe of the largest budget restored: a line each, with degraded and clean.

    Args:
        rows: of one folder of runs; of several seeds the first is shown.
        count: of images, the first by name that all of a task's recipes saved.

    Raises:
        UserError: no image was saved, or none by all.
    """
    labels, lines = [], []
    for task in sorted({row.task for row in rows}):
        own = [row for row in rows if row.task == task]
        most = max(row.images for row in own)
        # degraded images are of any budget, as nothing is trained for them
        shown = [row for row in own if row.images == most or row.recipe == DEGRADED]
        first = {row.recipe: row for row in sorted(shown, key=_order, reverse=True)}
        ordered = sorted(first.values(), key=lambda row: row.recipe != DEGRADED)
        for label, line in _lines(task, ordered, count).items():
            labels.append([caption(f"{task}: {label}")])
            lines.append(line)
    tallest = max(tile.shape[0] for line in labels + lines for tile in line)
    columns = [grid(column, height=tallest) for column in (labels, lines)]
    return Image.fromarray(to_bytes(np.concatenate(columns, axis=1)))


def _order(row: Budget) -> tuple[int, int]:
    """Of two rows the first is shown."""
    return -row.images, row.seed


def _lines(task: str, rows: list[Budget], count: int) -> dict[str, list[np.ndarray]]:
    """A task's lines by their label, clean last."""
    saved = [
        {r.name for r in row.records if is_own(r, row.folder / f"{r.name}.png")} for row in rows
    ]
    names = sorted(set.intersection(*saved))[:count]
    if not names:
        raise UserError(
            f"No image of {task} was saved by all recipes; score them with save_images=true."
        )
    folders = {row.recipe: row.folder for row in rows} | {"clean": rows[0].folder.parent / "clean"}
    return {
        label: [_shot(folder / f"{name}.png") for name in names]
        for label, folder in folders.items()
    }


def _shot(path: Path) -> np.ndarray:
    """A saved image, a small one twice as large."""
    image = read_image(path)
    return image.repeat(2, 0).repeat(2, 1) if max(image.shape[:2]) < SMALL else image
