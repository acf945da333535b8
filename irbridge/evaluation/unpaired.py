"""Photographs that have no clean version: restored, and scored by metrics without a reference
(pyiqa's).
"""

import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from irbridge.assets import find
from irbridge.data.image_source import ImageSource
from irbridge.errors import UserError
from irbridge.evaluation.methods import IDENTITY, methods
from irbridge.evaluation.no_reference import judge
from irbridge.evaluation.scoring import slug, weights_hash
from irbridge.files import append_line, locked, write_atomically
from irbridge.images.io import read_image, write_image
from irbridge.images.resize import centre_crop
from irbridge.models.restorer import Restorer


def check_photographs(options: dict, masked: bool = False) -> None:
    """UserError where ``evaluate.real`` cannot be scored by ``evaluate.metrics`` here, or the model
    must be told of holes, ``masked``; nothing where both are unset.
    """
    if options["real"] and not options["metrics"]:
        raise UserError(
            "evaluate.real=DIR is scored without a reference; give evaluate.metrics=[niqe,musiq] or"
            " others of pyiqa."
        )
    if options["metrics"] and not options["real"]:
        raise UserError(
            "evaluate.metrics score photographs that have no clean version; give their folder, "
            "evaluate.real=DIR."
        )
    if options["real"] and masked:
        raise UserError(
            "evaluate.real=DIR holds photographs without masks, and this task must know its holes;"
            " leave it out, and fill them afterwards, irbridge restore with mask=DIR."
        )
    if options["real"]:
        ImageSource(find(options["real"]))
        judge(options["metrics"])


def score_photographs(model: Restorer, config: dict, run: Path) -> list[Path]:
    """Restore and score the photographs of ``evaluate.real``, scaled and cropped as test pairs are,
    and print the means. Returns what it wrote: a folder of the PNGs, ``scores.jsonl`` with a line
    per photograph and row, and ``table.md``. The same again goes on. UserError as
    :func:`check_photographs`.
    """
    options, weights = config["evaluate"], weights_hash(run)
    size, resize = options["size"], config["data"]["resize"]
    source = ImageSource(find(options["real"]), resize)
    row = methods(model, config["seed"], weights)[-1]
    rows = [*[IDENTITY] * options["all_rows"], row]
    about = {"data": source.path.name, "size": size, "resize": resize, "seed": config["seed"]}
    folder = (
        run
        / "real"
        / slug(" ".join(f"{v}" for v in (*about.values(), row.label, weights) if v is not None))
    )
    names, score = (
        source.names[: options["limit"]],
        judge(options["metrics"], next(model.parameters()).device),
    )
    total = len(rows) * len(names)
    with (
        locked(folder),
        tqdm(total=total, desc="photographs", unit="image", dynamic_ncols=True) as bar,
    ):
        done = _kept(folder / "scores.jsonl", options["metrics"])
        for index, name in enumerate(names):
            for at in rows:
                if (at.method, name) not in done:
                    path, image = folder / f"{name}.png", centre_crop(source[index], size)
                    if at is row:
                        if not path.exists():
                            write_image(path, row.restore(image, name))
                        image = read_image(path)  # as it is seen
                    record = {"name": name, **at.about(), **about, "metrics": score(image)}
                    append_line(folder / "scores.jsonl", record)
                    done[at.method, name] = record
                bar.update()
    table = photograph_table([r for (method, name), r in done.items() if name in set(names)])
    write_atomically(folder / "table.md", lambda p: p.write_text(table + "\n"))
    print("\n" + table + "\n")
    return [folder]


def _kept(path: Path, metrics: list[str]) -> dict[tuple, dict]:
    """The whole lines of a file of these metrics by (method, name); others, as a kill leaves them,
    go.
    """
    kept = {(r["method"], r["name"]): r for r in read_scores(path) if list(r["metrics"]) == metrics}
    write_atomically(
        path, lambda p: p.write_text("".join(json.dumps(r) + "\n" for r in kept.values()))
    )
    return kept


def read_scores(path: Path) -> list[dict]:
    """The records of a ``scores.jsonl``, none where it is missing; a line that is no JSON is left
    out.
    """
    records = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            pass
    return records


def photograph_table(records: list[dict]) -> str:
    """Markdown: the mean of each metric over the photographs of each row."""
    groups: dict[str, list[dict]] = {}
    for record in records:
        groups.setdefault(record["row"], []).append(record)
    metrics, first = list(records[0]["metrics"]), records[0]
    lines = [f"| Method | {' | '.join(metrics)} | images |", "|---|" + "---:|" * (len(metrics) + 1)]
    for label, group in groups.items():
        means = [f"{np.mean([r['metrics'][m] for r in group]):.3f}" for m in metrics]
        lines.append(f"| {label} | {' | '.join(means)} | {len(group)} |")
    return (
        f"Photographs {first['data']}, size {first['size'] or 'whole'}; pyiqa's metrics.\n\n"
        + "\n".join(lines)
    )
