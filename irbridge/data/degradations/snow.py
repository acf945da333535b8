"""Snow: flakes in layers under a thin veil."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from irbridge.data.degradations.base import Degradation, Range
from irbridge.data.degradations.drawing import disc, scatter, smooth_noise


@dataclass(frozen=True)
class Snow(Degradation):
    """Flakes in layers under a thin veil, as in Snow100K (Liu et al., TIP 2018).

    Far flakes are small, sharp and many. Near ones are large, out of focus, and smeared by their
    motion. The set's parts S, M and L end at three distances.

    Args:
        layers: number of layers.
        cover: flake area per layer over the image's area, one draw an image.
        radius: of the farthest and of the nearest flakes.
        speed: travel during the exposure, in radii.
        veil: opacity of the veil where it is densest.
        nearest: where the layers end: at 0 all are far, at 1 the last has the largest radius.
        white: brightness of flakes and veil.
    """

    task: ClassVar[str] = "desnow"
    layers: Range = (3, 7)
    cover: Range = (0, 0.08)
    radius: Range = (0.5, 8)
    speed: Range = (0, 3)
    veil: Range = (0, 0.25)
    nearest: Range = (0.3, 1)
    white: Range = (0.8, 1)

    @override
    def apply(self, image, rng):
        shape = image.shape[:2]
        white = rng.uniform(*self.white)
        wind = rng.normal(0, 0.5)
        speed = rng.uniform(*self.speed)
        clear = 1 - rng.uniform(*self.veil) * smooth_noise(shape, 80, rng)
        cover = rng.uniform(*self.cover)
        nearest = rng.uniform(*self.nearest)
        for nearness in nearest * np.linspace(0, 1, round(rng.uniform(*self.layers))):
            flake = self._flake(nearness, wind, speed, rng)
            opacity = scatter(shape, flake, cover * rng.uniform(0.3, 1.2), rng)
            clear = clear * (1 - np.minimum((1.3 - 0.5 * nearness) * opacity, 0.95))
        return image * clear[..., None] + white * (1 - clear[..., None])

    def _flake(self, nearness: float, wind: float, speed: float, rng) -> np.ndarray:
        """The flake of a layer, a square array in [0, 1].

        Args:
            nearness: of the layer, 0 for far to 1 for near.
            wind: the usual direction of motion from vertical, radians.
            speed: travel during the exposure, in radii.
            rng: draws size, outline and direction.
        """
        radius = np.interp(nearness**2, (0, 1), self.radius) * rng.uniform(0.8, 1.25)
        lobes = [(order, rng.uniform(0, 2 * np.pi)) for order in (2, 3)]
        angle = rng.normal(wind, 0.2)
        return disc(radius, speed * radius, angle, power=4 - 2.5 * nearness, lobes=lobes)
