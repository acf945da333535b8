"""Records of scored images: one JSON line each, looked up by what they were made of.

A :class:`Record` says what was scored, under which settings, and by hashes from which pixels. A
:class:`RecordStore` keeps those of one folder: it locks, goes on after a kill, and puts together
what several processes wrote.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path

import numpy as np

from irbridge.errors import UserError
from irbridge.evaluation.metrics import STANDARD, Metric
from irbridge.evaluation.share import ALONE, Share, agreed
from irbridge.files import (
    append_line,
    locked,
    read_json,
    sha256,
    write_atomically,
    write_json,
)

HELD_BACK = "held-back images"
# Those of protocol.reference=vae come after the ones against the clean image.
FLAT = {m.key: m for m in (*STANDARD, *(metric.against_vae() for metric in STANDARD))}
"""The scores that a record holds beside its other keys; further ones are below "metrics"."""
LEAST = "psnr", "ssim"  # what a scored pair has in any case


@dataclass(frozen=True)
class About:
    """What all records of one row have in common.

    Args:
        row: what tables call it.
        task: such as "derain"; empty for photographs that have no clean version.
        protocol: how images were compared, in words; empty for those photographs.
        method: a short key, see :data:`irbridge.evaluation.rows.METHODS`.
        nfe: calls of the network, where the row says so.
        weights: hash of what the restored images come from, where that was trained.
        data: what the images are called.
        size: side of the centre crop in pixels; None: whole images.
        seed: of the noise.
        more: what else the writer says, such as the bridge's name.
    """

    row: str
    task: str = ""
    protocol: str = ""
    method: str | None = None
    nfe: int | None = None
    weights: str | None = None
    data: str | None = None
    size: int | None = None
    seed: int | None = None
    more: dict[str, object] = field(default_factory=dict)

    def items(self) -> Iterator[tuple[str, object]]:
        """(key, value) as records write them."""
        for name in ("task", "seed", "size", "data", "row", "method", "nfe", "weights"):
            if name != "task" or self.task:
                yield name, getattr(self, name)
        yield from self.more.items()
        if self.protocol:
            yield "protocol", self.protocol


@dataclass(frozen=True)
class Content:
    """What the score of one image was made of, as hashes.

    Args:
        clean: of the reference's pixels, as they were compared; empty without a reference.
        degraded: of what the method was given, its mask included.
        settings: of all else that changes a pixel: sampler, bridge, frozen network, precision.
    """

    clean: str
    degraded: str
    settings: str = ""


@dataclass(frozen=True)
class Record:
    """The scores of one image.

    Args:
        about: what it shares with the row's other records.
        name: of the image; also its file's name without the ending.
        scores: by the key of the metric; None where one could not be had.
        metrics: how tables show those scores, in their order.
        seconds: that the restoration took.
        content: hashes of what it was made of; None in records of older versions.
        png: hash of the saved image's file; None where none was saved.
        commit: of the code.
        machine: in words.
        run: the run's folder below a folder of runs, where it was read from there.
    """

    about: About
    name: str
    scores: dict[str, float | None]
    metrics: tuple[Metric, ...] = STANDARD
    seconds: float | None = None
    content: Content | None = None
    png: str | None = None
    commit: str | None = None
    machine: str | None = None
    run: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What no other record of a store has."""
        return self.about.row, self.name

    def to_json(self) -> dict:
        """The line's object: standard scores beside other keys, further ones under "metrics"."""
        line = dict(self.about.items()) | {"name": self.name}
        line |= {key: value for key, value in self.scores.items() if key in FLAT}
        if further := {key: value for key, value in self.scores.items() if key not in FLAT}:
            line["metrics"] = further
        if headings := {m.key: _described(m) for m in self.metrics if m.key not in FLAT}:
            line["headings"] = headings
        for key in ("seconds", "commit", "machine", "png"):
            if getattr(self, key) is not None:
                line[key] = getattr(self, key)
        if self.content:
            line["content"] = {f.name: getattr(self.content, f.name) for f in fields(Content)}
        return line

    @classmethod
    def from_json(cls, line: object, run: str = "") -> "Record":
        """The record of a line's object; those of older versions have fewer keys.

        Raises:
            ValueError: in a few words, if it is no record.
        """
        if not isinstance(line, dict):
            raise ValueError("no JSON object")
        read = {key: _text(line, key) for key in ("name", "row")}
        name = read["name"]
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ValueError(f"name={name!r} is not the name of an image")
        scores = {key: _number(line, key) for key in FLAT if key in line}
        further = _object(line, "metrics")
        scores |= {key: _number(further, key) for key in further}
        headings = _object(line, "headings")
        metrics = [FLAT.get(key) or _heading(key, headings.get(key)) for key in scores]
        about = About(
            row=read["row"],
            task=_text(line, "task", ""),
            protocol=_text(line, "protocol", ""),
            **{key: _text(line, key, None) for key in ("method", "weights", "data")},
            **{key: _integer(line, key) for key in ("nfe", "size", "seed")},
            more={key: value for key, value in line.items() if key not in KNOWN},
        )
        content = _object(line, "content")
        return cls(
            about,
            name,
            scores,
            tuple(metrics),
            _number(line, "seconds"),
            Content(*(_text(content, f.name) for f in fields(Content))) if content else None,
            **{key: _text(line, key, None) for key in ("png", "commit", "machine")},
            run=run or _text(line, "run", ""),
        )


