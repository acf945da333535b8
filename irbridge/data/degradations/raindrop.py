"""Raindrops on the pane before the camera."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from typing_extensions import override

from irbridge.data.degradations.base import Degradation, Range
from irbridge.data.degradations.drawing import axes, reduced


class _Covered(NamedTuple):
    """The pixels that drops cover, each with the drop that is seen there."""

    drop: np.ndarray
    """(m,), the index of the drop."""
    place: np.ndarray
    """(m, 2), row and column in the image; outside it within the margin."""
    offset: np.ndarray
    """(m, 2), from the drop's centre, in its radii."""
    distance: np.ndarray
    """(m,), from the drop's centre, 1 at its edge."""
    opacity: np.ndarray
    """(m,), in [0, 1]."""


@dataclass(frozen=True)
class Raindrop(Degradation):
    """Drops on the pane, as in RainDrop (Qian et al., CVPR 2018).

    Each drop is a lens, through which the scene is seen upside down, much smaller, brighter below,
    where the sky is, and darker at the rim. The camera looks at the scene, so that all drops of a
    photograph are out of focus by the same amount: from sharp ones to faint bright discs.

    Args:
        cover: summed drop area over the image's area.
        radius: the drops of an image are about as large as each other, within a factor of two.
        shrink: width of the view over that of the drop.
        gain: brightness of the view.
        defocus: radius of the disc that a point of the pane becomes, over that of a usual drop.
        sky: light of the sky in the view, which the picture need not show.
        shade: by how much the view is darker at its top and brighter at its bottom.
        rim: by how much the rim is darker.
        glint: brightness of the sun's reflection, a spot.
    """

    task: ClassVar[str] = "raindrop"
    cover: Range = (0.03, 0.45)
    radius: Range = (4, 30)
    shrink: Range = (3, 10)
    gain: Range = (0.85, 1.4)
    defocus: Range = (0, 1.5)
    sky: Range = (0, 0.5)
    shade: Range = (0, 0.5)
    rim: Range = (0, 0.8)
    glint: Range = (0, 1)

    @override
    def apply(self, image, rng):
        from scipy.signal import fftconvolve

        size = np.array(image.shape[:2])
        usual = np.exp(rng.uniform(*np.log(np.maximum(self.radius, 0.5))))
        aperture = rng.uniform(*self.defocus) * usual
        margin = int(np.ceil(aperture))
        blur = np.clip(aperture + 0.5 - np.hypot(*axes(margin, 0)), 0, 1)
        centres, radii = self.drops(size + 2 * margin, usual, rng)
        drops = self._layer(image, centres - margin, radii, margin, rng)
        drops = fftconvolve(drops, blur[..., None] / blur.sum(), mode="valid", axes=(0, 1))
        return image * (1 - np.clip(drops[..., 3:], 0, 1)) + drops[..., :3]

    def drops(
        self, size: np.ndarray, usual: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where drops are, and how large. A quarter lie at another's edge, and merge.

        Args:
            size: height and width of the area.
            usual: radius of a usual drop.
            rng: draws number, places and sizes; there is at least one drop.

        Returns:
            Centres (n, 2) and radii (n,).
        """
        area = rng.uniform(*self.cover) * size.prod()
        count = max(rng.poisson(area / (np.pi * usual**2)), 1)
        radii = np.clip(usual * np.exp(rng.normal(0, 0.35, count) - 0.12), *self.radius)
        centres = rng.uniform(0, size, (count, 2))
        angles = rng.uniform(0, 2 * np.pi, count)
        centres[0] = rng.uniform(0.25, 0.75, 2) * size  # so that no image is left whole
        edges = centres + np.stack([np.sin(angles), np.cos(angles)], 1) * radii[:, None]
        chosen = rng.random(count) < 0.5
        moved = 1 + np.flatnonzero(chosen[1:] & ~chosen[:-1])
        centres[moved] = edges[moved - 1]
        return centres, radii

    def _layer(self, image, centres, radii, margin: int, rng) -> np.ndarray:
        """The sharp drops alone: colour times opacity, and opacity.

        Args:
            image: (H, W, 3).
            centres: (n, 2), in the image's pixels.
            radii: (n,).
            margin: pixels about the image that are drawn too.
            rng: draws the drops' outlines and views.

        Returns:
            (H + 2 margin, W + 2 margin, 4).
        """
        height, width = image.shape[:2]
        layer = np.zeros((height + 2 * margin, width + 2 * margin, 4), np.float32)
        covered = self._covered((height, width), centres, radii, margin, rng)
        view = self._view(image, centres, radii, covered, rng)
        rows, columns = covered.place.T + margin
        layer[rows, columns] = np.column_stack([view * covered.opacity[:, None], covered.opacity])
        return layer

    def _covered(self, size, centres, radii, margin: int, rng) -> _Covered:
        """The pixels that drops cover, the most opaque drop of a pixel last."""
        reaches = np.ceil(1.5 * radii).astype(int)
        drop, place = _squares(np.round(centres).astype(int), reaches, margin, np.array(size))
        offset = ((place - centres[drop]) / radii[drop, None]).astype(np.float32)
        distance, edge = self._outline(offset, drop, radii, rng)
        opacity = np.clip((1 - distance) * edge + 0.5, 0, 1)
        order = np.argsort(opacity, kind="stable")
        order = order[opacity[order] > 0]
        return _Covered(drop[order], place[order], offset[order], distance[order], opacity[order])

    def _outline(self, offset, drop, radii, rng) -> tuple[np.ndarray, np.ndarray]:
        """The drops' outlines: dented, and stretched mostly downwards.

        Args:
            offset: (m, 2), of pixels from their drop's centre, in radii.
            drop: (m,), the pixels' drops.
            radii: (n,), of the drops.
            rng: draws stretch and dents.

        Returns:
            The distance (m,) from the drop's centre, 1 at its edge, and the edge's sharpness per
            radius (m,).
        """
        count = len(radii)
        stretch = np.exp(rng.normal(0.05, 0.15, count))[drop]
        angle = np.arctan2(offset[:, 0], offset[:, 1])
        phases = rng.uniform(0, 2 * np.pi, (3, count))[:, drop]
        dents = 0
        for order, phase in zip((2, 3, 4), phases, strict=True):
            depth = rng.normal(0, 0.2 / order, count)[drop]
            dents = dents + depth * np.cos(order * angle + phase)
        distance = np.hypot(offset[:, 0] / stretch, offset[:, 1] * stretch)
        distance = distance * (1 + np.clip(dents, -0.3, 0.5))
        return distance.astype(np.float32), np.minimum(radii, 1 + 0.3 * radii)[drop]

    def _view(self, image, centres, radii, covered: _Covered, rng) -> np.ndarray:
        """What is seen through the drops, (m, 3); above 1 in a glint."""
        drop, _, offset, distance, _ = covered
        count = len(radii)
        # A lens: upside down, and compressed more towards the rim.
        shrink = rng.uniform(*self.shrink, count)[drop, None]
        view = _looked_up(
            image, centres[drop] - shrink * (radii[drop] * (1 + distance**2))[:, None] * offset
        )
        gain = rng.uniform(*self.gain, count)[drop]
        gain = gain * (1 + rng.uniform(*self.shade) * offset[:, 0])
        gain *= 1 - rng.uniform(*self.rim) * np.clip(distance, 0, 1) ** 4
        view = gain[:, None] * (view + rng.uniform(*self.sky) * (0.9 - view))
        sun = rng.uniform(-0.5, 0.5, 2)
        spot = rng.uniform(0.1, 0.2)
        glint = rng.uniform(*self.glint) * 0.5 ** (((offset - sun) ** 2).sum(1) / spot**2)
        # above 1, so that it is a bright disc when out of focus
        return np.clip(view, 0, 1) + glint[:, None]


def _looked_up(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The colours (m, 3) of an image at places (m, 2), mirrored outside it.

    They come from the image at a quarter of its size: the scene in a drop is too small to be sharp.
    """
    from scipy.ndimage import map_coordinates

    small = reduced(image, 4)
    places = ((places + 0.5) / image.shape[:2] * small.shape[:2] - 0.5).T
    channels = [map_coordinates(small[..., c], places, order=1, mode="mirror") for c in range(3)]
    return np.stack(channels, 1)


def _squares(centres, reaches, margin: int, size) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of squares about centres.

    Args:
        centres: int (n, 2).
        reaches: int (n,), pixels from a square's centre to its edge.
        margin: pixels that lie further than this outside the image are left out.
        size: height and width of the image.

    Returns:
        Which square each pixel is of (m,), and the pixels (m, 2).
    """
    sides = 2 * reaches + 1
    square = np.repeat(np.arange(len(sides)), sides**2)
    first = np.cumsum(sides**2) - sides**2
    within = np.arange(len(square)) - np.repeat(first, sides**2)
    corner = centres[square] - reaches[square, None]
    places = corner + np.stack([within // sides[square], within % sides[square]], 1)
    inside = ((places >= -margin) & (places < size + margin)).all(axis=1)
    return square[inside], places[inside]
