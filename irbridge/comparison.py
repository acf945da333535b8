"""Comparisons over many settings: samplers of one adapter, and contenders over training budgets."""

import json
from itertools import product
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from irbridge.build import from_pretrained
from irbridge.checkpoint import read_json
from irbridge.config import CONFIGS, composed, device, instantiate, plain, set_threads
from irbridge.data import split_mask
from irbridge.errors import UserError
from irbridge.evaluation import evaluate
from irbridge.metrics import LPIPS
from irbridge.model import IRBridge
from irbridge.restorer import image_seed
from irbridge.samplers import rule
from irbridge.scoring import validation_images, weights_hash
from irbridge.sources import test_pairs
from irbridge.tables import read_records
from irbridge.timesteps import linear

SCORES = {"psnr": "{:.2f}", "ssim": "{:.3f}", "lpips": "{:.3f}"}


def compare_run(cfg: DictConfig) -> None:
    """Score a trained adapter with every bridge, sampler, spacing, start and call count of the
    config, and print the tables. What a bridge cannot serve is left out and said so; UserError if
    the run is no IRBridge."""
    options, run = plain(cfg), Path(cfg.run)
    set_threads(options["threads"])
    model, config = (
        from_pretrained(run, device(options["device"]), frozen=options["backbone"]),
        read_json(run / "run.json"),
    )
    if not isinstance(model, IRBridge):
        raise UserError(
            f"run={run} was trained with method={config['method']}; give a run of method=irbridge."
        )
    task = config["task"]["name"]
    held, highest = options["split"] == "validation", model.backbone.prior.highest
    if above := [start for start in options["starts"] if start is not None and start > highest]:
        raise UserError(
            f"starts={above} are above the prior's last timestep, {highest:g}; give lower ones."
        )
    results = Path(options["results"] or f"runs/compare-{task}" + "-validation" * held)
    pairs = validation_images(run, options["size"]) if held else test_pairs(config, options["size"])
    protocol, lpips, trained = (
        instantiate(config["task"]["protocol"]),
        LPIPS.load(),
        model.timesteps,
    )
    about = {
        "task": task,
        "seed": options["seed"],
        "size": options["size"],
        "data": "validation images" if held else "held-back images",
        "weights": weights_hash(run),
    }
    jobs = list(_settings(options, task))
    with tqdm(
        total=len(jobs) * len(pairs.names[: options["limit"]]), unit="image", dynamic_ncols=True
    ) as bar:
        for name, bridge, sampler, start in jobs:
            name = name if start is None else f"{name} from {start:g}"
            called = sampler.get("rule", "anchor alone")
            row = f"{name}, {called}, {sampler['spacing']}, {sampler['nfe']} calls"
            try:
                if sampler["nfe"] == 0 and model.endpoint != "anchor":
                    raise UserError("this model has no anchor")
                model.sampler.changed(**sampler).check(bridge)
            except UserError as error:
                tqdm.write(f"left out: {row}: {error}")
                continue
            model.bridge, model.timesteps = bridge, trained if start is None else linear(start)

            def restore(image, key, fields=sampler):
                degraded, mask = split_mask(image)
                return model.restore(
                    degraded, mask=mask, seeds=[image_seed(options["seed"], key)], **fields
                )

            record = about | {
                "row": row,
                "bridge": name,
                "rule": called,
                "spacing": sampler["spacing"],
                "nfe": sampler["nfe"],
            }
            folder = results / row.replace(", ", "-").replace(" ", "-")
            for _ in evaluate(
                restore, pairs, protocol, folder, record, lpips, limit=options["limit"]
            ):
                bar.update()
    # not of another adapter
    table = sampler_table([r for r in read_records(results) if about.items() <= r.items()])
    (results / "table.md").write_text(table + "\n")
    print(f"\n{table}\n\nWrote: {results / 'table.md'}")


def _settings(options: dict, task: str):
    """(bridge's name, bridge, sampler fields, start) of each setting; rules on the prior alone
    once, under "no bridge", and the anchor alone, 0 calls, once."""
    for group, names in (("bridge", options["bridges"]), ("sampler", options["samplers"])):
        known = sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))
        if wrong := [name for name in names if name not in known]:
            raise UserError(f"{group}s={wrong} are unknown; choose of {', '.join(known)}.")
    bridges = {
        b: instantiate(plain(composed("train", f"task={task}", f"bridge={b}", "name=x").bridge))
        for b in options["bridges"]
    }
    fields = {
        s: {
            k: v
            for k, v in plain(composed("train", f"sampler={s}", "name=x").sampler).items()
            if v is not None
        }
        for s in options["samplers"]
    }
    first = next(iter(bridges.values()))
    if 0 in options["nfe"]:
        yield "no bridge", first, {"nfe": 0, "spacing": options["spacings"][0]}, None
    for start, spacing, sampler, nfe in product(
        options["starts"], options["spacings"], fields.values(), options["nfe"]
    ):
        sampler = sampler | {"nfe": nfe, "spacing": spacing}
        if nfe and rule(sampler.get("rule", "")).on_prior:
            yield "no bridge", first, sampler, start
        elif nfe:
            yield from ((name, bridge, sampler, start) for name, bridge in bridges.items())


def sampler_table(records: list[dict]) -> str:
    """Markdown: per bridge and rule, PSNR / SSIM / LPIPS by call count; then seconds an image by
    call count."""
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
    none."""
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
        return int(sum(np.prod(file.get_slice(key).get_shape()) for key in file.keys()))


def budget_table(rows: list[dict]) -> str:
    """Markdown, one table a task: mean over seeds of PSNR / SSIM / LPIPS by images seen, best of a
    column in bold, with the core seconds of the largest budget and the trainable parameters."""
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


def budget_plot(rows: list[dict], path: Path) -> None:
    """PNG: PSNR and LPIPS against images seen and against core seconds, one line a contender, one
    dot a seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks, panels = (
        sorted({r["task"] for r in rows}),
        [("images", "psnr"), ("images", "lpips"), ("seconds", "psnr")],
    )
    labels = {
        "images": "training images seen",
        "seconds": "seconds of one core",
        "psnr": "PSNR, dB",
        "lpips": "LPIPS",
    }
    figure, axes = plt.subplots(len(tasks), 3, figsize=(13, 3.6 * len(tasks)), squeeze=False)
    for task, line in zip(tasks, axes):
        for axis, (across, up) in zip(line, panels):
            for contender in dict.fromkeys(r["contender"] for r in rows):
                own = [r for r in rows if (r["task"], r["contender"]) == (task, contender)]
                counts = sorted({r["images"] for r in own})
                means = [
                    [np.mean([r[k] for r in own if r["images"] == n]) for n in counts]
                    for k in (across, up)
                ]
                drawn = axis.plot(*means, label=contender)
                axis.plot(
                    [r[across] for r in own], [r[up] for r in own], ".", color=drawn[0].get_color()
                )
            axis.set(xscale="log", xlabel=labels[across], ylabel=labels[up], title=task)
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)
