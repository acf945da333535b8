"""The words of a command line as Hydra reads them: a path or a name is text, whatever it holds.

Hydra has a grammar of its own for values, in which brackets, commas, quotes, an equals sign or a
letter such as ü mean something or nothing at all. What a person types for a key of text is meant as
it stands, so :func:`for_hydra` puts it in quotes. Other values (numbers, switches, lists, sweeps)
keep that grammar.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType
from typing import get_args, get_origin, get_type_hints

import yaml

from irbridge.assets import CONFIGS, at_home
from irbridge.errors import UserError, nearest
from irbridge.experiments.schema import COMMANDS
from irbridge.ranges import Options, joined, shown

# of parts whose classes have the fields: paths, and names that are no choices
MORE_TEXT = {
    "backbone.pretrained",
    "backbone.vae",
    "backbone.prompt",
    "backbone.negative",
    "adapter.anchor",
    "logger.project",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
}
MORE_LISTS = {"hydra.searchpath"}
# Hydra's flags, and whether a value follows
FLAGS = {
    "--help": False,
    "-h": False,
    "--hydra-help": False,
    "--version": False,
    "--resolve": False,
    "--run": False,
    "-r": False,
    "--multirun": False,
    "-m": False,
    "--cfg": True,
    "-c": True,
    "--package": True,
    "-p": True,
    "--shell-completion": False,
    "-sc": False,
    "--config-path": True,
    "-cp": True,
    "--config-name": True,
    "-cn": True,
    "--config-dir": True,
    "-cd": True,
    "--info": True,
    "-i": True,
}
CHOICES = dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")) | dict.fromkeys(
    ("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
)
ASSIGNMENT = re.compile(r"(\+{0,2})([^=]*)=(.*)", re.DOTALL)
KEY = re.compile(r"[A-Za-z_][\w./@:-]*")
SWEEPERS = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag|extend_list)\(.*\)", re.DOTALL)
QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
# text that takes parts of itself from other keys, such as runs/${task.name}
INTERPOLATED = re.compile(r"(?:[^$]|\$(?!\{)|\$\{[\w.:,/-]+\})*", re.DOTALL)
# text that Hydra's grammar reads as text, and a sentence shows best as it is
PLAIN = re.compile(r"(?!(true|false|null|nan|inf)\Z)[A-Za-z_/][A-Za-z0-9_./-]*", re.IGNORECASE)
CLOSING = {"[": "]", "{": "}", "(": ")"}


def for_hydra(command: str, words: list[str]) -> list[str]:
    """The words of a command line, with values of text in Hydra's quotes.

    Flags come before the others, as Hydra takes all of them there alone.

    Args:
        command: the file in configs/ that lists the command's keys.
        words: as they were typed.

    Raises:
        UserError: A word is neither a flag of Hydra nor ``key=value``; the sentence says what was
            meant, where that is plain.
    """
    sweep, follows = is_sweep(words), False
    flags: list[str] = []
    others: list[str] = []
    for word in words:
        flag, equals, _ = word.partition("=")
        if follows:
            flags.append(_of_flag(flags[-1], word))
            follows = False
        elif word.startswith("-"):
            if flag not in FLAGS:
                raise _no_flag(command, word)
            follows = FLAGS[flag] and not equals
            value = _of_flag(flag, word[len(flag) + 1 :]) if equals else ""
            flags.append(f"{flag}={value}" if equals else word)
        else:
            others.append(_override(command, word, sweep))
    if follows:
        raise UserError(f"{flags[-1]} lacks its value; see --help.")
    return flags + others


def _of_flag(flag: str, value: str) -> str:
    """The value of one of Hydra's flags; UserError where it is a folder that is not there."""
    if (choices := CHOICES.get(flag)) and value not in choices:
        raise UserError(f"{flag}={shown(value)} is unknown; choose one of {', '.join(choices)}.")
    if flag not in ("--config-dir", "-cd"):
        return value
    folder = at_home(value)
    if not os.path.isdir(folder):
        raise UserError(f"{flag}={shown(value)} is no folder; give the folder of your own configs.")
    return folder


