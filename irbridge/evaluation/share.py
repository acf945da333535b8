"""Several processes that share the images of one evaluation."""

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

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


def check_shared(folder: Path, share: tuple[int, int], seconds: float = 90.0) -> None:
    """Refuse a folder that is not one and the same for all processes.

    Machines that share no disk would each have a folder of that name, and go on from different
    checkpoints. The first process leaves a file there, which the others must see.

    Args:
        folder: that the first process has made, and has locked.
        share: (rank, world) of this process.
        seconds: how long a network file system may take until it shows a new file.

    Raises:
        UserError: in every process, where one of them does not see the file.
    """
    rank, world = share
    if world == 1:
        return
    mark = folder / agreed(lambda: f".seen-{secrets.randbits(60)}.tmp", share)
    try:
        agreed(mark.touch, share)
        end = time.monotonic() + seconds
        while not (seen := mark.is_file()) and time.monotonic() < end:
            time.sleep(0.2)
        blind = [number for number, sees in gather_object([(rank, seen)]) if not sees]
    finally:
        if rank == 0:
            mark.unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"{folder} is another folder for process {blind[0]} than for the first one; put it on a"
            " disk that all machines share."
        )
