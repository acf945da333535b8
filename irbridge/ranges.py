"""Settings that check themselves: a field says its type, its range, and what a user may change.

A class of settings is a dataclass on :class:`Options`. Its fields are written with :func:`option`.
A value of another type or out of range is one :class:`~irbridge.errors.UserError`, which names the
key as a user writes it, such as ``trainer.lr``.
"""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, field, fields
from functools import cache
from itertools import pairwise
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ClassVar, NamedTuple, Union, get_args, get_origin, get_type_hints

from irbridge.errors import UserError

# Upper bounds, each far beyond what is of use and below what ends a machine.
LARGEST = 1e12  # of any number: beyond it the differences of float64 times lose their digits
MOST = 10**9  # of a count: of steps, a second each, that is 30 years
SEEDS = 2**63 - 1  # torch takes no larger seed
CALLS = 10_000  # of a network: ten times the timesteps that a prior has
DRAWS = 1000  # that a restored image is the mean of: from 100 on it gains less than .05 dB
TIMES = 1_000_000  # of a bridge: its table of float64 has so many rows
SIDE = 65_500  # pixels of an image: the most that a JPEG holds
CROP = 8192  # pixels of a side of what a network trains on
BATCH = 65_536  # images of a step: more than any published training
WIDTH = 16_384  # channels of a layer: ten times those of the largest published UNet
DEPTH = 1024  # layers of a level
LEVELS = 12  # halvings of an image: 4096 pixels become one
PROCESSES = max(16, 4 * (os.cpu_count() or 1))  # more threads or workers only wait for one another


class Range(NamedTuple):
    """Which values make sense, and how a sentence says it after "must be"."""

    fits: Callable[[Any], bool]
    wanted: str


