"""Settings that come from a file: config.json and run.json of a run or a downloaded adapter.

Whoever made the file may have written anything into it, so all that is read from it passes here.
"""

import re
from pathlib import Path
from types import NoneType
from typing import get_type_hints

from irbridge.errors import UserError
from irbridge.experiments.names import FAMILIES, MARKS, part_named, present
from irbridge.experiments.schema import SamplerOptions
from irbridge.files import read_json
from irbridge.ranges import NAME, check_types

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
    "trainer",
    "evaluate",
)
"""Keys that hold further keys, wherever a settings file has them."""
NAME_OF_TASK = re.compile(r"\w[\w.-]*")


def read_settings(path: Path) -> dict:
    """What a settings file holds, under present names, as :func:`check_foreign` lets it pass.

    Raises:
        UserError: The file is missing or no JSON, or it names what no configuration may name.
    """
    return check_foreign(read_json(path), path)


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
    for key in GROUPS:
        if not isinstance(config.get(key, {}), dict):
            raise UserError(f"{source}: {key}={config[key]!r} is a group of keys; copy it again.")
    if type(config.get("seed", 0)) is not int:
        raise UserError(f"{source}: seed={config['seed']!r} is a whole number; copy it again.")
    task = config.get("task", {})
    # it becomes a part of names of files and folders, and of words for Hydra
    if "name" in task and not (NAME.fits(task["name"]) and NAME_OF_TASK.fullmatch(task["name"])):
        raise UserError(
            f"{source}: task.name={task['name']!r} is a word of letters, digits, - and _; copy it"
            " again, and use such a file only from someone whom you trust."
        )
    for key in ("sampler", "protocol", "degradation"):
        if not isinstance(task.get(key, {}), dict | NoneType):
            raise UserError(
                f"{source}: task.{key}={task[key]!r} is a group of keys; copy it again."
            )
    hints = get_type_hints(SamplerOptions)
    for group, values in (
        ("sampler", config.get("sampler")),
        ("task.sampler", task.get("sampler")),
    ):
        try:
            check_types(hints, values or {}, group, {})
        except UserError as error:
            raise UserError(f"{source}: {str(error).rstrip('.')}; copy it again.") from None
    return config


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
            here = f"{key}.{name}".removeprefix(".")
            _check_part(item, here, name if name in FAMILIES else family, source)


def _check_target(target, key: str, family: str | None, source) -> None:
    try:
        part_named(target, family)
    except UserError as error:
        raise UserError(f"{source}: {key}._target_: {error}") from None
