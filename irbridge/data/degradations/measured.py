"""What a known operator makes of an image, for trainings beside the solvers that know it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from typing_extensions import override

from irbridge.data import problems
from irbridge.data.degradations.base import Degradation, Range
from irbridge.errors import UserError
from irbridge.images.arrays import to_image
from irbridge.operators.physics import deepinv

SERVED = "sr", "gaussian", "motion"


@dataclass(frozen=True)
class Measured(Degradation):
    """A measurement of :mod:`irbridge.data.problems` with noise, as an image to look at.

    Args:
        operator: the problem: sr, gaussian or motion. Those with holes are
            :class:`~irbridge.data.degradations.Inpaint`'s.
        noise: std of Gaussian noise on the measurement, where white is 1.

    Raises:
        UserError: the operator is none of these, or deepinv is not installed.
    """

    task: ClassVar[str] = "known"
    operator: str = "gaussian"
    noise: Range = (0, 0.05)

    def __post_init__(self):
        super().__post_init__()
        if self.operator not in SERVED:
            raise UserError(
                f"Measured got operator={self.operator}; give one of {', '.join(SERVED)}, and for"
                " holes task=inpaint."
            )
        deepinv(f"task.degradation.operator={self.operator}")

    @override
    def apply(self, image, rng):
        operator = problems.operator_of(self.operator, image.shape[:2], rng)
        m = problems.measured(operator, image, rng.uniform(*self.noise), rng)
        with torch.no_grad():
            return to_image(operator.view(m)[0])
