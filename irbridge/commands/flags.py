"""Plain flags: the fields of a dataclass are a command's flags, and its ``key=value`` words.

A command declares its options once, as a subclass of :class:`Options` whose fields are made by
:func:`option` and :func:`group`. :func:`parse` reads the words of the command line into it, and
:func:`page` explains it. ``--save-path``, ``--save_path`` and ``save_path=true`` mean the same;
``--sampler.nfe 3`` and ``sampler.nfe=3`` as well. What follows a flag, or ``--``, is taken
literally, so that any file name can be given as it is.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from irbridge import ranges
from irbridge.assets import CONFIGS, at_home
from irbridge.errors import UserError, unknown

NULL = "null"
PLACES = "FOLDER", "FILE", "PATH", "PHOTO", "DIR"  # metavars of what names a file or a folder
# key=value; a file name that holds "=" seldom begins like this, and can then follow --
ASSIGNMENT = re.compile(r"([A-Za-z_][\w.]*)=(.*)", re.DOTALL)
QUOTED = re.compile(r"""(["'])(.*)\1""", re.DOTALL)
# an item of a list: quoted, or anything without a comma
ITEM = re.compile(r"""\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,]*?)\s*(?:,|\Z)""", re.DOTALL)


class Kind(NamedTuple):
    """How a word becomes the value of an option, and which values fit.

    Attributes:
        metavar: what the help page shows for the value.
        wanted: what a value must be, in words that follow "must be".
        read: from a word to a value; ValueError where it is none.
        fits: whether a value is in range.
    """

    metavar: str
    wanted: str
    read: Callable[[str], Any]
    fits: Callable[[Any], bool]


def whole(low: int, high: int = ranges.MOST) -> Kind:
    """A whole number from ``low`` to ``high``."""
    fits, wanted = ranges.whole(low, high)
    return Kind("N", wanted, int, fits)


def number(wanted: str, fits: Callable[[float], bool] = lambda v: True) -> Kind:
    """A finite number of which ``fits`` says whether it is in range."""
    return Kind("X", wanted, _number, ranges.number(fits, wanted).fits)


def numbers() -> Kind:
    """A list of numbers in brackets, such as ``[100,50,0]``."""
    wanted = "a list of numbers such as [100,50,0]"
    fits = ranges.each(ranges.Range(ranges.finite, "")).fits
    return Kind("[X,...]", wanted, lambda text: [_number(item) for item in items(text)], fits)


def text(metavar: str = "TEXT") -> Kind:
    """Any text; of a place, as its metavar says, a path, where a leading ``~`` is the home."""
    if metavar in PLACES:
        wanted = "a path that is not empty"
        return Kind(metavar, wanted, at_home, lambda v: bool(v.strip()) and "\0" not in v)
    return Kind(metavar, "a text", str, lambda v: isinstance(v, str))


def one_of(*words: str) -> Kind:
    """One of these words."""
    return Kind("|".join(words), f"one of {', '.join(words)}", str, lambda v: v in words)


def switch() -> Kind:
    """True or false; as a flag it stands alone."""
    return Kind("", "true or false", _boolean, lambda v: type(v) is bool)


def option(default: Any, kind: Kind, explained: str, **more: bool) -> Any:
    """A field of an :class:`Options` class.

    Args:
        default: None where the value may be left out, or where it must be given.
        kind: which values it takes.
        explained: a sentence for the help page.
        more: ``required``: it must be given. ``several``: it is a tuple, of which a flag gives one
            value each time. ``literal``: of several, ``key=value`` gives one name as it is instead
            of a list in brackets. ``positional``: words that stand alone are its values;
            ``alone``: there is no flag of that name. ``open``: words with an equals sign whose key
            is unknown are its values too. ``settings``: the option names a part whose settings
            another chapter knows, as ``solver.steps=50``; see :func:`rest`.
    """
    return field(default=default, metadata={"kind": kind, "explained": explained, **more})


def group(default: Any, explained: str = "", files: str | None = None) -> Any:
    """A field that is itself an :class:`Options`, whose keys are dotted: ``sampler.nfe``.

    Args:
        default: an instance.
        explained: a sentence for the help page, where the group has files.
        files: folder of ``configs`` whose YAML files are named sets of these keys:
            ``sampler=posterior``.
    """
    return field(default=default, metadata={"explained": explained, "files": files})


def rest(of: str | None = None) -> Any:
    """A field for keys that have none of their own, by their names.

    Args:
        of: an option with ``settings``, as ``solver``, whose keys are such as ``solver.steps``;
            None: the group with files that the field stands in, of which a file says more.
    """
    return field(default_factory=dict, metadata={"rest": of or "group"})


@dataclass(frozen=True)
class Options:
    """The options of a command; the docstring of a subclass opens its help page."""

    EXAMPLES: ClassVar[tuple[str, ...]] = ()
    PREFIX: ClassVar[str] = ""  # of the names of a group's keys

    def __post_init__(self):
        """Refuse values out of range; UserError names key, value and what it must be."""
        for entry in fields(self):
            if "kind" in entry.metadata:
                self._check(entry, getattr(self, entry.name))

    def _check(self, entry, value) -> None:
        kind, name = entry.metadata["kind"], self.PREFIX + entry.name
        if entry.metadata.get("several"):
            if entry.metadata.get("required") and not value:
                raise _missing(name)
            for one in value:
                if not kind.fits(one):
                    raise _unfit(name, one, kind, null=False)
            return
        if value is None:
            if entry.metadata.get("required"):
                raise _missing(name)
            if entry.default is not None:
                raise UserError(f"{name}=null must be a value, such as {entry.default}.")
        elif not kind.fits(value):
            raise _unfit(name, value, kind, entry.default is None)


OptionsType = TypeVar("OptionsType", bound=Options)


class Flag(NamedTuple):
    """One key of a command: its dotted name, the dataclass field behind it, the click option."""

    key: str
    entry: Any
    option: click.Parameter

    @property
    def kind(self) -> Kind:
        """Which values it takes; of a group, the name of one of its files."""
        return self.entry.metadata.get("kind") or text("NAME")


def parse(command: str, options: type[OptionsType], words: list[str]) -> OptionsType:
    """The options that a command's words give.

    Args:
        command: its name, as ``restore``.
        options: the class of its options.
        words: of the command line, after the command's name.

    Raises:
        UserError: a flag, key or value is not known, or one is missing.
    """
    end = words.index("--") if "--" in words else len(words)
    flags = known_flags(options)
    context = _clicked(command, options, _settings_as_words(words[:end], flags))
    alone = [flag for flag in flags.values() if flag.entry.metadata.get("positional")]
    given: dict[str, Any] = {}
    for flag in flags.values():
        parameter = flag.option.name
        if context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE:
            given[flag.key] = _of_flag(flag, context.params[parameter])
    assigned: set[str] = set()
    names: list[str] = []
    own: dict[str, str] = {}
    for word in context.params["words"]:
        match = ASSIGNMENT.fullmatch(word)
        if match and match[1] in flags and not flags[match[1]].entry.metadata.get("alone"):
            key = match[1]
            if key in given and key not in assigned:
                raise UserError(f"{key} is given as a flag and as {word}; give it once.")
            assigned.add(key)
            given[key] = _of_word(flags[key], match[2])
        elif match and (_of_file(match[1], flags) or _is_setting(match[1], flags)):
            own[match[1]] = match[2]
        elif match and not (alone and _is_name(alone[0], word)):
            raise unknown_key(command, match[1], flags)
        else:
            names.append(word)
    names += words[end + 1 :]
    if names and not alone:
        fault = f"{names[0]!r} says nothing to irbridge {command}"
        raise unknown(fault, names[0], flags, f"give {names[0]}=..., or see --help")
    if names:
        key = alone[0].key
        if key in given:
            raise UserError(f"{key} and {names[0]} both name one; give them in one way.")
        given[key] = tuple(map(alone[0].kind.read, names))
    return _built(options, given | _own_keys(command, own, given, flags), "")


def _of_file(key: str, flags: dict[str, Flag]) -> bool:
    """Whether a key may be one that only a file of its group has, as ``sampler.share``."""
    group, dot, _ = key.partition(".")
    return bool(dot and group in flags and flags[group].entry.metadata.get("files"))


def _is_setting(key: str, flags: dict[str, Flag]) -> bool:
    """Whether a key is a setting of the part that an option names, as ``solver.steps``."""
    named, dot, name = key.partition(".")
    return bool(dot and name and named in flags and flags[named].entry.metadata.get("settings"))


def _settings_as_words(words: list[str], flags: dict[str, Flag]) -> list[str]:
    """The words with ``--solver.steps 50`` as ``solver.steps=50``, as click knows no such flag."""
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        key = flag.removeprefix("--").replace("-", "_")
        if not (flag.startswith("--") and _is_setting(key, flags)):
            found.append(word)
            continue
        value = value if equals else next(rest, None)
        if value is None:
            raise UserError(f"Option {flag!r} requires an argument; see --help.")
        found.append(f"{key}={value}")
    return found


def _own_keys(
    command: str, own: dict[str, str], given: dict[str, Any], flags: dict[str, Flag]
) -> dict[str, Any]:
    """The values of keys that the chosen file of their group has; UserError for any other.

    Settings of a part are as they are given: who builds the part looks at them.
    """
    import yaml  # late: few commands name one

    found = {}
    for key, value in own.items():
        if _is_setting(key, flags):
            found[key] = plain(value)
            continue
        group, _, name = key.partition(".")
        files = flags[group].entry.metadata["files"]
        chosen = given.get(group)
        if chosen is None or name not in _file(files, chosen, given.get("config_dir")):
            raise unknown_key(command, key, flags)
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"{key}={value} is no value; give a number or a word.") from None
    return found


