"""What every synthetic degradation is: a frozen dataclass with one method, ``apply``."""

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import ClassVar

import numpy as np

from irbridge.errors import UserError
from irbridge.ranges import finite, shown

Range = tuple[float, float]
"""(lowest, highest): a number is drawn from it uniformly for each image."""

MOST = 1e9  # of any number
# of some: pixels of what is drawn and how many layers of it, as more takes all memory or for ever;
# degrees; a JPEG's quality; shares
LIMITS = {
    "length": 1000,
    "width": 1000,
    "radius": 1000,
    "extent": 1000,
    "shift": 1000,
    "turn": 360,
    "frames": 100,
    "quality": 100,
    "shrink": 1000,
    "defocus": 1000,
    "scale": 1000,
    "layers": 100,
    "winds": 100,
    "linear": 1,
    "compressed": 1,
}


class Degradation(ABC):
    """Base of the degradations: it checks their parameters and clips what they give.

    A subclass is a frozen dataclass whose fields are numbers or a :data:`Range`, from 0 up. It
    defines :meth:`apply`. Fields of type ``str`` and ``tuple[str, ...]`` are names, which the
    subclass checks itself.

    Attributes:
        task: the task that it makes, as tables name it; empty: the class's name in small letters.

    Raises:
        UserError: a field is negative, too large, no number, or a range that does not ascend.
    """

    task: ClassVar[str] = ""

    def __post_init__(self):
        for field in fields(self):
            if field.type not in (str, tuple[str, ...]):
                self._check(field.name, wants_range=field.type == Range)

    def _check(self, name: str, wants_range: bool) -> None:
        value = getattr(self, name)
        given = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
        plain = all(map(finite, given))
        numbers = np.asarray(given if plain and given else ["none"])
        most = LIMITS.get(name, MOST)
        fits = (
            numbers.dtype.kind in "if"
            and len(numbers) == (2 if wants_range else 1)
            and 0 <= numbers[0] <= numbers[-1] <= most
        )
        if not fits:
            wanted = "two ascending numbers" if wants_range else "one number"
            raise UserError(
                f"{type(self).__name__} got {name}={shown(value)}; give {wanted} from 0 to"
                f" {most:g}."
            )

    @abstractmethod
    def apply(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Degrade an image.

        Args:
            image: float32 (H, W, 3) in [0, 1], left as it is.
            rng: where all of the degradation's randomness comes from.

        Returns:
            (H, W, 3), not yet clipped to [0, 1].
        """

    def task_of(self, rng: np.random.Generator) -> str:
        """The task that an image gets from this generator."""
        return self.task or type(self).__name__.lower()

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """:meth:`apply`, clipped to [0, 1] and float32."""
        return np.clip(self.apply(image, rng), 0, 1).astype(np.float32)
