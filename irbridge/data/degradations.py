"""Synthetic degradations: ``degrade(image, rng)`` maps (H, W, 3) in [0, 1] to the same shape and
range.

Each is a pure function of the image and the generator. Lengths are in pixels and features have a
density per area, so a crop shows the same weather as its photograph. A pair of numbers is the range
that a parameter is drawn from uniformly.
"""

from dataclasses import dataclass, fields
from functools import partial

import numpy as np
from PIL import Image

from irbridge.data import hole_shapes
from irbridge.errors import UserError

Range = tuple[float, float]
BICUBIC = Image.Resampling.BICUBIC
# what light gains in red, green and blue when it gets warmer
WARM = np.array([1, 0, -1], np.float32)


class Degradation:
    """Checks the parameters, and clips what ``apply(image, rng)`` gives to [0, 1]."""

    def __post_init__(self):
        for field in fields(self):
            if field.type == tuple[str, ...]:
                continue  # names, which their class checks
            value = getattr(self, field.name)
            numbers = np.atleast_1d(np.array(list(value) if np.iterable(value) else value))
            size = 2 if field.type == Range else 1
            if (
                numbers.dtype.kind not in "if"
                or len(numbers) != size
                or not 0 <= numbers[0] <= numbers[-1]
            ):
                wanted = "two ascending numbers" if size == 2 else "one number"
                raise UserError(
                    f"{type(self).__name__} got {field.name}={value}; give {wanted} from 0 up."
                )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.clip(self.apply(image, rng), 0, 1).astype(np.float32)


