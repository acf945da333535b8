"""Names of image files: which belong together, and which clash."""

import re
from collections import Counter
from pathlib import Path

from irbridge.errors import UserError


def refuse_duplicates(stems: list[str], where: str | Path) -> None:
    """Raise UserError if a name occurs twice; ``where`` is what the error names."""
    twice = [stem for stem, times in Counter(stems).items() if times > 1]
    if twice:
        raise UserError(
            f"{where} holds several images named {twice[0]}{and_more(twice)}; keep one of each."
        )


def and_more(faults: list) -> str:
    """What an error says behind the first of several faults: how many others there are."""
    return f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""


def bare(stem: str) -> str:
    """A stem without the markers of Rain100H and RainDrop: norain-1, rain-1, 1_clean, 1_rain."""
    return re.sub(r"^(no)?rain[-_]|[-_](clean|rain)$", "", stem)


def partner(stem: str, exact: dict[str, Path], without_key: dict[str, Path]) -> Path | None:
    """The clean image of a degraded one.

    Args:
        stem: of the degraded image.
        exact: clean images by their stem.
        without_key: clean images by their :func:`bare` stem.

    Returns:
        The one of equal stem, else of the longest beginning of the stem before a "_", else of equal
        bare stem; None where there is none.
    """
    parts = stem.split("_")
    for count in range(len(parts), 0, -1):
        beginning = "_".join(parts[:count])
        if beginning in exact:
            return exact[beginning]
    return without_key.get(bare(stem))
