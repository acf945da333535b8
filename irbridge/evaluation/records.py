"""Records of scored images: one JSON line each, looked up by what they were made of.

A :class:`Record` says what was scored, under which settings, and by hashes from which pixels. A
:class:`RecordStore` keeps those of one folder: it locks, goes on after a kill, and puts together
what several processes wrote.
"""

import codecs
import hashlib
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path

import numpy as np
from tqdm import tqdm

from irbridge.errors import Failure, UserError
from irbridge.evaluation.metrics import LARGEST, STANDARD, Metric
from irbridge.evaluation.share import ALONE, Share, agreed, check_shared
from irbridge.files import (
    append_line,
    locked,
    read_json,
    remove_leftovers,
    write_atomically,
    write_json,
)

HELD_BACK = "held-back images"
EARLIER = "earlier"
"""Key of a record that another of its row took the place of; a hash of its weights and settings."""
# Those of protocol.reference=vae come after the ones against the clean image.
FLAT = {m.key: m for m in (*STANDARD, *(metric.against_vae() for metric in STANDARD))}
"""The scores that a record holds beside its other keys; further ones are below "metrics"."""
LEAST = "psnr", "ssim"  # what a scored pair has in any case
# One common file, and one for each further process. Other names, such as those of copies that a
# user keeps, are not this program's.
FILES = re.compile(r"records(-\d+)?\.jsonl")
# What a record may say at most; beyond, tables and plots could not be drawn, and no image is such.
MOST = {"nfe": 10**6, "size": 10**6, "seed": 2**64 - 1}
DEEPEST = 20  # levels of JSON


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
        beside: hashes of the files that were saved of what it is compared with, by their folder,
            "clean" or "vae".
        scored_by: by the key of a metric, what measured it, see :meth:`Metric.identity`.
        commit: of the code.
        machine: in words.
        run: the run's folder below a folder of runs, where it was read from there.
        subtask: which of several tasks the image had, such as "derain" of "universal"; empty where
            there is but one.
    """

    about: About
    name: str
    scores: dict[str, float | None]
    metrics: tuple[Metric, ...] = STANDARD
    seconds: float | None = None
    content: Content | None = None
    png: str | None = None
    beside: dict[str, str] = field(default_factory=dict)
    scored_by: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    machine: str | None = None
    run: str = ""
    subtask: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What no other record of a store has."""
        return self.about.row, self.name

    def to_json(self) -> dict:
        """The line's object: standard scores beside other keys, further ones under "metrics"."""
        line = dict(self.about.items()) | {"name": self.name}
        line |= {"subtask": self.subtask} if self.subtask else {}
        line |= {key: value for key, value in self.scores.items() if key in FLAT}
        if further := {key: value for key, value in self.scores.items() if key not in FLAT}:
            line["metrics"] = further
        if headings := {m.key: _described(m) for m in self.metrics if m.key not in FLAT}:
            line["headings"] = headings
        for key in ("seconds", "commit", "machine", "png"):
            if getattr(self, key) is not None:
                line[key] = getattr(self, key)
        for key in ("beside", "scored_by"):
            if getattr(self, key):
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
        seconds = _number(line, "seconds")
        if seconds is not None and seconds < 0:
            raise ValueError(f"seconds={seconds} is negative")
        return cls(
            about,
            name,
            scores,
            tuple(metrics),
            seconds,
            Content(*(_text(content, f.name) for f in fields(Content))) if content else None,
            **{key: _text(line, key, None) for key in ("png", "commit", "machine")},
            **{key: _texts(line, key) for key in ("beside", "scored_by")},
            run=run or _text(line, "run", ""),
            subtask=_text(line, "subtask", ""),
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
        name in wanted and type(value) is type(wanted[name]) for name, value in described.items()
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
    if abs(value) > LARGEST or not isfinite(value):
        raise ValueError(f"{key} is no number of a score or a time")
    return value


def _integer(line: dict, key: str) -> int | None:
    value = line.get(key)
    if value is not None and type(value) is not int:
        raise ValueError(f"{key} is no whole number")
    if value is not None and not 0 <= value <= MOST[key]:
        raise ValueError(f"{key} is not from 0 to {MOST[key]}")
    return value


def _object(line: dict, key: str) -> dict:
    value = line.get(key)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{key} is no JSON object")
    return value or {}


def _texts(line: dict, key: str) -> dict[str, str]:
    value = _object(line, key)
    return {name: _text(value, name) for name in value}


# hashes


def fingerprint(value: object) -> str:
    """A short hash of plain data, of pixels, or of what its ``repr`` says."""
    if isinstance(value, np.ndarray):
        state = hashlib.sha256(f"{value.dtype} {value.shape}".encode())
        state.update(np.ascontiguousarray(value))
    else:
        state = hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode())
    return state.hexdigest()[:16]


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
        UserError: on entering, in all processes, if another command has the folder, it cannot be
            written, or the processes do not share the disk that it is on.
    """

    def __init__(self, folder: Path, share: Share = ALONE, file: str = "records.jsonl"):
        self.folder, self.share, self.whole = folder, share, folder / file
        own = file if share.first else file.replace(".jsonl", f"-{share.rank}.jsonl")
        self.path = folder / own
        self._stack = ExitStack()

    def __enter__(self) -> "RecordStore":
        def enter() -> None:
            self._stack.enter_context(locked(self.folder))
            remove_leftovers(self.folder)

        agreed(enter, self.share)
        check_shared(self.folder, self.share)
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def resume(
        self,
        usable: Callable[[Record], bool],
        order: list[str] | None = None,
        before: Callable[[list[Record]], object] = lambda removed: None,
    ) -> tuple[dict[tuple[str, str], Record], list[Record]]:
        """Keep the usable records of earlier commands and remove the others from the file.

        The line that a kill left half-written goes as well.

        Args:
            usable: whether a record may stand for scoring its image again; may raise UserError.
            order: names of the images, by which the file is sorted; by default it keeps its order.
            before: called with the records to remove, while they are still in the file: what is
                to be removed with them, or kept elsewhere, is then found again after a kill.

        Returns:
            The kept records by key, and the removed ones, in every process.
        """

        def work() -> tuple[dict, list]:
            found = self._read()
            kept = {key: record for key, record in found.items() if usable(record)}
            removed = [record for key, record in found.items() if key not in kept]
            before(removed)
            self._write(kept, order)
            return kept, removed

        return agreed(work, self.share)

    def append(self, record: Record) -> None:
        """Write a record; it outlasts a kill from then on.

        Raises:
            RuntimeError: if it could not be written, with the remedy.
        """
        try:
            append_line(self.path, record.to_json())
        except OSError as error:
            raise Failure(
                f"{self.path} could not be written ({error.strerror or error}); make room and run"
                " the same command again: finished images are kept."
            ) from error

    def gather(self, order: list[str] | None = None) -> None:
        """Once all processes have come here, put their records together in one file."""
        if self.share.world > 1:
            self.share.wait()
            agreed(lambda: self._write(self._read(), order), self.share)

    def add(self, records: list[Record]) -> None:
        """Write several records at once, each in place of an earlier one of its key."""
        self._write(self._read() | {record.key: record for record in records}, None, always=True)

    def _files(self) -> list[Path]:
        """The common file, then those of single processes, which are newer."""
        own = re.compile(rf"{re.escape(self.whole.stem)}-\d+\.jsonl")
        found = sorted(path for path in self.folder.iterdir() if own.fullmatch(path.name))
        return [*([self.whole] if self.whole.exists() else []), *found]

    def _read(self) -> dict[tuple[str, str], Record]:
        """By key; of two records of one image the newer one."""
        return {record.key: record for path in self._files() for record in read_lines(path)}

    def _write(
        self,
        records: dict[tuple[str, str], Record],
        order: list[str] | None,
        always: bool = False,
    ) -> None:
        files = self._files()
        if not files and not always:
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
    """Every file of :data:`FILES` below a folder (one per process of a shared evaluation).

    Returns:
        (file, the folder of its run below ``path``, or "").
    """
    path, files = Path(path), []
    found = [file for file in path.rglob("records*.jsonl") if FILES.fullmatch(file.name)]
    for file in sorted(found):
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
    try:
        files = [(path, "")] if path.is_file() else record_files(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{str(path)[:200]} cannot be read ({reason}); give the folder of a scored run."
        ) from None
    records = []
    for file, run in files:
        records += _with_whole(read_lines(file, run, LEAST), file.parent)
    if not path.exists():
        raise UserError(f"{path} is not there; give the folder of a scored run.")
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
    """The records of one file.

    The last line that a kill cut short, which has no newline and is no JSON, is passed over, and
    said on stderr.

    Args:
        path: where it is missing there are none.
        run: what the records say of their run.
        least: scores that all must have, with task and protocol; none by default.

    Raises:
        UserError: for a line that is no record; it names file and line.
    """
    lines = _lines(path)
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            read = _parsed(line)
        except ValueError as error:
            # without its newline, it was being written, and then begins as ours do
            if number == len(lines) and line.startswith(b"{") and line.isascii():
                tqdm.write(f"{path}, line {number}, was cut short; passed over.", file=sys.stderr)
                continue
            raise _no_record(path, number, error) from None
        try:
            records.append(_checked(read, run, least))
        except ValueError as error:
            raise _no_record(path, number, error) from None
    return records


def _lines(path: Path) -> list[bytes]:
    """The lines of a file; of what is missing none."""
    try:
        if not path.exists():
            return []
        if not path.is_file():  # a pipe would be waited for
            raise UserError(f"{path} cannot be read (it is no file); move it away.")
        return path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); move it away."
        ) from None


def _no_record(path: Path, number: int, why: object) -> UserError:
    return UserError(
        f"{path}, line {number}, is no record of irbridge ({why}); delete that line, or give"
        " another folder."
    )


def _parsed(line: bytes) -> object:
    """The JSON of a line; ValueError, in a few words, where it is none."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("no UTF-8 text") from None
    try:
        read = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg.lower()} at column {error.colno}") from None
    except ValueError:  # Python's own limit of digits
        raise ValueError("a number of thousands of digits") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _deeper(read, DEEPEST):
        raise ValueError("nested too deeply")
    return read


def _deeper(value: object, levels: int) -> bool:
    """Whether a value of JSON has more levels than these."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(_deeper(item, levels - 1) for item in value)


def _checked(line: object, run: str, least: tuple[str, ...]) -> Record:
    record = Record.from_json(line, run)
    if least:
        for key in ("task", "protocol"):
            if not getattr(record.about, key):
                raise ValueError(f"no {key}")
        if missing := [key for key in least if record.scores.get(key) is None]:
            raise ValueError(f"no {missing[0]}")
        for key, metric in zip(record.scores, record.metrics, strict=True):
            if metric.key != key:
                raise ValueError(f"metrics.{key} is described as {metric.key}")
    return record
