"""Settings that come from a file: config.json and run.json of a run or a downloaded adapter.

Whoever made the file may have written anything into it, so all that is read from it passes here.
"""

import re
from pathlib import Path
from typing import get_type_hints

from irbridge.errors import UserError
from irbridge.experiments.names import FAMILIES, MARKS, part_named, present
from irbridge.experiments.schema import DataOptions, SamplerOptions, TaskOptions
from irbridge.files import read_json
from irbridge.ranges import NAME, SEED, check_present, check_types, shown
from irbridge.training.options import TrainerOptions

GROUPS = (
    "task",
    "adapter",
    "bridge",
    "backbone",
    "timesteps",
    "sampler",
    "data",
    "loss",
    "objective",
    "refine",
    "trainer",
    "evaluate",
)
"""Keys that hold further keys, wherever a settings file has them."""
NESTED = "degradation", "timesteps", "sampler", "protocol"
"""Those of a task that do so as well."""
NEEDED = {"run.json": ("task.name", "task.protocol", "data", "seed"), "config.json": ()}
"""Keys that a file must have, whatever is asked of it; a model says itself what it needs."""
BACKBONE = {
    "pretrained": str | None,
    "vae": str | None,
    "dtype": str | None,
    "digest": str | None,
    "signature": list | None,
}
"""What a backbone's keys hold."""
NAME_OF_TASK = re.compile(r"\w[\w.-]*")


def read_settings(path: Path) -> dict:
    """What a settings file holds, under present names, as :func:`check_foreign` lets it pass.

    Raises:
        UserError: The file is missing or no JSON, or it names what no configuration may name.
    """
    config = check_foreign(read_json(path), path)
    _check_needed(config, path)
    return config


def read_training(path: Path) -> dict:
    """The ``run.json`` of any training, that of a prior too, with a trainer that can be read.

    Raises:
        UserError: The file is missing or no JSON, or its trainer is something else.
    """
    config = read_json(path)
    try:
        _check_group("trainer", config.get("trainer", {}))
        _check_trainer(config)
    except UserError as error:
        raise UserError(f"{path}: {str(error).rstrip('.')}; copy the file again.") from None
    return config


def check_foreign(config: dict, source) -> dict:
    """The settings that a file from outside holds, under present names.

    Every ``_target_`` must be of the family of the key that it stands under (see :data:`FAMILIES`),
    and all else plain values: what is written there is never resolved, called or imported.

    Args:
        config: what the file holds, as JSON or YAML gives it.
        source: the file, for the error.

    Raises:
        UserError: It names the file and the first key that is something else.
    """
    try:
        config = present(config)
        _check_part(config, "", None, source)
    except RecursionError:
        raise UserError(
            f"{source} is nested too deeply for settings of irbridge; copy it again."
        ) from None
    try:
        _check_groups(config)
    except UserError as error:
        raise UserError(f"{source}: {str(error).rstrip('.')}; copy the file again.") from None
    return config


def _check_groups(config: dict) -> None:
    """UserError unless what is there is of the types that the commands have it in."""
    for key in GROUPS:
        _check_group(key, config.get(key, {}))
    task, data = config.get("task", {}), config.get("data", {})
    for key in NESTED:
        if task.get(key) is not None:
            _check_group(f"task.{key}", task[key])
    # it becomes a part of names of files and folders, and of words for Hydra
    if "name" in task and not (NAME.fits(task["name"]) and NAME_OF_TASK.fullmatch(task["name"])):
        raise UserError(
            f"task.name={shown(task['name'], repr)} must be a word of letters, digits, - and _."
        )
    hints = get_type_hints(SamplerOptions)
    check_types(hints, config.get("sampler", {}), "sampler", {})
    check_types(hints, task.get("sampler") or {}, "task.sampler", {})
    check_present(TaskOptions, task)
    check_present(DataOptions, data)
    check_types(BACKBONE, config.get("backbone", {}), "backbone", {})
    _check_trainer(config)
    if not SEED.fits(config.get("seed", 0)):
        raise UserError(f"seed={shown(config['seed'], repr)} must be {SEED.wanted}.")
    for key in ("method", "endpoint"):
        if not isinstance(config.get(key, ""), str):
            raise UserError(f"{key}={shown(config[key])} must be a word.")


def _check_trainer(config: dict) -> None:
    check_types(get_type_hints(TrainerOptions), config.get("trainer", {}), "trainer", {})


def _check_group(key: str, value) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{key}={shown(value, repr)} must be a group of keys.")


def _check_needed(config: dict, path: Path) -> None:
    """UserError where a key is absent that every reader of such a file needs."""
    for key in NEEDED.get(path.name, ()):
        group, _, name = key.partition(".")
        found = config.get(group)
        if found is None or (name and found.get(name) is None):
            raise UserError(f"{path} lacks {key}; give the folder of a run that irbridge trained.")


def _check_part(value, key: str, family: str | None, source) -> None:
    if isinstance(value, str):
        if "${" in value:
            raise UserError(
                f"{source}: {key}={value!r} asks for a value from outside the file; replace it by"
                " the value itself, and use such a file only from someone whom you trust."
            )
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_part(item, f"{key}[{index}]", family, source)
    elif isinstance(value, dict):
        if marks := [mark for mark in MARKS if mark in value]:
            raise UserError(
                f"{source}: {key}.{marks[0]} is no setting of irbridge; delete it, and use such a"
                " file only from someone whom you trust."
            )
        if "_target_" in value:
            _check_target(value["_target_"], key, family, source)
        for name, item in value.items():
            if "${" in str(name) or not str(name).isprintable():
                raise UserError(
                    f"{source}: the key {shown(name, repr)} is no setting of irbridge; delete it,"
                    " and use such a file only from someone whom you trust."
                )
            here = f"{key}.{name}".removeprefix(".")
            _check_part(item, here, name if name in FAMILIES else family, source)


def _check_target(target, key: str, family: str | None, source) -> None:
    try:
        part_named(target, family)
    except UserError as error:
        raise UserError(f"{source}: {key}._target_: {error}") from None
