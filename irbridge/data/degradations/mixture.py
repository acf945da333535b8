"""Several degradations as one."""

from dataclasses import dataclass

from typing_extensions import override

from irbridge.data.degradations.base import Degradation
from irbridge.errors import UserError


@dataclass(frozen=True)
class OneOf(Degradation):
    """One of several degradations, drawn anew for each image: one model for several tasks.

    This is the universal setting of RDBM.

    Args:
        choices: the degradations, all with the same odds.

    Raises:
        UserError: there are none.
    """

    choices: list[Degradation]

    def __post_init__(self):
        if not self.choices:
            raise UserError("task.degradation.choices is empty; name at least one degradation.")

    @override
    def apply(self, image, rng):
        return self.choices[int(rng.integers(len(self.choices)))](image, rng)
