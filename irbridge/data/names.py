"""Names of image files: which belong together, and which clash."""

import re
from collections import Counter
from pathlib import Path

from irbridge.errors import UserError


def refuse_duplicates(stems: list[str], where) -> None:
    twice = [stem for stem, times in Counter(stems).items() if times > 1]
    if twice:
        raise UserError(
            f"{where} holds several images named {twice[0]}{and_more(twice)}; keep one of each."
        )


def and_more(faults: list) -> str:
    return f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""


def bare(stem: str) -> str:
    return re.sub(r"^(no)?rain[-_]|[-_](clean|rain)$", "", stem)


def partner(stem: str, exact: dict[str, Path], without_key: dict[str, Path]) -> Path | None:
    parts = stem.split("_")
    prefixes = ["_".join(parts[:k]) for k in range(len(parts) - 1, 0, -1)]
    return next((exact[s] for s in [stem, *prefixes] if s in exact), without_key.get(bare(stem)))
