"""Networks over large images, tile by tile.

What is tiled is each network call, not the restored image: after every call the tiles are blended
into one estimate, so that neighbours never drift apart (as MultiDiffusion fuses its views, Bar-Tal
et al., ICML 2023).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from irbridge.errors import UserError

RISE = 16  # pixels over which one tile gives way to the next where both give the same


class Span(NamedTuple):
    """What a tile covers along one side of the image, and how much it counts there."""

    start: int
    weights: Tensor
    """float64 (size,); over all tiles the weights of a pixel sum to 1."""

    @property
    def pixels(self) -> slice:
        """Of the image's side."""
        return slice(self.start, self.start + len(self.weights))


@dataclass(frozen=True)
class Tiles:
    """How a large image is cut.

    Args:
        size: side of a tile in pixels, or its (height, width); None: the whole image at once.
        overlap: pixels that neighbours share.
        batch: tiles in one network call. On the CPU each goes alone, so that the bytes do not
            depend on it.
        progress: called with the number of tiles that have just passed.
        still: pixels at an edge where tiles meet that count nothing; None: a quarter of the
            overlap.
        keep: what an adapter computes of a tile once an image is kept for all calls; of a whole
            image it always is.

    Raises:
        UserError: tiles of this size and overlap do not cover an image, or ``batch`` is below 1.
    """

    size: int | tuple[int, int] | None = 512
    overlap: int = 64
    batch: int = 1
    progress: Callable[[int], None] | None = None
    still: int | None = None
    keep: bool = False

    def __post_init__(self):
        # pairs come from `even`, one of whose sides may be a narrow image's own
        given = isinstance(self.size, int)
        if given and not (self.overlap >= 0 and self.size >= max(2 * self.overlap, 1)):
            raise UserError(
                f"tile={self.size} with overlap={self.overlap} does not cover an image; give a tile"
                " of at least twice the overlap, or tile=null."
            )
        if self.batch < 1:
            raise UserError(f"batch={self.batch} must be 1 or more tiles.")

    @property
    def sides(self) -> tuple[int, int] | tuple[None, None]:
        """A tile's height and width in pixels."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def count(self, height: int, width: int, stride: int = 8) -> int:
        """The number of tiles of an image, padded to sides divisible by ``stride``."""
        tall, wide = self.sides
        down = self._spans(height + -height % stride, tall, stride)
        across = self._spans(width + -width % stride, wide, stride)
        return len(down) * len(across)

    def reaching(self, reach: int | None) -> "Tiles":
        """The tiles that give what the whole image gives, of a network of a limited reach.

        Where need be they overlap by more and are larger.

        Args:
            reach: outputs of the network depend on inputs up to so many pixels away; None: on all
                of a tile.
        """
        if reach is None:
            return self
        overlap = max(self.overlap, 2 * reach + RISE)
        size = self.size and tuple(max(side, 2 * overlap) for side in self.sides)
        return replace(
            self,
            size=size[0] if isinstance(self.size, int) else size,
            overlap=overlap,
            still=max(self.still or 0, reach),
        )

    def of_states(self, factor: int) -> "Tiles":
        """The same tiles in states of which a pixel stands for ``factor`` image pixels a side."""
        if self.size is None:
            return self
        height, width = (max(side // factor, 2) for side in self.sides)
        overlap = -(-self.overlap // factor)  # rounded up
        return replace(
            self,
            size=(height, width),
            overlap=min(overlap, height // 2, width // 2),
            still=self.still and self.still // factor,
        )

    def done(self, tiles: int = 1) -> None:
        """Report tiles to ``progress``."""
        if self.progress:
            self.progress(tiles)

    def __call__(
        self,
        function: Callable[..., Tensor],
        *images: Tensor,
        stride: int = 8,
        numbered: bool = False,
    ) -> Tensor:
        """``function(*images)``, computed tile by tile.

        It equals the untiled result where an output pixel depends on inputs no further than
        ``still`` away: so much at each tile's edge counts nothing, then its weight rises linearly.

        Args:
            function: takes a tile of each image, returns one tensor of the same height and width.
            images: (B, C, H, W), H and W divisible by ``stride``.
            stride: tiles begin at its multiples, as a network is equivariant to such shifts alone.
            numbered: the function is given the number of its call as well.

        Returns:
            (B, C', H, W).
        """
        height, width = images[0].shape[-2:]
        tall, wide = self.sides
        rows = self._spans(height, tall, stride)
        columns = self._spans(width, wide, stride)
        places = list(product(rows, columns))
        at_once = self.batch if images[0].device.type != "cpu" else 1
        result = None
        for number, first in enumerate(range(0, len(places), at_once)):
            group = places[first : first + at_once]
            windows = [(..., row.pixels, column.pixels) for row, column in group]
            crops = [_joined([image[window] for window in windows]) for image in images]
            outputs = function(*crops, number) if numbered else function(*crops)
            self.done(len(group))
            if len(places) == 1:
                return outputs
            if result is None:
                shape = (len(images[0]), *outputs.shape[1:-2], height, width)
                result = outputs.new_zeros(shape)
            parts = outputs.chunk(len(group))
            for (row, column), window, part in zip(group, windows, parts, strict=True):
                weights = row.weights[:, None] * column.weights
                result[window].addcmul_(part, weights.to(part))
        return result

    def _spans(self, side: int, size: int | None, stride: int) -> list[Span]:
        """The tiles along one side of an image.

        Args:
            side: of the image, divisible by ``stride``.
            size: of a tile; None: the whole side.
            stride: tiles begin at its multiples.
        """
        overlap = self.overlap + -self.overlap % stride
        size = side if size is None else min(side, max(size - size % stride, 2 * overlap, stride))
        last = side - size
        starts = [*range(0, last, max(size - overlap, stride)), last]
        still = overlap // 4 if self.still is None else self.still
        position = torch.arange(size, dtype=torch.float64) + 0.5
        rise = ((position - still) / max(overlap - 2 * still, 1)).clamp(0, 1)
        total = torch.zeros(side, dtype=torch.float64)
        spans = []
        for start in starts:
            weights = torch.ones(size, dtype=torch.float64)
            if start > 0:
                weights = weights * rise
            if start < last:
                weights = weights * rise.flip(0)
            spans.append(Span(start, weights))
            total[start : start + size] += weights
        return [Span(span.start, span.weights / total[span.pixels]) for span in spans]


def _joined(crops: list[Tensor]) -> Tensor:
    """The crops as one batch; a single one without a copy."""
    return crops[0] if len(crops) == 1 else torch.cat(crops)


def even(
    height: int, width: int, stride: int, overlap: int, pixels: float
) -> tuple[int, int] | None:
    """The equal tiles of limited area that compute the least in all.

    Args:
        height: of the image, divisible by ``stride``.
        width: of the image, divisible by ``stride``.
        stride: what the sides of a tile must divide by.
        overlap: pixels that neighbours share.
        pixels: the largest area of a tile.

    Returns:
        Height and width of a tile; None where ``pixels`` are too few for any.
    """
    overlap += -overlap % stride
    fits = []
    for (down, tall), (across, wide) in product(
        _equal_sides(height, stride, overlap), _equal_sides(width, stride, overlap)
    ):
        if tall * wide <= pixels:
            count = down * across
            # the least work, then the fewest tiles, then the squarest
            fits.append((count * tall * wide, count, abs(tall - wide), (tall, wide)))
    return min(fits)[-1] if fits else None


def _equal_sides(whole: int, stride: int, overlap: int) -> list[tuple[int, int]]:
    """(tiles, their side) for 1, 2, ... equal tiles, as long as more of them are smaller."""
    found = [(1, whole)]
    while whole > 2 * overlap:
        count = found[-1][0] + 1
        side = -(-(whole + (count - 1) * overlap) // count)
        side += -side % stride
        if side >= found[-1][1] or side < max(2 * overlap, stride):
            break
        found.append((count, side))
    return found


WHOLE = Tiles(size=None)
