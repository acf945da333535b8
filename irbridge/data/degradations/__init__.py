"""Synthetic degradations: ``degrade(image, rng)`` maps a clean image to a worse one.

The image is float32 (H, W, 3) in [0, 1], and so is the result. Each degradation is a pure function
of the image and the random generator. Lengths are in pixels and features have a density per area,
so that a crop shows the same weather as its whole photograph.

A new degradation is a frozen dataclass that inherits :class:`Degradation`, and a task config
(``configs/task/``) that names it.
"""

from irbridge.data.degradations.base import Degradation, Range
from irbridge.data.degradations.blur import Blur, CameraBlur
from irbridge.data.degradations.downsample import Downsample
from irbridge.data.degradations.haze import Haze
from irbridge.data.degradations.inpaint import Inpaint
from irbridge.data.degradations.low_light import LowLight
from irbridge.data.degradations.measured import Measured
from irbridge.data.degradations.mixture import OneOf
from irbridge.data.degradations.noise import Noise
from irbridge.data.degradations.rain import Rain
from irbridge.data.degradations.raindrop import Raindrop
from irbridge.data.degradations.snow import Snow

__all__ = [
    "Blur",
    "CameraBlur",
    "Degradation",
    "Downsample",
    "Haze",
    "Inpaint",
    "LowLight",
    "Measured",
    "Noise",
    "OneOf",
    "Rain",
    "Raindrop",
    "Range",
    "Snow",
]