def unknown_key(command: str, key: str, flags: dict[str, Flag]) -> UserError:
    """The error for a ``key=value`` that the command does not have."""
    keys = [k for k, flag in flags.items() if not flag.entry.metadata.get("alone")]
    shown = [k for k in keys if "." not in k]
    fault = f"{key!r} is not a key of irbridge {command}"
    remedy = f"the keys are {', '.join(shown)}"
    if any(flag.entry.metadata.get("positional") for flag in flags.values()):
        remedy += ", and a name with an equals sign goes after --"
    return unknown(fault, key, keys, remedy)


def page(command: str, options: type[Options]) -> str:
    """The help page of a command."""
    built = _command(command, options)
    context = click.Context(built, info_name=f"irbridge {command}", **built.context_settings)
    return built.get_help(context)


@cache
def known_flags(options: type[Options], prefix: str = "") -> dict[str, Flag]:
    """The keys of an options class, dotted where they are of a group."""
    found: dict[str, Flag] = {}
    for entry in fields(options):
        key = prefix + entry.name
        if "rest" in entry.metadata:
            continue
        if "kind" in entry.metadata or entry.metadata["files"]:
            found[key] = Flag(key, entry, _option(key, entry))
        if "kind" not in entry.metadata:
            found |= known_flags(type(entry.default), f"{key}.")
    return found


