"""What the train and evaluate commands do with a run's folder: train, score, table, picture."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from omegaconf import DictConfig
from tqdm import tqdm

from irbridge.build import build_model, describe, from_pretrained, save_pretrained, test_pairs, training_stream
from irbridge.checkpoint import Checkpoints, read_json, write_atomically, write_json
from irbridge.config import contradiction, device, instantiate, plain
from irbridge.errors import UserError
from irbridge.evaluation import evaluate, methods
from irbridge.images import pad, to_image, to_tensor, write_image
from irbridge.metrics import LPIPS, Protocol
from irbridge.model import IRBridge, Restorer, image_seed
from irbridge.tables import aggregate, read_records, to_markdown
from irbridge.training import fit
from irbridge.viz import grid


def train_run(cfg: DictConfig) -> None:
    """Train as configured, with the regression baseline; then score, print the table, draw, and name what it wrote."""
    config, run = plain(cfg), Path(cfg.run)
    instantiate(config["task"]["protocol"])   # a mistake in it must not come up after the training
    model, regression, plainly = prepare(config, run), None, config | {"method": "regression"}
    if config["baseline"] and isinstance(model, IRBridge):
        regression = prepare(plainly, run / "regression")
    if not (train(model, config, run) and (regression is None or train(regression, plainly, run / "regression"))):
        print(f"Stopped and saved in {run}; run the same command to go on.")
        return
    if not PartialState().is_main_process:
        return
    wrote = [run, *(score_run(model, config, run, regression) if config["evaluate"]["enabled"] else [])]
    print("Wrote: " + "  ".join(str(p) for p in wrote))


def prepare(config: dict, run: Path) -> Restorer:
    """The untrained model of a run whose folder this config may use; see :func:`claim`."""
    model = build_model(config)
    claim(run, config | {"backbone": describe(config, model)["backbone"]})
    return model


def claim(run: Path, config: dict) -> None:
    """Record in ``run/run.json`` the config that a run's folder belongs to, once something is trained there. UserError
    if the folder belongs to another config (names the first difference), or is a file."""
    path, wanted = run / "run.json", json.loads(json.dumps(config))
    if run.exists() and not run.is_dir():
        raise UserError(f"{run} is a file where the run's folder should be; give name=... or move it.")
    if path.exists() and (Checkpoints(run).latest() or (run / "model.safetensors").exists()):
        if difference := contradiction(read_json(path), wanted):
            raise UserError(f"{run} was started with another configuration: {difference}; use that, give name=..., or "
                            "delete the folder.")
    write_json(path, wanted)


def train(model: Restorer, config: dict, run: Path) -> bool:
    """Train into a run's folder, with sample grids and snapshots; True when it is complete."""
    options, described, seed = config["trainer"], describe(config, model), config["seed"]
    pairs = test_pairs(config, 96)
    shown = [pairs[i] for i in range(min(4, len(pairs)))]

    def sample(current, step):
        rows = [[p.degraded, current.restore(p.degraded, image_seed(seed, p.name)), p.clean] for p in shown]
        write_image(run / "samples" / f"step-{step:06d}.png", grid(rows, ["degraded", "restored", "clean"]))

    return fit(model, training_stream(config, options["crop"]), options, seed, run, sample,
               lambda weights: save_pretrained(model, run, described, weights), mirror(config, run))


def score_run(model: Restorer, config: dict, run: Path, regression: Restorer | None = None) -> list[Path]:
    """Score all rows of a run's table on its held-back pairs, print it, draw the picture; returns what it wrote."""
    options = config["evaluate"]
    pairs, protocol = test_pairs(config, options["size"]), instantiate(config["task"]["protocol"])
    for module in filter(None, (model, regression)):
        module.to(device(config["trainer"]["device"])).eval()
    about = {"task": config["task"]["name"], "seed": config["seed"], "size": options["size"],
             "data": "held-back images", "weights": _weights(run)}
    rows = methods(model, config["seed"], regression)
    rows = rows if options["all_rows"] else dict([list(rows.items())[-1]])
    table = score_rows(rows, pairs, protocol, run / "results", about, options)
    write_atomically(run / "table.md", lambda p: p.write_text(table + "\n"))
    write_image(run / "restored.png", picture(model, pairs, config["seed"]))
    return [run / "table.md", run / "restored.png", run / "results"]


