"""Manifests: the pairs of a public set with their hashes, and whether what is there is right."""

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tqdm import tqdm

from irbridge.data.layouts import BenchmarkPairs, halves
from irbridge.data.names import and_more
from irbridge.data.public_sets import known
from irbridge.errors import UserError
from irbridge.files import open_regular, sha256
from irbridge.own_files import write_text_result

KEYS = {"list": (), "check": ("split", "manifest"), "manifest": ("split", "output")}
# of a manifest's lines
FIELDS = "split", "name", "clean", "degraded", "clean_sha256", "degraded_sha256"

Finding = tuple[bool, str]
"""Whether something is right, and one line on it."""


def check(
    name: str, root: str | Path, split: str | None = None, manifest: str | Path | None = None
) -> list[Finding]:
    """Check a public set: the number of pairs and the headers, and the hashes of a manifest.

    Args:
        name: a key of ``BENCHMARKS``.
        root: the folder that holds it.
        split: "train" or "test"; None: both that are there.
        manifest: its file. Named is the first file that is missing, differs, or is not in it.

    Raises:
        UserError: there is nothing to look at.
    """
    known(name)
    lines = read_manifest(manifest, split) if manifest else None
    findings: list[Finding] = []
    try:
        parts = _parts(name, root, split)
    except UserError as error:
        # with a file away the rest may not pair, but its name is to be told
        if lines is None or not os.path.isdir(root):
            raise
        parts = {}
        findings.append((False, str(error)))
    for pairs in parts.values():
        findings += [_counted(pairs), _opened(pairs)]
    if lines is not None:
        findings += _compared(lines, Path(root), parts, manifest)
    return findings


def _counted(pairs: BenchmarkPairs) -> Finding:
    """Whether a half has as many pairs as it should."""
    benchmark = pairs.benchmark
    number, wanted = len(pairs), benchmark.counts.get(pairs.title)
    right = wanted in (None, number)
    if not right:
        remark = f" ({benchmark.remark})" if benchmark.remark else ""
        expected = f"expected are {wanted}{remark}"
    else:
        expected = "as expected" if wanted else "of no stated number"
    what = "images" if benchmark.clean_only else "pairs"
    return right, f"{pairs.title}: {number} {what}, {expected}"


def _opened(pairs: BenchmarkPairs) -> Finding:
    """Whether the headers of a half are right."""
    try:
        pairs.check()
    except UserError as error:
        return False, f"{pairs.title}: {error}"
    fits = "" if pairs.benchmark.clean_only else " and the two of a pair fit"
    return True, f"{pairs.title}: every header opens{fits}"


def manifest(name: str, root: str | Path, split: str | None = None) -> list[dict]:
    """The manifest of a public set.

    Args:
        name: a key of ``BENCHMARKS``.
        root: the folder that holds it.
        split: "train" or "test"; None: both that are there.

    Returns:
        One record of ``FIELDS`` per pair, in the order of the pairs, training half first;
        ``degraded`` is None where the set has clean images only.

    Raises:
        UserError: the set is not found or does not pair.
    """
    digest = cache(sha256)
    records = []
    for half, pairs in _parts(name, root, split).items():
        paths = tqdm(pairs.paths, desc=pairs.title, unit="pair", disable=None)
        for stem, (clean, degraded) in zip(pairs.names, paths, strict=True):
            both = clean, None if pairs.benchmark.clean_only else degraded
            places = [path and path.relative_to(root).as_posix() for path in both]
            hashes = [path and digest(path) for path in both]
            values = half, stem, *places, *hashes
            records.append(dict(zip(FIELDS, values, strict=True)))
    return records


def read_manifest(path: str | Path, split: str | None = None) -> list[dict]:
    """The records of a manifest's file.

    Args:
        path: of the file.
        split: "train" or "test"; None: those of both halves.

    Raises:
        UserError: it is missing, or is no manifest.
    """
    try:
        with open_regular(path) as file:
            text = file.read().decode("utf-8-sig")
        # by newlines alone: names may hold what else str.splitlines takes for the end of a line
        records = [json.loads(line) for line in text.split("\n") if line.strip()]
    except OSError as error:
        raise UserError(
            f"The manifest {path} cannot be read ({error.strerror}); make one with `prepare_data.py"
            " manifest NAME DIR output=FILE`."
        ) from None
    except (ValueError, RecursionError):
        records = []
    if not records or not all(_is_record(record) for record in records):
        raise UserError(
            f"{path} is not a manifest; make one with `prepare_data.py manifest NAME DIR"
            " output=FILE`."
        )
    return [record for record in records if split in (None, record["split"])]


def _is_record(record) -> bool:
    """Whether a line has all fields, as text; a set of clean images alone has no degraded ones."""
    if not isinstance(record, dict) or not all(field in record for field in FIELDS):
        return False
    optional = "split", "degraded", "degraded_sha256"
    return all(
        isinstance(record[field], str) or (record[field] is None and field in optional)
        for field in FIELDS
    )


def _parts(name: str, root: str | Path, split: str | None) -> dict[str | None, BenchmarkPairs]:
    """The halves of a public set that are below root, or the one that is asked for."""
    remedy = "give the folder that its archive unpacks to, or one around it"
    wanted = [split] if split else (os.path.isdir(root) and halves(name, root)) or [None]
    return {
        half: BenchmarkPairs(name, root, half, alone=bool(split), remedy=remedy) for half in wanted
    }


def _compared(
    records: list[dict], root: Path, parts: dict[str | None, BenchmarkPairs], manifest: str | Path
) -> list[Finding]:
    """What a manifest says of the files below root."""
    files = {}
    for record in records:
        for side in ("clean", "degraded"):
            if record[side]:
                files[record[side]] = record[f"{side}_sha256"]
    missing, differing = [], []
    for place, digest in tqdm(files.items(), desc="hashes", unit="file", disable=None):
        path = root / place
        if not _is_file(path):
            missing.append(place)
        elif sha256(path) != digest:
            differing.append(place)
    extra = [place for place in _places(root, parts.values()) if place not in files]
    faults = [
        (missing, "is missing"),
        (differing, "has another hash"),
        (extra, "is not in the manifest"),
    ]
    findings = [
        (False, f"{manifest}: {found[0]} {what}{and_more(found)}")
        for found, what in faults
        if found
    ]
    return findings or [(True, f"{manifest}: {len(files)} files with the hashes that it names")]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # of a name that no file can have
        return False


def _places(root: Path, parts: Iterable[BenchmarkPairs]) -> list[str]:
    """The files of pairs, relative to root, each once."""
    paths = [path for pairs in parts for pair in pairs.paths for path in pair]
    return list(dict.fromkeys(path.relative_to(root).as_posix() for path in paths))


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all, and say so.

    Raises:
        UserError: it cannot be written, or something else is there.
    """
    write_text_result(path, text)
    print(f"Wrote: {path}")