def _option(key: str, entry) -> click.Parameter:
    """The click option of a key."""
    kind = entry.metadata.get("kind") or text("NAME")
    name, said = key.replace("_", "-"), entry.metadata["explained"]
    if isinstance(entry.default, str | int) and entry.default is not False:
        said += f"  [default: {entry.default}]"
    parameter = f"option_{key.replace('.', '__')}"
    if kind.read is _boolean:
        return click.Option([f"--{name}/--no-{name}", parameter], default=None, help=said)
    return click.Option(
        [f"--{name}", parameter],
        type=click.UNPROCESSED,
        metavar=kind.metavar,
        multiple=bool(entry.metadata.get("several")),
        help=said,
        hidden=bool(entry.metadata.get("alone")),
    )


def _command(command: str, options: type[Options]) -> click.Command:
    """The click command that reads an options class and prints its page."""
    flags = known_flags(options)
    alone = [f.entry.metadata["kind"] for f in flags.values() if f.entry.metadata.get("positional")]
    shown = f"[{alone[0].metavar}]..." if alone else "[key=value]..."
    argument = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar=shown)
    examples = "\n".join(f"  {line}" for line in options.EXAMPLES)
    return click.Command(
        command,
        params=[*(flag.option for flag in flags.values()), argument],
        help=options.__doc__,
        epilog=f"\b\nExamples:\n{examples}\n\nEvery --flag VALUE may also be said as flag=VALUE.",
        context_settings={
            "help_option_names": ["-h", "--help"],
            "max_content_width": 100,
            # --save_path is --save-path
            "token_normalize_func": lambda token: token.replace("_", "-"),
        },
    )


def _clicked(command: str, options: type[Options], words: list[str]) -> click.Context:
    """What click reads of the words; UserError in place of its own errors."""
    try:
        return _command(command, options).make_context(command, list(words))
    except click.NoSuchOption as error:
        known = [name for flag in known_flags(options).values() for name in flag.option.opts]
        fault = f"{error.option_name!r} is not a flag of irbridge {command}"
        remedy = "see --help, and give a name that begins with a dash after --"
        raise unknown(fault, error.option_name, known, remedy) from None
    except click.UsageError as error:
        raise UserError(f"{error.format_message().rstrip('.')}; see --help.") from None


def _of_flag(flag: Flag, value) -> Any:
    """The value that a flag gives: text is taken literally."""
    if isinstance(value, tuple):
        return tuple(_read(flag, item) for item in value)
    return value if type(value) is bool else _read(flag, value)


def _of_word(flag: Flag, word: str) -> Any:
    """The value that ``key=word`` gives: null is None, and quotes around it all are left out."""
    if word.lower() == NULL:
        return () if flag.entry.metadata.get("several") else None
    if flag.entry.metadata.get("several"):
        literal = flag.entry.metadata.get("literal")
        found = [unquoted(word)] if literal or not word.startswith("[") else items(word)
        return tuple(_read(flag, item) for item in found)
    return _read(flag, unquoted(word))


