"""Pictures made of pictures."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from irbridge.images.arrays import to_bytes


def grid(
    rows: list[list[np.ndarray]], labels: list[str] | None = None, pad: int = 2, height: int = 0
) -> np.ndarray:
    """One picture of rows of images.

    Args:
        rows: images (H, W, 3), all float in [0, 1] or all uint8. Smaller ones are centred on white,
            short rows end in white.
        labels: captions above the columns.
        pad: the gap in pixels.
        height: of a row at least, in pixels.

    Returns:
        (H, W, 3), uint8 where the images are, else float32 in [0, 1].
    """
    heads = [caption(label) for label in labels or []]
    tiles = [tile for row in rows for tile in row]
    height = max(height, *(tile.shape[0] for tile in tiles))
    width = max(tile.shape[1] for tile in tiles + heads)
    in_bytes = tiles[0].dtype == np.uint8
    lines = [(row, height) for row in rows]
    if heads:
        heads = [to_bytes(head) for head in heads] if in_bytes else heads
        lines.insert(0, (heads, max(head.shape[0] for head in heads)))
    columns = max(len(row) for row in rows)
    # one canvas that all are put on: photographs are large
    whole = pad + sum(tall + pad for _, tall in lines), pad + columns * (width + pad), 3
    canvas = np.full(whole, 255, np.uint8) if in_bytes else np.ones(whole, np.float32)
    top = pad
    for row, tall in lines:
        for column, tile in enumerate(row):
            down = top + (tall - tile.shape[0]) // 2
            right = pad + column * (width + pad) + (width - tile.shape[1]) // 2
            canvas[down : down + tile.shape[0], right : right + tile.shape[1]] = tile
        top += tall + pad
    return canvas


def caption(text: str) -> np.ndarray:
    """A text as a picture: black on white, as large as the text, in Pillow's own font."""
    font = ImageFont.load_default()
    _, _, right, bottom = font.getbbox(text)
    image = Image.new("RGB", (int(right) + 4, int(bottom) + 4), "white")
    ImageDraw.Draw(image).text((2, 2), text, "black", font)
    return np.asarray(image, dtype=np.float32) / 255
