"""Reduction, to be undone by super-resolution."""

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from irbridge.data.degradations.base import Degradation
from irbridge.data.degradations.drawing import BICUBIC, channel_images


@dataclass(frozen=True)
class Downsample(Degradation):
    """Antialiased bicubic reduction by ``scale``, then bicubic enlargement to the original size.

    Args:
        scale: how much smaller each side gets, at least 1.
    """

    scale: float = 4

    @override
    def task_of(self, rng):
        return "sr" if self.scale == 4 else f"sr{self.scale:g}"

    @override
    def apply(self, image, rng):
        size = image.shape[1], image.shape[0]
        small = [max(1, round(side / max(self.scale, 1))) for side in size]
        channels = [
            channel.resize(small, BICUBIC).resize(size, BICUBIC)
            for channel in channel_images(image)
        ]
        return np.dstack(channels)
