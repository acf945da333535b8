"""Blur kernels: made from a few numbers, or read from a file."""

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from irbridge.errors import UserError, unknown
from irbridge.files import open_regular
from irbridge.images.samples import read_samples
from irbridge.ranges import SEED, check_values, number, whole

WIDTH = whole(1, 1001)
STD = number(lambda v: 0 < v <= 160, "above 0, at most 160")
EXTENT = number(lambda v: 1 <= v <= 1000, "from 1 to 1000")
ANGLE = number(lambda v: abs(v) <= 360, "from -360 to 360")
MOST = 2**24  # of a kernel's bytes in a text: one of 1000 x 1000 has fewer


def uniform(width: int = 9) -> Tensor:
    """The mean of ``width`` x ``width`` pixels, float64."""
    check_values({"width": WIDTH}, {"width": width}, "")
    return torch.full((width, width), 1 / width**2, dtype=torch.float64)


def gaussian(std: float = 3.0, width: int | None = None) -> Tensor:
    """A Gaussian bell, float64, sum 1.

    Args:
        std: pixels, above 0.
        width: of the kernel; None: the least odd one that holds three std to every side.
    """
    check_values({"std": STD, "width": WIDTH}, {"std": std, "width": width}, "")
    width = 2 * math.ceil(3 * std) + 1 if width is None else width
    check_values({"width": WIDTH}, {"width": width}, "")
    at = torch.arange(width, dtype=torch.float64) - width // 2
    # relative to the nearest, so that a narrow bell does not underflow to nothing
    bell = torch.exp(-(at**2) / (2 * std**2))
    return torch.outer(bell, bell) / bell.sum() ** 2


def line(extent: float = 15.0, angle: float = 0.0) -> Tensor:
    """The track of a camera that moves straight on, float64, sum 1.

    Args:
        extent: its length, pixels.
        angle: degrees from the horizontal, anticlockwise.
    """
    check_values({"extent": EXTENT, "angle": ANGLE}, {"extent": extent, "angle": angle}, "")
    way = np.linspace(-extent / 2, extent / 2, 20 * math.ceil(extent) + 1)
    turn = math.radians(angle)
    return torch.from_numpy(_spread(-way * math.sin(turn), way * math.cos(turn)))


def _spread(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Points as a kernel around (0, 0), each shared among its four pixels; odd, square, sum 1."""
    reach = math.ceil(max(np.abs(rows).max(), np.abs(columns).max()))
    kernel = np.zeros((2 * reach + 2, 2 * reach + 2))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    for down in (0, 1):
        for right in (0, 1):
            share = (1 - np.abs(rows - top - down)) * (1 - np.abs(columns - left - right))
            np.add.at(kernel, (top + reach + down, left + reach + right), share)
    kernel = kernel[:-1, :-1]
    return kernel / kernel.sum()


def motion(extent: float = 15.0, seed: int = 0) -> Tensor:
    """The track of a shaken camera, see :func:`shaken`; float64, sum 1.

    Args:
        extent: of the track along its longer side, pixels.
        seed: of the track; the same seed gives the same kernel.
    """
    check_values({"extent": EXTENT, "seed": SEED}, {"extent": extent, "seed": seed}, "")
    kernel = torch.from_numpy(shaken(np.random.default_rng(seed), (extent, extent))).double()
    return kernel / kernel.sum()


def shaken(rng: np.random.Generator, extent: tuple[float, float]) -> np.ndarray:
    """The track of a random walk with inertia: the point spread function of a shaken camera.

    Args:
        rng: where all of its randomness comes from.
        extent: of the track along its longer side, pixels; drawn from this range.

    Returns:
        float32, odd, square, sum 1, its centroid in the middle.
    """
    from scipy.ndimage import gaussian_filter

    way = track(rng, extent)
    reach = int(np.ceil(np.abs(way).max())) + 2
    bins = np.arange(-reach - 0.5, reach + 1)
    kernel = np.histogram2d(*way, bins=bins)[0].astype(np.float32)
    return gaussian_filter(kernel, 0.5, mode="constant") / len(way[0])


def track(rng: np.random.Generator, extent: tuple[float, float]) -> np.ndarray:
    """A random walk with inertia: where a shaken camera points, at 200 times one after another.

    Args:
        rng: where all of its randomness comes from.
        extent: of the track along its longer side, pixels; drawn from this range.

    Returns:
        float64 (2, 200), rows and columns in pixels; their means are 0.
    """
    start = rng.uniform(0, 2 * np.pi)
    heading = start + np.cumsum(rng.normal(0, rng.uniform(0.02, 0.2), 200))
    moves = np.stack([np.sin(heading), np.cos(heading)]) * rng.uniform(0.2, 1.8, 200)
    way = np.cumsum(moves, axis=1)
    way *= rng.uniform(*extent) / np.ptp(way, axis=1).max()
    return way - way.mean(axis=1, keepdims=True)


KERNELS = {"gaussian": gaussian, "uniform": uniform, "motion": motion, "line": line}
"""The kernels that have a word."""


def read_kernel(path: str | Path) -> Tensor:
    """A kernel from a file, float64, as it is stored.

    Args:
        path: an image (the mean of its colours counts), or numbers: .npy, or .txt with a row a
            line.

    Raises:
        UserError: it is missing, damaged, or no table of numbers.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".txt"):
        samples = read_samples(path)
        values = samples.values[..., :-1] if samples.alpha else samples.values
        return torch.from_numpy(values.astype(np.float64).mean(axis=2))
    remedy = "give a two-dimensional table of numbers, or an image"
    if not path.is_file():
        raise UserError(f"The kernel {path} does not exist, or is no file; {remedy}.")
    try:
        with open_regular(path) as file:
            if path.stat().st_size > MOST:
                raise ValueError("too large")
            with warnings.catch_warnings():  # of an empty text: its shape is refused below
                warnings.simplefilter("ignore")
                read = (
                    np.load(file, allow_pickle=False)
                    if suffix == ".npy"
                    else np.loadtxt(file, ndmin=2)
                )
            values = np.asarray(read).astype(np.float64, casting="same_kind")
    except (ValueError, TypeError, EOFError, OSError, UnicodeError) as error:
        raise UserError(f"The kernel {path} cannot be read ({error}); {remedy}.") from error
    return torch.from_numpy(values)


def kernel_of(word: str | Path, **numbers) -> Tensor:
    """A kernel by its word and numbers, or from a file.

    Args:
        word: one of :data:`KERNELS`, or the path of a file.
        numbers: of the kernel's function.

    Raises:
        UserError: the word is unknown, or a number is none of the kernel's.
    """
    from inspect import signature

    make = KERNELS.get(str(word))
    if make is None and not Path(word).suffix:
        raise unknown(
            f"kernel={word} is unknown",
            str(word),
            KERNELS,
            f"choose one of {', '.join(KERNELS)}, or the path of a file",
        )
    known = [] if make is None else list(signature(make).parameters)
    for name in numbers:
        if name not in known:
            has = f"give {' or '.join(f'{other}=' for other in known)}" if known else "leave it out"
            raise unknown(f"kernel={word} has no setting {name}", name, known, has)
    return read_kernel(word) if make is None else make(**numbers)
