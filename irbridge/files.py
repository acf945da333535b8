"""Checkpoints that survive a kill at any moment: safetensors and JSON, never pickles, written aside
and renamed.
"""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from irbridge.errors import UserError

UMASK = os.umask(0o022)
os.umask(UMASK)


@contextmanager
def naming(path: Path):
    """Within the block what the system refuses is an OSError that names ``path``; a failed write
    alone does not.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors wraps a full disk in its own
        number = getattr(error, "errno", None) or int(
            (re.findall(r"os error (\d+)", str(error)) or [errno.EIO])[0]
        )
        raise OSError(number, getattr(error, "strerror", None) or str(error), str(path)) from error


def write_atomically(path: Path, write) -> None:
    """Call ``write(temporary_path)`` and rename to ``path``; on any failure the old file stays as
    it was, and an OSError names ``path``. Afterwards the file outlasts a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # machines may share a disk
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.tmp")
    try:
        with naming(path):
            write(temporary)
            temporary.chmod(0o666 & ~UMASK)  # safetensors writes files that no one else may read
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # not every file system can do it for a folder
            raise
    finally:
        os.close(handle)


def remove_leftovers(run: Path) -> None:
    """Remove what killed trainings left half-written in a run's folder. Call it under the lock
    alone: what another process is writing looks the same.
    """
    for left in (*run.glob(".*.tmp"), *run.glob("samples/.*.tmp")):
        left.unlink(missing_ok=True)
    for left in run.glob("checkpoints/.tmp-*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def locked(folder: Path):
    """Within the block the folder, made where it is missing, belongs to this process; the lock dies
    with the process, also by kill -9. UserError if another process has it, or it cannot be written.
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
    write_atomically(path, lambda p: p.write_text(json.dumps(value, indent=2) + "\n"))


def read_json(path: Path) -> dict:
    """Read a JSON object; :class:`UserError` where the file is missing or holds anything else."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; give the folder of a trained run or of a saved model."
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not readable as JSON ({error}); copy it again.") from None
    if not isinstance(value, dict):
        raise UserError(
            f"{path} holds a JSON {type(value).__name__}, not an object; copy it again."
        )
    return value


def append_line(path: Path, value) -> None:
    """Append JSON as one line, on the disk when this returns; an OSError names ``path``."""
    with naming(path), open(path, "a") as handle:
        handle.write(json.dumps(value) + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def sha256(path: Path) -> str:
    """Of a file's bytes; UserError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); check the file."
        ) from error
