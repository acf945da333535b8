"""What the train and evaluate commands do with a run's folder: train, score, table, picture."""

import json
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from omegaconf import DictConfig

from irbridge.build import build_model, describe, save_pretrained, test_pairs, training_stream
from irbridge.checkpoint import Checkpoints, locked, read_json, remove_leftovers, write_atomically, write_json
from irbridge.config import contradiction, device, instantiate, plain
from irbridge.errors import UserError
from irbridge.evaluation import IDENTITY, agreed, methods
from irbridge.images import pad, to_image, to_tensor, write_image
from irbridge.model import IRBridge, Restorer, image_seed
from irbridge.scoring import score_rows, weights_hash
from irbridge.tables import HELD_BACK
from irbridge.training import fit
from irbridge.viz import grid


def train_run(cfg: DictConfig) -> None:
    """Train as configured, with the regression baseline; then score, print the table, draw, and name what it wrote."""
    config, run = plain(cfg), Path(cfg.run)
    instantiate(config["task"]["protocol"])   # a mistake in it must not come up after the training
    model, regression, plainly = build_model(config), None, config | {"method": "regression"}
    if config["baseline"] and isinstance(model, IRBridge):
        regression = build_model(plainly)
    with alone(run, cpu=config["trainer"]["device"] == "cpu") as main:
        prepare(model, config, run)
        if regression:
            prepare(regression, plainly, run / "regression")
        if not (train(model, config, run) and (not regression or train(regression, plainly, run / "regression"))):
            if main:
                print(f"Stopped and saved in {run}; run the same command to go on.")
            return
        if not main:
            return
        wrote = [run, *(score_run(model, config, run, regression) if config["evaluate"]["enabled"] else [])]
        print("Wrote: " + "  ".join(str(p) for p in wrote))


@contextmanager
def alone(run: Path, cpu: bool):
    """Within the block the run's folder belongs to this command; yields whether this is its main process, which has the
    lock. Where that is refused, UserError in every process of the command."""
    # A process may wait long for the first one's pictures.
    state = PartialState(cpu=cpu, timeout=timedelta(days=7))
    with ExitStack() as stack:
        agreed(lambda: stack.enter_context(locked(run)), (state.process_index, state.num_processes))
        yield state.is_main_process


def prepare(model: Restorer, config: dict, run: Path) -> None:
    """Make the run's folder ready for this untrained model, where its config may use it; see :func:`claim`."""
    claim(run, config | {"backbone": describe(config, model)["backbone"]})
    if PartialState().is_main_process:
        remove_leftovers(run)


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
    about = {"task": config["task"]["name"], "seed": config["seed"], "size": options["size"], "data": HELD_BACK}
    plainly = methods(regression, config["seed"], weights_hash(run / "regression")) if regression else []
    rows = [IDENTITY, *plainly, *methods(model, config["seed"], weights_hash(run))]
    rows = rows if options["all_rows"] else rows[-1:]
    table = score_rows(rows, pairs, protocol, run / "results", about, options)
    write_atomically(run / "table.md", lambda p: p.write_text(table + "\n"))
    write_image(run / "restored.png", picture(model, pairs, config["seed"]))
    return [run / "table.md", run / "restored.png", run / "results"]


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