KNOWN = {
    *(f.name for f in fields(About)),
    *(f.name for f in fields(Record)),
    *FLAT,
    "headings",
}
"""The keys of a line that have a field; all others are in :attr:`About.more`."""


def _described(metric: Metric) -> dict:
    return {f.name: getattr(metric, f.name) for f in fields(Metric) if f.name != "smallest"}


def _heading(key: str, described: object) -> Metric:
    """How to show a metric whose class is not here; without a description by its key."""
    if described is None:
        return Metric(key, 3, True)
    wanted = {f.name: getattr(Metric(key, 3, True), f.name) for f in fields(Metric)}
    fits = isinstance(described, dict) and all(
        type(value) is type(wanted.get(name)) for name, value in described.items()
    )
    if not fits or {"name", "digits", "higher_is_better"} - described.keys():
        raise ValueError(f"headings.{key} is not the description of a metric")
    if not 0 <= described["digits"] <= 12:
        raise ValueError(f"headings.{key} has digits={described['digits']}")
    return Metric(**described)


def _text(line: dict, key: str, default: str | None = ...) -> str | None:
    value = line.get(key)
    if value is None and default is not ...:
        return default
    if value is None:
        raise ValueError(f"no {key}")
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value


def _number(line: dict, key: str) -> float | None:
    value = line.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key} is no number")
    if abs(value) > 1e300 or not isfinite(value):
        raise ValueError(f"{key} is no number")
    return value


def _integer(line: dict, key: str) -> int | None:
    value = line.get(key)
    if value is not None and type(value) is not int:
        raise ValueError(f"{key} is no whole number")
    return value


def _object(line: dict, key: str) -> dict:
    value = line.get(key)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{key} is no JSON object")
    return value or {}


# hashes


def fingerprint(value: object) -> str:
    """A short hash of plain data, of pixels, or of what its ``repr`` says."""
    if isinstance(value, np.ndarray):
        state = hashlib.sha256(f"{value.dtype} {value.shape}".encode())
        state.update(np.ascontiguousarray(value))
    else:
        state = hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode())
    return state.hexdigest()[:16]


def png_hash(path: Path) -> str | None:
    """A short hash of a saved image's file, None where there is none."""
    return sha256(path)[:16] if path.is_file() else None


def slug(text: str, longest: int = 150) -> str:
    """Text as the name of a folder."""
    name = "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
    return name if len(name) <= longest else f"{name[:longest]}-{zlib.crc32(name.encode()):08x}"


# the store


class RecordStore:
    """The records of one folder, for one writing command at a time.

    A record is on the disk once :meth:`append` returns. Several processes of one command may write:
    each has a file of its own, which the first process puts together with ``file`` at the
    beginning and at the end. Use it as a context: within it the folder is locked.

    Args:
        folder: made where it is missing.
        share: which of how many processes this is.
        file: name of the file that holds all records once the command has ended.

    Raises:
        UserError: on entering, in all processes, if another command has the folder or it cannot be
            written.
    """

    def __init__(self, folder: Path, share: Share = ALONE, file: str = "records.jsonl"):
        self.folder, self.share, self.whole = folder, share, folder / file
        own = file if share.first else file.replace(".jsonl", f"-{share.rank}.jsonl")
        self.path = folder / own
        self._stack = ExitStack()

    def __enter__(self) -> "RecordStore":
        agreed(lambda: self._stack.enter_context(locked(self.folder)) and None, self.share)
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def resume(
        self, usable: Callable[[Record], bool], order: list[str] | None = None
    ) -> tuple[dict[tuple[str, str], Record], list[Record]]:
        """Keep the usable records of earlier commands and remove the others from the file.

        The line that a kill left half-written goes as well.

        Args:
            usable: whether a record may stand for scoring its image again; may raise UserError.
            order: names of the images, by which the file is sorted; by default it keeps its order.

        Returns:
            The kept records by key, and the removed ones, in every process.
        """

        def work() -> tuple[dict, list]:
            found = self._read()
            kept = {key: record for key, record in found.items() if usable(record)}
            self._write(kept, order)
            return kept, [record for key, record in found.items() if key not in kept]

        return agreed(work, self.share)

    def append(self, record: Record) -> None:
        """Write a record; it outlasts a kill from then on.

        Raises:
            RuntimeError: if it could not be written, with the remedy.
        """
        try:
            append_line(self.path, record.to_json())
        except OSError as error:
            raise RuntimeError(
                f"{self.path} could not be written ({error.strerror or error}); make room and run"
                " the same command again: finished images are kept."
            ) from error

    def gather(self, order: list[str] | None = None) -> None:
        """Once all processes have come here, put their records together in one file."""
        if self.share.world > 1:
            self.share.wait()
            agreed(lambda: self._write(self._read(), order), self.share)

    def _files(self) -> list[Path]:
        """The common file, then those of single processes, which are newer."""
        parts = sorted(self.folder.glob(f"{self.whole.stem}-*.jsonl"))
        return [*([self.whole] if self.whole.exists() else []), *parts]

    def _read(self) -> dict[tuple[str, str], Record]:
        """By key; of two records of one image the newer one."""
        return {record.key: record for path in self._files() for record in read_lines(path)}

    def _write(self, records: dict[tuple[str, str], Record], order: list[str] | None) -> None:
        files = self._files()
        if not files:
            return
        kept = list(records.values())
        if order is not None:
            place = {name: index for index, name in enumerate(order)}
            kept.sort(key=lambda record: place.get(record.name, len(place)))
        lines = "".join(json.dumps(record.to_json()) + "\n" for record in kept)
        write_atomically(self.whole, lambda path: path.write_text(lines, encoding="utf-8"))
        for path in files:
            if path != self.whole:
                path.unlink()


