"""Metrics log."""

import json
import math
from pathlib import Path

from irbridge.files import append_line, write_atomically


class _Metrics:
    """``metrics.jsonl``: one line per logged step; lines after the checkpoint that a run resumes
    from are dropped.
    """

    def __init__(self, path: Path, first: int):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = [
                line
                for line in path.read_text(errors="replace").splitlines()
                if _step_of(line) <= first
            ]
            write_atomically(path, lambda p: p.write_text("".join(line + "\n" for line in kept)))

    def write(self, line: dict) -> None:
        append_line(self.path, line)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the half-written last line of a killed run
        return math.inf
