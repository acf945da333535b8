"""The command that says of public sets what goes where, and whether what is there is right:
``python scripts/prepare_data.py``, then one of

list                                                every set: folders, pair rule, counts, terms,
how to ask for it check NAME DIR [split=train|test] [manifest=FILE]   find it below DIR, count it,
open every header, compare hashes manifest NAME DIR [split=train|test] [output=FILE]  a JSON line
per pair: name, paths relative to DIR, SHA-256 of both

``check`` ends with status 0 where all is right, 1 where counts, images or hashes are not, 2 after a
mistake in the command. Nothing is downloaded, moved or renamed.
"""

import json
import sys
from functools import cache
from pathlib import Path

from tqdm import tqdm

from irbridge.benchmarks import BenchmarkPairs, halves
from irbridge.checkpoint import sha256, write_atomically
from irbridge.data import and_more
from irbridge.errors import UserError
from irbridge.public_sets import BENCHMARKS, Benchmark, known

KEYS = {"list": (), "check": ("split", "manifest"), "manifest": ("split", "output")}
# of a manifest's lines
FIELDS = "split", "name", "clean", "degraded", "clean_sha256", "degraded_sha256"
USAGE = (
    "prepare_data.py list, check NAME DIR [split=train|test] [manifest=FILE], or manifest NAME DIR"
    " [output=FILE]"
)


def main(words: list[str]) -> None:
    """Do what the words ask for, as above. UserError names a wrong word and the choices."""
    verb, *places = [w for w in words if "=" not in w] or [""]
    options = dict(w.split("=", 1) for w in words if "=" in w)
    if verb not in KEYS or len(places) != 2 * (verb != "list"):
        raise UserError(f"The words are not understood; give {USAGE}.")
    if wrong := sorted(options.keys() - set(KEYS[verb])):
        raise UserError(f"{wrong[0]}= does not go with {verb}; give {USAGE}.")
    split = options.get("split")
    if split not in (None, "train", "test"):
        raise UserError(f"split={split!r} is not known; use train or test, or leave it out.")
    if verb == "list":
        print(listing())
    elif verb == "check":
        findings = check(*places, split, options.get("manifest"))
        print("\n".join(f"{'ok   ' if right else 'WRONG'} {text}" for right, text in findings))
        sys.exit(0 if all(right for right, _ in findings) else 1)
    else:
        lines = "".join(json.dumps(line) + "\n" for line in manifest(*places, split))
        if "output" in options:
            _write(Path(options["output"]), lines)
        else:
            print(lines, end="")


def listing() -> str:
    """What is known of every benchmark: a table, then a paragraph each."""
    rows = [("NAME", "SET", "TASK", "TRAIN", "TEST", "TERMS")]
    for name, known_set in BENCHMARKS.items():
        counts = [
            (
                f"{known_set.counts[t]:,}"
                if (t := _title(known_set, half)) in known_set.counts
                else "-"
            )
            for half in ("train", "test")
        ]
        rows.append((name, known_set.title, known_set.task, *counts, known_set.terms))
    widths = [max(map(len, column)) for column in zip(*rows)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    ]
    return "\n".join(
        [*table, *(_paragraph(name, known_set) for name, known_set in BENCHMARKS.items())]
    )


def _paragraph(name: str, known_set: Benchmark) -> str:
    task = known_set.task
    train = f"python scripts/train.py task={task} data.benchmark={name} data.root=DIR"
    if name == "reside_ots":
        train += " data.test_benchmark=sots_outdoor data.test_root=DIR"
    facts = {
        "source": known_set.source,
        "folders": known_set.layout,
        "pairs": known_set.rule,
        "remark": known_set.remark,
        "check": f"python scripts/prepare_data.py check {name} DIR",
        "train": train * (known_set.only != "test"),
        "score": f"python scripts/evaluate.py task={task} benchmark={name} data.root=DIR size=null",
    }
    return "\n".join([f"\n{name}", *(f"  {key:8} {text}" for key, text in facts.items() if text)])


def _title(known_set: Benchmark, half: str) -> str:
    """What a half is called in ``counts``; nothing where the set has no such half."""
    if known_set.only:
        return known_set.title * (known_set.only == half)
    return known_set.title + " train" * (half == "train")


def check(
    name: str, root: str | Path, split: str | None = None, manifest: str | Path | None = None
) -> list[tuple[bool, str]]:
    """(right or not, one line on it) of everything that is looked at: of each half of a benchmark
    below ``root`` the number of pairs and the headers; and of a manifest the first file that is
    missing, differs, or is not in it. UserError if there is nothing to look at."""
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
    set is not found or does not pair."""
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
    manifest."""
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
    wanted = [split] if split else Path(root).is_dir() and halves(name, root) or [None]
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
