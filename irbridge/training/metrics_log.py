"""The numbers that a training writes as it goes."""

import json
import math
from pathlib import Path

from irbridge.errors import UserError
from irbridge.files import append_line, check_fields, write_atomically


class MetricsLog:
    """The file ``metrics.jsonl`` of a run: one line of JSON for each logged step.

    Args:
        path: of the file.
        first: the step that the training resumes from; what an earlier process wrote about later
            steps is dropped.
    """

    def __init__(self, path: Path, first: int):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            lines = path.read_text("utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _step_of(line) <= first]
            write_atomically(
                path, lambda p: p.write_text("".join(f"{line}\n" for line in kept), "utf-8")
            )

    def write(self, line: dict) -> None:
        """Append one line; it is on the disk when this returns."""
        append_line(self.path, line)


def last_line(path: Path) -> dict:
    """What the last whole line of a run's ``metrics.jsonl`` says: at least step and times.

    Raises:
        UserError: the file is missing, empty or damaged.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path} is missing; give the run's own folder.")
        *_, last = (line for line in path.read_bytes().split(b"\n")[:-1] if line.strip())
        value = json.loads(last)
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(
            f"The last line of {path} is damaged, so it does not say what was trained; run the"
            " training's command again."
        )
    number = int, float
    return check_fields(value, path, step=int, seconds=number, cpu_seconds=number)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        RecursionError,
    ):  # the half-written last line of a killed run
        return math.inf
