"""Networks over large images, tile by tile. What is tiled is each network call, not the restored
image: after every call the tiles are blended into one estimate, so that neighbours never drift
apart (as MultiDiffusion fuses its views, Bar-Tal et al., ICML 2023).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from irbridge.errors import UserError

RISE = 16  # pixels over which one tile gives way to the next where both give the same


@dataclass(frozen=True)
class Tiles:
    """How a large image is cut.

    Args: size: side of a tile in pixels, or its (height, width); None: the whole image at once.
        overlap: pixels that
            neighbours share.
        batch: tiles in one network call. On the CPU each goes alone, so that the bytes do not
            depend on it.
        progress: called with the number of tiles that have just passed.
        still: pixels at an edge where tiles meet that count nothing; None: a quarter of the
            overlap.
        keep: what an adapter computes of a tile once an image is kept for all calls; of a whole
            image it always is.
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
        """Tiles of an image, padded to sides divisible by ``stride``."""
        down, across = (
            self._axis(side + -side % stride, size, stride)
            for side, size in zip((height, width), self.sides)
        )
        return len(down) * len(across)

    def reaching(self, reach: int | None) -> "Tiles":
        """The tiles of a network whose outputs depend on inputs up to ``reach`` pixels away: where
        need be they overlap by more and are larger, so that they give what the whole image gives.
        None: of a network that sees all of a tile.
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
        still = self.still and self.still // factor
        return replace(
            self,
            size=(height, width),
            overlap=min(-(-self.overlap // factor), height // 2, width // 2),
            still=still,
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
        """``function(*images)``, computed tile by tile; ``numbered``: it is given the number of its
        call as well.

        Images and result are (B, C, H, W), H and W divisible by ``stride``. Equal to the untiled
        result where an output pixel depends on inputs no further than ``still`` away: so much at
        each tile's edge counts nothing, then its weight rises linearly.
        """
        height, width = images[0].shape[-2:]
        tall, wide = self.sides
        corners = list(product(self._axis(height, tall, stride), self._axis(width, wide, stride)))
        at_once, result = self.batch if images[0].device.type != "cpu" else 1, None
        for number, first in enumerate(range(0, len(corners), at_once)):
            places = corners[first : first + at_once]
            windows = [
                (..., slice(top, top + len(v)), slice(left, left + len(h)))
                for (top, v), (left, h) in places
            ]
            crops = [_joined([image[window] for window in windows]) for image in images]
            outputs = function(*crops, number) if numbered else function(*crops)
            self.done(len(places))
            if len(corners) == 1:
                return outputs
            if result is None:
                result = outputs.new_zeros(
                    (*images[0].shape[:1], *outputs.shape[1:-2], height, width)
                )
            for window, ((_, v), (_, h)), output in zip(
                windows, places, outputs.chunk(len(places))
            ):
                result[window].addcmul_(output, (v[:, None] * h).to(output))
        return result

    def _axis(self, side: int, size: int | None, stride: int) -> list[tuple[int, Tensor]]:
        """Starts and weights of the tiles of ``size`` along one side; the weights of all tiles sum
        to 1 at every pixel. Tiles begin at multiples of the stride, because a network is
        equivariant to such shifts alone.
        """
        overlap = self.overlap + -self.overlap % stride
        size = side if size is None else min(side, max(size - size % stride, 2 * overlap, stride))
        starts = [*range(0, side - size, max(size - overlap, stride)), side - size]
        position, still = (
            torch.arange(size, dtype=torch.float64) + 0.5,
            overlap // 4 if self.still is None else self.still,
        )
        rise = ((position - still) / max(overlap - 2 * still, 1)).clamp(0, 1)
        weights = [
            (rise if s > 0 else 1) * (rise.flip(0) if s < side - size else torch.ones(size))
            for s in starts
        ]
        total = torch.zeros(side, dtype=torch.float64)
        for s, w in zip(starts, weights):
            total[s : s + size] += w
        return [(s, w / total[s : s + size]) for s, w in zip(starts, weights)]


def _joined(crops: list[Tensor]) -> Tensor:
    return crops[0] if len(crops) == 1 else torch.cat(crops)


def even(
    height: int, width: int, stride: int, overlap: int, pixels: float
) -> tuple[int, int] | None:
    """Height and width of the tiles, of at most ``pixels`` each, that compute the least in all
    where an image, its sides divisible by ``stride``, is cut into equal ones; None where there are
    none, as ``pixels`` are too few.
    """
    overlap += -overlap % stride

    def sides(whole: int) -> list[tuple[int, int]]:
        """(tiles, their side) for 1, 2, ... tiles, as long as more of them are smaller."""
        found = [(1, whole)]
        while (count := found[-1][0] + 1) and whole > 2 * overlap:
            side = -(-(whole + (count - 1) * overlap) // count)
            side += -side % stride
            if side >= found[-1][1] or side < max(2 * overlap, stride):
                break
            found.append((count, side))
        return found

    fits = [
        (m * n * h * w, m * n, abs(h - w), (h, w))
        for (m, h), (n, w) in product(sides(height), sides(width))
        if h * w <= pixels
    ]
    return min(fits)[-1] if fits else None


WHOLE = Tiles(size=None)
