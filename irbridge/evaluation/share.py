"""Several processes that share the images of one evaluation."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from irbridge.errors import UserError

Value = TypeVar("Value")


class Share(NamedTuple):
    """Which process of how many this is; each takes every ``world``-th image."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process does what only one may do: lock, gather, print."""
        return self.rank == 0

    def of(self, items: list) -> list:
        """This process's part of a list."""
        return items[self.rank :: self.world]

    def wait(self) -> None:
        """Return once all processes have come here."""
        if self.world > 1:
            PartialState().wait_for_everyone()


ALONE = Share()


def agreed(work: Callable[[], Value], share: tuple[int, int]) -> Value:
    """Let the first process do some work, and tell all processes how it went.

    Args:
        work: what is done; it is called in the first process alone.
        share: (rank, world) of this process.

    Returns:
        What ``work()`` gave.

    Raises:
        UserError: in every process, where the first one's work raised it.
    """
    rank, world = share
    result: list = [None]
    if rank == 0:
        try:
            result = [work()]
        except UserError as error:
            result = [error]
    if world > 1:
        broadcast_object_list(result)
    if isinstance(result[0], UserError):
        raise result[0]
    return result[0]
