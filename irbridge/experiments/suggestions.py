"""What a misspelt word of a command under Hydra most likely meant."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from irbridge.assets import CONFIGS
from irbridge.errors import UserError, nearest
from irbridge.models.refine_options import RefineOptions

CHOICE = re.compile(r"Could not find '(\w+)/([^']+)'")
LAUNCHER = re.compile(r"Could not find '(hydra/launcher)/((?:submitit|joblib)\w*)'")
KEY = re.compile(r"Could not override '([^']+)'")
TAKE_RECIPES = "train", "benchmark"  # the commands with the group configs/recipe
# words of earlier versions for what is a recipe
RENAMED = re.compile(r"(?:method|contender)='?(.*?)'?|experiment=(published)")


def check_renamed(command: str, words: Iterable[str]) -> None:
    """Refuse the words of earlier versions for what is a recipe.

    Hydra would take ``method=``: a config still has that key, but it is the recipe that sets it,
    with all that belongs to it.

    Args:
        command: the file in configs/ that lists the command's keys.
        words: of the command line.

    Raises:
        UserError: One of them is such a word; the sentence names the recipe that was meant.
    """
    if command not in TAKE_RECIPES:
        return
    for word in words:
        if old := RENAMED.fullmatch(word):
            recipes = sorted(_files(CONFIGS / "recipe"))
            meant = nearest(old[1] or old[2] or "", recipes)
            hint = f" Did you mean recipe={meant}?" if meant else ""
            raise UserError(
                f"{word} is not a word of this command; give recipe=NAME, one of"
                f" {', '.join(recipes)}.{hint}"
            )


def suggested(sentence: str, config: dict | None) -> str:
    """Hydra's sentence, with what was meant where that is plain.

    Args:
        sentence: on a choice or a key that there is not.
        config: the command's plain config without the user's words; None where it cannot be had.
    """
    if launcher := LAUNCHER.search(sentence):
        return f'{"=".join(launcher.groups())} is not installed; pip install -e ".[sweep]" has it.'
    if choice := CHOICE.search(sentence):
        group, word = choice.groups()
        meant = nearest(word, _files(CONFIGS / group))
        return sentence if meant is None else f"{sentence} Did you mean {group}={meant}?"
    if (key := KEY.search(sentence)) and config is not None:
        groups = [folder.name for folder in CONFIGS.iterdir() if folder.is_dir()]
        known = [*_keys(config), *groups]
        if "stage1" in config:  # of the commands that take recipes
            known += [f"refine.{at.name}" for at in fields(RefineOptions)]
        meant = _same_ending(key[1], known) or nearest(key[1], known)
        return sentence if meant is None else f"{sentence} Did you mean {meant}?"
    return sentence


def _same_ending(word: str, known: list[str]) -> str | None:
    """The one known key whose last part is the word's, such as "limit" of "evaluate.limit"."""
    ending = word.rsplit(".", 1)[-1]
    found = {key for key in known if key.rsplit(".", 1)[-1] == ending}
    return found.pop() if len(found) == 1 else None


def _files(folder: Path) -> list[str]:
    """The choices of a group of configs."""
    return [str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml")]


def _keys(config: dict, prefix: str = "") -> Iterator[str]:
    """The dotted names of all values."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
