"""The paper's tables beside what runs of its experiments gave: published, reproduced, missing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from irbridge.assets import find
from irbridge.errors import UserError
from irbridge.evaluation.fid import saved_fid
from irbridge.evaluation.metrics import STANDARD
from irbridge.evaluation.no_reference import SCORES as PHOTOGRAPHS
from irbridge.evaluation.records import read_lines, read_records, slug
from irbridge.evaluation.rows import Row, aggregate
from irbridge.experiments.config import composed
from irbridge.files import read_json
from irbridge.reports.published import SCORES, Line, lines, words_of
from irbridge.reports.table import Cell, Entry, Table, dictionaries, number

TITLES = {
    "table1": (
        "Table 1 of the IRBridge paper, whose dagger is not explained; copied: from the GOUB paper,"
        " at native resolution against the true clean image"
    ),
    "table3": "Table 3 of the IRBridge paper, whose task is not named (here derain)",
    "table4": "Table 4 of the IRBridge paper (photographs without clean versions)",
    "fig11": "Fig. 11 of the IRBridge paper (four images that are not named; here the first four)",
}
RECORDED = {metric.name: metric for metric in STANDARD}
DIGITS = {name: metric.digits for name, metric in RECORDED.items()} | {"FID": 2, "s/image": 1}
MISSING = "missing"
# What a run's scores are compared with: the ending of the scores' keys, and the folder of images.
SIDES = {
    "reproduced, VAE reference": ("_vae", "vae"),
    "reproduced, clean reference": ("", "clean"),
}
# What of a run's config must be as in its experiment for its scores to be the row's; data.root and
# devices may differ.
WATCHED = (
    "method",
    "endpoint",
    "backbone.pretrained",
    "backbone.dtype",
    "backbone.vae",
    "adapter",
    "bridge",
    "timesteps",
    "sampler",
    "loss",
    "data.benchmark",
    "data.test_benchmark",
    "data.resize",
    "task.protocol",
)
TRAINED = "steps", "batch_size", "crop", "grow", "lr", "betas", "weight_decay", "warmup", "schedule"


@dataclass(frozen=True)
class Reproduced:
    """What the run of a published row gave.

    Args:
        scores: by what they compare with, in the order of the table's columns.
        images: how many were scored.
        notes: in what the run is not the row's experiment.
    """

    scores: dict[str, list[float | None]]
    images: int
    notes: list[str]


def paper_table(
    name: str, folder: str | Path = "runs/paper", weights: str | Path | None = None
) -> Table:
    """A table of the paper beside the runs of its experiments.

    Per row it has the published figures, those of the run against the VAE round trip (the paper's
    reference) and against the true clean image, the number of images, and in what the run is not
    the row's experiment.

    Args:
        name: "table1", "table3", "table4" or "fig11".
        folder: of the runs.
        weights: file of the Inception network, for the FID of saved images.

    Raises:
        UserError: if there is no such table; it lists the names.
    """
    found = _beside(name, Path(folder), weights)
    scores, sides = SCORES[name], _sides(name)
    body = [
        [
            line.group,
            line.method,
            " / ".join(line.figures),
            *_entries(scores, line, run, sides),
            _count(line, run),
            "; ".join(run.notes) if run else "",
        ]
        for line, run in found
    ]
    caption = (
        f"{TITLES[name]}; {MISSING}: no run below {folder}; —: no experiment of"
        " this project. docs/paper.md has the protocol and its traps."
    )
    heads = [f"{side}: {' / '.join(scores)}" for side in ("published", *sides)]
    return Table(caption, ["Task", "Method", *heads, "images", "differs in"], body)


def paper_figures(
    name: str, folder: str | Path = "runs/paper", weights: str | Path | None = None
) -> Table:
    """The same in full numbers with a column each, for a CSV; see :func:`paper_table`."""
    scores, sides = SCORES.get(name, ()), _sides(name)
    found = []
    for line, run in _beside(name, Path(folder), weights):
        values: dict[str, Entry] = {"task": line.group, "method": line.method}
        values |= {f"published {s}": v for s, v in zip(scores, line.figures, strict=True)}
        for side in sides:
            own = run.scores[side] if run else [None] * len(scores)
            values |= {f"{side} {s}": number(v) for s, v in zip(scores, own, strict=True)}
        values["images"] = number(run and run.images)
        values["published images"] = number(line.images)
        values["differs in"] = "; ".join(run.notes) if run else (MISSING if line.run else "")
        found.append(values)
    return dictionaries(found)


def _sides(name: str) -> tuple[str, ...]:
    return ("reproduced",) if name == "table4" else tuple(SIDES)


def _beside(
    name: str, folder: Path, weights: str | Path | None
) -> list[tuple[Line, Reproduced | None]]:
    """The published rows of a table, each with what its run gave."""
    if name not in SCORES:
        raise UserError(f"paper={name!r} is not known; use {', '.join(SCORES)}.")
    return [(line, _reproduced(name, line, folder, weights)) for line in lines(name)]


def _entries(
    scores: tuple[str, ...], line: Line, run: Reproduced | None, sides: tuple[str, ...]
) -> list[Entry]:
    if run is None:
        return [MISSING if line.run else None] * len(sides)
    found = []
    for side in sides:
        texts = [
            MISSING if value is None else f"{value:.{DIGITS.get(score, 3)}f}"
            for score, value in zip(scores, run.scores[side], strict=True)
        ]
        found.append(tuple(Cell(text) for text in texts))
    return found


def _count(line: Line, run: Reproduced | None) -> str:
    if run is None:
        return ""
    return f"{run.images} of {line.images}" if line.images else str(run.images)


def _reproduced(
    name: str, line: Line, folder: Path, weights: str | Path | None
) -> Reproduced | None:
    """What a line's run gave; None where nothing is scored."""
    if not line.run:
        return None
    run = folder / line.run
    if name == "table4":
        return _photographs(line, run, SCORES[name])
    if not any(run.glob("results/*/records*.jsonl")):
        return None
    rows = aggregate(read_records(run / "results"))
    own = [row for row in rows if (row.method or "").startswith("irbridge")]
    if not own:
        return None
    row = own[-1]
    found = {side: _scores(SCORES[name], row, run, side, weights) for side in SIDES}
    notes = _notes(line, run, row.size)
    if row.data != line.data:
        notes.append(f"data {row.data}")
    if line.images not in (None, len(row.images)):
        notes.append(f"{len(row.images)} images")
    return Reproduced(found, len(row.images), notes)


