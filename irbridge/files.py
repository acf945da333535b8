"""Files that survive a kill at any moment: written aside and renamed, or appended line by line."""

import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import stat
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import psutil
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from irbridge.errors import UserError

LARGEST = 1e15  # of a number that counts anything
LONGEST_NAME = 255  # bytes, of a file on the usual file systems


@contextmanager
def naming(path: Path):
    """Within the block what the system refuses is an OSError that names ``path``.

    The system's own error of a failed write names no file.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors wraps a full disk in its own
        number = getattr(error, "errno", None) or int(
            (re.findall(r"os error (\d+)", str(error)) or [errno.EIO])[0]
        )
        raise OSError(number, getattr(error, "strerror", None) or str(error), str(path)) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that at any moment it is the old one or the new one, whole.

    When this returns, the file outlasts a power cut.

    Args:
        path: of the file; folders above it are made.
        write: ``write(temporary)`` writes to another path, which is then renamed.

    Raises:
        OSError: it names ``path``, and the old file stays as it was, as after any other failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # a device would be replaced by a file of its name
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))
    temporary = _temporary(path)
    try:
        with naming(path):
            mode = _mode_of_new(temporary)
            write(temporary)
            temporary.chmod(mode)  # safetensors writes files that no one else may read
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """Where a file is written first, beside it; machines may share a disk."""
    ending = f".{platform.node()}-{os.getpid()}.tmp"
    name = path.name
    if len(os.fsencode(f".{name}{ending}")) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return path.with_name(f".{name}{ending}")


def _mode_of_new(path: Path) -> int:
    """The permissions that the system gives a new file here, by the process's umask and the folder.

    The umask itself cannot be read without setting it for all threads, so one file is made.
    """
    path.unlink(missing_ok=True)
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return mode


def sync(path: Path) -> None:
    """Wait until a file or a folder's names are on the disk, where the file system can do that."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # which Windows does not open
            return
        raise
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # not every file system can do it for a folder
            raise
    finally:
        os.close(handle)


LEFTOVER = re.compile(r"\..+-(\d+)\.tmp|\.tmp-(\d+)(-old)?|\.prior-\w+\.tmp")
"""Names of what is written aside, which a kill leaves; a group is the process that wrote it."""


def remove_leftovers(folder: Path, below: bool = True) -> None:
    """Remove what killed commands left half-written in a folder of irbridge's.

    Call it under the lock alone: what another process is writing looks the same.

    Args:
        folder: where they are.
        below: also in the folders below it.
    """
    for place, folders, files in os.walk(folder):
        for name in filter(LEFTOVER.fullmatch, files):
            (Path(place) / name).unlink(missing_ok=True)
        for name in [*filter(LEFTOVER.fullmatch, folders)]:
            shutil.rmtree(Path(place) / name, ignore_errors=True)
            folders.remove(name)
        if not below:
            folders.clear()


def remove_leftovers_of(path: Path) -> None:
    """Remove what a killed process of this machine left of writing one file.

    What a living process is writing stays, so no lock is needed.
    """
    stem = _temporary(path).name.rpartition("-")[0]
    for left in path.parent.glob(f"{glob.escape(stem)}-*.tmp"):
        found = LEFTOVER.fullmatch(left.name)
        if found and found[1] and not psutil.pid_exists(int(found[1])):
            left.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path):
    """Within the block the folder, made where it is missing, belongs to this process.

    The lock dies with the process, also by kill -9.

    Raises:
        UserError: another process has it, or it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{folder} is a file where a folder should be; move it, or choose another folder."
        )
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        if not (folder / ".lock").exists():  # as in /proc, where no file can be made
            raise UserError(
                f"{folder} cannot be written (no file can be made there); choose a writable folder."
            ) from None
        raise UserError(
            f"{folder} is in use by another process; wait for it to end, or choose another folder."
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); choose a writable folder."
        ) from error
    try:
        yield
    finally:
        # while it is held: whoever has opened it meanwhile sees that it has no name any more
        with suppress(OSError):
            os.unlink(folder / ".lock")
        lock.release()


def write_json(path: Path, value) -> None:
    """Write JSON atomically."""
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict:
    """Read a JSON object; UserError where the file is missing or holds anything else."""
    try:
        with open_regular(path) as file:
            value = json.loads(file.read().decode("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; give the folder of a trained run or of a saved model."
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is not readable as JSON ({error}); copy it again.") from None
    if not isinstance(value, dict):
        raise UserError(
            f"{path} holds a JSON {type(value).__name__}, not an object; copy it again."
        )
    return value


def read_fields(path: Path, **kinds: type | tuple[type, ...]) -> dict:
    """As :func:`read_json`, of an object that has these keys.

    Args:
        path: of the file.
        kinds: of what type the value of each key is; true and false are no numbers.

    Raises:
        UserError: a key is missing or of another type.
    """
    return check_fields(read_json(path), path, **kinds)


def check_fields(value: dict, path: Path, **kinds: type | tuple[type, ...]) -> dict:
    """A JSON object itself, where it has these keys; see :func:`read_fields`."""
    for key, kind in kinds.items():
        found = value.get(key)
        if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
            raise UserError(f"{path} says {key}={str(found)[:60]!r}; copy the file again.")
        if isinstance(found, (int, float)) and not abs(found) <= LARGEST:
            raise UserError(f"{path} says {key}={str(found)[:60]!r}; copy the file again.")
    return value


def append_line(path: Path, value) -> None:
    """Append JSON as one line, on the disk when this returns; an OSError names ``path``."""
    with naming(path), open(path, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(value) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read its bytes, without waiting for what is no file.

    Raises:
        OSError: it cannot be opened, or is a pipe, a socket, a device or a folder.
    """

    def at_once(name: str, flags: int) -> int:
        # a pipe that nobody writes to would else block the open itself
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=at_once)  # noqa: SIM115 (the caller closes it)
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is a pipe or a device and no file", str(path))


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes; UserError where it cannot be read."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); check the file."
        ) from error
