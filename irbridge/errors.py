"""The one exception for mistakes that the user can mend."""

from collections.abc import Iterable


class UserError(Exception):
    """Bad input: the message is one sentence that names the thing and the remedy."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that a misspelt word most likely meant; None where none is close."""
    from difflib import get_close_matches  # late: only a mistake needs it

    return next(iter(get_close_matches(word, list(choices), n=1)), None)


def unknown(fault: str, word: str, choices: Iterable[str], remedy: str) -> UserError:
    """The error for a word that is none of the choices, with the nearest one where one is close.

    Args:
        fault: what is wrong, such as ``"'restor' is not a command"``.
        word: the word as it was given.
        choices: what it may be.
        remedy: what to do, in small letters and without a full stop.
    """
    meant = nearest(word, choices)
    if meant is None:
        return UserError(f"{fault}; {remedy}.")
    return UserError(f"{fault}; did you mean {meant}? {remedy[0].upper()}{remedy[1:]}.")