def _scores(
    names: tuple[str, ...], row: Row, run: Path, side: str, weights: str | Path | None
) -> list[float | None]:
    """A row's scores against one reference, in the order of a table's columns."""
    ending, place = SIDES[side]
    found = {name: row.scores.get(metric.key + ending) for name, metric in RECORDED.items()}
    found["s/image"] = row.seconds
    if "FID" in names:
        saved = run / "results" / slug(row.row)
        found["FID"] = saved_fid(saved, place, weights) if weights else None
    return [found[name] for name in names]


def _photographs(line: Line, run: Path, scores: tuple[str, ...]) -> Reproduced | None:
    """What the newest scores of photographs without clean versions say."""
    files = run.glob(f"real/*/{PHOTOGRAPHS}")
    newest = max(files, key=lambda path: path.stat().st_mtime, default=None)
    records = read_lines(newest) if newest else []
    records = [record for record in records if record.about.method != "identity"]
    if not records:
        return None
    means: list[float | None] = []
    for score in scores:
        values = [record.scores.get(score.lower()) for record in records]
        means.append(None if None in values else float(np.mean(values)))
    notes = _notes(line, run, records[0].about.size)
    return Reproduced({"reproduced": means}, len(records), notes)


def _notes(line: Line, run: Path, size: int | None) -> list[str]:
    """In what a run differs from its experiment, and the training of the adapter that it took over.

    Args:
        line: the published row.
        run: the run's folder.
        size: of the scored crops in pixels.
    """
    wanted = json.loads(json.dumps(composed("train", *words_of(line.run))))
    try:
        saved = read_json(run / "run.json")
        source = read_json(find(saved["reuse"]) / "run.json") if saved.get("reuse") else saved
    except UserError as error:
        return [str(error).split(";")[0]]
    expected = dict(_leaves(wanted))
    changed = [
        _weights(saved) if key == "backbone.pretrained" else f"{key}={value}"
        for key, value in _leaves(saved)
        if _counts(key) and expected.get(key, value) != value
    ]
    changed += [
        f"trainer.{key}={source['trainer'].get(key)}"
        for key in TRAINED
        if source["trainer"].get(key) != wanted["trainer"][key]
    ]
    notes = [f"size {size}"] if str(size) != str(wanted["evaluate"]["size"]) else []
    notes += changed[:4]
    return notes + ([f"{len(changed) - 4} more"] if len(changed) > 4 else [])


def _counts(key: str) -> bool:
    """Whether a dotted key of a config makes another experiment; steps is another name of nfe."""
    return key.startswith(WATCHED) and key != "sampler.steps"


def _weights(saved: dict) -> str:
    """Weights that do not come from the experiment's hub id; their hash tells which they are."""
    backbone = saved["backbone"]
    return f"weights {str(backbone.get('digest'))[:12]} of {Path(backbone['pretrained']).name}"


def _leaves(config: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted key, value) of all that is no dictionary."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
