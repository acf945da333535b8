"""The output of a command, which ends no work, whoever reads it and whatever it can show.

A pipe whose reader has left (``| head -1``) takes the rest in silence. A letter that the console
does not know, such as an arrow on Windows, is written as its number. Where there is no room for
what is printed, :func:`lost` says so at the end.
"""

import io
import os
import sys
from contextlib import suppress

_lost: list[OSError] = []


class _Stream(io.RawIOBase):
    """A file of the process, by its number, that outlives its reader."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def writable(self) -> bool:
        """It can be written."""
        return True

    def fileno(self) -> int:
        """Its number."""
        return self.number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self.number)

    def write(self, data) -> int:
        """Write some bytes; those that cannot be written are dropped, and so are all after them."""
        try:
            return os.write(self.number, data)
        except BlockingIOError:
            return None
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                _lost.append(error)
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.number)
                os.close(nowhere)
            return len(data)


def prepare() -> None:
    """Make the process's own output such a one. What a program has put in its place stays."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the command began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
            continue
        # a file name that the terminal cannot show must not stop a command
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        if stream is not getattr(sys, f"__{name}__"):
            continue
        lines = stream.line_buffering or name == "stderr"
        encoding, number = stream.encoding, stream.fileno()
        buffered = io.BufferedWriter(_Stream(number))
        own = io.TextIOWrapper(buffered, encoding, "backslashreplace", line_buffering=lines)
        with suppress(OSError):
            stream.flush()
        setattr(sys, name, own)


def lost() -> OSError | None:
    """Why some of what was printed could not be written; None where nothing was lost."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return _lost[0] if _lost else None
