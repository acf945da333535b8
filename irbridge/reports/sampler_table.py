"""Sampler table."""

import json
from pathlib import Path

import numpy as np

from irbridge.errors import UserError
from irbridge.evaluation.records import read_records
from irbridge.files import read_json

SCORES = {"psnr": "{:.2f}", "ssim": "{:.3f}", "lpips": "{:.3f}"}


def sampler_table(records: list[dict]) -> str:
    """Markdown: per bridge and rule, PSNR / SSIM / LPIPS by call count; then seconds an image by
    call count.
    """
    counts = sorted({r["nfe"] for r in records})
    groups: dict[tuple, dict[int, list]] = {}
    for r in records:
        groups.setdefault((r["bridge"], r["rule"], r["spacing"]), {}).setdefault(
            r["nfe"], []
        ).append(r)
    head = ["bridge", "rule", "spacing", *map(str, counts)]
    lines = [head, ["---"] * 3 + ["---:"] * len(counts)]
    for key, by_count in sorted(groups.items()):
        lines.append([*key, *(_cell(by_count.get(n)) for n in counts)])
    seconds = [np.median([r["seconds"] for r in records if r["nfe"] == n]) for n in counts]
    lines.append(["seconds an image, median", "", "", *(f"{s:.2f}" for s in seconds)])
    sample = records[0]
    names = {r["name"] for r in records}
    caption = (
        f"{sample['task']}: PSNR / SSIM / LPIPS by number of network calls; {sample['protocol']};"
        f" {sample['data']}, size {sample['size']}; images {len(names)}; seed {sample['seed']};"
        f" {sample['machine']}."
    )
    return caption + "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(records: list[dict] | None) -> str:
    if not records:
        return "—"
    return " / ".join(form.format(np.mean([r[k] for r in records])) for k, form in SCORES.items())


def budgets(folder: str | Path) -> list[dict]:
    """One row per scored run below a folder of ``experiment=efficiency``: task, contender, seed,
    images seen, seconds of one core, trainable parameters and mean scores. UserError if there is
    none.
    """
    rows = []
    for path in sorted(Path(folder).glob("*/run.json")):
        run, config = path.parent, read_json(path)
        metrics, results = run / "metrics.jsonl", run / "results"
        if not metrics.is_file() or not list(results.rglob("records.jsonl")):
            continue
        last = json.loads(metrics.read_text().splitlines()[-1])
        records = read_records(results)
        contender = run.name.removeprefix(config["task"]["name"] + "-").rsplit("-", 2)[0]
        weights = _weight_count(run / "model.safetensors")
        rows.append(
            {
                "task": config["task"]["name"],
                "contender": contender,
                "seed": config["seed"],
                "images": last["images"],
                "seconds": last["cpu_seconds"],
                "parameters": weights,
                "row": records[0]["row"],
                "protocol": records[0]["protocol"],
                "scored": len(records),
                "size": records[0]["size"],
                "machine": records[0]["machine"],
                **{k: float(np.mean([r[k] for r in records])) for k in SCORES},
            }
        )
    if not rows:
        raise UserError(
            f"There is no scored run below {folder}; run scripts/train.py experiment=efficiency"
            " first."
        )
    return rows


def _weight_count(path: Path) -> int:
    """Number of weights in a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return int(sum(np.prod(file.get_slice(key).get_shape()) for key in file))


def budget_table(rows: list[dict]) -> str:
    """Markdown, one table a task: mean over seeds of PSNR / SSIM / LPIPS by images seen, best of a
    column in bold, with the core seconds of the largest budget and the trainable parameters.
    """
    text = []
    for task in sorted({r["task"] for r in rows}):
        mine = [r for r in rows if r["task"] == task]
        images, seeds = (sorted({r[k] for r in mine}) for k in ("images", "seed"))
        groups = {
            (c, n): [r for r in mine if (r["contender"], r["images"]) == (c, n)]
            for c in dict.fromkeys(r["contender"] for r in mine)
            for n in images
        }
        best = {
            (k, n): (max if k != "lpips" else min)(
                (
                    form.format(np.mean([r[k] for r in group]))
                    for (_, m), group in groups.items()
                    if m == n and group
                ),
                key=float,
            )
            for k, form in SCORES.items()
            for n in images
        }
        lines = [
            ["contender", "parameters", *(f"{n} images" for n in images), f"core s at {images[-1]}"]
        ]
        lines.append(["---"] + ["---:"] * (len(images) + 2))
        for contender in dict.fromkeys(c for c, _ in groups):
            cells = []
            for n in images:
                group = groups[contender, n]
                cells.append(
                    " / ".join(
                        _bold(form.format(np.mean([r[k] for r in group])), best[k, n])
                        for k, form in SCORES.items()
                    )
                    if group
                    else "—"
                )
            own = [r for r in mine if r["contender"] == contender]
            longest = [r["seconds"] for r in own if r["images"] == images[-1]]
            seen = sorted({r["seed"] for r in own})
            label = (
                contender if seen == seeds else f"{contender} (seed {', '.join(map(str, seen))})"
            )
            lines.append(
                [
                    label,
                    f"{own[0]['parameters'] / 1e6:.2f} M",
                    *cells,
                    f"{np.mean(longest):.0f}" if longest else "—",
                ]
            )
        one = mine[0]
        caption = (
            f"{task}: PSNR / SSIM / LPIPS by training images seen; {one['protocol']}; size"
            f" {one['size']}; images {one['scored']}; mean over seeds {', '.join(map(str, seeds))};"
            f" {one['machine']}."
        )
        text.append(caption + "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(text)


def _bold(cell: str, best: str) -> str:
    return f"**{cell}**" if cell == best else cell