def is_sweep(words: Iterable[str]) -> bool:
    """Whether the words of a command line ask for a sweep."""
    return any(word in ("-m", "--multirun", "hydra.mode=MULTIRUN") for word in words)


def _override(command: str, word: str, sweep: bool) -> str:
    """One word that is no flag, checked and quoted."""
    if word.startswith("~"):
        key = re.split("[=@]", word[1:])[0]
        raise UserError(f"{word}: no key can be left out; give {key or 'a key'}=VALUE instead.")
    match = ASSIGNMENT.fullmatch(word)
    if match is None:
        raise _no_key(command, word)
    added, key, value = match.groups()
    if not KEY.fullmatch(key):
        raise UserError(
            f"{shown(word, repr)} has no key before its equals sign; give key=value, see --help."
        )
    if key in ("hydra.launcher", "hydra.sweeper"):
        choice = key.replace(".", "/")
        raise UserError(f"{key} is a group of keys; did you mean {choice}={shown(value)}?")
    text, lists, whatever = _keys_of_text(command)
    if key == "adapter.anchor" and value.lower() in ("true", "false"):
        pass  # not the name of one
    elif key in text:
        value = ",".join(map(_quoted, _choices(value))) if sweep else _quoted(value)
    elif key in lists and (value.startswith("[") or not sweep):
        parts = _split(value) if sweep else [value]
        value = ",".join(map(_list, parts))
    elif key in whatever:
        value = _plain(value)
    elif key in _groups(command):
        value = _choice(command, key, value)
    return f"{added}{key}={value}"


@cache
def _keys_of_text(command: str) -> tuple[set[str], set[str], set[str]]:
    """A command's keys whose values are text, lists of text, or any plain data."""
    text, lists, whatever = set(MORE_TEXT), set(MORE_LISTS), set()
    for kind in _classes(COMMANDS[command]):
        hints = get_type_hints(kind)
        for at in fields(kind):
            hint, key = hints[at.name], joined(kind.KEY, at.name)
            parts = set(get_args(hint) or (hint,)) - {NoneType}
            if parts == {str}:
                if get_origin(hint) is list:
                    lists.add(key)
                else:
                    text.add(key)
            elif list[str] in parts:
                lists.add(key)
            elif key == "data.mix":
                whatever.add(key)
    return text, lists, whatever


def _classes(kind: type[Options]) -> Iterator[type[Options]]:
    """A class of settings and those of its groups."""
    yield kind
    for hint in get_type_hints(kind).values():
        for part in get_args(hint) or (hint,):
            if is_dataclass(part):
                yield from _classes(part)


def quoted(text: str) -> str:
    """Text in Hydra's quotes, which it reads back as it is.

    Interpolations such as ``${task.name}`` stay what they are.
    """
    # a backslash stands for itself, but before a quote
    escaped = re.sub(r"(\\*)'", lambda m: m[1] * 2 + "\\'", text)
    escaped = re.sub(r"(\\+)\Z", lambda m: m[1] * 2, escaped)
    return f"'{escaped}'"


def _quoted(value: str) -> str:
    """A value of text in quotes; null, and what has quotes around it already, stay."""
    if isinstance(value, _Raw) or value == "null":
        return value
    if QUOTED.fullmatch(value) and not os.path.lexists(value):
        return value
    value = at_home(value)
    if PLAIN.fullmatch(value):
        return value
    return quoted(_literal(value))


def _literal(value: str) -> str:
    """Text with its dollar signs escaped, unless it takes parts of itself from other keys."""
    if INTERPOLATED.fullmatch(value) and not os.path.lexists(value):
        return value
    return re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + "\\${", value)


def _choice(command: str, group: str, value: str) -> str:
    """The name of one of a group's files; a sweep over names stays as it is."""
    given = value.lower() == "null"
    if (given and _groups(command)[group] is not None) or not value:
        names = sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))
        raise UserError(f"{group}={value} must be a name, one of {', '.join(names)}.")
    return value if given or re.fullmatch(r"[A-Za-z0-9_./,-]+", value) else _quoted(value)


