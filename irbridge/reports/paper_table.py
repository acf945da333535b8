"""The paper's tables beside what runs of its experiments gave: published, reproduced, missing."""

import json
from pathlib import Path

import numpy as np

from irbridge.assets import find
from irbridge.errors import UserError
from irbridge.evaluation.fid import saved_fid
from irbridge.evaluation.records import aggregate, read_records
from irbridge.evaluation.scoring import slug
from irbridge.evaluation.unpaired import read_scores
from irbridge.experiments.config import composed
from irbridge.files import read_json
from irbridge.reports.published import SCORES, Line, lines, words_of
from irbridge.reports.table import Style, Table, csv_text, to_latex, to_markdown

TITLES = {
    "table1": (
        "Table 1 of the IRBridge paper, whose dagger is not explained; copied: from the GOUB paper,"
        " at native resolution against the true clean image"
    ),
    "table3": "Table 3 of the IRBridge paper, whose task is not named (here derain)",
    "table4": "Table 4 of the IRBridge paper (photographs without clean versions)",
    "fig11": "Fig. 11 of the IRBridge paper (four images that are not named; here the first four)",
}
DIGITS = {"PSNR": 2, "SSIM": 4, "LPIPS": 4, "FID": 2, "s/image": 1}
RECORDED = {"PSNR": "psnr", "SSIM": "ssim", "LPIPS": "lpips"}
MISSING = "missing"
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
TRAINED = "steps", "batch_size", "crop", "lr", "betas", "weight_decay", "warmup", "schedule"


def paper_table(
    name: str, folder: str | Path = "runs/paper", form: str = "md", weights: str | None = None
) -> str:
    """Markdown, LaTeX or CSV of "table1", "table3", "table4" or "fig11": per row the published
    figures, those of the run of its experiment below ``folder``, against the VAE round trip (the
    paper's reference) and against the true clean image, the number of images, and in what the run
    is not the row's experiment. weights: of the Inception network for the FID of saved images.
    UserError lists the names.
    """
    if name not in SCORES:
        raise UserError(f"paper={name!r} is not known; use {', '.join(SCORES)}.")
    sides = (
        ("reproduced",)
        if name == "table4"
        else ("reproduced, VAE reference", "reproduced, clean reference")
    )
    found = [(line, _reproduced(name, line, Path(folder), weights)) for line in lines(name)]
    if form == "csv":
        return csv_text([_csv_line(SCORES[name], sides, *pair) for pair in found])
    heads = [f"{side}: {' / '.join(SCORES[name])}" for side in ("published", *sides)]

    def layout(rows: list, style: Style) -> list[Table]:
        body = [
            [
                line.group,
                line.method,
                " / ".join(line.figures),
                *_cells(name, line, run, sides),
                _count(line, run),
                "; ".join(run["notes"]) if run else "",
            ]
            for line, run in found
        ]
        caption = (
            f"{TITLES[name]}; {MISSING}: no run below {folder}; {style.missing}: no experiment of"
            " this project. docs/paper.md has the protocol and its traps."
        )
        return [
            Table(
                style.escape(caption),
                [],
                ["Task", "Method", *heads, "images", "differs in"],
                [
                    [style.missing if cell is None else style.escape(cell) for cell in line]
                    for line in body
                ],
            )
        ]

    return {"md": to_markdown, "latex": to_latex}[form]([], layout)


def _cells(name: str, line: Line, run: dict | None, sides: tuple) -> list[str | None]:
    if run is None:
        return [MISSING if line.run else None] * len(sides)
    return [
        " / ".join(
            MISSING if v is None else f"{v:.{DIGITS.get(score, 3)}f}"
            for score, v in zip(SCORES[name], run[side])
        )
        for side in sides
    ]


def _count(line: Line, run: dict | None) -> str:
    if run is None:
        return ""
    return f"{run['images']} of {line.images}" if line.images else str(run["images"])


