"""A run's folder: which config it belongs to, and whether it is finished."""

import json
import secrets
import shutil
from pathlib import Path

from accelerate import PartialState

from irbridge.backbones.base import alike
from irbridge.errors import UserError
from irbridge.experiments.names import present
from irbridge.experiments.schema import added_keys, free_keys
from irbridge.files import read_fields, read_json, write_json
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.pace import planned_steps

# what irbridge writes into a run's folder
OWN = {
    "checkpoints",
    "config.json",
    "evaluations",
    "metrics.jsonl",
    "model.safetensors",
    "pace.json",
    "prior",
    "real",
    "regression",
    "restored.png",
    "results",
    "run.json",
    "samples",
    "table.md",
    "wandb",
    "wandb.json",
}
# of a source of data.mix: it may move, as long as it keeps its name
PATHS = "pairs", "clean", "degraded", "root"


def contradiction(saved: dict, wanted: dict, prefix: str = "") -> str | None:
    """The first difference between two configs that would make a resumed run another run.

    Args:
        saved: of the run.
        wanted: of the command.
        prefix: the group of keys that these are of, with its dot.

    Returns:
        The key with both values, or None where there is no difference.
    """
    saved, wanted = present(saved), present(wanted)
    for key in sorted(saved.keys() | wanted.keys()):
        name = prefix + key
        if name in free_keys():
            continue
        a, b = (config.get(key, added_keys().get(name)) for config in (saved, wanted))
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
    trainer = config["trainer"]
    steps = planned_steps(run, trainer["steps"], trainer["minutes"])
    return config | {"trainer": trainer | {"steps": steps, "minutes": None}}


def run_folder(config: dict) -> Path:
    """The folder of a run; UserError where the config names none, or :func:`check_folder` does."""
    if not config["run"]:
        raise UserError("run= is empty; give the run a folder of its own, such as run=runs/mine.")
    return check_folder(Path(config["run"]))


def check_folder(run: Path) -> Path:
    """The folder itself, where a run may live in it.

    A run is written into, and with ``overwrite`` emptied, so its folder must be its own.

    Raises:
        UserError: It is a file, the folder that the command runs in or one above, the home folder,
            or holds folders that no run has made.
    """
    if run.exists() and not run.is_dir():
        raise UserError(
            f"{run} is a file where the run's folder should be; give name=... or move it."
        )
    here = Path.cwd()
    if run.resolve() in (here, *here.parents, Path.home().resolve()):
        raise UserError(
            f"run={run} is the folder that the command runs in, one above it or your home; give the"
            " run a folder of its own, such as run=runs/mine."
        )
    if run.is_dir() and not (run / "run.json").exists():
        strange = [left.name for left in sorted(run.iterdir()) if left.is_dir() or left.name in OWN]
        if strange:
            raise UserError(
                f"{run} is no run of irbridge, and holds {strange[0]}; give name=... or another"
                " run=FOLDER."
            )
    return run


def _empty(run: Path) -> None:
    """Delete what irbridge writes into a run's folder, but for the lock, and nothing else."""
    for left in run.iterdir():
        if left.name not in OWN:
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def claim(run: Path, config: dict) -> None:
    """Record in ``run/run.json`` the config that a run's folder belongs to.

    It belongs to one once something is trained there. A folder of another config is emptied if both
    say ``overwrite``, as debug runs do. What a training measured that left no checkpoint is
    removed.

    Raises:
        UserError: It belongs to another config, whose first difference is named; or
            :func:`check_folder` refuses it.
    """
    path, wanted = run / "run.json", json.loads(json.dumps(config))
    check_folder(run)
    if path.exists() and (Checkpoints(run).latest() or (run / "model.safetensors").exists()):
        difference = contradiction(saved := read_json(path), wanted)
        if difference and not (config.get("overwrite") and saved.get("overwrite")):
            raise UserError(
                f"{run} was started with another configuration: {difference}; use that, give"
                " name=..., or delete the folder."
            )
        if difference:
            _empty(run)
    if not Checkpoints(run).latest():
        (run / "pace.json").unlink(missing_ok=True)
    write_json(path, wanted)


def finished(run: Path) -> bool:
    """Whether a folder holds a trained model.

    Where it still has its checkpoints, that of the last step must be among them.
    """
    if not all((run / name).is_file() for name in ("config.json", "model.safetensors")):
        return False
    latest = Checkpoints(run).latest()
    if latest is None:
        return True
    trainer = read_json(run / "run.json")["trainer"]
    return int(latest.name[5:]) >= planned_steps(run, trainer["steps"], trainer.get("minutes"))


def wandb_id(run: Path) -> str:
    """The id by which wandb knows a run: random, made once, and kept in the run's folder.

    The folder's name would be that of other runs too, and may hold signs that no id may have.
    """
    path = run / "wandb.json"
    if not path.exists():
        write_json(path, {"id": secrets.token_hex(8)})
    return read_fields(path, id=str)["id"]


def mirror(config: dict, run: Path):
    """A function that sends lines of ``metrics.jsonl`` to wandb, or None.

    Only ``logger=wandb`` asks for it, and only the first process sends.
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
        id=wandb_id(run),
        resume="allow",
        config=config,
        reinit="finish_previous",
    )
    return lambda line: wandb.log(line, step=line["step"])
