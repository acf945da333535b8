"""Whom the photographs of a set show, by their names, so that no one is on both sides of a split.

LFW, Labeled Faces in the Wild, names a photograph by its person and a number of four digits:
``Aaron_Eckhart_0001``. A name without such an end is taken for a person of its own.
"""

import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from irbridge.data.image_source import ImageSource
from irbridge.errors import UserError

NUMBERED = re.compile(r"(.+)_\d{4}")


def person_of(name: str) -> str:
    """The person that a photograph of this name shows."""
    found = NUMBERED.fullmatch(name)
    return found[1] if found else name


def check_people(parts: Mapping[str, str | Path]) -> None:
    """Look whether a set's parts show different people.

    Args:
        parts: what each part is called, and its folder or tar.

    Raises:
        UserError: a part is not there, or a person is in two of them.
    """
    people = {}
    for part, place in parts.items():
        if not Path(place).exists():
            raise UserError(
                f"{place} is not there, the {part} part of the faces: no people are split off;"
                " `irbridge data faces PLACE output=DIR` splits a set by people, and"
                " data.folder=DIR names it."
            )
        people[part] = {person_of(name) for name in ImageSource(place).names}
    for one, other in combinations(people, 2):
        if both := sorted(people[one] & people[other]):
            raise UserError(
                f"{both[0]} is in both {parts[one]} and {parts[other]}, so no people are held out;"
                " `irbridge data faces PLACE output=DIR` splits a set by people."
            )
