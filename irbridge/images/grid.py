"""Pictures made of pictures."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def grid(rows: list[list[np.ndarray]], labels: list[str] | None = None, pad: int = 2) -> np.ndarray:
    """One picture (H, W, 3) in [0, 1], float32, of rows of images alike, captions above the
    columns. Smaller tiles are centred on white, short rows end in white; ``pad`` is the gap in
    pixels.
    """
    heads = [_caption(label) for label in labels or []]
    tiles = [tile for row in rows for tile in row]
    height = max(tile.shape[0] for tile in tiles)
    width = max(tile.shape[1] for tile in tiles + heads)
    columns = max(len(row) for row in rows)
    blank = np.ones((height, width, 3), np.float32)
    lines = [
        [_centre(t, height, width) for t in row] + [blank] * (columns - len(row)) for row in rows
    ]
    if heads:
        tallest = max(head.shape[0] for head in heads)
        top = [_centre(head, tallest, width) for head in heads]
        lines = [top + [blank[:1].repeat(tallest, 0)] * (columns - len(top)), *lines]
    gap = (0, pad), (0, pad), (0, 0)
    lines = [
        np.concatenate([np.pad(t, gap, constant_values=1) for t in line], axis=1) for line in lines
    ]
    return np.pad(np.concatenate(lines), ((pad, 0), (pad, 0), (0, 0)), constant_values=1)


def _centre(tile: np.ndarray, height: int, width: int) -> np.ndarray:
    canvas = np.ones((height, width, 3), np.float32)
    top, left = (height - tile.shape[0]) // 2, (width - tile.shape[1]) // 2
    canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return canvas


def _caption(text: str) -> np.ndarray:
    """Black on white, as large as the text, in Pillow's own font."""
    font = ImageFont.load_default()
    _, _, right, bottom = font.getbbox(text)
    image = Image.new("RGB", (int(right) + 4, int(bottom) + 4), "white")
    ImageDraw.Draw(image).text((2, 2), text, "black", font)
    return np.asarray(image, dtype=np.float32) / 255
