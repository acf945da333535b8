"""Where a result may be written: never over a file that irbridge did not write.

What stands in a folder that is irbridge's own, as that of a run, needs none of this. A file that a
user names, such as a table's, may be anything: it is replaced only where it is still as irbridge
wrote it. The SHA-256 of every such file is kept in ``cache_folder("written")``; where that is lost,
files are refused that could be replaced, never the other way round.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from irbridge.assets import cache_folder
from irbridge.errors import UserError, full_disk
from irbridge.files import (
    read_json,
    remove_leftovers_of,
    sha256,
    write_atomically,
    write_json,
)

KEPT = 8  # hashes of one file: after a kill it may be an older one


def check_writable(path: str | Path, key: str = "output") -> Path:
    """Where a result goes that is to be written to ``path``.

    Args:
        path: as the user names it.
        key: of the command, for the error.

    Returns:
        The path, absolute and with links followed, so that a link to a file stays one.

    Raises:
        UserError: Something is there that irbridge did not write, or wrote and a user changed.
    """
    place = Path(os.path.realpath(path))
    if place.is_dir():
        raise UserError(f"{key}={path} is a folder; give the name of a file.")
    if not place.exists():
        return place
    if not place.is_file():
        raise UserError(f"{key}={path} is a pipe or a device; give the name of a file.")
    if not is_own(place):
        raise UserError(
            f"{key}={path} is there and is not what irbridge wrote, which alone is replaced; move"
            " it, or give another name."
        )
    return place


def is_own(place: Path) -> bool:
    """Whether a file, an absolute path without links, is there still as irbridge wrote it."""
    return place.is_file() and sha256(place) in known(place)


def write_result(path: str | Path, write: Callable[[Path], object], key: str = "output") -> None:
    """Write a file that a user has named, whole or not at all.

    Args:
        path: of the file; folders above it are made.
        write: ``write(temporary)`` writes to another path of the same ending.
        key: of the command, for the error.

    Raises:
        UserError: as :func:`check_writable`, or the place cannot be written.
    """
    place = check_writable(path, key)

    def noted(temporary: Path) -> None:
        write(temporary)
        remember(place, sha256(temporary))

    remove_leftovers_of(place)
    try:
        write_atomically(place, noted)
    except OSError as error:
        remedy = "make room there" if full_disk(error) else "choose a writable place"
        reason = f"{key}={str(path)!r} cannot be written ({error.strerror or error})"
        raise UserError(f"{reason}; {remedy}.") from error


def write_text_result(path: str | Path, text: str, key: str = "output") -> None:
    """:func:`write_result` of a text, as UTF-8."""
    write_result(path, lambda aside: aside.write_text(text, encoding="utf-8"), key)


def _ledger(place: Path) -> Path:
    name = hashlib.sha256(os.fsencode(place)).hexdigest()
    return cache_folder("written") / f"{name}.json"


def known(place: Path) -> list[str]:
    """The hashes of what irbridge wrote to a place, an absolute path without links."""
    with suppress(UserError, OSError):
        found = read_json(_ledger(place)).get("sha256")
        return found if isinstance(found, list) else []
    return []


def remember(place: Path, digest: str) -> None:
    """Note a hash before the file appears, so that a kill in between leaves it known."""
    digests = [digest, *(old for old in known(place) if old != digest)]
    # without it the file is written all the same, and refused the next time
    with suppress(OSError):
        write_json(_ledger(place), {"file": os.fsdecode(place), "sha256": digests[:KEPT]})
