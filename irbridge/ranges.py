"""Settings that check themselves: a field says its type, its range, and what a user may change.

A class of settings is a dataclass on :class:`Options`. Its fields are written with :func:`option`.
A value of another type or out of range is one :class:`~irbridge.errors.UserError`, which names the
key as a user writes it, such as ``trainer.lr``.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from functools import cache
from itertools import pairwise
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ClassVar, NamedTuple, Union, get_args, get_origin, get_type_hints

from irbridge.errors import UserError


class Range(NamedTuple):
    """Which values make sense, and how a sentence says it after "must be"."""

    fits: Callable[[Any], bool]
    wanted: str


def _real(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _whole(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def number(fits: Callable[[float], bool], wanted: str) -> Range:
    """Finite numbers that fit."""
    return Range(lambda v: _real(v) and math.isfinite(v) and fits(v), f"a number {wanted}")


def whole(low: int, high: int | None = None) -> Range:
    """Whole numbers from ``low`` on, or up to ``high``."""
    wanted = f"{low} or more" if high is None else f"from {low} to {high}"
    return Range(
        lambda v: _whole(v) and low <= v <= (v if high is None else high),
        f"a whole number{',' if high is None else ''} {wanted}",
    )


def one_of(*words) -> Range:
    """Words of a list."""
    return Range(lambda v: v in words, f"one of {', '.join(map(str, words))}")


def each(part: Range, count: int | None = None) -> Range:
    """Lists, not empty, whose items all fit; of ``count`` items where it is given."""
    return Range(
        lambda v: (
            isinstance(v, list | tuple)
            and len(v) == (count or len(v)) > 0
            and all(map(part.fits, v))
        ),
        f"a list of {count or 'one or more'}, each {part.wanted}",
    )


def _falling(v) -> bool:
    numbers = all(_real(u) and math.isfinite(u) for u in v)
    return numbers and len(v) > 1 and v[-1] >= 0 and all(a > b for a, b in pairwise(v))


POSITIVE = number(lambda v: v > 0, "above 0")
NOT_NEGATIVE = number(lambda v: v >= 0, "0 or more")._replace(wanted="a number, 0 or more")
FRACTION = number(lambda v: 0 <= v < 1, "from 0 to below 1")
SHARE = number(lambda v: 0 <= v <= 1, "from 0 to 1")
HORIZON = number(lambda v: 0 < v <= 1, "above 0 and at most 1, the prior's last level")
INSIDE = number(lambda v: 0 < v < 1, "between 0 and 1")
FALLING = Range(_falling, "a list of two or more falling numbers, the last 0 or more")


def option(
    default: Any = MISSING, fits: Range | None = None, free: bool = False, added: bool = False
) -> Any:
    """A field of a class of settings.

    Args:
        default: its value where none is given; a list is copied. Left out: it must be given.
        fits: the range of its values; null is allowed where the type says so.
        free: a run may be resumed with another value, as it trains the same.
        added: runs of earlier versions lack the field, and did as its default says.
    """
    about = {"range": fits, "free": free, "added": added}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=about)
    return field(default=default, metadata=about)


class Options:
    """Base of the classes of settings: checks the type and the range of every field."""

    KEY: ClassVar[str] = ""  # the group that the fields stand in, as a user writes it

    def __post_init__(self):
        check(self)


def check(options, key: str | None = None) -> None:
    """UserError unless the fields of a dataclass have values of their types and ranges.

    Args:
        options: an object of the dataclass.
        key: the group that its fields stand in; None: its class's ``KEY``.
    """
    key = type(options).KEY if key is None else key
    values = {at.name: getattr(options, at.name) for at in fields(options)}
    defaults = {at.name: _default(at) for at in fields(options)}
    check_types(_hints(type(options)), values, key, defaults)
    check_ranges(options, key)


def check_ranges(options, key: str) -> None:
    """UserError unless the fields of a dataclass are in their ranges; types are not looked at."""
    for at in fields(options):
        value, fits = getattr(options, at.name), at.metadata.get("range")
        if fits is None or value is None or fits.fits(value):
            continue
        null = ", or null" if NoneType in get_args(at.type) else ""
        raise UserError(f"{joined(key, at.name)}={value} must be {fits.wanted}{null}.")


def joined(group: str, name: str) -> str:
    """A key as a user writes it."""
    return f"{group}.{name}" if group else name


def check_values(ranges: Mapping[str, Range], values: Mapping, group: str) -> None:
    """UserError unless values are in the ranges of their names; null and others pass."""
    for name, value in values.items():
        fits = ranges.get(name)
        if fits is not None and value is not None and not fits.fits(value):
            raise UserError(f"{joined(group, name)}={value} must be {fits.wanted}.")


def check_types(hints: Mapping, values: Mapping, group: str, defaults: Mapping) -> None:
    """UserError unless values are of the types that annotations say.

    Args:
        hints: annotations by name. Only those of plain data are looked at: numbers, words, truth
            values, lists, null and unions of these.
        values: what is given, by name.
        group: the group of keys that the names stand in.
        defaults: an example for the sentence, where there is one.
    """
    for name, value in values.items():
        kinds = _kinds(hints.get(name))
        if kinds and not any(_is(value, kind) for kind in kinds):
            raise UserError(_type_sentence(joined(group, name), value, kinds, defaults.get(name)))


def _type_sentence(key: str, value, kinds: tuple[type, ...], default) -> str:
    default = list(default) if isinstance(default, tuple) else default
    such = "" if default is None else f", such as {default!r}"
    if value is None:
        return f"{key}=null must be a value{such}."
    named = [kind.__name__ for kind in kinds if kind is not NoneType]
    words = " or ".join(named) + (" or null" if NoneType in kinds else "")
    if isinstance(value, list) or named == ["list"]:
        return f"{key}={value!r} must be a {words}{such}."
    return f"{key}={value!r} must be of type {words}{such}."


PLAIN = bool, int, float, str, list, NoneType


def _kinds(hint) -> tuple[type, ...]:
    """The types of plain data that an annotation admits; none where it admits others as well."""
    parts = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    kinds = tuple(get_origin(part) or part for part in parts)
    return kinds if all(kind in PLAIN for kind in kinds) else ()


def _is(value, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list | tuple)
    if kind in (int, float):
        return _real(value) if kind is float else _whole(value)
    return isinstance(value, kind)


def check_call(part: Callable, values: Mapping, group: str) -> None:
    """UserError unless values are of the types that a class or function annotates.

    A constructor that hands its arguments on is read with those of its base classes.
    """
    made = [part]
    if inspect.isclass(part) and not hasattr(part, "__dataclass_fields__"):
        made = [kind.__init__ for kind in reversed(part.__mro__) if "__init__" in vars(kind)]
        made = [function for function in made if inspect.isfunction(function)]
    hints, defaults = {}, {}
    for function in made:
        hints |= _hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                hints.pop(name, None)
            elif parameter.default is not parameter.empty:
                defaults[name] = parameter.default
    check_types(hints, values, group, defaults)


@cache
def _hints(part) -> dict:
    return get_type_hints(part)


def _default(at):
    if at.default is not MISSING:
        return at.default
    return at.default_factory() if at.default_factory is not MISSING else None
