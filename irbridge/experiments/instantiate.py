"""From a part of a configuration to the object that it describes."""

from irbridge.errors import UserError, innermost
from irbridge.experiments.names import MARKS, part_named, present
from irbridge.ranges import check_call


def instantiate(config: dict, *args, of: str | None = None):
    """Build what a part of a configuration describes.

    Args:
        config: plain data: the class under ``_target_``, and the fields to call it with. A field
            that describes a part in the same way is built first.
        args: further arguments, given before the fields.
        of: the family that the class must be of, a key of
            :data:`~irbridge.experiments.names.FAMILIES`; None: any.

    Raises:
        UserError: The class is none of the project's, or it refuses the fields.

    Example:
        >>> instantiate({"_target_": "irbridge.bridges.GOUB", "T": 50}).T
        50
    """
    part, given = check_part(config, of)
    target = config["_target_"]
    try:
        return part(*args, **{key: _built(value, of) for key, value in given.items()})
    except Exception as error:
        if isinstance(cause := innermost(error), UserError):
            raise cause from None
        raise UserError(f"{target} cannot be built: {cause}".strip() + ".") from error


def check_part(config: dict, of: str | None = None):
    """The class that a part of a configuration names, and its fields, whose types are right.

    Args:
        config: as for :func:`instantiate`.
        of: the family, as for :func:`instantiate`; its name is also that of the group of keys.

    Raises:
        UserError: The class is none of the project's, or a field has another type.
    """
    config = present(config)
    if "_target_" not in config:
        raise UserError(f"{config} names no class; give it a _target_.")
    target = config.pop("_target_")
    part = part_named(target, of)
    if marks := [mark for mark in MARKS if mark in config]:
        raise UserError(f"{target} cannot be built: {marks[0]} is none of its fields.")
    check_call(part, config, of or part.__name__)
    return part, config


def _built(value, of: str | None):
    if isinstance(value, list):
        return [_built(item, of) for item in value]
    if isinstance(value, dict) and "_target_" in value:
        return instantiate(value, of=of)
    if isinstance(value, dict):
        return {key: _built(item, of) for key, item in value.items()}
    return value
