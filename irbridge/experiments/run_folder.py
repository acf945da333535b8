"""Run folder."""

import json
import shutil
from pathlib import Path

from accelerate import PartialState

from irbridge.backbones.base import alike
from irbridge.errors import UserError
from irbridge.experiments.names import present
from irbridge.files import read_json, write_json
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.pace import planned_steps

# What a resumed run may change without training differently.
FREE_KEYS = {
    "logger",
    "evaluate",
    "baseline",
    "run_root",
    "run",
    "name",
    "threads",
    "overwrite",
    "start",
    "ship",
    "data.on_device",
    "data.folder",
    "backbone.pretrained",
    "backbone.vae",
} | {
    f"trainer.{key}"
    for key in (
        "steps",
        "minutes",
        "stop",
        "workers",
        "log_every",
        "sample_every",
        "save_every",
        "save_seconds",
        "validate_every",
        "device",
        "checkpointing",
        "compile",
        "accumulate",
    )
}
# of a source of data.mix: it may move, as long as it keeps its name
PATHS = "pairs", "clean", "degraded", "root"
# Keys that runs of older versions lack, and what they did.
ADDED = {
    "_target_": "irbridge.backbones.pixel.load_backbone",
    "dtype": "float32",
    "optimizer": "adamw",
    "stand_in": False,
    "cache_latents": False,
    "on_device": False,
    "masked": False,
    "trunk": "unet",
    "trunk_lr": 1.0,
}


def contradiction(saved: dict, wanted: dict, prefix: str = "") -> str | None:
    """The first difference between two configs that would make a resumed run another run, or
    None.
    """
    saved, wanted = present(saved), present(wanted)
    for key in sorted(saved.keys() | wanted.keys()):
        name = prefix + key
        if name in FREE_KEYS:
            continue
        a, b = (config.get(key, ADDED.get(key)) for config in (saved, wanted))
        if name == "data.mix":
            a, b = _placeless(a), _placeless(b)
        if isinstance(a, dict) and isinstance(b, dict):
            if found := contradiction(a, b, name + "."):
                return found
        elif a != b and not (key == "signature" and alike(a, b)):
            return f"{name} was {a!r} and is now {b!r}"
    return None


def _placeless(mix):
    """A mix whose sources have names for paths."""
    if not isinstance(mix, list) or not all(isinstance(entry, dict) for entry in mix):
        return mix

    def named(value):
        return (
            [named(v) for v in value]
            if isinstance(value, list)
            else Path(value).name
            if isinstance(value, str)
            else value
        )

    return [{k: named(v) if k in PATHS else v for k, v in entry.items()} for entry in mix]


def as_long(config: dict, run: Path) -> dict:
    """The config of a baseline with as many steps as the run's own training took."""
    return config | {
        "trainer": (
            config["trainer"] | {"steps": planned_steps(run, config["trainer"]), "minutes": None}
        )
    }


def claim(run: Path, config: dict) -> None:
    """Record in ``run/run.json`` the config that a run's folder belongs to, once something is
    trained there. Where it belongs to another config, it is emptied if both say ``overwrite``, as
    debug runs do, else UserError, which names the first difference; also if it is a file. What a
    training measured that left no checkpoint is removed.
    """
    path, wanted = run / "run.json", json.loads(json.dumps(config))
    if run.exists() and not run.is_dir():
        raise UserError(
            f"{run} is a file where the run's folder should be; give name=... or move it."
        )
    if path.exists() and (Checkpoints(run).latest() or (run / "model.safetensors").exists()):
        difference = contradiction(saved := read_json(path), wanted)
        if difference and not (config.get("overwrite") and saved.get("overwrite")):
            raise UserError(
                f"{run} was started with another configuration: {difference}; use that, give"
                " name=..., or delete the folder."
            )
        for left in run.iterdir() if difference else ():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif left.name != ".lock":  # it is held
                left.unlink()
    if not Checkpoints(run).latest():
        (run / "pace.json").unlink(missing_ok=True)
    write_json(path, wanted)


def finished(run: Path) -> bool:
    """Whether a folder holds a trained model, and where it still has its checkpoints that of the
    last step.
    """
    if not all((run / name).is_file() for name in ("config.json", "model.safetensors")):
        return False
    latest = Checkpoints(run).latest()
    return latest is None or int(latest.name[5:]) >= planned_steps(
        run, read_json(run / "run.json")["trainer"]
    )


def mirror(config: dict, run: Path):
    """A function that sends lines of ``metrics.jsonl`` to wandb, where ``logger=wandb`` asks for
    it; else None.
    """
    logger = config["logger"]
    if logger["name"] != "wandb" or not PartialState().is_main_process:
        return None
    import wandb

    run.mkdir(parents=True, exist_ok=True)
    label = "-".join(run.parts[-2:] if run.name == "regression" else run.parts[-1:])
    wandb.init(
        project=logger["project"],
        mode=logger["mode"],
        dir=str(run),
        name=label,
        id=label,
        resume="allow",
        config=config,
        reinit="finish_previous",
    )
    return lambda line: wandb.log(line, step=line["step"])
