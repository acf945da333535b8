"""Motion blur of a shaken camera."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from irbridge.data.degradations.base import Degradation, Range
from irbridge.operators.kernels import shaken


@dataclass(frozen=True)
class Blur(Degradation):
    """Camera shake: convolution with the track of a random walk with inertia, then slight noise.

    Args:
        extent: of the track along its longer side, pixels.
        noise: std of the Gaussian noise, of 255.
    """

    task: ClassVar[str] = "deblur"
    extent: Range = (5, 18)
    noise: float = 1

    @override
    def apply(self, image, rng):
        from scipy.signal import fftconvolve

        kernel = self.kernel(rng)
        margin = (len(kernel) // 2,)
        padded = np.pad(image, [margin, margin, (0,)], mode="reflect")
        blurred = fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
        return blurred + self.noise / 255 * rng.standard_normal(image.shape, np.float32)

    def kernel(self, rng: np.random.Generator) -> np.ndarray:
        """The point spread function: odd, square, sum 1, its centroid in the middle."""
        return shaken(rng, self.extent)
