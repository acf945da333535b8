"""White noise."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from irbridge.data.degradations.base import Degradation, Range


@dataclass(frozen=True)
class Noise(Degradation):
    """White Gaussian noise; clipped to [0, 1], as an 8-bit file is.

    Args:
        std: of 255. One number is a range of that alone.
    """

    task: ClassVar[str] = "denoise"
    std: Range = (25, 25)

    def __post_init__(self):
        if not np.iterable(self.std):  # as runs of older versions give it
            object.__setattr__(self, "std", (self.std, self.std))
        super().__post_init__()

    @override
    def apply(self, image, rng):
        noise = rng.standard_normal(image.shape, np.float32)
        return image + rng.uniform(*self.std) / 255 * noise