# scores of a row as a whole

WHOLE = "whole.json"  # beside a row's records


def write_whole(folder: Path, records: list[Record], scores: dict[Metric, float]) -> None:
    """Write the scores that a row has once, for all its images together, beside its records.

    Args:
        folder: of the row.
        records: all of the row.
        scores: by the metric.
    """
    described = {
        metric.key: {"value": value, "heading": _described(metric)}
        for metric, value in scores.items()
    }
    write_json(folder / WHOLE, {"images": _images(records), "scores": described})


def _with_whole(records: list[Record], folder: Path) -> list[Record]:
    """The records with the scores of their row as a whole, where these are of the same images.

    Raises:
        UserError: the file of those scores is damaged.
    """
    path = folder / WHOLE
    if not records or not path.is_file():
        return records
    content = read_json(path)
    try:
        if content["images"] != _images(records):
            return records
        found = {
            _heading(key, said["heading"]): _number(said, "value")
            for key, said in content["scores"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} holds no scores of a row ({error}); delete it.") from None
    further = {metric.key: value for metric, value in found.items()}
    return [
        replace(record, scores=record.scores | further, metrics=(*record.metrics, *found))
        for record in records
    ]


def _images(records: list[Record]) -> str:
    """A hash of which images a row has, and of their pixels."""
    return fingerprint(sorted([record.name, record.png or ""] for record in records))


# reading, for tables


def record_files(path: str | Path) -> list[tuple[Path, str]]:
    """Every ``records*.jsonl`` below a folder (one per process of a shared evaluation).

    Returns:
        (file, the folder of its run below ``path``, or "").
    """
    path, files = Path(path), []
    for file in sorted(path.rglob("records*.jsonl")):
        parts = file.relative_to(path).parts
        depth = next((i for i, part in enumerate(parts) if part in ("results", "evaluations")), 0)
        files.append((file, "/".join(parts[:depth])))
    return files


def read_records(path: str | Path) -> list[Record]:
    """Records of scored pairs in one ``records*.jsonl``, or in all below a folder, each once.

    A last line cut short by a kill is left out. Below a folder of runs each record also gets its
    run's folder.

    Raises:
        UserError: if there are no records, or a line is none; it names file and line.
    """
    path = Path(path)
    files = [(path, "")] if path.is_file() else record_files(path)
    records = []
    for file, run in files:
        records += _with_whole(read_lines(file, run, LEAST), file.parent)
    if not records and not path.is_file():
        raise UserError(f"There are no records below {path}; give the folder of a scored run.")
    once: dict[str, Record] = {}
    for record in records:
        about = replace(record.about, method=None, more={})
        once.setdefault(
            repr((record.name, record.run, about, sorted(record.scores.items()))), record
        )
    return list(once.values())


def read_lines(path: Path, run: str = "", least: tuple[str, ...] = ()) -> list[Record]:
    """The records of one file, without the last line that a kill cut short.

    Args:
        path: where it is missing there are none.
        run: what the records say of their run.
        least: scores that all must have, with task and protocol; none by default.

    Raises:
        UserError: for a line that is no record; it names file and line.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); move it away.") from None
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(_checked(json.loads(line), run, least))
        except (ValueError, RecursionError) as error:
            if number == len(lines):  # without its newline: it was being written
                continue
            said = "nested too deeply" if isinstance(error, RecursionError) else error
            raise UserError(
                f"{path}, line {number}, is no record ({said}); delete that line."
            ) from None
    return records


def _checked(line: object, run: str, least: tuple[str, ...]) -> Record:
    record = Record.from_json(line, run)
    if least:
        for key in ("task", "protocol"):
            if not getattr(record.about, key):
                raise ValueError(f"no {key}")
        if missing := [key for key in least if record.scores.get(key) is None]:
            raise ValueError(f"no {missing[0]}")
    return record
