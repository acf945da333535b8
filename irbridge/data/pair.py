"""A clean photograph and its degraded version, in memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from irbridge.data.names import and_more
from irbridge.errors import UserError

Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def with_mask(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """An image with its mask as a fourth channel of 0 and 1; without a mask as it is.

    Args:
        image: (H, W, 3).
        mask: bool (H, W), True in a hole.
    """
    return image if mask is None else np.dstack([image, mask.astype(np.float32)])


def split_mask(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The image (H, W, 3) and its mask (H, W) bool, or None, of what :func:`with_mask` gives."""
    return seen[..., :3], seen[..., 3] > 0.5 if seen.shape[-1] > 3 else None


def degraded(
    clean: np.ndarray, degradation: Degradation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """The degraded version of a clean image (H, W, 3), and the mask of its holes or None."""
    if not hasattr(degradation, "mask"):
        return degradation(clean, rng), None
    mask = degradation.mask(clean.shape[:2], rng)
    return degradation.fill_in(clean, mask, rng), mask


class Pair(NamedTuple):
    """One image and its degraded version, and where the task has holes their mask."""

    name: str
    clean: np.ndarray
    """float32 (H, W, 3) in [0, 1]."""
    degraded: np.ndarray
    """float32 (H, W, 3) in [0, 1]."""
    mask: np.ndarray | None = None
    """bool (H, W), True in a hole."""
    task: str = ""
    """The one of several tasks that it was drawn for, such as "derain"; empty: there is but one."""

    @property
    def seen(self) -> np.ndarray:
        """What a method is given: the degraded image, with the mask as a fourth channel."""
        return with_mask(self.degraded, self.mask)


def spread(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """At most so many of the pairs, evenly spaced, so that all sources of a mix are among them."""
    places = np.linspace(0, len(pairs) - 1, min(most, len(pairs)))
    return [pairs[i] for i in places.round().astype(int)]


def check_headers(pairs: list[tuple], header: Callable, fits: Callable) -> None:
    """Open the headers of pairs of files.

    Args:
        pairs: (clean, degraded), whatever ``header`` takes.
        header: gives (width, height) and mode of a file.
        fits: whether two headers are those of a pair.

    Raises:
        UserError: a header cannot be opened, or two do not fit.
    """
    faults = []
    for clean, degraded in pairs:
        try:
            kinds = header(clean), header(degraded)
            if not fits(*kinds):
                faults.append(mismatch(clean, degraded, *kinds))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError(faults[0].rstrip(".") + and_more(faults) + ".")


def mismatch(clean: str | Path, degraded: str | Path, a, b) -> str:
    """What is said of two files that are no pair; ``a`` and ``b`` are their sizes or headers."""
    return f"{clean} and {degraded} differ in size or mode ({a} and {b}); make the pair agree."
