"""Reduction, to be undone by super-resolution."""

from dataclasses import dataclass

from typing_extensions import override

from irbridge.data.degradations.base import Degradation
from irbridge.data.jpeg import as_jpeg
from irbridge.images.resize import resized


@dataclass(frozen=True)
class Downsample(Degradation):
    """Antialiased bicubic reduction by ``scale``, then bicubic enlargement to the original size.

    Args:
        scale: how much smaller each side gets, at least 1.
        compressed: share of the images whose small version is saved as a JPEG file
            (:func:`~irbridge.data.jpeg.as_jpeg`).
    """

    scale: float = 4
    compressed: float = 0.0

    @override
    def task_of(self, rng):
        return "sr" if self.scale == 4 else f"sr{self.scale:g}"

    @override
    def apply(self, image, rng):
        height, width = image.shape[:2]
        small = resized(image, *(max(1, round(s / max(self.scale, 1))) for s in (height, width)))
        if self.compressed and rng.random() < self.compressed:
            small = as_jpeg(small, rng)
        return resized(small, height, width)
