"""The restored images that evaluations saved beside their records."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from irbridge.evaluation.records import read_records, record_files
from irbridge.images.io import list_images


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
        if records := read_records(file):
            about = records[0].about
            label = about.row + (f" [{run}]" if run else "")
            yield SavedRow(about.task, label, file.parent, saved_under(file.parent))


def saved_under(folder: Path) -> set[str]:
    """The names of the image files of a folder; none where it is missing or holds no PNG."""
    if not folder.is_dir() or not any(folder.glob("*.png")):
        return set()
    return {path.name for path in list_images(folder)}