def _real(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _whole(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def finite(value) -> bool:
    """Whether a value is a number that is not NaN and not beyond :data:`LARGEST`."""
    return _real(value) and abs(value) <= LARGEST


def number(fits: Callable[[float], bool], wanted: str, comma: bool = False) -> Range:
    """Finite numbers that fit.

    Args:
        fits: whether a number is in range.
        wanted: the range in words.
        comma: whether the words take a comma before them.
    """
    wanted = f"a number{',' * comma} {wanted}"

    def sensible(value) -> bool:
        return finite(value) and fits(value)

    return Range(sensible, wanted)


def whole(low: int, high: int = MOST) -> Range:
    """Whole numbers from ``low`` to ``high``."""
    wanted = f", {low} or more" if high == MOST else f" from {low} to {high}"
    return Range(lambda v: _whole(v) and low <= v <= high, f"a whole number{wanted}")


def one_of(*words) -> Range:
    """Words of a list."""
    return Range(lambda v: v in words, f"one of {', '.join(map(str, words))}")


def each(part: Range, count: int | None = None, most: int = CALLS) -> Range:
    """Lists, not empty, whose items all fit; of ``count`` items where it is given.

    Args:
        part: the range of an item.
        count: of items; None: one to ``most``.
        most: of items.
    """

    def fits(value) -> bool:
        if not isinstance(value, list | tuple):
            return False
        counted = len(value) == count if count else 0 < len(value) <= most
        return counted and all(map(part.fits, value))

    many = count or ("one or more" if most == CALLS else f"1 to {most}")
    return Range(fits, f"a list of {many}, each {part.wanted}")


def _place(v) -> bool:
    return isinstance(v, str) and bool(v.strip()) and "\0" not in v


def _part_of_name(v) -> bool:
    return _place(v) and not set(v) & set("/\\") and v not in (".", "..")


def _falling(v) -> bool:
    falling = 1 < len(v) <= CALLS and all(map(finite, v)) and v[-1] >= 0
    return falling and all(a > b for a, b in pairwise(v))


POSITIVE = number(lambda v: v > 0, "above 0")
NOT_NEGATIVE = number(lambda v: v >= 0, "0 or more", comma=True)
SEED = whole(0, SEEDS)
THREADS = whole(1, PROCESSES)
FRACTION = number(lambda v: 0 <= v < 1, "from 0 to below 1")
SAMPLES = whole(1, DRAWS)
SHARE = number(lambda v: 0 <= v <= 1, "from 0 to 1")
NOISE = number(lambda v: 0 <= v <= 1, "from 0 to 1, the std where white is 1")
HORIZON = number(lambda v: 0 < v <= 1, "above 0 and at most 1, the prior's last level")
INSIDE = number(lambda v: 0 < v < 1, "between 0 and 1")
PLACE = Range(_place, "a path that is not empty")
NAME = Range(_part_of_name, "a part of a folder's name: not empty, without slashes")
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
    for name, value in values.items():  # a number's own range says more than its type
        if isinstance(value, float) and _kinds(_hints(type(options)).get(name)) in WHOLE:
            check_ranges(options, key, name)
    defaults = {at.name: _default(at) for at in fields(options)}
    check_types(_hints(type(options)), values, key, defaults)
    check_ranges(options, key)


def check_present(kind: type, values: Mapping) -> None:
    """UserError unless those fields of a dataclass that are given have values of their types.

    Args:
        kind: the dataclass, whose ``KEY`` is the group of its fields.
        values: what is given, by name; other names pass.
    """
    check_types(_hints(kind), values, kind.KEY, {at.name: _default(at) for at in fields(kind)})
    ranges = {at.name: at.metadata["range"] for at in fields(kind) if at.metadata.get("range")}
    check_values(ranges, values, kind.KEY)


def check_ranges(options, key: str, only: str | None = None) -> None:
    """UserError unless the fields of a dataclass are in their ranges; types are not looked at.

    Args:
        options: an object of the dataclass.
        key: the group that its fields stand in.
        only: this field alone; None: all.
    """
    for at in fields(options):
        if only not in (None, at.name):
            continue
        value, fits = getattr(options, at.name), at.metadata.get("range")
        if fits is None and isinstance(value, float) and not finite(value):
            fits = Range(finite, f"a number, at most {LARGEST:g}")
        if fits is None or value is None or fits.fits(value):
            continue
        null = ", or null" if NoneType in get_args(at.type) else ""
        raise UserError(f"{joined(key, at.name)}={shown(value)} must be {fits.wanted}{null}.")


def shown(value, form: Callable[[Any], str] = str) -> str:
    """A value as a sentence shows it, on one line; what is long is cut.

    Args:
        value: any; Python itself prints no whole number of more than 4300 digits.
        form: ``str`` or ``repr``.
    """
    try:
        text = form(value)
    except ValueError:
        return f"({type(value).__name__} of too many digits)"
    text = text.replace("\n", "\\n").replace("\r", "\\r")
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def joined(group: str, name: str) -> str:
    """A key as a user writes it."""
    return f"{group}.{name}" if group else name


def check_values(ranges: Mapping[str, Range], values: Mapping, group: str) -> None:
    """UserError unless values are in the ranges of their names; null and others pass."""
    for name, value in values.items():
        fits = ranges.get(name)
        if fits is not None and value is not None and not fits.fits(value):
            raise UserError(f"{joined(group, name)}={shown(value)} must be {fits.wanted}.")


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


def _type_sentence(key: str, value, kinds: tuple, default) -> str:
    default = list(default) if isinstance(default, tuple) else default
    such = "" if default is None else f", such as {default!r}"
    if value is None:
        return f"{key}=null must be a value{such}."
    named = [_called(kind, value) for kind in kinds if kind is not NoneType]
    words = " or ".join(named) + (" or null" if NoneType in kinds else "")
    article = isinstance(value, list) or named[0].startswith("list")
    return f"{key}={shown(value, repr)} must be {'a' if article else 'of type'} {words}{such}."


def _called(kind, value) -> str:
    """What a sentence calls a type; of a list that has the wrong items, also their type."""
    given = isinstance(value, list | tuple) and get_origin(kind) is list
    if given and (item := get_args(kind)[0]) in PLAIN:
        return f"list, each item of type {item.__name__}"
    return getattr(get_origin(kind) or kind, "__name__", "list")


LONGEST = 120  # characters of a value in a sentence
WHOLE = (int,), (int, NoneType)
PLAIN = bool, int, float, str, list, NoneType


def _kinds(hint) -> tuple:
    """The types of plain data that an annotation admits; none where it admits others as well."""
    parts = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    return parts if all((get_origin(part) or part) in PLAIN for part in parts) else ()


def _is(value, kind) -> bool:
    """Whether a value is of a type of plain data."""
    if (get_origin(kind) or kind) is list:
        items = get_args(kind)
        listed = isinstance(value, list | tuple)
        return listed and (not items or _all_are(value, items[0]))
    if kind in (int, float):
        return _real(value) if kind is float else _whole(value)
    return isinstance(value, kind)


def _all_are(values: Sequence, kind) -> bool:
    """Whether all are of a type of plain data; true of a type that is none of these."""
    kinds = _kinds(kind)
    return not kinds or all(any(_is(value, kind) for kind in kinds) for value in values)


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
