"""Motion blur of a shaken camera."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from irbridge.data.degradations.base import Degradation, Range


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
        from scipy.ndimage import gaussian_filter

        start = rng.uniform(0, 2 * np.pi)
        heading = start + np.cumsum(rng.normal(0, rng.uniform(0.02, 0.2), 200))
        moves = np.stack([np.sin(heading), np.cos(heading)]) * rng.uniform(0.2, 1.8, 200)
        track = np.cumsum(moves, axis=1)
        track *= rng.uniform(*self.extent) / np.ptp(track, axis=1).max()
        track -= track.mean(axis=1, keepdims=True)
        reach = int(np.ceil(np.abs(track).max())) + 2
        bins = np.arange(-reach - 0.5, reach + 1)
        kernel = np.histogram2d(*track, bins=bins)[0].astype(np.float32)
        return gaussian_filter(kernel, 0.5, mode="constant") / len(track[0])
