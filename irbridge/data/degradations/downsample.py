"""Reduction, to be undone by super-resolution."""

from dataclasses import dataclass

from typing_extensions import override

from irbridge.data.degradations.base import Degradation
from irbridge.data.jpeg import as_jpeg
from irbridge.errors import UserError
from irbridge.images.resize import resized


@dataclass(frozen=True)
class Downsample(Degradation):
    """Antialiased bicubic reduction by ``scale``, then bicubic enlargement to the original size.

    Args:
        scale: how much smaller each side gets, at least 1.
        compressed: share of the images whose small version is saved as a JPEG file
            (:func:`~irbridge.data.jpeg.as_jpeg`).

    Raises:
        UserError: the share is above 1.
    """

    scale: float = 4
    compressed: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.compressed > 1:
            raise UserError(
                f"Downsample got compressed={self.compressed}; give a share from 0 to 1."
            )

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