def _axes(reach: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a square of ``2 reach + 1`` pixels along and across a direction, ``angle``
    from vertical.
    """
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    return y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)


def _particle(radius: float, travel: float, angle: float, power: float = 2, lobes=()) -> np.ndarray:
    """A soft disc, 1 in its centre and 1/2 at ``radius``, smeared over ``travel`` at ``angle`` from
    vertical. A high power hardens the edge; lobes, (order, phase), dent it.
    """
    radius = max(radius, 0.3)
    along, across = _axes(int(np.ceil(2 * radius + travel / 2)), angle)
    along = np.sign(along) * np.maximum(np.abs(along) - travel / 2, 0)
    dents = sum(0.15 * np.cos(order * np.arctan2(across, along) + phase) for order, phase in lobes)
    return 0.5 ** ((np.hypot(along, across) / radius * (1 + dents)) ** power)


def _streak(width: float, length: float, angle: float, taper: float) -> np.ndarray:
    """A line, 1 in its middle and 1/2 at ``width`` beside it, that fades to its ends: slowly with a
    ``taper`` of 1, late with a high one.
    """
    width = max(width, 0.3)
    along, across = _axes(int(np.ceil(length / 2 + width)), angle)
    fade = np.maximum(1 - (np.abs(along) / (length / 2 + width)) ** taper, 0)
    return fade * 0.5 ** ((across / width) ** 2)


def _scatter(shape, particle: np.ndarray, cover: float, rng: np.random.Generator) -> np.ndarray:
    """Particles of random strength at random places, (H, W) >= 0, that add up to ``cover`` times
    the area.
    """
    # here, as this module is imported where nothing is degraded
    from scipy.signal import fftconvolve

    canvas = np.zeros(np.add(shape, particle.shape) - 1, np.float32)
    places = rng.integers(canvas.size, size=rng.poisson(cover / particle.sum() * canvas.size))
    canvas.flat[places] = rng.uniform(0.3, 1, len(places))
    return np.maximum(fftconvolve(canvas, particle, mode="valid"), 0)


def _smooth_noise(shape, cell: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth field, (H, W) in [0, 1]: uniform numbers, one per ``cell`` x ``cell`` pixels,
    enlarged.
    """
    extent = np.array(shape[::-1]) / cell
    numbers = rng.random(np.ceil(extent[::-1]).astype(int) + 3, np.float32)
    start = rng.uniform(1, 2, 2)
    field = Image.fromarray(numbers).resize(shape[::-1], BICUBIC, box=(*start, *(start + extent)))
    return np.clip(np.asarray(field), 0, 1)


def _squares(centres, reaches, margin: int, size) -> tuple[np.ndarray, np.ndarray]:
    """The pixels (m, 2) of squares about centres (n, 2), and which square (m,) each is of. Pixels
    that lie more than ``margin`` outside the image are left out.
    """
    sides = 2 * reaches + 1
    of = np.repeat(np.arange(len(sides)), sides**2)
    within = np.arange(len(of)) - np.repeat(np.cumsum(sides**2) - sides**2, sides**2)
    places = (
        centres[of] - reaches[of, None] + np.stack([within // sides[of], within % sides[of]], 1)
    )
    inside = ((places >= -margin) & (places < size + margin)).all(axis=1)
    return of[inside], places[inside]


def _reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """The image smaller by ``factor``, each pixel the mean of those it replaces."""
    small = [max(1, side // factor) for side in image.shape[1::-1]]
    channels = (
        Image.fromarray(channel) for channel in np.ascontiguousarray(image.transpose(2, 0, 1))
    )
    return np.dstack([channel.resize(small, Image.Resampling.BOX) for channel in channels])


def _guided(field: np.ndarray, guide: np.ndarray, reach: int = 5) -> np.ndarray:
    """The field, smoothed, with its edges moved to those of the guide within ``reach`` pixels: the
    guided filter (He et al., TPAMI 2013). Both (H, W).
    """
    from scipy.ndimage import uniform_filter

    mean = partial(uniform_filter, size=2 * reach + 1, mode="nearest")
    middle, level = mean(guide), mean(field)
    slope = (mean(guide * field) - middle * level) / (mean(guide * guide) - middle**2 + 5e-4)
    return mean(slope) * guide + mean(level - slope * middle)


@dataclass(frozen=True)
class Rain(Degradation):
    """Streaks in layers of different depth, under a thin mist: one direction as in Rain100L and
    Rain800, or several as in Rain100H (Yang et al., CVPR 2017; Zhang et al., TCSVT 2020).

    A layer's streaks have one length, width and direction. Their light is added to the scene's, of
    which they block a share ``hide``. Far layers are smaller and darker.
    """

    layers: Range = (1, 5)
    cover: Range = (0, 0.5)  # streak area per layer over the image's area, one draw an image
    length: Range = (8, 80)  # of the nearest streaks, 2.5 times the farthest
    width: Range = (0.4, 1.6)  # from the middle to half the brightness
    strength: Range = (0.5, 1)
    angle: float = 40  # largest lean of a wind, degrees
    spread: float = 5  # std of the layers of a wind, degrees
    winds: Range = (1, 3)  # directions; each layer follows one of them
    hide: Range = (0, 1)  # 0: streaks add light; 1: they cover the scene
    grey: Range = (0.7, 1)  # brightness of the nearest streaks, and of the mist
    patchy: Range = (0, 0.5)  # by how much rain and mist are thinner in places
    veil: Range = (0, 0.25)  # opacity of the mist where it is densest

    def apply(self, image, rng):
        shape = image.shape[:2]
        winds = rng.uniform(-self.angle, self.angle, max(round(rng.uniform(*self.winds)), 1))
        cover, grey, rain = (
            rng.uniform(*self.cover),
            rng.uniform(*self.grey),
            np.zeros(shape, np.float32),
        )
        for i, nearness in enumerate(np.linspace(1, 0.4, round(rng.uniform(*self.layers)))):
            length, width = (
                nearness * rng.uniform(*self.length),
                nearness * rng.uniform(*self.width),
            )
            angle = np.deg2rad(rng.normal(winds[i % len(winds)], self.spread))
            streak = _streak(width, length, angle, rng.uniform(1, 5))
            rain += nearness**0.5 * np.minimum(
                _scatter(shape, streak, cover * rng.uniform(0.5, 1), rng), 1
            )
        density = 1 - rng.uniform(*self.patchy) * _smooth_noise(shape, 120, rng)
        mist = (rng.uniform(*self.veil) * density)[..., None]
        rain = (rng.uniform(*self.strength) * rain * density)[..., None]
        scene = image + mist * (grey - image)
        return scene * (1 - np.minimum(rng.uniform(*self.hide) * rain, 1)) + grey * rain


@dataclass(frozen=True)
class Haze(Degradation):
    """Scattering, ``J t + A (1 - t)`` with ``t = exp(-beta d)``; ranges of RESIDE (Li et al., TIP
    2019).

    The depth d is made up from the image: the ground, a plane that rises in a mostly upward
    direction, and regions of similar colour, each at a distance of its own. A crop gets a part of a
    larger scene's depth.
    """

    beta: Range = (0.1, 1.8)
    airlight: Range = (0.7, 1.0)
    # largest excess of the airlight's red over its green, and of its green over its blue
    tint: float = 0.03
    scene: Range = (256, 640)  # longer side of the photograph, where the image is smaller than that
    regions: Range = (0, 1)  # largest difference in depth between two regions
    patchy: Range = (0, 0.3)  # by how much the haze is thinner in places

    def apply(self, image, rng):
        t = self.transmission(image, rng)[..., None]
        airlight = rng.uniform(*self.airlight) + rng.uniform(-self.tint, self.tint) * WARM
        return image * t + np.minimum(airlight, 1) * (1 - t)

    def transmission(self, image, rng):
        """t, (H, W)."""
        density = 1 - rng.uniform(*self.patchy) * _smooth_noise(image.shape[:2], 150, rng)
        return np.exp(-rng.uniform(*self.beta) * density * self.depth(image, rng))

    def depth(self, image, rng):
        """(H, W), about 0 to 3. Made at a quarter of the size, where texture is gone, then fitted
        to the edges.
        """
        small, size = _reduced(image, 4), np.array(image.shape[:2])
        scene = max(rng.uniform(*self.scene), size.max())
        start, up = rng.uniform(0, scene - size + 1e-6), rng.normal(0, 0.6)
        y, x = (
            (begin + (np.arange(n) + 0.5) / n * side) / scene - 0.5
            for begin, n, side in zip(start, small.shape, size)
        )
        ground = np.float32(0.5 - y[:, None] * np.cos(up) + x * np.sin(up))
        near, slope, upright = rng.uniform((0.05, 0.3, 0), (0.4, 2.0, 1))
        standing, offset = self.by_region(small, ground, size.prod(), rng)
        ground = ground + upright * (standing - ground)
        depth = near + slope * ground + rng.uniform(*self.regions) * (offset - 0.3)
        depth = np.asarray(
            Image.fromarray(depth.astype(np.float32)).resize(size[::-1].tolist(), BICUBIC)
        )
        return np.maximum(_guided(depth, image.mean(axis=2)), 0.02)

    def by_region(self, image, ground, area, rng):
        """Two (H, W) fields that are even where position and colour are similar, and change where
        the colour does: the ground below a region, and a random number in [0, 1]. Interpolated
        between seeds, random pixels, by the inverse of the distance in position and colour
        (Shepard, 1968). ``area``: of the photograph, in its pixels.
        """
        count = int(np.clip(area / 60**2, 3, 24))
        places = np.unravel_index(rng.integers(ground.size, size=count), ground.shape)
        values = np.stack([ground[places], rng.random(count, np.float32)], 1)
        near = 2 * count / ground.size  # squared: half the seeds' spacing
        colours = image.transpose(2, 0, 1) / 0.15
        y, x = np.ogrid[: ground.shape[0], : ground.shape[1]]
        fields, total = np.zeros((2, *ground.shape), np.float32), np.zeros(ground.shape, np.float32)
        for row, column, value in zip(*places, values):
            distance = near * ((y - row) ** 2 + (x - column) ** 2).astype(np.float32) + 0.1
            for colour in colours:
                distance += (colour - colour[row, column]) ** 2
            weight = 1 / (distance * distance * distance)
            total += weight
            fields += weight * value[:, None, None]
        return fields / total


@dataclass(frozen=True)
class Snow(Degradation):
    """Flakes in layers under a thin veil: far ones small, sharp and many, near ones large, out of
    focus and smeared by their motion; as Snow100K (Liu et al., TIP 2018), whose parts S, M and L
    end at three distances.
    """

    layers: Range = (3, 7)
    cover: Range = (0, 0.08)  # flake area per layer over the image's area, one draw an image
    radius: Range = (0.5, 8)  # of the farthest and of the nearest flakes
    speed: Range = (0, 3)  # travel during the exposure, in radii
    veil: Range = (0, 0.25)  # opacity where it is densest
    # where the layers end: at 0 all are far, at 1 the last has the largest radius
    nearest: Range = (0.3, 1)
    white: Range = (0.8, 1)  # brightness of flakes and veil

    def apply(self, image, rng):
        white, wind, speed = rng.uniform(*self.white), rng.normal(0, 0.5), rng.uniform(*self.speed)
        clear = 1 - rng.uniform(*self.veil) * _smooth_noise(image.shape[:2], 80, rng)
        cover, nearest = rng.uniform(*self.cover), rng.uniform(*self.nearest)
        for nearness in nearest * np.linspace(0, 1, round(rng.uniform(*self.layers))):
            radius = np.interp(nearness**2, (0, 1), self.radius) * rng.uniform(0.8, 1.25)
            lobes = [(order, rng.uniform(0, 2 * np.pi)) for order in (2, 3)]
            flake = _particle(
                radius, speed * radius, rng.normal(wind, 0.2), 4 - 2.5 * nearness, lobes
            )
            opacity = _scatter(clear.shape, flake, cover * rng.uniform(0.3, 1.2), rng)
            clear = clear * (1 - np.minimum((1.3 - 0.5 * nearness) * opacity, 0.95))
        return image * clear[..., None] + white * (1 - clear[..., None])


@dataclass(frozen=True)
class Raindrop(Degradation):
    """Drops on the pane, as RainDrop (Qian et al., CVPR 2018). Each is a lens, through which the
    scene is seen upside down, much smaller, brighter below, where the sky is, and darker at the
    rim. The camera looks at the scene, so that all drops of a photograph are out of focus by the
    same amount: from sharp ones to faint bright discs.
    """

    cover: Range = (0.03, 0.45)  # summed drop area over the image's area
    # drops of an image are about as large as each other, within a factor of two
    radius: Range = (4, 30)
    shrink: Range = (3, 10)  # width of the view over that of the drop
    gain: Range = (0.85, 1.4)  # brightness of the view
    # radius of the disc that a point of the pane becomes, over that of a usual drop
    defocus: Range = (0, 1.5)
    sky: Range = (0, 0.5)  # light of the sky in the view, which the picture need not show
    shade: Range = (0, 0.5)  # by how much the view is darker at its top and brighter at its bottom
    rim: Range = (0, 0.8)  # by how much the rim is darker
    glint: Range = (0, 1)  # brightness of the sun's reflection, a spot

    def apply(self, image, rng):
        from scipy.signal import fftconvolve

        size = np.array(image.shape[:2])
        usual = np.exp(rng.uniform(*np.log(np.maximum(self.radius, 0.5))))
        aperture = rng.uniform(*self.defocus) * usual
        margin = int(np.ceil(aperture))
        blur = np.clip(aperture + 0.5 - np.hypot(*_axes(margin, 0)), 0, 1)
        centres, radii = self.drops(size + 2 * margin, usual, rng)
        drops = self.layer(image, centres - margin, radii, margin, rng)
        drops = fftconvolve(drops, blur[..., None] / blur.sum(), mode="valid", axes=(0, 1))
        return image * (1 - np.clip(drops[..., 3:], 0, 1)) + drops[..., :3]

    def drops(self, size, usual, rng):
        """Centres (n, 2) and radii of drops of about a ``usual`` radius. A quarter lie at another's
        edge, and merge.
        """
        area = rng.uniform(*self.cover) * size.prod()
        count = max(rng.poisson(area / (np.pi * usual**2)), 1)
        radii = np.clip(usual * np.exp(rng.normal(0, 0.35, count) - 0.12), *self.radius)
        centres, angles = rng.uniform(0, size, (count, 2)), rng.uniform(0, 2 * np.pi, count)
        centres[0] = rng.uniform(0.25, 0.75, 2) * size  # so that no image is left whole
        edges = centres + np.stack([np.sin(angles), np.cos(angles)], 1) * radii[:, None]
        chosen = rng.random(count) < 0.5
        moved = 1 + np.flatnonzero(chosen[1:] & ~chosen[:-1])
        centres[moved] = edges[moved - 1]
        return centres, radii

    def layer(self, image, centres, radii, margin, rng):
        """The sharp drops alone, (H + 2 margin, W + 2 margin, 4): colour times opacity, and
        opacity.
        """
        from scipy.ndimage import map_coordinates

        size = np.array(image.shape[:2])
        drops = np.zeros((*(size + 2 * margin), 4), np.float32)
        drop, place = _squares(
            np.round(centres).astype(int), np.ceil(1.5 * radii).astype(int), margin, size
        )
        offset = ((place - centres[drop]) / radii[drop, None]).astype(np.float32)
        distance, edge = self.outline(offset, drop, radii, rng)
        opacity = np.clip((1 - distance) * edge + 0.5, 0, 1)
        order = np.argsort(opacity, kind="stable")  # where drops overlap, the most opaque is seen
        order = order[opacity[order] > 0]
        drop, place, offset, distance, opacity = (
            v[order] for v in (drop, place, offset, distance, opacity)
        )
        # A lens: upside down, and compressed more towards the rim; the scene in it is too small to
        # be sharp.
        shrink = rng.uniform(*self.shrink, len(radii))[drop, None]
        seen = centres[drop] - shrink * (radii[drop] * (1 + distance**2))[:, None] * offset
        small = _reduced(image, 4)
        seen = ((seen + 0.5) / size * small.shape[:2] - 0.5).T
        view = np.stack(
            [map_coordinates(small[..., c], seen, order=1, mode="mirror") for c in range(3)], 1
        )
        gain = rng.uniform(*self.gain, len(radii))[drop] * (
            1 + rng.uniform(*self.shade) * offset[:, 0]
        )
        gain *= 1 - rng.uniform(*self.rim) * np.clip(distance, 0, 1) ** 4
        view = gain[:, None] * (view + rng.uniform(*self.sky) * (0.9 - view))
        sun, spot = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.1, 0.2)
        glint = rng.uniform(*self.glint) * 0.5 ** (((offset - sun) ** 2).sum(1) / spot**2)
        # above 1, so that it is a bright disc when out of focus
        view = np.clip(view, 0, 1) + glint[:, None]
        drops[place[:, 0] + margin, place[:, 1] + margin] = np.column_stack(
            [view * opacity[:, None], opacity]
        )
        return drops

    def outline(self, offset, drop, radii, rng):
        """The distance from a drop's centre, 1 at its edge, for offsets in radii; and the edge's
        sharpness per radius. Drops are dented, and stretched mostly downwards.
        """
        stretch = np.exp(rng.normal(0.05, 0.15, len(radii)))[drop]
        angle = np.arctan2(offset[:, 0], offset[:, 1])
        dents = sum(
            rng.normal(0, 0.2 / order, len(radii))[drop] * np.cos(order * angle + phase)
            for order, phase in zip((2, 3, 4), rng.uniform(0, 2 * np.pi, (3, len(radii)))[:, drop])
        )
        distance = np.hypot(offset[:, 0] / stretch, offset[:, 1] * stretch) * (
            1 + np.clip(dents, -0.3, 0.5)
        )
        return distance.astype(np.float32), np.minimum(radii, 1 + 0.3 * radii)[drop]


@dataclass(frozen=True)
class LowLight(Degradation):
    """A short exposure, ``gain image ** gamma`` with a colour cast, noise of the sensor and 8 bits,
    as LOL (Wei et al., BMVC 2018). Photon and read noise, then what a camera does to it: smoothing,
    and less of it in the colours.
    """

    gamma: Range = (1.0, 2.4)
    gain: Range = (0.06, 0.8)  # drawn uniformly in its logarithm
    photons: Range = (300, 6000)  # that a white pixel of full exposure collects
    read: Range = (0.3, 2)  # std of 255
    # std of the logarithm of red over green, as of green over blue: wrong white balance
    cast: Range = (0, 0.4)
    black: Range = (0, 0.01)  # below this the sensor gives 0
    chroma: Range = (0.3, 1)  # share of the colour noise that is left
    smooth: Range = (0, 0.6)  # std of the smoothing of the noise, pixels

    def apply(self, image, rng):
        gain, gamma = (
            np.exp(rng.uniform(*np.log(np.maximum(self.gain, 1e-3)))),
            rng.uniform(*self.gamma),
        )
        # Mostly along the colours of daylight, from warm to cool, and less between green and
        # magenta.
        cast = rng.uniform(*self.cast) * (rng.normal() * WARM + 0.25 * rng.standard_normal(3))
        light = image**gamma * np.float32(gain * np.exp(cast - cast.mean()))
        read, photons = rng.uniform(*self.read) / 255, max(rng.uniform(*self.photons), 1)
        noise = np.sqrt(light / photons + read**2) * rng.standard_normal(image.shape, np.float32)
        noise = self.processed(noise, rng.uniform(*self.chroma), rng.uniform(*self.smooth))
        return np.round(255 * (light - rng.uniform(*self.black) + noise)) / 255

    def processed(self, noise, chroma, smooth):
        from scipy.ndimage import gaussian_filter

        grey = noise.mean(axis=2, keepdims=True)
        noise = grey + chroma * (noise - grey)
        return gaussian_filter(noise, (smooth, smooth, 0), truncate=3) if smooth > 0.2 else noise


@dataclass(frozen=True)
class Inpaint(Degradation):
    """Holes filled with a constant. Each image gets one of the ``kinds`` of :mod:`irbridge.masks`,
    those that are drawn as marks more often than half images, frames, lines and lattices.
    """

    masked: Range = (0.02, 0.5)  # fraction of the image, exceeded by less than one round of marks
    width: Range = (3, 24)  # of the strokes of kind brush
    fill: float = 0.5
    kinds: tuple[str, ...] = tuple(hole_shapes.KINDS)

    def __post_init__(self):
        super().__post_init__()
        if (
            not np.iterable(self.kinds)
            or not set(self.kinds)
            or not set(self.kinds) <= set(hole_shapes.KINDS)
        ):
            raise UserError(
                f"Inpaint got kinds={self.kinds}; give a list of some of {', '.join(hole_shapes.KINDS)}."
            )

    def apply(self, image, rng):
        return self.fill_in(image, self.mask(image.shape[:2], rng))

    def mask(self, shape, rng) -> np.ndarray:
        """Bool (H, W), True in the holes."""
        weights = np.array([hole_shapes.WEIGHTS[kind] for kind in self.kinds])
        kind, share = (
            str(rng.choice(list(self.kinds), p=weights / weights.sum())),
            rng.uniform(*self.masked),
        )
        options = {"width": self.width} if kind == "brush" else {}
        return hole_shapes.KINDS[kind](shape, share, rng, **options)

    def fill_in(self, image, mask):
        return np.where(mask[..., None], np.float32(self.fill), image)


@dataclass(frozen=True)
class Blur(Degradation):
    """Camera shake: convolution with the path of a walk with inertia, then slight Gaussian
    noise.
    """

    extent: Range = (5, 18)  # of the path along its longer side
    noise: float = 1  # std of 255

    def apply(self, image, rng):
        from scipy.signal import fftconvolve

        kernel = self.kernel(rng)
        margin = (len(kernel) // 2,)
        padded = np.pad(image, [margin, margin, (0,)], mode="reflect")
        blurred = fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
        return blurred + self.noise / 255 * rng.standard_normal(image.shape, np.float32)

    def kernel(self, rng):
        """The point spread function: odd, square, sum 1, its centroid in the middle."""
        from scipy.ndimage import gaussian_filter

        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.uniform(0.02, 0.2), 200))
        path = np.cumsum(
            np.stack([np.sin(heading), np.cos(heading)]) * rng.uniform(0.2, 1.8, 200), axis=1
        )
        path *= rng.uniform(*self.extent) / np.ptp(path, axis=1).max()
        path -= path.mean(axis=1, keepdims=True)
        reach = int(np.ceil(np.abs(path).max())) + 2
        kernel = np.histogram2d(*path, bins=np.arange(-reach - 0.5, reach + 1))[0].astype(
            np.float32
        )
        return gaussian_filter(kernel, 0.5, mode="constant") / len(path[0])


@dataclass(frozen=True)
class Downsample(Degradation):
    """Antialiased bicubic reduction by ``scale``, then bicubic enlargement to the original size."""

    scale: float = 4

    def apply(self, image, rng):
        size = image.shape[1], image.shape[0]
        small = [max(1, round(side / max(self.scale, 1))) for side in size]
        channels = (
            Image.fromarray(channel) for channel in np.ascontiguousarray(image.transpose(2, 0, 1))
        )
        return np.dstack([c.resize(small, BICUBIC).resize(size, BICUBIC) for c in channels])


@dataclass(frozen=True)
class Noise(Degradation):
    """White Gaussian noise, std of 255; clipped to [0, 1], as an 8-bit file is. One number is a
    range of that alone.
    """

    std: Range = (25, 25)

    def __post_init__(self):
        if not np.iterable(self.std):
            # as runs of older versions give it
            object.__setattr__(self, "std", (self.std, self.std))
        super().__post_init__()

    def apply(self, image, rng):
        noise = rng.standard_normal(image.shape, np.float32)
        return image + rng.uniform(*self.std) / 255 * noise


@dataclass(frozen=True)
class OneOf(Degradation):
    """One of several degradations, drawn anew for each image: one model for several tasks (RDBM's
    universal setting).
    """

    choices: list[Degradation]

    def __post_init__(self):
        if not self.choices:
            raise UserError("task.degradation.choices is empty; name at least one degradation.")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.choices[int(rng.integers(len(self.choices)))](image, rng)
