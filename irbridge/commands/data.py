"""The command ``irbridge data``: what of public sets goes where, and whether it is right."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from irbridge.assets import shipped
from irbridge.commands.options import DataOptions
from irbridge.data.faces import write_faces
from irbridge.data.manifest import KEYS, check, manifest, write_text
from irbridge.data.public_sets import BENCHMARKS, Benchmark
from irbridge.errors import UserError, unknown
from irbridge.own_files import check_writable
from irbridge.reports.task_pictures import draw_front, draw_samples, draw_tasks

# the verbs, and the options that go with each
DRAWING = "tasks", "samples", "front"
VERBS = KEYS | dict.fromkeys(DRAWING, ("output",)) | {"faces": ("output", "seed")}
VERBS["tasks"] = "output", "task"
PLACES = {"list": 0, "faces": 1} | dict.fromkeys(DRAWING, 0)  # words behind each; 2 behind others
USAGE = (
    "list, check NAME DIR [split=train|test] [manifest=FILE], manifest NAME DIR [output=FILE],"
    " tasks [task=NAME] [output=DIR], samples [output=DIR], front [output=DIR], or faces PLACE"
    " [output=DIR] [seed=N]"
)


def _drawn(verb: str, folder: Path, task: str | None) -> Iterator[str]:
    """Draw what a verb names; the front page's picture with the shipped adapters."""
    if verb == "tasks":
        return draw_tasks(folder, task)
    if verb == "samples":
        return draw_samples(folder)
    from irbridge.hub import load  # this verb alone needs networks

    return draw_front(folder, lambda name, image: load(name).restore(image))


def data_run(options: DataOptions) -> None:
    """Do what the first word says: list, check, manifest, tasks, samples, front or faces.

    Raises:
        UserError: a word or an option is wrong, or the set is not there.
        SystemExit: status 1, of check, where counts, images or hashes are not right.
    """
    verb, *places = options.words or ("",)
    if verb and verb not in VERBS:
        raise unknown(f"{verb!r} is not understood", verb, VERBS, f"give {USAGE}")
    wanted = PLACES.get(verb, 2)
    if not verb or len([place for place in places if place.strip()]) != wanted:
        raise UserError(f"The words are not understood; give {USAGE}.")
    for key in ("manifest", "output", "split", "seed", "task"):
        if getattr(options, key) is not None and key not in VERBS[verb]:
            raise UserError(f"{key}= does not go with {verb}; give {USAGE}.")
    split = options.split
    if split not in (None, "train", "test"):
        raise UserError(f"split={split!r} is not known; use train or test, or leave it out.")
    if verb == "list":
        print(listing())
    elif verb in DRAWING:
        folder = Path(options.output or f"runs/{verb}-pictures")
        for line in _drawn(verb, folder, options.task):
            print(line)
    elif verb == "faces":
        folder = Path(options.output or "data/faces")
        print(write_faces(places[0], folder, options.seed or 0).in_words(folder))
    elif verb == "check":
        findings = check(*places, split, options.manifest)
        print("\n".join(f"{'ok   ' if right else 'WRONG'} {text}" for right, text in findings))
        sys.exit(0 if all(right for right, _ in findings) else 1)
    else:
        _manifest(*places, split, options.output)


def _manifest(name: str, root: str, split: str | None, output: str | None) -> None:
    """Print a manifest, or write it where an output is named."""
    if output is not None:  # before the hashes
        check_writable(output)
    lines = "".join(json.dumps(line) + "\n" for line in manifest(name, root, split))
    if output is None:
        print(lines, end="")
    else:
        write_text(Path(output), lines)


def listing() -> str:
    """What is known of every public set: a table, then a paragraph each."""
    rows = [("NAME", "SET", "TASK", "TRAIN", "TEST", "TERMS")]
    for name, known_set in BENCHMARKS.items():
        counts = _counts(known_set)
        rows.append((name, known_set.title, known_set.task, *counts, known_set.terms))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        table.append("  ".join(cells).rstrip())
    paragraphs = [_paragraph(name, known_set) for name, known_set in BENCHMARKS.items()]
    return "\n".join([*table, *paragraphs])


def _counts(known_set: Benchmark) -> Iterator[str]:
    """How many pairs the training and the test half have, as a table says it."""
    for half in ("train", "test"):
        count = known_set.counts.get(_title(known_set, half))
        yield "-" if count is None else f"{count:,}"


def _paragraph(name: str, known_set: Benchmark) -> str:
    """What is known of one set: a line for each fact."""
    task = known_set.task
    train = f"irbridge train task={task} data.benchmark={name} data.root=DIR"
    if name == "reside_ots":
        train += " data.test_benchmark=sots_outdoor data.test_root=DIR"
    scored = f"task={task}" if task in shipped() else "run=RUN"
    facts = {
        "source": known_set.source,
        "folders": known_set.layout,
        "pairs": known_set.rule,
        "remark": known_set.remark,
        "check": f"irbridge data check {name} DIR",
        "train": train * (known_set.only != "test"),
        "score": f"irbridge evaluate {scored} benchmark={name} data.root=DIR size=null",
    }
    return "\n".join([f"\n{name}", *(f"  {key:8} {text}" for key, text in facts.items() if text)])


def _title(known_set: Benchmark, half: str) -> str:
    """What a half is called in ``counts``; nothing where the set has no such half."""
    if known_set.only:
        return known_set.title * (known_set.only == half)
    return known_set.title + " train" * (half == "train")
