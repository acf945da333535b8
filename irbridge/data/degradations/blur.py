"""What makes a photograph unsharp: a camera that is shaken, moves on, or is out of focus."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from irbridge.data.degradations.base import Degradation, Range
from irbridge.data.degradations.drawing import axes
from irbridge.data.jpeg import saved_as_jpeg
from irbridge.errors import UserError
from irbridge.operators.kernels import shaken, track

GAMMA = 2.2  # of the camera's response: stored values are light to the power of 1 / 2.2


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
        blurred = _convolved(image, self.kernel(rng))
        return blurred + self.noise / 255 * rng.standard_normal(image.shape, np.float32)

    def kernel(self, rng: np.random.Generator) -> np.ndarray:
        """The point spread function: odd, square, sum 1, its centroid in the middle."""
        return shaken(rng, self.extent)


@dataclass(frozen=True)
class CameraBlur(Degradation):
    """One kind of blur for each image, then noise, and JPEG of some images.

    The kinds are camera shake, as of :class:`Blur`; the mean of a few frames of a moving camera,
    as GoPro's and HIDE's blurred images are made; and defocus. None of them moves the image as a
    whole.

    Args:
        shaken: share of the images with camera shake; shares count relative to one another.
        averaged: share of those that are means of frames.
        defocused: share of those out of focus.
        extent: of the shaken camera's track along its longer side, pixels.
        frames: how many are averaged.
        shift: of the frames from the first to the last: the extent of their track, pixels.
        turn: angle between the first and the last frame, degrees, about a point of the image.
        radius: of the disk that a point becomes out of focus, pixels.
        linear: share of the images that are blurred in linear light (GoPro's ``blur_gamma``)
            rather than as they are stored (its ``blur``).
        noise: std of the Gaussian noise, of 255.
        compressed: share of the images that are saved as JPEG after that.
        quality: of the JPEG, 1 to 100.

    Raises:
        UserError: all shares of the kinds are 0, or a quality is below 1.
    """

    task: ClassVar[str] = "deblur"
    shaken: float = 0.5
    averaged: float = 0.3
    defocused: float = 0.2
    extent: Range = (3, 22)
    frames: Range = (7, 13)
    shift: Range = (2, 22)
    turn: Range = (0, 2)
    radius: Range = (0.5, 4)
    linear: float = 0.5
    noise: Range = (0, 4)
    compressed: float = 0.5
    quality: Range = (50, 95)

    def __post_init__(self):
        super().__post_init__()
        if not any(self.shares.values()):
            raise UserError(
                "CameraBlur got shaken=0, averaged=0 and defocused=0; give one of the shares more."
            )
        if self.quality[0] < 1:
            raise UserError(f"CameraBlur got quality={self.quality}; give two from 1 to 100.")

    @property
    def shares(self) -> dict[str, float]:
        """The share of each kind, relative to one another."""
        return {name: getattr(self, name) for name in ("shaken", "averaged", "defocused")}

    def drawn(self, rng: np.random.Generator) -> str:
        """The kind of an image, by the first number of its generator."""
        shares = np.array(list(self.shares.values()), float)
        return list(self.shares)[rng.choice(len(shares), p=shares / shares.sum())]

    @override
    def apply(self, image, rng):
        kind = self.drawn(rng)
        linear = rng.random() < self.linear
        light = image**GAMMA if linear else image
        if kind == "averaged":
            blurred = self.mean_of_frames(light, rng)
        else:
            kernel = shaken(rng, self.extent) if kind == "shaken" else self.disk(rng)
            blurred = _convolved(light, kernel)
        if linear:  # the Fourier transforms round some black pixels to just below 0
            blurred = np.maximum(blurred, 0) ** (1 / GAMMA)
        std = rng.uniform(*self.noise) / 255
        noisy = blurred + std * rng.standard_normal(image.shape, np.float32)
        quality = round(rng.uniform(*self.quality))
        return saved_as_jpeg(noisy, quality) if rng.random() < self.compressed else noisy

    def disk(self, rng: np.random.Generator) -> np.ndarray:
        """What a point becomes out of focus: an even disk with a soft edge; odd, square, sum 1."""
        radius = rng.uniform(*self.radius)
        covered = np.clip(radius + 0.5 - np.hypot(*axes(int(np.ceil(radius)), 0)), 0, 1)
        return covered / covered.sum()

    def mean_of_frames(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The mean of what a camera sees that moves and turns by parts of a pixel.

        Args:
            image: (H, W, 3), mirrored outside of its borders.
            rng: draws the number of frames, their track, the turn and the point that stays.
        """
        from scipy.ndimage import affine_transform

        shifts, angles = self.motion(rng)
        pivot = rng.uniform(0, np.array(image.shape[:2]) - 1)
        total = np.zeros(image.shape, np.float64)
        for shift, angle in zip(shifts, angles, strict=True):
            sine, cosine = np.sin(angle), np.cos(angle)
            turned = np.array([[cosine, -sine], [sine, cosine]])
            start = pivot - turned @ pivot - shift
            for channel in range(image.shape[2]):
                total[..., channel] += affine_transform(
                    image[..., channel], turned, start, order=1, mode="mirror"
                )
        return (total / len(shifts)).astype(np.float32)

    def motion(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """How the frames of a moving camera lie to one another.

        Returns:
            Their shifts (n, 2) in pixels, rows and columns, and their angles (n,) in radians; the
            means of both are 0.
        """
        least, most = (max(round(number), 1) for number in self.frames)
        count = int(rng.integers(least, most + 1))
        way = track(rng, self.shift)
        shifts = way[:, np.linspace(0, len(way[0]) - 1, count).round().astype(int)].T
        turn = np.radians(rng.uniform(*self.turn)) * rng.choice([-1, 1])
        angles = turn * np.linspace(-0.5, 0.5, count)
        return shifts - shifts.mean(axis=0), angles - angles.mean()


def _convolved(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """An image (H, W, 3), mirrored outside of its borders, with a square kernel of odd sides."""
    from scipy.signal import fftconvolve

    margin = (len(kernel) // 2,)
    padded = np.pad(image, [margin, margin, (0,)], mode="reflect")
    return fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
