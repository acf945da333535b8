"""A run's folder: which config it belongs to, and whether it is finished."""

import json
import math
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from accelerate import PartialState

from irbridge.backbones.base import alike
from irbridge.errors import UserError
from irbridge.experiments.names import present
from irbridge.experiments.saved import read_training
from irbridge.experiments.schema import added_keys, free_keys
from irbridge.files import LEFTOVER, read_fields, write_json
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.pace import planned_steps

# what irbridge writes into a run's folder: files, and the paths of those in folders of it
OWN_FILES = {
    "config.json",
    "metrics.jsonl",
    "model.safetensors",
    "pace.json",
    "restored.png",
    "run.json",
    "table.md",
    "wandb.json",
}
_SCORES = r".+/[^/]+\.(jsonl|png)"  # in a folder for each row
OWN_FOLDERS = {
    "checkpoints": r"(step-\d+|\.tmp-\d+(-old)?)/[^/]+\.(json|safetensors)",
    "evaluations": _SCORES,
    "prior": r"[^/]+\.(json|safetensors)",
    "real": r".+\.(jsonl|png|md)",
    "results": _SCORES,
    "samples": r"step-\d+\.png",
    "wandb": r".+",
}
OWN = OWN_FILES | OWN_FOLDERS.keys() | {"regression"}
# what a training leaves for use, of which one is there once something is saved
WEIGHTS = "model.safetensors", "prior/diffusion_pytorch_model.safetensors"
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
    if not config["run"].strip():
        raise UserError("run= is empty; give the run a folder of its own, such as run=runs/mine.")
    return check_folder(Path(config["run"]).expanduser())


