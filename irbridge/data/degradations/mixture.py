"""Several degradations as one."""

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from typing_extensions import override

from irbridge.data.degradations.base import Degradation
from irbridge.errors import UserError


@dataclass(frozen=True)
class OneOf(Degradation):
    """One of several degradations for each image: one model for several tasks.

    This is the universal setting of RDBM. An image that is scored draws its task by its name.

    Args:
        choices: the degradations, all with the same odds.
        each_step: training crops do not draw theirs, but take them in turn: crop k of an optimizer
            step has task k modulo their number, so that each step sees all of them equally often.

    Raises:
        UserError: there are none.
    """

    choices: list[Degradation]
    each_step: bool = False

    def __post_init__(self):
        if not self.choices:
            raise UserError("task.degradation.choices is empty; name at least one degradation.")

    @property
    def round(self) -> int:
        """Of how many training crops one has each task; 1 where they draw it."""
        return len(self.choices) if self.each_step else 1

    def drawn(self, rng: np.random.Generator) -> int:
        """The index of the choice of an image, by the first number of its generator."""
        return int(rng.integers(len(self.choices)))

    @override
    def task_of(self, rng):
        return self.choices[self.drawn(rng)].task_of(rng)

    @override
    def apply(self, image, rng):
        return self.choices[self.drawn(rng)](image, rng)

    def apply_in_turn(self, image: np.ndarray, rng: np.random.Generator, turn: int) -> np.ndarray:
        """The image by the choice whose turn it is.

        Args:
            image: as for ``apply``.
            rng: likewise.
            turn: counts the training crops.
        """
        return self.choices[turn % len(self.choices)](image, rng)


def in_rounds(kinds: list[int]) -> list[int]:
    """An order in which kinds take turns, so that its beginning has equally many of each.

    Args:
        kinds: the kind of each item.

    Returns:
        The items' indices. Those of one kind keep their order; what is left when others have run
        out comes last.
    """
    places: dict[int, list[int]] = {kind: [] for kind in sorted(set(kinds))}
    for index, kind in enumerate(kinds):
        places[kind].append(index)
    rounds = zip_longest(*places.values())
    return [index for turn in rounds for index in turn if index is not None]