def score_rows(rows: dict, pairs, protocol: Protocol, results: Path, about: dict, options: dict) -> str:
    """Score every row into ``results/<row>/records.jsonl`` under a progress bar; prints and returns the table."""
    lpips = LPIPS.load()
    total = len(rows) * len(pairs.names[: options["limit"]])
    with tqdm(total=total, desc="scoring", unit="image", dynamic_ncols=True) as bar:
        for row, method in rows.items():
            for _ in evaluate(method, pairs, protocol, results / _slug(row), about | {"row": row}, lpips,
                              options["save_images"], options["limit"]):
                bar.update()
    table = to_markdown(aggregate(read_records(results)))
    print("\n" + table + "\n")
    return table


def evaluate_run(cfg: DictConfig) -> None:
    """Score a trained run on its held-back images or on the user's own pairs, with any sampler settings."""
    options, run = plain(cfg), Path(cfg.run)
    model = from_pretrained(run, device(options["device"]))
    config = read_json(run / "run.json")
    own = (run / "regression" / "config.json").is_file() and options["all_rows"]
    regression = from_pretrained(run / "regression", device(options["device"])) if own else None
    given = [k for k, v in options["data"].items() if v]
    if len(given) == 1:
        raise UserError(f"data.{given[0]} alone is not a pair; give both data.clean=DIR and data.degraded=DIR.")
    if given:
        config["data"] = {f"test_{k}": v for k, v in options["data"].items()}
        config["task"]["degradation"] = None
    pairs = test_pairs(config, options["size"])
    protocol = instantiate(config["task"]["protocol"] | {k: v for k, v in options["protocol"].items() if v is not None})
    sampler = {k: v for k, v in options["sampler"].items() if v is not None and k != "steps"}   # nfe says the same
    rows = methods(model, options["seed"], regression, **sampler)
    if not options["all_rows"]:
        rows = dict([list(rows.items())[-1]])
    about = {"task": config["task"]["name"], "seed": options["seed"], "size": options["size"],
             "data": options["data"]["degraded"] or "held-back images", "weights": _weights(run)}
    settings = about["data"], options["size"], *sampler.values(), options["seed"], protocol.describe()
    results = Path(options["results"] or run / "evaluations" / _slug(" ".join(f"{v}" for v in settings if v is not None)))
    score_rows(rows, pairs, protocol, results, about, options)
    print(f"Wrote: {results}")


@torch.no_grad()
def picture(model: Restorer, pairs, seed: int, count: int = 4) -> np.ndarray:
    """``[degraded | steps ... | restored | clean]`` of a few images, (H, W, 3) in [0, 1]."""
    rows = []
    for pair in (pairs[i] for i in range(min(count, len(pairs)))):
        y = pad(to_tensor(pair.degraded)[None].to(next(model.parameters()).device), model.stride)
        shots = [to_image(state.x0[0]) for state in model.path(y, seeds=[image_seed(seed, pair.name)])]
        height, width = pair.clean.shape[:2]
        rows.append([pair.degraded, *(shot[:height, :width] for shot in shots), pair.clean])
    return grid(rows, ["degraded", *[f"call {i + 1}" for i in range(len(rows[0]) - 3)], "restored", "clean"])


def _weights(run: Path) -> str:
    """A short hash of what was trained in a run's folder, so that scores of older weights are not taken for these."""
    paths = [run / "model.safetensors", run / "regression" / "model.safetensors"]
    return hashlib.sha256(b"".join(p.read_bytes() for p in paths if p.is_file())).hexdigest()[:12]


def _slug(row: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in row.lower()).split())


def mirror(config: dict, run: Path):
    """A function that sends lines of ``metrics.jsonl`` to wandb, where ``logger=wandb`` asks for it; else None."""
    logger = config["logger"]
    if logger["name"] != "wandb" or not PartialState().is_main_process:
        return None
    import wandb
    run.mkdir(parents=True, exist_ok=True)
    label = "-".join(run.parts[-2:] if run.name == "regression" else run.parts[-1:])
    wandb.init(project=logger["project"], mode=logger["mode"], dir=str(run), name=label, id=label, resume="allow",
               config=config, reinit="finish_previous")
    return lambda line: wandb.log(line, step=line["step"])
