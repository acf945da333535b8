"""Synthetic degradations: ``degrade(image, rng)`` maps (H, W, 3) in [0, 1] to the same shape and range.

Each is a pure function of the image and the generator. Lengths are in pixels and features have a density per area, so a
crop shows the same weather as its photograph. A pair of numbers is the range that a parameter is drawn from uniformly.
"""

from dataclasses import dataclass, fields

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.signal import fftconvolve

from irbridge.errors import UserError

Range = tuple[float, float]
BICUBIC = Image.Resampling.BICUBIC


class Degradation:
    """Checks the parameters, and clips what ``apply(image, rng)`` gives to [0, 1]."""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = np.atleast_1d(np.array(list(value) if np.iterable(value) else value))
            size = 2 if field.type == Range else 1
            if numbers.dtype.kind not in "if" or len(numbers) != size or not 0 <= numbers[0] <= numbers[-1]:
                wanted = "two ascending numbers" if size == 2 else "one number"
                raise UserError(f"{type(self).__name__} got {field.name}={value}; give {wanted} from 0 up.")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.clip(self.apply(image, rng), 0, 1).astype(np.float32)


def _particle(radius: float, travel: float, angle: float, power: float = 2, lobes=()) -> np.ndarray:
    """A soft disc, 1 in its centre and 1/2 at ``radius``, smeared over ``travel`` at ``angle`` from vertical. A high
    power hardens the edge; lobes, (order, phase), dent it."""
    radius = max(radius, 0.3)
    reach = int(np.ceil(2 * radius + travel / 2))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    along, across = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    along = np.sign(along) * np.maximum(np.abs(along) - travel / 2, 0)
    dents = sum(0.15 * np.cos(order * np.arctan2(across, along) + phase) for order, phase in lobes)
    return 0.5 ** ((np.hypot(along, across) / radius * (1 + dents)) ** power)


def _scatter(shape, particle: np.ndarray, cover: float, rng: np.random.Generator) -> np.ndarray:
    """Particles of random strength at random places, (H, W) >= 0, that add up to ``cover`` times the area."""
    canvas = np.zeros(np.add(shape, particle.shape) - 1, np.float32)
    places = rng.integers(canvas.size, size=rng.poisson(cover / particle.sum() * canvas.size))
    canvas.flat[places] = rng.uniform(0.3, 1, len(places))
    return np.maximum(fftconvolve(canvas, particle, mode="valid"), 0)


