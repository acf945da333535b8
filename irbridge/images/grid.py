"""Pictures made of pictures."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def grid(
    rows: list[list[np.ndarray]], labels: list[str] | None = None, pad: int = 2, height: int = 0
) -> np.ndarray:
    """One picture of rows of images.

    Args:
        rows: images (H, W, 3) in [0, 1]. Smaller ones are centred on white, short rows end in
            white.
        labels: captions above the columns.
        pad: the gap in pixels.
        height: of a row at least, in pixels.

    Returns:
        float32 (H, W, 3) in [0, 1].
    """
    heads = [caption(label) for label in labels or []]
    tiles = [tile for row in rows for tile in row]
    height = max(height, *(tile.shape[0] for tile in tiles))
    width = max(tile.shape[1] for tile in tiles + heads)
    columns = max(len(row) for row in rows)
    lines = [_line(row, columns, height, width) for row in rows]
    if heads:
        tallest = max(head.shape[0] for head in heads)
        lines.insert(0, _line(heads, columns, tallest, width))
    gap = (0, pad), (0, pad), (0, 0)
    spaced = []
    for line in lines:
        cells = [np.pad(cell, gap, constant_values=1) for cell in line]
        spaced.append(np.concatenate(cells, axis=1))
    return np.pad(np.concatenate(spaced), ((pad, 0), (pad, 0), (0, 0)), constant_values=1)


def _line(tiles: list[np.ndarray], columns: int, height: int, width: int) -> list[np.ndarray]:
    """The tiles on white cells of one size, and as many white cells as fill the columns."""
    blank = np.ones((height, width, 3), np.float32)
    return [_centre(tile, height, width) for tile in tiles] + [blank] * (columns - len(tiles))


def _centre(tile: np.ndarray, height: int, width: int) -> np.ndarray:
    """The tile in the middle of a white canvas (height, width, 3)."""
    canvas = np.ones((height, width, 3), np.float32)
    top, left = (height - tile.shape[0]) // 2, (width - tile.shape[1]) // 2
    canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return canvas


def caption(text: str) -> np.ndarray:
    """A text as a picture: black on white, as large as the text, in Pillow's own font."""
    font = ImageFont.load_default()
    _, _, right, bottom = font.getbbox(text)
    image = Image.new("RGB", (int(right) + 4, int(bottom) + 4), "white")
    ImageDraw.Draw(image).text((2, 2), text, "black", font)
    return np.asarray(image, dtype=np.float32) / 255
