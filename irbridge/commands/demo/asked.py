"""What the page asks for, as its fields give it."""

from typing import Any, NamedTuple

from irbridge.errors import UserError
from irbridge.ranges import SEEDS

ADAPTER, ZERO_SHOT = "adapter", "zeroshot"
"""The two methods: a trained adapter, or a degradation that is known."""


class Asked(NamedTuple):
    """The fields of the page, in the order of its interface.

    Attributes:
        photo: the uploaded file, with ``path`` and ``orig_name``; None: there is none.
        task: the name of the trained model.
        steps: its calls of the frozen prior.
        seed: of the noise, together with the photograph's name.
        method: :data:`ADAPTER` or :data:`ZERO_SHOT`.
        operator: the known degradation.
        solver: that undoes it.
        calls: of the frozen prior by the solver.
        noise: of the photograph, std where white is 1.
        factor: of operator sr.
        reduction: of operator sr, how it was reduced.
        kernel: of operator blur, its word.
        width: how far it blurs, in pixels.
        angle: of kernel line, in degrees.
        quality: of operator jpeg.
        painted: what the editor gives, a dict with ``layers``; None: nothing was painted.
        mask: an uploaded mask, with ``path`` and ``orig_name``; None: there is none.
    """

    photo: Any
    task: str
    steps: Any
    seed: Any
    method: str = ADAPTER
    operator: str = ""
    solver: str = ""
    calls: Any = None
    noise: Any = 0
    factor: Any = None
    reduction: str = ""
    kernel: str = ""
    width: Any = None
    angle: Any = None
    quality: Any = None
    painted: Any = None
    mask: Any = None

    @property
    def zero_shot(self) -> bool:
        """Whether the degradation is known, so that no adapter is needed."""
        return self.method == ZERO_SHOT

    def number(self, field: str, label: str) -> float:
        """The number of a field; UserError, which calls it by its label, where it is empty."""
        value = getattr(self, field)
        if value is None or isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{label} is empty; give a number.")
        return value

    def whole(self, field: str, label: str, most: int = SEEDS) -> int:
        """The whole number of a field; UserError where it is none, or beyond ``most``."""
        value = self.number(field, label)
        if not (value == value and abs(value) <= most and int(value) == value):
            raise UserError(f"{label} must be a whole number of at most {most}.")
        return int(value)
