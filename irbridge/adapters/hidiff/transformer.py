"""HI-Diff's Transformer: a Restormer that tokens of the whole image steer at each size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irbridge.adapters.hidiff.blocks import Level
from irbridge.backbones.half_precision import FullConv2d


class Shorten(nn.Module):
    """Fewer tokens from many: a layer over the tokens, then one over what each holds.

    Args:
        tokens: that come in.
        fewer: that go out.
        width: of a token.
    """

    def __init__(self, tokens: int, fewer: int, width: int):
        super().__init__()
        self.tokens, self.channels = nn.Linear(tokens, fewer), nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        """Tokens (B, fewer, width) of z (B, tokens, width)."""
        return self.channels(self.tokens(z.transpose(1, 2)).transpose(1, 2))


class Transformer(nn.Module):
    """A degraded image and its tokens to the restored image.

    The finest level sees all tokens, those between a quarter of them, and the coarsest, where no
    integration is, is modulated by one: so the released code (the paper's figure draws an
    integration there too).

    Args:
        width: channels at full size, doubled at each halving.
        blocks: per level, finest first; at least two levels.
        heads: per level.
        refinement: blocks at full size behind the decoder.
        expansion: of the gated layers.
        token: width of a token.
        tokens: their number, a square's that divides by 4.
    """

    def __init__(
        self,
        width: int = 48,
        blocks: list[int] = (3, 5, 6, 6),
        heads: list[int] = (1, 2, 4, 8),
        refinement: int = 4,
        expansion: float = 2.66,
        token: int = 256,
        tokens: int = 16,
    ):
        super().__init__()
        *above, bottom = range(len(blocks))
        sizes = [width * 2**i for i in range(len(blocks))]

        def level(i: int, channels: int, count: int, modulated: bool = False) -> Level:
            return Level(channels, count, heads[i], expansion, token, modulated)

        self.shorten = nn.ModuleList(
            [Shorten(tokens, tokens // 4, token), Shorten(tokens // 4, 1, token)]
        )
        self.stem = FullConv2d(3, width, 3, padding=1, bias=False)
        self.encoder = nn.ModuleList(level(i, sizes[i], blocks[i]) for i in above)
        self.down = nn.ModuleList(
            nn.Conv2d(sizes[i], sizes[i] // 2, 3, padding=1, bias=False) for i in above
        )
        self.bottom = level(bottom, sizes[bottom], blocks[bottom], modulated=True)
        self.up = nn.ModuleList(
            nn.Conv2d(sizes[i + 1], 2 * sizes[i + 1], 3, padding=1, bias=False) for i in above
        )
        # at full size both halves stay, unmixed
        self.fuse = nn.ModuleList(
            nn.Conv2d(2 * sizes[i], sizes[i], 1, bias=False) if i else nn.Identity() for i in above
        )
        joined = [2 * width, *sizes[1:]]
        self.decoder = nn.ModuleList(level(i, joined[i], blocks[i]) for i in above)
        self.refinement = level(0, joined[0], refinement)
        self.output = FullConv2d(joined[0], 3, 3, padding=1, bias=False)

    def scales(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens (B, N, token) at three scales: all, a quarter of them, and one (B, token)."""
        fewer = self.shorten[0](z)
        return z, fewer, self.shorten[1](fewer).flatten(1)

    def forward(self, image: Tensor, z: Tensor) -> Tensor:
        """The restored image.

        Args:
            image: (B, 3, H, W) in [0, 1], sides divisible by 2 for each halving.
            z: the tokens, (B, N, token).

        Returns:
            (B, 3, H, W), float32 or as wide as the image, whatever is computed within.
        """
        fine, fewer, one = self.scales(z)
        x, skips = self.stem(image), []
        for i, (level, down) in enumerate(zip(self.encoder, self.down, strict=True)):
            x = level(x, fewer if i else fine)
            skips.append(x)
            x = F.pixel_unshuffle(down(x), 2)
        x = self.bottom(x, one)
        for i in reversed(range(len(skips))):
            x = torch.cat([F.pixel_shuffle(self.up[i](x), 2), skips[i]], dim=1)
            x = self.decoder[i](self.fuse[i](x), fewer if i else fine)
        return self.output(self.refinement(x, fine)) + image
