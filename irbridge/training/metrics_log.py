"""The numbers that a training writes as it goes."""

import json
import math
from pathlib import Path

from irbridge.files import append_line, write_atomically


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


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the half-written last line of a killed run
        return math.inf
