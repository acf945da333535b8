"""What several degradations draw with: particles, how they are scattered, and smooth fields."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

BICUBIC = Image.Resampling.BICUBIC
WARM = np.array([1, 0, -1], np.float32)
"""What light gains in red, green and blue when it gets warmer."""


def axes(reach: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across a direction, of a square of ``2 * reach + 1`` pixels a side.

    Args:
        reach: pixels from the square's middle to its edge.
        angle: of the direction from vertical, radians.

    Returns:
        Two arrays (2 reach + 1, 2 reach + 1), 0 in the middle.
    """
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    along = y * np.cos(angle) + x * np.sin(angle)
    across = x * np.cos(angle) - y * np.sin(angle)
    return along, across


def disc(
    radius: float,
    travel: float,
    angle: float,
    power: float = 2,
    lobes: Sequence[tuple[int, float]] = (),
) -> np.ndarray:
    """A soft disc that moved during the exposure: 1 in its centre and 1/2 at ``radius``.

    Args:
        radius: in pixels, at least 0.3.
        travel: how far the disc moved, in pixels.
        angle: of the motion from vertical, radians.
        power: how hard the edge is; higher is harder.
        lobes: (order, phase) of the dents in the outline.

    Returns:
        A square array in [0, 1].
    """
    radius = max(radius, 0.3)
    along, across = axes(int(np.ceil(2 * radius + travel / 2)), angle)
    along = np.sign(along) * np.maximum(np.abs(along) - travel / 2, 0)
    dents = 0
    for order, phase in lobes:
        dents = dents + 0.15 * np.cos(order * np.arctan2(across, along) + phase)
    return 0.5 ** ((np.hypot(along, across) / radius * (1 + dents)) ** power)


def streak(width: float, length: float, angle: float, taper: float) -> np.ndarray:
    """A line that fades to its ends: 1 in its middle and 1/2 at ``width`` beside it.

    Args:
        width: from the middle to half the brightness, in pixels, at least 0.3.
        length: in pixels.
        angle: from vertical, radians.
        taper: 1 fades slowly over the whole length, a high number late, at the ends.

    Returns:
        A square array in [0, 1].
    """
    width = max(width, 0.3)
    along, across = axes(int(np.ceil(length / 2 + width)), angle)
    fade = np.maximum(1 - (np.abs(along) / (length / 2 + width)) ** taper, 0)
    return fade * 0.5 ** ((across / width) ** 2)


def scatter(
    shape: tuple[int, int], particle: np.ndarray, cover: float, rng: np.random.Generator
) -> np.ndarray:
    """Particles of random strength at random places.

    Args:
        shape: (H, W) of the result.
        particle: one particle, a square array.
        cover: what the particles add up to, over the area.
        rng: draws the number, the places and the strengths.

    Returns:
        (H, W), at least 0; above 1 where particles overlap.
    """
    # here, as this module is imported where nothing is degraded
    from scipy.signal import fftconvolve

    canvas = np.zeros(np.add(shape, particle.shape) - 1, np.float32)
    places = rng.integers(canvas.size, size=rng.poisson(cover / particle.sum() * canvas.size))
    canvas.flat[places] = rng.uniform(0.3, 1, len(places))
    return np.maximum(fftconvolve(canvas, particle, mode="valid"), 0)


def smooth_noise(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field: one uniform number per ``cell`` x ``cell`` pixels, enlarged.

    Args:
        shape: (H, W) of the result.
        cell: pixels from one number to the next.
        rng: draws the numbers, and where the field begins among them.

    Returns:
        (H, W) in [0, 1].
    """
    size = shape[::-1]
    extent = np.array(size) / cell
    numbers = rng.random(np.ceil(extent[::-1]).astype(int) + 3, np.float32)
    start = rng.uniform(1, 2, 2)
    box = (*start, *(start + extent))
    return np.clip(np.asarray(Image.fromarray(numbers).resize(size, BICUBIC, box=box)), 0, 1)


def reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """The image (H, W, 3) smaller by ``factor``, each pixel the mean of those it replaces."""
    size = [max(1, side // factor) for side in image.shape[1::-1]]
    return np.dstack(
        [channel.resize(size, Image.Resampling.BOX) for channel in channel_images(image)]
    )


def channel_images(image: np.ndarray) -> list[Image.Image]:
    """The three channels of a float image (H, W, 3) as Pillow images, without rounding."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    return [Image.fromarray(plane) for plane in planes]
