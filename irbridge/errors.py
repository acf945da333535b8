"""How a mistake or a fault is told: in one sentence that names the thing and the remedy."""

import errno
import re
from collections.abc import Iterable

INTERRUPTED = "Interrupted; what was finished is saved, and the same command goes on."
STOPPED = 130  # the exit status of a command that Ctrl-C or SIGTERM ended, as shells have it
# what torch, numpy and the system say when memory has run out
NO_MEMORY = re.compile(
    r"out of memory|not enough memory|allocate memory|Unable to allocate|failed to map segment",
    re.I,
)
NO_FILES = re.compile(r"too many open files|items of ancdata", re.I)
# what torch says in the processes that are left, where one of several has ended
NO_PEER = re.compile(r"connection (closed|reset) by peer|ncclRemoteError", re.I)
# what torch and the system say of libraries that were built for others than those that are there
NO_FIT = re.compile(
    r"operator torchvision::\w+ does not exist|undefined symbol|cannot open shared object|"
    r"DLL load failed|Library not loaded",
    re.I,
)
# whose errors are of what the user wrote
DOORS = "hydra", "omegaconf", "antlr4"


class UserError(Exception):
    """Bad input: the message is one sentence that names the thing and the remedy."""


class Failure(RuntimeError):
    """A foreseen fault while running, told in one sentence with the remedy."""


def full_disk(error: BaseException) -> bool:
    """Whether a write was refused for want of room: of the disk, of a quota, of a file's size."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def innermost(error: BaseException) -> BaseException:
    """What an exception comes from; a UserError says it, whatever it comes from itself."""
    while error.__cause__ is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def is_mistake(error: BaseException) -> bool:
    """Whether an exception is of what the user wrote; any other is a fault while running."""
    return isinstance(innermost(error), UserError) or _of_door(error)


def _of_door(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in DOORS


def told(error: BaseException) -> str:
    """An exception as the one sentence that ends a command.

    Of an exception that nobody foresaw it says so, and what to do.
    """
    cause = innermost(error)
    if isinstance(cause, UserError | Failure | OSError) or _of_door(error) or _lacks(error):
        return one_sentence(error)
    text = one_sentence(error).rstrip(".")
    return (
        f"irbridge itself is at fault ({text}); please report the command, with what it shows under"
        " IRBRIDGE_DEBUG=1, as CONTRIBUTING.md says."
    )


def one_sentence(error: BaseException) -> str:
    """An exception as one line.

    That is its own text, and for Hydra's errors also the innermost cause and the choices.
    """
    cause = innermost(error)
    error = cause if isinstance(cause, UserError) and not isinstance(error, UserError) else error
    if isinstance(error, UserError | Failure):
        return " ".join(str(error).split())
    if lacking := _lacks(error):
        return lacking
    if isinstance(error, OSError) and error.errno is not None:
        return _of_system(error)
    if _of_door(error):
        return _of_hydra(error)
    lines = _lines(error)
    if lines and lines[0].startswith("Caught "):  # a worker process hands its traceback on as text
        lines = [lines[-1].split(": ", 1)[-1]]
    text = " ".join(lines) or _words(type(error).__name__)
    return text if len(text) < 300 else f"{text[:300]}..."


def _lines(error: BaseException) -> list[str]:
    lines = str(error).replace("\t", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _words(name: str) -> str:
    """The name of a class of exceptions in words: "RecursionError" is "recursion error"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _lacks(error: BaseException) -> str | None:
    """The sentence for want of memory, files, a process or a library, which many kinds say."""
    cause, chain = innermost(error), [error]
    while (error := error.__cause__ or error.__context__) is not None and error not in chain:
        chain.append(error)
    told_by = RuntimeError | OSError | ValueError | ImportError
    texts = [str(one) for one in chain if isinstance(one, told_by)]
    if any(isinstance(one, MemoryError) for one in chain) or any(map(NO_MEMORY.search, texts)):
        return (
            "There is not enough memory for this; give a smaller tile, size, trainer.crop or"
            " trainer.batch_size, or close other programs."
        )
    if any(map(NO_FILES.search, texts)):
        return (
            "The system allows no more open files; raise its limit (ulimit -n 4096), or give"
            " trainer.workers=0 where it is a training."
        )
    if any(isinstance(one, RuntimeError) and NO_PEER.search(str(one)) for one in chain):
        return (
            "Another process of this command has ended; it says why itself, and the same command"
            " goes on."
        )
    if unfit := [text for text in texts if NO_FIT.search(text)]:
        return (
            f"The installed libraries do not fit one another ({' '.join(unfit[0].split())[:200]});"
            " install torch and torchvision anew by one command, as the README does."
        )
    name = (isinstance(cause, ModuleNotFoundError) and cause.name) or ""
    if name.partition(".")[0] not in ("", "irbridge"):  # of irbridge's own modules it is a fault
        return f"The package {name} is missing; install it, or irbridge anew as the README does."
    return None


def _of_system(error: OSError) -> str:
    """The sentence for what the system refuses."""
    what = error.filename or "A file or stream"
    remedy = "make room there" if full_disk(error) else "check the path and its permissions"
    return (
        f"{what} could not be read or written ({error.strerror}); {remedy}, and the same command"
        " goes on from what was finished."
    )


def _unread(word: str) -> str:
    """The sentence for a word whose value Hydra's grammar cannot read."""
    word = " ".join(word.split())
    word = word if len(word) < 120 else f"{word[:117]}..."
    return (
        f"{word} has a value that cannot be read; give a number, true, false, null, a word or a"
        " list such as [1,2], with quotes around text that has other signs."
    )


def _of_hydra(error: BaseException) -> str:
    """The sentence for what Hydra cannot make of the words, without its hints for programmers."""
    if (word := getattr(error, "override", None)) is not None:
        return _unread(word)
    key = re.search(r"'(.+?)'", str(error))
    if type(error).__name__ == "InterpolationKeyError" and key:
        return f"{key[1]} has no value, and another key takes its own from it; give {key[1]}=..."
    kept = [
        line
        for line in _lines(error)
        if not line.startswith(("full_key:", "object_type=", "set env", "Set the env", "See http"))
    ]
    text = (" ".join(kept) or _words(type(error).__name__)).split(" Config search path:")[0]
    hint = "To append to your config use"
    if hint in text:
        text = text.split(hint)[0].strip() + " Check the spelling, or see the keys with --cfg job."
    return text
