"""Inverse problems: clean images, measured by an operator that is known.

Solvers are compared on them, and the trainings beside are of the very same ones
(:class:`~irbridge.data.degradations.Measured`). Each is a function of the image's sides and of the
random generator, which draws what is random in it: the holes, or the kernel.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from irbridge.data import hole_shapes
from irbridge.errors import unknown
from irbridge.images.arrays import to_tensor
from irbridge.operators import kernels
from irbridge.operators.base import Operator
from irbridge.operators.blur import Blur
from irbridge.operators.inpaint import Inpaint
from irbridge.operators.super_resolution import SuperResolution

LOST = 0.5  # share of the pixels that problem pixels loses
PAINTED = 0.3  # share of the image that the strokes of problem brush cover, or slightly more
FACTOR = 4  # of problem sr
STD, WIDTH = 1.6, 9  # of the kernel of problem gaussian, pixels
TRACK = 5.0, 15.0  # extent of the camera's track of problem motion, pixels


def _pixels(sides: tuple[int, int], rng: np.random.Generator) -> Operator:
    return Inpaint((3, *sides), hole_shapes.pixels(sides, LOST, rng))


def _brush(sides: tuple[int, int], rng: np.random.Generator) -> Operator:
    return Inpaint((3, *sides), hole_shapes.brush(sides, PAINTED, rng))


@cache
def _smaller(sides: tuple[int, int]) -> Operator:
    return SuperResolution((3, *sides), FACTOR)


@cache
def _blurred(sides: tuple[int, int]) -> Operator:
    return Blur((3, *sides), kernels.gaussian(STD, WIDTH))


def _motion(sides: tuple[int, int], rng: np.random.Generator) -> Operator:
    return Blur((3, *sides), kernels.shaken(rng, TRACK))


PROBLEMS: dict[str, Callable[[tuple[int, int], np.random.Generator], Operator]] = {
    "pixels": _pixels,
    "brush": _brush,
    "sr": lambda sides, rng: _smaller(sides),
    "gaussian": lambda sides, rng: _blurred(sides),
    "motion": _motion,
}
"""How the operator of each is made: half of the pixels lost, strokes of a brush, four times smaller
by a bicubic filter, blurred by a Gaussian, blurred by a shaken camera. Blurs are circular, so that
every solver can serve them."""


def operator_of(problem: str, sides: tuple[int, int], rng: np.random.Generator) -> Operator:
    """The operator of a problem.

    Args:
        problem: a key of :data:`PROBLEMS`.
        sides: height and width of the image.
        rng: draws what is random in it.

    Raises:
        UserError: there is no such problem, deepinv is missing, or the image does not fit.
    """
    check_problem(problem)
    return PROBLEMS[problem](tuple(sides), rng)


def check_problem(problem: str) -> None:
    """UserError where there is no such problem."""
    if problem not in PROBLEMS:
        remedy = f"choose of {', '.join(PROBLEMS)}"
        raise unknown(f"problem={problem} is unknown", problem, PROBLEMS, remedy)


def measured(
    operator: Operator, image: np.ndarray, noise: float, rng: np.random.Generator
) -> Tensor:
    """The measurement of a clean image, neither clipped nor rounded.

    Args:
        operator: the known degradation.
        image: float (H, W, 3) in [0, 1].
        noise: std of its Gaussian noise, where white is 1.
        rng: draws the noise, also where ``noise`` is 0.

    Returns:
        (1, ...), as the operator gives it for images in [-1, 1].
    """
    with torch.no_grad():
        m = operator(to_tensor(image)[None].float())
    # twice, as white is 1 above black for users, and 2 above black for the operator
    return m + 2 * noise * torch.from_numpy(rng.standard_normal(m.shape, np.float32))
