"""Holes for inpainting: ``KINDS[kind](shape, share, rng)`` is bool (H, W), True in the holes.

Marks are drawn until ``share`` of the image is missing, which the last ones may exceed. Their sizes
are in pixels, save that none is wide for a small image; ``scale`` multiplies them, for images that
are smaller as a whole. The kinds that are no marks, from half on, have a share of their own.

A mark is a function ``mark(pen, shape, rng)`` that draws with Pillow's pen on a canvas of the
shape.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

ROUNDS = 1000  # of marks at most: where an image is so small that they miss it


def draw_marks(shape, share: float, mark: Callable, rng: np.random.Generator) -> np.ndarray:
    """Draw marks in rounds until the share is masked.

    Args:
        shape: (H, W) of the image.
        share: of it to be masked, 0 to 1.
        mark: draws one mark; it is called once per 2 ** 16 pixels in a round.
        rng: draws the marks.

    Returns:
        bool (H, W), True where there are marks.
    """
    canvas = Image.new("L", shape[::-1])
    pen = ImageDraw.Draw(canvas)
    marks_a_round = 1 + shape[0] * shape[1] // 2**16
    for _ in range(ROUNDS):
        if np.asarray(canvas).mean() >= 255 * min(share, 0.95):
            break
        for _ in range(marks_a_round):
            mark(pen, shape, rng)
    return np.asarray(canvas) > 0


def walk(width, steps, stride, turn, narrowest=8) -> Callable:
    """A mark: a brush along a random walk.

    Args:
        width: range of the brush's width, pixels.
        steps: range of the number of steps, the end excluded.
        stride: range of a step's length, in widths.
        turn: std of the turn from step to step, radians.
        narrowest: the width is at most this part of the shorter side: 8 is an eighth.
    """

    def mark(pen, shape, rng):
        brush = max(1, min(rng.uniform(*width), min(shape) / narrowest))
        count = rng.integers(*steps)
        headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, turn, count))
        directions = np.stack([np.cos(headings), np.sin(headings)], 1)
        moves = directions * brush * rng.uniform(*stride, (count, 1))
        points = rng.uniform(0, shape[::-1]) + np.cumsum(moves, 0)
        pen.line(points.ravel().tolist(), fill=255, width=round(brush), joint="curve")
        for x, y in (points[0], points[-1]):
            pen.ellipse([x - brush / 2, y - brush / 2, x + brush / 2, y + brush / 2], fill=255)

    return mark


def brush(shape, share, rng, width=(3, 24), scale=1.0):
    """Free-form strokes of moderate width (Yu et al., ICCV 2019)."""
    width = np.multiply(width, scale)
    return draw_marks(shape, share, walk(width, (2, 6), (0.5, 2), 0.8), rng)


def thin(shape, share, rng, scale=1.0):
    """Narrow polylines with sharp bends, as the thin masks of LaMa (Suvorov et al., WACV 2022)."""
    width = np.multiply((2, 7), scale)
    return draw_marks(shape, share, walk(width, (1, 6), (3, 12), 1.0), rng)


def thick(shape, share, rng, scale=1.0):
    """A few wide strokes and boxes, as the thick masks of LaMa."""
    width = np.multiply((25, 70), scale)
    kinds = walk(width, (2, 4), (0.5, 1.5), 0.8, narrowest=4), box(scale)

    def mark(pen, shape, rng):
        kinds[rng.random() >= 0.5](pen, shape, rng)

    return draw_marks(shape, share, mark, rng)


def box(scale=1.0) -> Callable:
    """A mark: a rectangle of 8 to 100 pixels, at most half the image, a side."""
    low, high = 8 * scale, 100 * scale

    def mark(pen, shape, rng):
        sides = np.minimum(rng.uniform(low, high, 2), np.array(shape[::-1]) / 2)
        corner = rng.uniform(-sides / 2, np.array(shape[::-1]) - sides / 2)
        pen.rectangle([*np.floor(corner), *np.floor(corner + sides)], fill=255)

    return mark


def boxes(shape, share, rng, scale=1.0):
    """Rectangles."""
    return draw_marks(shape, share, box(scale), rng)


def scratches(shape, share, rng, scale=1.0):
    """Long, slightly bent lines, 1 to 3 pixels wide, all roughly along one direction.

    They get a third of the share.
    """
    along = rng.uniform(0, np.pi)
    width = rng.integers(1, 4)

    def mark(pen, shape, rng):
        heading = rng.normal(along, 0.2) + np.cumsum(rng.normal(0, 0.08, 12))
        moves = np.stack([np.cos(heading), np.sin(heading)], 1) * rng.uniform(3 * scale, 30 * scale)
        points = rng.uniform(0, shape[::-1]) + np.cumsum(moves, 0)
        pen.line(points.ravel().tolist(), fill=255, width=int(width))

    return draw_marks(shape, share / 3, mark, rng)


def text(shape, share, rng, scale=1.0):
    """Lines of made-up letters, 8 to 40 pixels high.

    Each letter is three strokes between points of a grid. They get half the share.
    """
    height = min(rng.uniform(8 * scale, 40 * scale), max(min(shape) / 3, 2))
    stroke = max(1, round(height * rng.uniform(0.08, 0.22)))
    slant = rng.uniform(-0.3, 0.3)

    def mark(pen, shape, rng):
        start = rng.uniform((-height, 0), shape[::-1])
        count = rng.integers(2, 12)
        for i in range(count):
            grid = rng.integers(0, (2, 3), (4, 2)) * (0.55, 0.5) * height
            grid[:, 0] += i * 0.85 * height + slant * grid[:, 1]
            pen.line((start + grid).ravel().tolist(), fill=255, width=stroke)

    return draw_marks(shape, share / 2, mark, rng)


def blob(shape, share, rng):
    """One object: a smooth outline about a place in the middle."""
    y, x = (np.arange(side) - side * rng.uniform(0.35, 0.65) for side in shape)
    y, x = y[:, None], x[None]
    angle = np.arctan2(y, x)
    waves = 0
    for order in (1, 2, 3, 5):
        height = rng.uniform(-0.4, 0.4) / order
        waves = waves + height * np.cos(order * angle + rng.uniform(0, 6))
    reach = np.hypot(y, x) * (1 + waves)
    return reach <= np.quantile(reach, min(share, 0.95))


def half(shape, share, rng):
    """One side of the image, 30 to 60 % of it."""
    missing = np.zeros(shape, bool)
    missing[:, : round(rng.uniform(0.3, 0.6) * shape[1])] = True
    if rng.random() < 0.5:
        missing = np.zeros(shape, bool)
        missing[: round(rng.uniform(0.3, 0.6) * shape[0])] = True
    return missing[::-1, ::-1] if rng.random() < 0.5 else missing


def frame(shape, share, rng):
    """All but a window in the middle, of a quarter to three quarters of each side."""
    missing = np.ones(shape, bool)
    part = rng.uniform(0.25, 0.75)
    top, left = (round(side * (1 - part) / 2) for side in shape)
    missing[top : max(shape[0] - top, top + 1), left : max(shape[1] - left, left + 1)] = False
    return missing


def lines(shape, share, rng):
    """Every second row or column."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    numbers = y if rng.random() < 0.5 else x
    return np.broadcast_to((numbers + rng.integers(2)) % 2 == 0, shape).copy()


