"""A model's networks on a batch of large images, cut into tiles at every call."""

from functools import partial

from torch import Tensor
from torch.nn import functional as F

from irbridge.adapters.base import Condition, bare
from irbridge.images.tiles import Tiles
from irbridge.models.restorer import Restorer


class TiledDenoiser:
    """The clean estimate of prior states of one batch of images; see :class:`Tiles`.

    What the adapter knows of a tile is computed at its first call. It is kept for later ones where
    the tiles say so, and always for a whole image.

    Args:
        model: an IRBridge, whose networks are called.
        y: the degraded images, (B, 3 or 4, H, W) in [-1, 1], sides divisible by the model's stride.
        tiles: how they are cut.
        condition: of y as a whole, where it is known already.
    """

    def __init__(self, model: Restorer, y: Tensor, tiles: Tiles, condition: Condition | None):
        factor = model.backbone.factor
        self.model, self.y, self.tiles = model, y, tiles
        self.state = model.backbone.encode(y[:, :3], tiles)
        # y with the sides of its state, so that both are cut at the same places
        self.folded = F.pixel_unshuffle(y, factor) if factor > 1 else y
        whole = tiles.count(*y.shape[-2:], model.stride) == 1
        self.keeps = whole or tiles.keep
        self.known = {} if condition is None else {0: condition}  # by number of the batch of tiles
        self.cut = partial(tiles.of_states(factor), stride=model.stride // factor, numbered=True)

    def look(self, part: Tensor, state: Tensor, number: int) -> Condition:
        """What the adapter knows of a batch of tiles.

        Args:
            part: of the folded y.
            state: of y's state.
            number: of the batch of tiles.
        """
        if number in self.known:
            return self.known[number]
        if self.model.adapter.silent:
            return bare(part)
        factor = self.model.backbone.factor
        with self.model.networks():
            found = self.model.adapter.condition(
                F.pixel_shuffle(part, factor) if factor > 1 else part, state
            )
        if self.keeps:
            self.known[number] = found
        return found

    def end(self) -> Tensor:
        """The bridge's degraded end, a state: y's own, or the anchor."""
        if self.model.endpoint != "anchor":
            return self.state
        if not self.keeps or self.model.adapter.silent:
            return self.model.anchor(self.y, self.tiles)
        return self.cut(lambda *tile: self.model.end(self.look(*tile)), self.folded, self.state)

    def __call__(self, z: Tensor, tau: Tensor) -> Tensor:
        """The conditional clean estimate of a prior state z (B, C, H, W) at tau ()."""

        def denoised(z: Tensor, *tile) -> Tensor:
            return self.model.denoise(z, tau, self.look(*tile))

        return self.cut(denoised, z, self.folded, self.state)