def _choices(value: str) -> list[str]:
    """The choices of a sweep over text: split at commas, but for what is there as it stands."""
    if SWEEPERS.fullmatch(value) and not os.path.lexists(value):
        return [_Raw(value)]
    return _joined(_split(value))


class _Raw(str):
    """A value that keeps Hydra's grammar."""


def _joined(parts: list[str]) -> list[str]:
    """The parts between commas, several as one where that is the name of a file or folder."""
    found, at = [], 0
    while at < len(parts):
        end = len(parts)
        while end > at + 1 and not os.path.lexists(",".join(parts[at:end])):
            end -= 1
        found.append(",".join(parts[at:end]))
        at = end
    return found


def _split(value: str) -> list[str]:
    """The parts between the commas that stand in no quotes and no brackets."""
    parts, start, at, open_ = [], 0, 0, []
    while at < len(value):
        letter, whole = value[at], QUOTED.match(value, at)
        if whole and (at == start or open_):
            at = whole.end()
            continue
        if letter in CLOSING and CLOSING[letter] in value[at:]:
            open_.append(CLOSING[letter])
        elif open_ and letter == open_[-1]:
            open_.pop()
        elif letter == "," and not open_:
            parts.append(value[start:at])
            start = at + 1
        at += 1
    return [*parts, value[start:]]


def _list(value: str) -> str:
    """A list of text with each item in quotes; one word alone is a list of it."""
    if value == "null":
        return value
    if not (value.startswith("[") and value.endswith("]")) or os.path.lexists(value):
        return f"[{_quoted(value)}]"
    inner = value[1:-1].strip()
    items = [item.strip() for item in _split(inner)] if inner else []
    return "[" + ",".join(map(_quoted, _joined(items))) + "]"


def _plain(value: str) -> str:
    """Lists and groups as YAML writes them, with each text in quotes; others as they are."""
    try:
        found = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        return value
    return _written(found) if isinstance(found, list | dict) else value


def _written(value) -> str:
    """Plain data in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return quoted(_literal(value)) if isinstance(value, str) else str(value)


def _no_flag(command: str, word: str) -> UserError:
    """The error for a word that begins with a dash and is no flag of Hydra."""
    name, _, value = word.lstrip("-").partition("=")
    keys = _known(command)
    key = name.replace("-", "_")
    meant = key if key in keys else nearest(key, keys)
    if meant:
        remedy = f"did you mean {meant}={value or 'VALUE'}?"
    elif flag := nearest(word, FLAGS):
        remedy = f"did you mean {flag}?"
    else:
        remedy = "give key=value, see --help."
    return UserError(f"{word!r} is not a flag of this command; {remedy}")


def _no_key(command: str, word: str) -> UserError:
    """The error for a word without an equals sign."""
    keys = _known(command)
    if word in keys:
        return UserError(f"{word} has no value; give {word}=VALUE.")
    remedy = "give key=value, see --help"
    if "run" in keys and os.path.isdir(word):
        remedy = f"did you mean run={word}?"
    elif "task" in keys and (CONFIGS / "task" / f"{word}.yaml").is_file():
        remedy = f"did you mean task={word}?"
    elif os.path.isfile(word):
        remedy = f"to restore a photograph: irbridge restore --task NAME {word}"
    sentence = f"{shown(word, repr)} is no key=value; {remedy}"
    return UserError(sentence if sentence.endswith("?") else f"{sentence}.")


def _known(command: str) -> list[str]:
    """The names of a command's keys and of its groups of configs."""
    known = [joined(k.KEY, at.name) for k in _classes(COMMANDS[command]) for at in fields(k)]
    text, lists, _ = _keys_of_text(command)
    return list(dict.fromkeys([*known, *_groups(command), *_config(command), *text, *lists]))


@cache
def _groups(command: str) -> dict[str, str | None]:
    """The groups of files that a command chooses from, each with its default."""
    entries = [entry for entry in _config(command)["defaults"] if isinstance(entry, dict)]
    return {name: entry[name] for entry in entries for name in entry if name != "hydra"}


@cache
def _config(command: str) -> Mapping:
    """The file of a command as it stands."""
    return yaml.safe_load((CONFIGS / f"{command}.yaml").read_text(encoding="utf-8"))