def _smooth_noise(shape, cells: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth field, (H, W): a grid of cells x cells uniform numbers in [0, 1], enlarged."""
    return np.asarray(Image.fromarray(rng.random((cells, cells), np.float32)).resize(shape[::-1], BICUBIC))


@dataclass(frozen=True)
class Rain(Degradation):
    """Bright streaks added in layers of different depth, as in Rain100H (Yang et al., CVPR 2017)."""
    layers: Range = (2, 5)
    cover: Range = (0.04, 0.24)  # streak area per layer over the image's area
    length: Range = (12, 60)  # of the nearest streaks, 2.5 times the farthest
    width: Range = (0.5, 1.1)
    strength: Range = (0.4, 0.95)
    angle: float = 30  # largest lean of the wind, degrees
    spread: float = 8  # std between layers, degrees

    def apply(self, image, rng):
        wind, rain = rng.uniform(-self.angle, self.angle), np.zeros(image.shape[:2], np.float32)
        for nearness in np.linspace(1, 0.4, round(rng.uniform(*self.layers))):
            length, width = nearness * rng.uniform(*self.length), nearness * rng.uniform(*self.width)
            streak = _particle(width, length, np.deg2rad(rng.normal(wind, self.spread)))
            rain += np.minimum(_scatter(rain.shape, streak, rng.uniform(*self.cover), rng), 1)
        return image + rng.uniform(*self.strength) * rain[..., None]


@dataclass(frozen=True)
class Haze(Degradation):
    """Scattering, ``J t + A (1 - t)`` with ``t = exp(-beta d)``; ranges of RESIDE (Li et al., TIP 2019)."""
    beta: Range = (0.5, 1.5)
    airlight: Range = (0.7, 1.0)
    tint: float = 0.03  # largest deviation of a channel of the airlight

    def apply(self, image, rng):
        t = np.exp(-rng.uniform(*self.beta) * self.depth(image.shape[:2], rng))[..., None]
        airlight = rng.uniform(*self.airlight) + rng.uniform(-self.tint, self.tint, 3)
        return image * t + np.minimum(airlight, 1) * (1 - t)

    def depth(self, shape, rng):
        """(H, W), about 0 to 2: a plane that rises in a mostly upward direction, and smooth relief."""
        y, x = np.mgrid[-0.5 : 0.5 : shape[0] * 1j, -0.5 : 0.5 : shape[1] * 1j]
        up = rng.normal(0, 0.6)
        ground = 0.5 - y * np.cos(up) + x * np.sin(up)
        relief = _smooth_noise(shape, 4, rng) + 0.5 * _smooth_noise(shape, 9, rng)
        near, slope, rough = rng.uniform((0.1, 0.2, 0.1), (0.6, 0.9, 0.5))
        return np.maximum(near + slope * ground + rough * relief, 0)


@dataclass(frozen=True)
class Snow(Degradation):
    """Flakes in layers, from far to near, under a thin veil; as Snow100K (Liu et al., TIP 2018)."""
    layers: Range = (4, 7)
    cover: Range = (0.005, 0.06)  # flake area per layer over the image's area
    radius: Range = (0.6, 5)  # of the farthest and of the nearest flakes
    speed: Range = (0, 2.5)  # travel during the exposure, in radii
    veil: Range = (0, 0.2)  # opacity where it is densest

    def apply(self, image, rng):
        white, wind, speed = rng.uniform(0.85, 1), rng.normal(0, 0.5), rng.uniform(*self.speed)
        clear = 1 - rng.uniform(*self.veil) * _smooth_noise(image.shape[:2], 5, rng)
        for nearness in np.linspace(0, 1, round(rng.uniform(*self.layers))):
            radius = np.interp(nearness**2, (0, 1), self.radius) * rng.uniform(0.8, 1.25)
            lobes = [(order, rng.uniform(0, 2 * np.pi)) for order in (2, 3)]
            flake = _particle(radius, speed * radius, rng.normal(wind, 0.2), 4 - 1.5 * nearness, lobes)
            opacity = 1.2 * _scatter(clear.shape, flake, rng.uniform(*self.cover), rng)
            clear = clear * (1 - np.minimum(opacity, 0.95))
        return image * clear[..., None] + white * (1 - clear[..., None])


@dataclass(frozen=True)
class Raindrop(Degradation):
    """Drops on the pane: each a flipped, shrunk, defocused view; as RainDrop (Qian et al., CVPR 2018)."""
    cover: Range = (0.1, 0.55)  # summed drop area over the image's area
    radius: Range = (5, 22)
    shrink: Range = (3, 6)  # width of the view over that of the drop
    gain: Range = (0.9, 1.4)  # brightness of the view

    def apply(self, image, rng):
        size = np.array(image.shape[:2])
        scene = gaussian_filter(image, (2.5, 2.5, 0), truncate=2)
        result, area = image.copy(), rng.uniform(*self.cover) * size.prod()
        while area > 0:
            radius = max(min(rng.uniform(*self.radius), size.min() / 3), 1)
            area -= np.pi * radius**2
            self.blend_drop(result, scene, rng.uniform(0, size), radius, rng)
        return result

    def blend_drop(self, result, scene, centre, radius, rng):
        low = np.maximum(centre - 1.6 * radius, 0).astype(int)
        high = np.minimum(centre + 1.6 * radius + 1, result.shape[:2]).astype(int)
        patch = result[low[0] : high[0], low[1] : high[1]]
        y, x = np.mgrid[low[0] : high[0], low[1] : high[1]] - centre[:, None, None]
        stretch, phase = rng.uniform(0.8, 1.2), rng.uniform(0, 2 * np.pi)
        dents = rng.uniform(0, 0.15) * np.cos(3 * np.arctan2(y, x) + phase)
        distance = np.hypot(y / stretch, x * stretch) / radius * (1 + dents)
        alpha = np.clip((1.15 - distance) / 0.4, 0, 1)[..., None]
        # A lens: the view is upside down, and compressed more towards the rim.
        bend = -rng.uniform(*self.shrink) * (1 + distance**2)
        places = centre[:, None, None] + bend * np.stack([y, x])
        view = np.dstack([map_coordinates(scene[..., c], places, order=1, mode="mirror") for c in range(3)])
        view = np.minimum(rng.uniform(*self.gain) * gaussian_filter(view, (radius / 5, radius / 5, 0)), 1)
        patch += alpha**2 * (3 - 2 * alpha) * (view - patch)


@dataclass(frozen=True)
class LowLight(Degradation):
    """A short exposure: ``gain image ** gamma``, photon and read noise, 8 bits. LOL (Wei et al., 2018)."""
    gamma: Range = (1.0, 1.6)
    gain: Range = (0.08, 0.3)
    photons: Range = (200, 2000)  # that a white pixel of full exposure collects
    read: Range = (0.5, 2)  # std of 255

    def apply(self, image, rng):
        light = rng.uniform(*self.gain) * image ** rng.uniform(*self.gamma)
        photons = max(rng.uniform(*self.photons), 1)
        read = rng.uniform(*self.read) * rng.standard_normal(image.shape, np.float32)
        return np.round(255 * rng.poisson(light * photons) / photons + read) / 255


@dataclass(frozen=True)
class Inpaint(Degradation):
    """Free-form holes of random-walk brush strokes (Yu et al., ICCV 2019), filled with a constant."""
    masked: Range = (0.1, 0.4)  # fraction of the image, exceeded by less than one round of strokes
    width: Range = (3, 24)  # of the brush
    fill: float = 0.5

    def apply(self, image, rng):
        return np.where(self.mask(image.shape[:2], rng)[..., None], np.float32(self.fill), image)

    def mask(self, shape, rng):
        canvas, target = Image.new("L", shape[::-1]), 255 * min(rng.uniform(*self.masked), 0.95)
        while np.asarray(canvas).mean() < target:
            for _ in range(1 + shape[0] * shape[1] // 2**16):
                self.stroke(ImageDraw.Draw(canvas), shape, rng)
        return np.asarray(canvas) > 0

    def stroke(self, draw, shape, rng):
        width, steps = max(1, min(rng.uniform(*self.width), min(shape) / 8)), rng.integers(2, 6)
        headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.8, steps))
        moves = np.stack([np.cos(headings), np.sin(headings)], 1) * width * rng.uniform(0.5, 2, (steps, 1))
        points = rng.uniform(0, shape[::-1]) + np.cumsum(moves, 0)
        draw.line(points.ravel().tolist(), fill=255, width=round(width), joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=255)


@dataclass(frozen=True)
class Blur(Degradation):
    """Camera shake: convolution with the path of a walk with inertia, then slight Gaussian noise."""
    extent: Range = (5, 18)  # of the path along its longer side
    noise: float = 1  # std of 255

    def apply(self, image, rng):
        kernel = self.kernel(rng)
        margin = (len(kernel) // 2,)
        padded = np.pad(image, [margin, margin, (0,)], mode="reflect")
        blurred = fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
        return blurred + self.noise / 255 * rng.standard_normal(image.shape, np.float32)

    def kernel(self, rng):
        """The point spread function: odd, square, sum 1, its centroid in the middle."""
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.uniform(0.02, 0.2), 200))
        path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)]) * rng.uniform(0.2, 1.8, 200), axis=1)
        path *= rng.uniform(*self.extent) / np.ptp(path, axis=1).max()
        path -= path.mean(axis=1, keepdims=True)
        reach = int(np.ceil(np.abs(path).max())) + 2
        kernel = np.histogram2d(*path, bins=np.arange(-reach - 0.5, reach + 1))[0].astype(np.float32)
        return gaussian_filter(kernel, 0.5, mode="constant") / len(path[0])


@dataclass(frozen=True)
class Downsample(Degradation):
    """Antialiased bicubic reduction by ``scale``, then bicubic enlargement to the original size."""
    scale: float = 4

    def apply(self, image, rng):
        size = image.shape[1], image.shape[0]
        small = [max(1, round(side / max(self.scale, 1))) for side in size]
        channels = (Image.fromarray(channel) for channel in np.ascontiguousarray(image.transpose(2, 0, 1)))
        return np.dstack([c.resize(small, BICUBIC).resize(size, BICUBIC) for c in channels])


@dataclass(frozen=True)
class Noise(Degradation):
    """White Gaussian noise, std of 255; clipped to [0, 1], as an 8-bit file is."""
    std: float = 25

    def apply(self, image, rng):
        return image + self.std / 255 * rng.standard_normal(image.shape, np.float32)


@dataclass(frozen=True)
class OneOf:
    """One of several degradations, drawn anew for each image: one model for several tasks (RDBM's universal setting)."""
    choices: list[Degradation]

    def __post_init__(self):
        if not self.choices:
            raise UserError("task.degradation.choices is empty; name at least one degradation.")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.choices[int(rng.integers(len(self.choices)))](image, rng)