def check_folder(run: Path) -> Path:
    """The folder itself, where a run may live in it.

    A run is written into, and with ``overwrite`` emptied, so its folder must be its own.

    Raises:
        UserError: It is a file, the folder that the command runs in or one above, the home folder,
            holds folders that no run has made, or is an adapter that was exported or shipped.
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
    if (run / "README.md").exists() and (run / "restored.jpg").exists():
        raise UserError(
            f"{run} is an exported adapter, which a training would spoil; give name=... or another"
            " run=FOLDER."
        )
    return run


def _empty(run: Path) -> None:
    """Delete what irbridge writes into a run's folder, and nothing else.

    ``run.json`` stays until it is replaced, so that the folder is known for a run's also where this
    is killed in the middle.
    """
    for left in run.iterdir():
        if left.name == "regression" and left.is_dir() and not left.is_symlink():
            _empty(left)
            (left / "run.json").unlink(missing_ok=True)
            _remove_if_empty(left)
        elif left.name in OWN_FOLDERS and left.is_dir() and not left.is_symlink():
            _remove_files(left, OWN_FOLDERS[left.name])
        elif left.name in OWN and left.name != "run.json":
            left.unlink()


def _remove_files(folder: Path, own: str) -> None:
    """Delete the files below a folder that are irbridge's, and the folders that this leaves empty.

    Args:
        folder: one of :data:`OWN_FOLDERS`.
        own: the pattern of their paths below it; what a kill left half-written is theirs too.
    """
    for place, folders, files in os.walk(folder, topdown=False):
        for path in (Path(place) / name for name in files):
            if re.fullmatch(own, path.relative_to(folder).as_posix(), re.DOTALL) or (
                LEFTOVER.fullmatch(path.name)
            ):
                path.unlink()
        for name in folders:
            _remove_if_empty(Path(place) / name)
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds what is not irbridge's, or is a link
        folder.rmdir()


def claim(run: Path, config: dict) -> None:
    """Record in ``run/run.json`` the config that a run's folder belongs to.

    It belongs to one once something is trained there. A folder of another config is emptied if both
    say ``overwrite``, as debug runs do. What a training measured that saved nothing is removed.

    Raises:
        UserError: It belongs to another config, whose first difference is named; what was trained
            cannot go on; or :func:`check_folder` refuses it.
    """
    path, wanted = run / "run.json", json.loads(json.dumps(config))
    check_folder(run)
    trained = bool(Checkpoints(run).latest()) or _weights(run) is not None
    if path.exists() and trained:
        saved = read_training(path)
        fault = _fault(run, saved, wanted)
        if fault and not (config.get("overwrite") and saved.get("overwrite")):
            raise UserError(f"{run} {fault}, give name=..., or delete the folder.")
        if fault:
            _empty(run)
            trained = False
    if not trained:
        (run / "pace.json").unlink(missing_ok=True)
    write_json(path, wanted)


def _fault(run: Path, saved: dict, wanted: dict) -> str | None:
    """Why a run cannot go on with this config; None where it can."""
    difference = contradiction(saved, wanted) or _other_budget(run, saved, wanted)
    if difference:
        return f"was started with another configuration: {difference}; use that"
    if not wanted.get("reuse") and not Checkpoints(run).latest() and not _complete(run, saved):
        return (
            f"holds the weights of step {_last_step(run)}, but the checkpoints that they could go"
            " on from are gone; put them back"
        )
    return None


def _other_budget(run: Path, saved: dict, wanted: dict) -> str | None:
    """How the length of a training differs; None where it does not.

    A rate that falls towards the end belongs to one length: what was trained for another is no part
    of this training. ``trainer.stop`` ends one early. The steps that fill other minutes are found
    from the pace, as long as it is not finished.
    """
    if wanted.get("reuse") or "trainer" not in saved or "trainer" not in wanted:
        return None
    before, now = saved["trainer"], wanted["trainer"]
    for key in ("minutes", "steps"):
        a, b = before.get(key), now.get(key)
        if key == "minutes" and None not in (a, b):
            if a != b and _complete(run, saved):
                return f"trainer.minutes was {a!r}, which are over, and is now {b!r}"
            return None
        if a != b:
            return f"trainer.{key} was {a!r} and is now {b!r}"
    return None


def _weights(run: Path) -> Path | None:
    """What a training has left for use; None where there is nothing yet."""
    return next((run / name for name in WEIGHTS if (run / name).is_file()), None)


def _last_step(run: Path) -> int | None:
    """The last step that ``metrics.jsonl`` tells of; None where it tells of none."""
    steps = []
    with suppress(OSError):
        for line in (run / "metrics.jsonl").read_text(errors="replace").splitlines():
            # a line that a kill cut short, or that tells of no number
            with suppress(ValueError, KeyError, TypeError, OverflowError):
                steps.append(int(json.loads(line)["step"]))
    return max(steps, default=None)


def _complete(run: Path, settings: dict) -> bool:
    """Whether the weights of a run are those of its last step.

    Its newest checkpoint says so, or where there is none its metrics. Weights that have neither, as
    those of an exported folder or of one that was taken over, are taken for complete.
    """
    latest, trainer = Checkpoints(run).latest(), settings.get("trainer") or {}
    done = int(latest.name[5:]) if latest else _last_step(run)
    if done is None or "steps" not in trainer:
        return True
    planned = planned_steps(run, trainer["steps"], trainer.get("minutes"))
    if latest is None and planned == math.inf:
        return True
    return done >= planned


def finished(run: Path) -> bool:
    """Whether a folder holds a model whose training is complete.

    Raises:
        UserError: its ``run.json`` is missing or damaged.
    """
    if not (run / "config.json").is_file() and not (run / WEIGHTS[1]).is_file():
        return False
    return _weights(run) is not None and _complete(run, read_training(run / "run.json"))


def check_finished(run: Path, word: str) -> None:
    """Refuse to begin from a training that was stopped; an export counts as finished.

    Args:
        run: its folder.
        word: of the command, which names it.

    Raises:
        UserError: it can go on.
    """
    if (run / "run.json").is_file() and not finished(run):
        raise UserError(
            f"{word} is not trained to its end; run its own command again, which goes on."
        )


def saved_alone(run: Path) -> bool:
    """Whether a training is finished and its checkpoints are gone: there is nothing to go on."""
    return Checkpoints(run).latest() is None and (run / "run.json").is_file() and finished(run)


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
