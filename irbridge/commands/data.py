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
from pathlib import Path

from irbridge.data.manifest import KEYS, check, manifest, write_text
from irbridge.data.public_sets import BENCHMARKS, Benchmark
from irbridge.errors import UserError

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
            write_text(Path(options["output"]), lines)
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