def lattice(shape, share, rng):
    """All but every n-th pixel of every n-th row, n from 2 to 4: super-resolution as inpainting."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    step = rng.integers(2, 5)
    start = rng.integers(0, step, 2)
    return ((y + start[0]) % step > 0) | ((x + start[1]) % step > 0)


def pixels(shape, share, rng):
    """So many pixels, each on its own, wherever they are."""
    return rng.permutation(shape[0] * shape[1]).reshape(shape) < round(share * shape[0] * shape[1])


# each kind, and how often it is drawn among those that are wanted
_WEIGHTED = [
    (brush, 3),
    (thin, 3),
    (thick, 3),
    (boxes, 2),
    (scratches, 2),
    (text, 2),
    (blob, 2),
    (half, 1),
    (frame, 1),
    (lines, 1),
    (lattice, 1),
]
KINDS: dict[str, Callable] = {kind.__name__: kind for kind, _ in _WEIGHTED}
# the kinds whose marks have sizes in pixels, and so a scale
IN_PIXELS = "brush", "thin", "thick", "boxes", "scratches", "text"
WEIGHTS: dict[str, int] = {kind.__name__: weight for kind, weight in _WEIGHTED}
# those that are drawn where they are asked for alone
ASKED_FOR: dict[str, Callable] = {"pixels": pixels}
WEIGHTS |= dict.fromkeys(ASKED_FOR, 1)
