"""What a misspelt word of a command under Hydra most likely meant."""

import re
from collections.abc import Iterator
from pathlib import Path

from irbridge.assets import CONFIGS
from irbridge.errors import nearest

CHOICE = re.compile(r"Could not find '(\w+)/([^']+)'")
KEY = re.compile(r"Could not override '([^']+)'")


def suggested(sentence: str, config: dict | None) -> str:
    """Hydra's sentence, with what was meant where that is plain.

    Args:
        sentence: on a choice or a key that there is not.
        config: the command's plain config without the user's words; None where it cannot be had.
    """
    if choice := CHOICE.search(sentence):
        group, word = choice.groups()
        meant = nearest(word, _files(CONFIGS / group))
        return sentence if meant is None else f"{sentence} Did you mean {group}={meant}?"
    if (key := KEY.search(sentence)) and config is not None:
        groups = [folder.name for folder in CONFIGS.iterdir() if folder.is_dir()]
        meant = nearest(key[1], [*_keys(config), *groups])
        return sentence if meant is None else f"{sentence} Did you mean {meant}?"
    return sentence


def _files(folder: Path) -> list[str]:
    """The choices of a group of configs."""
    return [str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml")]


def _keys(config: dict, prefix: str = "") -> Iterator[str]:
    """The dotted names of all values."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