def _csv_line(scores: tuple, sides: tuple, line: Line, run: dict | None) -> dict:
    values = {f"published {s}": v for s, v in zip(scores, line.figures)}
    for side in sides:
        values |= {
            f"{side} {s}": v for s, v in zip(scores, run[side] if run else [None] * len(scores))
        }
    state = (MISSING if line.run else "") if run is None else "; ".join(run["notes"])
    return {
        "task": line.group,
        "method": line.method,
        **values,
        "images": run and run["images"],
        "published images": line.images,
        "differs in": state,
    }


def _reproduced(name: str, line: Line, folder: Path, weights: str | None) -> dict | None:
    """Means by side in the order of the scores, images and notes of a line's run; None where
    nothing is scored.
    """
    run = folder / (line.run or "")
    if not line.run:
        return None
    if name == "table4":
        scored = max(run.glob("real/*/scores.jsonl"), key=lambda p: p.stat().st_mtime, default=None)
        records = [r for r in read_scores(scored) if r["method"] != "identity"] if scored else []
        if not records:
            return None
        means = [
            (
                float(np.mean([r["metrics"][s.lower()] for r in records]))
                if s.lower() in records[0]["metrics"]
                else None
            )
            for s in SCORES[name]
        ]
        return {
            "reproduced": means,
            "images": len(records),
            "notes": _notes(line, run, records[0]["size"]),
        }
    if not any(run.glob("results/*/records*.jsonl")):
        return None
    rows = [
        r
        for r in aggregate(read_records(run / "results"))
        if (r.method or "").startswith("irbridge")
    ]
    if not rows:
        return None
    row, found = rows[-1], {}
    for side, end, place in (
        ("reproduced, VAE reference", "_vae", "vae"),
        ("reproduced, clean reference", "", "clean"),
    ):
        extra = {
            "s/image": row.seconds,
            "FID": (
                saved_fid(run / "results" / slug(row.row), place, weights)
                if "FID" in SCORES[name] and weights
                else None
            ),
        }
        found[side] = [
            row.scores[RECORDED[s] + end] if s in RECORDED else extra[s] for s in SCORES[name]
        ]
    notes = _notes(line, run, row.about("size"))
    notes += [f"data {row.about('data')}"] * (row.about("data") != line.data)
    notes += [f"{len(row.images)} images"] * (line.images not in (None, len(row.images)))
    return found | {"images": len(row.images), "notes": notes}


def _notes(line: Line, run: Path, size) -> list[str]:
    """In what a run differs from its experiment, the training of the adapter that it took over
    included.
    """
    wanted = json.loads(json.dumps(composed("train", *words_of(line.run))))
    try:
        saved = read_json(run / "run.json")
        source = read_json(find(saved["reuse"]) / "run.json") if saved.get("reuse") else saved
    except UserError as error:
        return [str(error).split(";")[0]]
    expected = dict(_leaves(wanted))
    changed = [
        f"{key}={value}"
        for key, value in _leaves(saved)
        if key.startswith(WATCHED) and key != "sampler.steps" and expected.get(key, value) != value
    ]  # steps is another name of nfe
    changed = [_weights(saved) if c.startswith("backbone.pretrained=") else c for c in changed]
    changed += [
        f"trainer.{key}={source['trainer'].get(key)}"
        for key in TRAINED
        if source["trainer"].get(key) != wanted["trainer"][key]
    ]
    size = [f"size {size}"] if str(size) != str(wanted["evaluate"]["size"]) else []
    return [*size, *changed[:4], *[f"{len(changed) - 4} more"] * (len(changed) > 4)]


def _weights(saved: dict) -> str:
    """Weights that do not come from the experiment's hub id, which only their hash can tell to be
    the same.
    """
    backbone = saved["backbone"]
    return f"weights {str(backbone.get('digest'))[:12]} of {Path(backbone['pretrained']).name}"


def _leaves(config: dict, prefix: str = ""):
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