def _read(flag: Flag, word: str) -> Any:
    """One value of a key; UserError where it is none of its kind."""
    kind, default = flag.kind, flag.entry.default
    if kind.read not in (str, at_home) and word.lower() == NULL:
        return None
    try:
        return kind.read(word)
    except (ValueError, OverflowError):
        raise _unfit(flag.key, word, kind, default is None) from None


def _built(options: type[OptionsType], given: dict[str, Any], prefix: str) -> OptionsType:
    """An options class from values by dotted key."""
    values = {}
    names = {entry.name for entry in fields(options)}
    for entry in fields(options):
        key = prefix + entry.name
        if "rest" in entry.metadata:
            values[entry.name] = _rest(entry.metadata["rest"], given, prefix, names)
        elif "kind" in entry.metadata:
            if key in given:
                values[entry.name] = given[key]
        else:
            nested = {name: value for name, value in given.items() if name.startswith(f"{key}.")}
            if given.get(key) is not None:
                file = _file(entry.metadata["files"], given[key], given.get("config_dir"))
                nested = {f"{key}.{name}": value for name, value in file.items()} | nested
            values[entry.name] = _built(type(entry.default), nested, f"{key}.")
    return options(**values)


def _rest(of: str, given: dict[str, Any], prefix: str, names: set[str]) -> dict[str, Any]:
    """The values of keys that have no field, see :func:`rest`.

    Args:
        of: an option, or "group".
        given: values by dotted key.
        prefix: of the keys of the class.
        names: of its fields.
    """
    if of != "group":
        prefix = f"{of}."
        given = {name: value for name, value in given.items() if name.startswith(prefix)}
        names = set()
    said = {name.removeprefix(prefix): value for name, value in given.items()}
    return {name: said[name] for name in said if name not in names}


def _file(folder: str, name: str, own: str | None) -> dict[str, Any]:
    """The keys that a file of a group of configs sets: ``sampler/heun.yaml``.

    Args:
        folder: of the group.
        name: of the file.
        own: the user's own folder of configs, beside the project's.
    """
    import yaml  # late: few commands name one

    places = [CONFIGS, *([Path(own).expanduser()] if own else [])]
    found = [path for place in places for path in sorted((place / folder).glob("*.yaml"))]
    files = {path.stem: path for path in found}
    if name not in files:
        fault = f"{folder}={name!r} is unknown"
        raise unknown(fault, name, files, f"choose one of {', '.join(files)}")
    said = yaml.safe_load(files[name].read_text(encoding="utf-8"))
    if isinstance(said.get(folder), dict):  # of a file that also sets other groups of a training
        said = said[folder]
    return {
        key: value
        for key, value in said.items()
        if key != "defaults" and not (isinstance(value, str) and value.startswith("${"))
    }


def items(word: str) -> list[str]:
    """The items of a list such as ``[a,"b, c"]``."""
    if not (word.startswith("[") and word.endswith("]")):
        raise ValueError(word)
    inner = word[1:-1].strip()
    return list(_items(inner)) if inner else []


def _items(inner: str) -> Iterator[str]:
    at = 0
    while at < len(inner):
        match = ITEM.match(inner, at)
        if match is None or match.end() == at:
            raise ValueError(inner)
        yield unquoted(match[1])
        at = match.end()


def unquoted(word: str) -> str:
    """A word without the quotes around it; in them a backslash stands before a quote."""
    match = QUOTED.fullmatch(word)
    if match is None:
        return word
    return re.sub(rf"\\([\\{match[1]}])", r"\1", match[2])


def plain(word: str) -> Any:
    """What a word most likely is: null, true, false, a number, a list of these, else a text."""
    if word.lower() == NULL:
        return None
    for read in (_boolean, _number, _plain_items):
        with suppress(ValueError):
            return read(word)
    return unquoted(word)


def _plain_items(word: str) -> list:
    return [plain(item) for item in items(word)]


def _boolean(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ValueError(word)
    return word.lower() == "true"


def _number(word: str) -> float:
    return int(word) if re.fullmatch(r"[+-]?\d+", word) else float(word)


def _is_name(flag: Flag, word: str) -> bool:
    """Whether a word with an equals sign is no key but a name that stands alone."""
    return bool(flag.entry.metadata.get("open")) or os.path.exists(word)


def _missing(name: str) -> UserError:
    return UserError(f"{name} has no value; give {name}=... on the command line.")


def _unfit(name: str, value, kind: Kind, null: bool) -> UserError:
    return UserError(f"{name}={ranges.shown(value)} must be {kind.wanted}{', or null' * null}.")
