"""Haze: scattering over a depth that is made up from the image."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from PIL import Image
from typing_extensions import override

from irbridge.data.degradations.base import Degradation, Range
from irbridge.data.degradations.drawing import BICUBIC, WARM, reduced, smooth_noise


@dataclass(frozen=True)
class Haze(Degradation):
    """Scattering, ``J t + A (1 - t)`` with ``t = exp(-beta d)`` (RESIDE: Li et al., TIP 2019).

    J is the clean image, t the transmission, A the airlight and d the depth. The depth is made up
    from the image: the ground, a plane that rises in a mostly upward direction, and regions of
    similar colour, each at a distance of its own. A crop gets a part of a larger scene's depth.

    Args:
        beta: how dense the haze is, as RESIDE's.
        airlight: brightness of the haze, as RESIDE's.
        tint: largest excess of the airlight's red over its green, and of its green over its blue.
        scene: longer side of the photograph, where the image is smaller than that.
        regions: largest difference in depth between two regions.
        patchy: by how much the haze is thinner in places.
    """

    task: ClassVar[str] = "dehaze"
    beta: Range = (0.1, 1.8)
    airlight: Range = (0.7, 1.0)
    tint: float = 0.03
    scene: Range = (256, 640)
    regions: Range = (0, 1)
    patchy: Range = (0, 0.3)

    @override
    def apply(self, image, rng):
        t = self.transmission(image, rng)[..., None]
        airlight = rng.uniform(*self.airlight) + rng.uniform(-self.tint, self.tint) * WARM
        return image * t + np.minimum(airlight, 1) * (1 - t)

    def transmission(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The share of the scene's light that comes through, t: (H, W) in [0, 1]."""
        density = 1 - rng.uniform(*self.patchy) * smooth_noise(image.shape[:2], 150, rng)
        return np.exp(-rng.uniform(*self.beta) * density * self.depth(image, rng))

    def depth(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A made-up depth of the image's scene, (H, W), about 0 to 3.

        It is made at a quarter of the size, where texture is gone, then fitted to the edges.
        """
        small = reduced(image, 4)
        size = np.array(image.shape[:2])
        scene = max(rng.uniform(*self.scene), size.max())
        start = rng.uniform(0, scene - size + 1e-6)
        up = rng.normal(0, 0.6)
        y, x = (_positions(start[k], size[k], small.shape[k], scene) for k in (0, 1))
        ground = np.float32(0.5 - y[:, None] * np.cos(up) + x * np.sin(up))
        near, slope, upright = rng.uniform((0.05, 0.3, 0), (0.4, 2.0, 1))
        standing, offset = self.by_region(small, ground, size.prod(), rng)
        ground = ground + upright * (standing - ground)
        depth = near + slope * ground + rng.uniform(*self.regions) * (offset - 0.3)
        picture = Image.fromarray(depth.astype(np.float32))
        depth = np.asarray(picture.resize(size[::-1].tolist(), BICUBIC))
        return np.maximum(_guided(depth, image.mean(axis=2)), 0.02)

    def by_region(
        self, image: np.ndarray, ground: np.ndarray, area: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Fields that are even where position and colour are similar, and change with the colour.

        They are interpolated between seeds, random pixels, by the inverse of the distance in
        position and colour (Shepard, 1968).

        Args:
            image: (H, W, 3) in [0, 1], reduced.
            ground: depth of the ground, (H, W).
            area: of the photograph before its reduction, in pixels.
            rng: draws the seeds and their numbers.

        Returns:
            (2, H, W): the depth of the ground below a region, and a random number in [0, 1].
        """
        count = int(np.clip(area / 60**2, 3, 24))
        rows, columns = np.unravel_index(rng.integers(ground.size, size=count), ground.shape)
        values = np.stack([ground[rows, columns], rng.random(count, np.float32)], 1)
        near = 2 * count / ground.size  # squared: half the seeds' spacing
        colours = image.transpose(2, 0, 1) / 0.15
        y, x = np.ogrid[: ground.shape[0], : ground.shape[1]]
        fields = np.zeros((2, *ground.shape), np.float32)
        total = np.zeros(ground.shape, np.float32)
        for row, column, value in zip(rows, columns, values, strict=True):
            distance = near * ((y - row) ** 2 + (x - column) ** 2).astype(np.float32) + 0.1
            for colour in colours:
                distance += (colour - colour[row, column]) ** 2
            weight = 1 / (distance * distance * distance)
            total += weight
            fields += weight * value[:, None, None]
        return fields / total


def _positions(start: float, size: int, count: int, scene: float) -> np.ndarray:
    """Where an image's rows or columns lie in its scene, (count,), -0.5 to 0.5 over the scene.

    Args:
        start: where the image begins in the scene, in pixels.
        size: of the image, in pixels.
        count: rows or columns of the reduced image.
        scene: of the scene, in pixels.
    """
    return (start + (np.arange(count) + 0.5) / count * size) / scene - 0.5


def _guided(field: np.ndarray, guide: np.ndarray, reach: int = 5) -> np.ndarray:
    """The field, smoothed, its edges moved to the guide's: the guided filter (He et al., 2013).

    Args:
        field: (H, W).
        guide: (H, W).
        reach: how far an edge moves at most, in pixels.

    Returns:
        (H, W).
    """
    from scipy.ndimage import uniform_filter

    mean = partial(uniform_filter, size=2 * reach + 1, mode="nearest")
    middle, level = mean(guide), mean(field)
    slope = (mean(guide * field) - middle * level) / (mean(guide * guide) - middle**2 + 5e-4)
    return mean(slope) * guide + mean(level - slope * middle)
