"""Low light: a short exposure."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from irbridge.data.degradations.base import Degradation, Range
from irbridge.data.degradations.drawing import WARM


@dataclass(frozen=True)
class LowLight(Degradation):
    """A short exposure, as in LOL (Wei et al., BMVC 2018).

    The light is ``gain * image ** gamma`` with a colour cast. To it comes the noise of the photons
    and of the sensor's reading, smoothed and with less of it in the colours, as cameras do. The
    result is rounded to 8 bits.

    Args:
        gamma: exponent of the image.
        gain: exposure, drawn uniformly in its logarithm.
        photons: that a white pixel of full exposure collects.
        read: std of the noise of reading, of 255.
        cast: wrong white balance: std of the logarithm of red over green, as of green over blue.
        black: below this the sensor gives 0.
        chroma: share of the colour noise that is left.
        smooth: std of the smoothing of the noise, pixels.
    """

    task: ClassVar[str] = "lowlight"
    gamma: Range = (1.0, 2.4)
    gain: Range = (0.06, 0.8)
    photons: Range = (300, 6000)
    read: Range = (0.3, 2)
    cast: Range = (0, 0.4)
    black: Range = (0, 0.01)
    chroma: Range = (0.3, 1)
    smooth: Range = (0, 0.6)

    @override
    def apply(self, image, rng):
        gain = np.exp(rng.uniform(*np.log(np.maximum(self.gain, 1e-3))))
        gamma = rng.uniform(*self.gamma)
        # mostly along the colours of daylight, from warm to cool, less between green and magenta
        cast = rng.uniform(*self.cast) * (rng.normal() * WARM + 0.25 * rng.standard_normal(3))
        light = image**gamma * np.float32(gain * np.exp(cast - cast.mean()))
        read = rng.uniform(*self.read) / 255
        photons = max(rng.uniform(*self.photons), 1)
        noise = np.sqrt(light / photons + read**2) * rng.standard_normal(image.shape, np.float32)
        noise = self.processed(noise, rng.uniform(*self.chroma), rng.uniform(*self.smooth))
        return np.round(255 * (light - rng.uniform(*self.black) + noise)) / 255

    def processed(self, noise: np.ndarray, chroma: float, smooth: float) -> np.ndarray:
        """The sensor's noise (H, W, 3) after the camera: less coloured, and smoothed.

        Args:
            noise: as the sensor gives it.
            chroma: share of the colour noise that is left.
            smooth: std of the smoothing, pixels; up to 0.2 there is none.
        """
        from scipy.ndimage import gaussian_filter

        grey = noise.mean(axis=2, keepdims=True)
        noise = grey + chroma * (noise - grey)
        return gaussian_filter(noise, (smooth, smooth, 0), truncate=3) if smooth > 0.2 else noise
