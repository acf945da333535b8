"""Crops that grow as a training goes on, while fewer of them make a step.

Restormer trains so ("progressive learning", Zamir et al., CVPR 2022), and HI-Diff after it.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from irbridge.errors import UserError
from irbridge.ranges import BATCH, CROP, shown, whole

FIELDS = {"step": whole(1), "crop": whole(1, CROP), "batch_size": whole(1, BATCH)}
"""What an entry of ``trainer.grow`` says."""


class Phase(NamedTuple):
    """The steps of a training whose crops are of one size.

    Attributes:
        step: the first of them.
        images: of all steps before.
        crop: pixels a side.
        batch_size: images of a step.
    """

    step: int
    images: int
    crop: int
    batch_size: int

    @property
    def key(self) -> str:
        """The group that its crop and batch_size stand in, as a user writes it."""
        return "trainer.grow" if self.step else "trainer"

    def images_before(self, step: int) -> int:
        """The images of all steps before one of this phase."""
        return self.images + (step - self.step) * self.batch_size


def phases(crop: int, batch_size: int, grow: Sequence[Mapping] | None = None) -> list[Phase]:
    """The phases of a training, in their order.

    Args:
        crop: of the first one.
        batch_size: likewise.
        grow: the other ones, checked; None: there are none.
    """
    found = [Phase(0, 0, crop, batch_size)]
    for entry in grow or ():
        images = found[-1].images_before(entry["step"])
        found.append(Phase(entry["step"], images, entry["crop"], entry["batch_size"]))
    return found


def phases_of(trainer: Mapping) -> list[Phase]:
    """The phases of a training by its settings; those of older runs have no ``grow``."""
    return phases(trainer["crop"], trainer["batch_size"], trainer.get("grow"))


def phase_at(step: int, of: Sequence[Phase]) -> Phase:
    """The phase of a step, out of all phases."""
    return next(phase for phase in reversed(of) if phase.step <= step)


def check_growth(grow: Sequence | None, minutes: float | None) -> None:
    """UserError where ``trainer.grow`` makes no sense, or the time that it takes is unknown.

    Args:
        grow: a list of entries with the keys of :data:`FIELDS`.
        minutes: that the training is to fill; None: it has steps.
    """
    if not grow:
        return
    for entry in grow:
        if not isinstance(entry, Mapping) or entry.keys() != FIELDS.keys():
            raise UserError(
                "trainer.grow must be a list such as [{step: 20000, crop: 160, batch_size: 40}],"
                f" and one of its entries is {shown(entry)}."
            )
        for name, fits in FIELDS.items():
            if not fits.fits(entry[name]):
                raise UserError(
                    f"trainer.grow has {name}={shown(entry[name])}, which must be {fits.wanted}."
                )
    for earlier, later in pairwise(entry["step"] for entry in grow):
        if later <= earlier:
            raise UserError(
                f"trainer.grow has step={later} behind step={earlier}; give its entries in the"
                " order of their steps, each another."
            )
    if minutes is not None:
        raise UserError(
            "trainer.minutes goes by the pace of the first steps, and trainer.grow changes it; give"
            " trainer.steps instead, or trainer.grow=null."
        )
