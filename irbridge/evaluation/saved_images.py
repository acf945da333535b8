"""The restored images that evaluations save beside their records."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from irbridge.errors import UserError
from irbridge.evaluation.records import Record, read_lines, read_records, record_files
from irbridge.files import sha256, write_atomically
from irbridge.images.arrays import to_bytes
from irbridge.images.formats import cannot_write
from irbridge.images.io import list_images

SHORT = 16  # digits of the hashes in records
BESIDE = "clean", "vae"  # folders of what all rows are compared with


# writing


def png(image: np.ndarray) -> bytes:
    """The file of an image, (H, W, 3) in [0, 1], as an 8-bit PNG."""
    data = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(data, format="PNG")
    return data.getvalue()


def short_hash(data: bytes) -> str:
    """The hash by which a record knows a saved image's file."""
    return hashlib.sha256(data).hexdigest()[:SHORT]


def png_hash(path: Path) -> str | None:
    """The same of a file; None where there is none."""
    return sha256(path)[:SHORT] if path.is_file() else None


def check_images(images: dict[Path, bytes], results: Path, removed: set[Path]) -> None:
    """Refuse to replace image files that no evaluation made.

    Args:
        images: what is to be written, by path.
        results: the folder of the rows' folders, whose records say what evaluations made.
        removed: what the records said that this evaluation has removed, see :func:`places`.

    Raises:
        UserError: it names the file.
    """
    strange = [
        path
        for path, data in images.items()
        if path.exists() and path not in removed and png_hash(path) != short_hash(data)
    ]
    if not strange:
        return
    files = list(results.glob("*/*.jsonl"))
    own = places(results, {file: read_lines(file) for file in files})
    if foreign := [path for path in strange if path not in own]:
        raise UserError(
            f"{foreign[0]} is there already and no score speaks of it; move it away, or give"
            " another results=DIR."
        )


def places(results: Path, records: dict[Path, list[Record]]) -> set[Path]:
    """Where evaluations saved images, by the records of files of rows below ``results``."""
    found: set[Path] = set()
    for file, group in records.items():
        # older versions did not say what they saved
        for name in (r.name for r in group if r.png or r.content is None):
            found |= {_in(file.parent, name), *(_in(results / kind, name) for kind in BESIDE)}
    return found


def write_images(images: dict[Path, bytes]) -> None:
    """Write files, each whole or not at all; what is there already is left.

    Raises:
        UserError: one cannot be written.
    """
    for path, data in images.items():
        if png_hash(path) == short_hash(data):
            continue
        try:
            write_atomically(path, lambda file, data=data: file.write_bytes(data))
        except OSError as error:
            raise cannot_write(path, error) from error


# reading


def is_own(record: Record, path: Path, kind: str | None = None) -> bool:
    """Whether a file is the image that was saved with a score, and no other.

    Records of older versions say no hash, and are taken at their word.

    Args:
        record: of the score.
        path: of the file.
        kind: "clean" or "vae" for what it is compared with; None: the restored image.
    """
    try:
        # a link may lead to any picture of the machine
        if path.is_symlink() or not path.is_file():
            return False
    except OSError:  # such as of a name that is too long
        return False
    if record.content is None:
        return True
    if kind is None:
        return record.png is not None and png_hash(path) == record.png
    if record.png is not None and not record.beside:
        return True
    return record.beside.get(kind) is not None and png_hash(path) == record.beside[kind]


class SavedRow(NamedTuple):
    """A scored row: its task, what tables call it, its folder, and the names of its image files."""

    task: str
    label: str
    folder: Path
    images: set[str]


def saved_rows(folder: str | Path) -> Iterator[SavedRow]:
    """Every scored row below a folder; UserError where there is none."""
    read_records(folder)
    once = {file.parent: (file, run) for file, run in record_files(folder)}
    for file, run in once.values():
        if records := _of_row(file.parent):
            about = next(iter(records.values())).about
            label = about.row + (f" [{run}]" if run else "")
            yield SavedRow(about.task, label, file.parent, saved_under(file.parent))


def saved_under(place: Path) -> set[str]:
    """The names of the image files of a row's folder that were saved with its scores."""
    records = _of_row(place)
    return {f"{name}.png" for name, record in records.items() if is_own(record, _in(place, name))}


def compared_under(place: Path, kind: str) -> set[str]:
    """The names among them whose partner, "clean" or "vae", is still that of the score."""
    records, beside = _of_row(place), place.parent / kind
    names = (name.removesuffix(".png") for name in saved_under(place))
    return {f"{name}.png" for name in names if is_own(records[name], _in(beside, name), kind)}


def _of_row(place: Path) -> dict[str, Record]:
    """The records of a row's folder by name."""
    files = [file for file, _ in record_files(place) if file.parent == place]
    return {record.name: record for file in files for record in read_lines(file)}


def _in(folder: Path, name: str) -> Path:
    return folder / f"{name}.png"


def strangers(folder: Path, names: set[str]) -> set[str]:
    """The images directly in a folder that are not of these names."""
    if not folder.is_dir() or not any(folder.glob("*.png")):
        return set()
    return {path.name for path in list_images(folder)} - names
