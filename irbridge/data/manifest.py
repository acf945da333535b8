"""Manifest."""

import json
from functools import cache
from pathlib import Path

from tqdm import tqdm

from irbridge.data.layouts import BenchmarkPairs, halves
from irbridge.data.names import and_more
from irbridge.data.public_sets import known
from irbridge.errors import UserError
from irbridge.files import sha256, write_atomically

KEYS = {"list": (), "check": ("split", "manifest"), "manifest": ("split", "output")}
# of a manifest's lines
FIELDS = "split", "name", "clean", "degraded", "clean_sha256", "degraded_sha256"


def check(
    name: str, root: str | Path, split: str | None = None, manifest: str | Path | None = None
) -> list[tuple[bool, str]]:
    """(right or not, one line on it) of everything that is looked at: of each half of a benchmark
    below ``root`` the number of pairs and the headers; and of a manifest the first file that is
    missing, differs, or is not in it. UserError if there is nothing to look at.
    """
    known(name)
    lines = read_manifest(manifest, split) if manifest else None
    findings: list[tuple[bool, str]] = []
    try:
        parts = _parts(name, root, split)
    # with a file away the rest may not pair, but its name is to be told
    except UserError as error:
        if lines is None or not Path(root).is_dir():
            raise
        parts, findings = {}, [(False, str(error))]
    for pairs in parts.values():
        number, wanted = len(pairs), pairs.benchmark.counts.get(pairs.title)
        what = "images" if pairs.benchmark.clean_only else "pairs"
        expected = "as expected" if wanted else "of no stated number"
        if not (right := wanted in (None, number)):
            expected = f"expected are {wanted}" + f" ({pairs.benchmark.remark})" * bool(
                pairs.benchmark.remark
            )
        findings.append((right, f"{pairs.title}: {number} {what}, {expected}"))
        try:
            pairs.check()
            fits = "" if pairs.benchmark.clean_only else " and the two of a pair fit"
            findings.append((True, f"{pairs.title}: every header opens{fits}"))
        except UserError as error:
            findings.append((False, f"{pairs.title}: {error}"))
    if lines is not None:
        findings += _compared(lines, Path(root), parts, manifest)
    return findings


def manifest(name: str, root: str | Path, split: str | None = None) -> list[dict]:
    """One record (``FIELDS``) per pair of a benchmark below ``root``, in the order of the pairs,
    training half first; ``degraded`` is None where the set has clean images only. UserError if the
    set is not found or does not pair.
    """
    digest, records = cache(sha256), []
    for half, pairs in _parts(name, root, split).items():
        for stem, paths in zip(
            pairs.names, tqdm(pairs.paths, desc=pairs.title, unit="pair", disable=None)
        ):
            paths = [paths[0], None] if pairs.benchmark.clean_only else paths
            places = [path and path.relative_to(root).as_posix() for path in paths]
            records.append(
                dict(zip(FIELDS, (half, stem, *places, *(path and digest(path) for path in paths))))
            )
    return records


def read_manifest(path: str | Path, split: str | None = None) -> list[dict]:
    """The records of a manifest's file, of one half or of all. UserError if it is missing, or is no
    manifest.
    """
    try:
        records = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UserError(
            f"The manifest {path} cannot be read ({error.strerror}); make one with `prepare_data.py"
            " manifest NAME DIR output=FILE`."
        ) from None
    except ValueError:
        records = [None]
    if not records or any(
        not isinstance(r, dict) or any(f not in r for f in FIELDS) for r in records
    ):
        raise UserError(
            f"{path} is not a manifest; make one with `prepare_data.py manifest NAME DIR"
            " output=FILE`."
        )
    return [r for r in records if split in (None, r["split"])]


def _parts(name: str, root: str | Path, split: str | None) -> dict[str, BenchmarkPairs]:
    """The halves of a benchmark that are below root, or the one that is asked for."""
    remedy = "give the folder that its archive unpacks to, or one around it"
    wanted = [split] if split else (Path(root).is_dir() and halves(name, root)) or [None]
    return {
        half: BenchmarkPairs(name, root, half, alone=bool(split), remedy=remedy) for half in wanted
    }


def _compared(records: list[dict], root: Path, parts: dict, manifest) -> list[tuple[bool, str]]:
    """What a manifest says of the files below root."""
    files = {
        r[side]: r[f"{side}_sha256"] for r in records for side in ("clean", "degraded") if r[side]
    }
    missing, differing = [], []
    for place, digest in tqdm(files.items(), desc="hashes", unit="file", disable=None):
        path = root / place
        if not path.is_file():
            missing.append(place)
        elif sha256(path) != digest:
            differing.append(place)
    pairs = (pair for part in parts.values() for pair in part.paths)
    there = dict.fromkeys(path.relative_to(root).as_posix() for pair in pairs for path in pair)
    extra = [place for place in there if place not in files]
    faults = [
        (False, f"{manifest}: {found[0]} {what}{and_more(found)}")
        for found, what in (
            (missing, "is missing"),
            (differing, "has another hash"),
            (extra, "is not in the manifest"),
        )
        if found
    ]
    return faults or [(True, f"{manifest}: {len(files)} files with the hashes that it names")]


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))
    except OSError as error:
        reason = f"output={path} cannot be written ({error.strerror or error})"
        raise UserError(f"{reason}; choose a writable place.") from error
    print(f"Wrote: {path}")
