"""Networks over large images, tile by tile. What is tiled is each network call, not the restored image: after every
call the tiles are blended into one estimate, so that neighbours never drift apart (as MultiDiffusion fuses its views,
Bar-Tal et al., ICML 2023)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from irbridge.errors import UserError


@dataclass(frozen=True)
class Tiles:
    """How a large image is cut.

    Args:
        size: side of a tile in pixels; None: the whole image at once. overlap: pixels that neighbours share.
        batch: tiles in one network call. On the CPU each goes alone, so that the bytes do not depend on it.
        progress: called with the number of tiles that have just passed."""
    size: int | None = 512
    overlap: int = 64
    batch: int = 1
    progress: Callable[[int], None] | None = None

    def __post_init__(self):
        if self.size is not None and not (self.overlap >= 0 and self.size >= 2 * self.overlap and self.size > 0):
            raise UserError(f"tile={self.size} with overlap={self.overlap} does not cover an image; give a tile of at "
                            "least twice the overlap, or tile=null.")
        if self.batch < 1:
            raise UserError(f"batch={self.batch} must be 1 or more tiles.")

    def count(self, height: int, width: int, stride: int = 8) -> int:
        """Tiles of an image, padded to sides divisible by ``stride``."""
        down, across = (self._axis(side + -side % stride, stride) for side in (height, width))
        return len(down) * len(across)

    def of_states(self, factor: int) -> "Tiles":
        """The same tiles in states of which a pixel stands for ``factor`` image pixels a side."""
        if self.size is None:
            return self
        size = max(self.size // factor, 2)
        return replace(self, size=size, overlap=min(-(-self.overlap // factor), size // 2))

    def done(self, tiles: int = 1) -> None:
        """Report tiles to ``progress``."""
        if self.progress:
            self.progress(tiles)

    def __call__(self, function: Callable[..., Tensor], *images: Tensor, stride: int = 8) -> Tensor:
        """``function(*images)``, computed tile by tile.

        Images and result are (B, C, H, W), H and W divisible by ``stride``. Equal to the untiled result where an output
        pixel depends on inputs no further than a quarter of ``overlap`` away: each tile's outermost quarter counts
        nothing, then its weight rises linearly."""
        height, width = images[0].shape[-2:]
        corners = list(product(self._axis(height, stride), self._axis(width, stride)))
        at_once, result = self.batch if images[0].device.type != "cpu" else 1, None
        for first in range(0, len(corners), at_once):
            places = corners[first : first + at_once]
            windows = [(..., slice(top, top + len(v)), slice(left, left + len(h))) for (top, v), (left, h) in places]
            outputs = function(*(torch.cat([image[window] for window in windows]) for image in images))
            if result is None:
                result = outputs.new_zeros((*images[0].shape[:1], *outputs.shape[1:-2], height, width))
            for window, ((_, v), (_, h)), output in zip(windows, places, outputs.chunk(len(places))):
                result[window] += output * (v[:, None] * h).to(output)
            self.done(len(places))
        return result

    def _axis(self, side: int, stride: int) -> list[tuple[int, Tensor]]:
        """Starts and weights of the tiles along one side; the weights of all tiles sum to 1 at every pixel. Tiles begin
        at multiples of the stride, because a network is equivariant to such shifts alone."""
        overlap = self.overlap + -self.overlap % stride
        size = side if self.size is None else min(side, max(self.size - self.size % stride, 2 * overlap, stride))
        starts = [*range(0, side - size, max(size - overlap, stride)), side - size]
        position, still = torch.arange(size, dtype=torch.float64) + 0.5, overlap // 4
        rise = ((position - still) / max(overlap - 2 * still, 1)).clamp(0, 1)
        weights = [(rise if s > 0 else 1) * (rise.flip(0) if s < side - size else torch.ones(size)) for s in starts]
        total = torch.zeros(side, dtype=torch.float64)
        for s, w in zip(starts, weights):
            total[s : s + size] += w
        return [(s, w / total[s : s + size]) for s, w in zip(starts, weights)]


WHOLE = Tiles(size=None)
