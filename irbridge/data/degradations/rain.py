"""Rain: streaks in layers under a thin mist."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from irbridge.data.degradations.base import Degradation, Range
from irbridge.data.degradations.drawing import scatter, smooth_noise, streak


@dataclass(frozen=True)
class Rain(Degradation):
    """Streaks in layers of different depth, under a thin mist.

    The rain falls in one direction as in Rain100L and Rain800, or in several as in Rain100H (Yang
    et al., CVPR 2017; Zhang et al., TCSVT 2020). A layer's streaks have one length, width and
    direction; far layers are smaller and darker. The streaks' light is added to the scene's, of
    which they block a share.

    Args:
        layers: number of layers.
        cover: streak area per layer over the image's area, one draw an image.
        length: of the nearest streaks, 2.5 times that of the farthest.
        width: from the middle to half the brightness.
        strength: brightness of the streaks.
        angle: largest lean of a wind, degrees.
        spread: std of the layers' directions about their wind, degrees.
        winds: number of directions; each layer follows one of them.
        hide: share of the scene that streaks block: 0, they add light; 1, they cover the scene.
        grey: brightness of the nearest streaks, and of the mist.
        patchy: by how much rain and mist are thinner in places.
        veil: opacity of the mist where it is densest.
    """

    task: ClassVar[str] = "derain"
    layers: Range = (1, 5)
    cover: Range = (0, 0.5)
    length: Range = (8, 80)
    width: Range = (0.4, 1.6)
    strength: Range = (0.5, 1)
    angle: float = 40
    spread: float = 5
    winds: Range = (1, 3)
    hide: Range = (0, 1)
    grey: Range = (0.7, 1)
    patchy: Range = (0, 0.5)
    veil: Range = (0, 0.25)

    @override
    def apply(self, image, rng):
        shape = image.shape[:2]
        count = max(round(rng.uniform(*self.winds)), 1)
        winds = rng.uniform(-self.angle, self.angle, count)
        cover = rng.uniform(*self.cover)
        grey = rng.uniform(*self.grey)
        rain = self._streaks(shape, winds, cover, rng)
        density = 1 - rng.uniform(*self.patchy) * smooth_noise(shape, 120, rng)
        mist = (rng.uniform(*self.veil) * density)[..., None]
        rain = (rng.uniform(*self.strength) * rain * density)[..., None]
        scene = image + mist * (grey - image)
        return scene * (1 - np.minimum(rng.uniform(*self.hide) * rain, 1)) + grey * rain

    def _streaks(self, shape, winds: np.ndarray, cover: float, rng) -> np.ndarray:
        """The layers' streaks, added up: (H, W), at least 0."""
        rain = np.zeros(shape, np.float32)
        layers = np.linspace(1, 0.4, round(rng.uniform(*self.layers)))
        for i, nearness in enumerate(layers):
            length = nearness * rng.uniform(*self.length)
            width = nearness * rng.uniform(*self.width)
            angle = np.deg2rad(rng.normal(winds[i % len(winds)], self.spread))
            one = streak(width, length, angle, taper=rng.uniform(1, 5))
            layer = scatter(shape, one, cover * rng.uniform(0.5, 1), rng)
            rain += nearness**0.5 * np.minimum(layer, 1)
        return rain
