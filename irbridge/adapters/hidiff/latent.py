"""HI-Diff's small networks: what makes tokens of images, and what makes tokens of noise."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irbridge.images.tiles import WHOLE, Tiles

FOLD = 4  # pixels a side that are folded into channels first


class Mixer(nn.Module):
    """A layer between tokens and one within each, both added to what comes in (MLP-Mixer).

    Args:
        tokens: their number.
        width: of a token.
        token_expansion: how wide the layer between tokens is within, as a share of their number.
        channel_expansion: likewise of the layer within each.
    """

    def __init__(self, tokens: int, width: int, token_expansion: float, channel_expansion: int):
        super().__init__()

        def layers(ends: int, within: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(ends, within), nn.GELU(), nn.Linear(within, ends))

        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = layers(tokens, int(tokens * token_expansion))
        self.channels = layers(width, width * channel_expansion)

    def forward(self, z: Tensor) -> Tensor:
        """Z (B, tokens, width) with both added."""
        z = z + self.tokens(self.norm1(z).transpose(1, 2)).transpose(1, 2)
        return z + self.channels(self.norm2(z))


class LatentEncoder(nn.Module):
    """An image, or the sharp and the blurred one, as a grid of tokens whatever its size.

    Convolutions see 4 x 4 pixels as one; their mean over each cell of the grid is a token. Cells
    lie in the whole image, so a tile has other tokens.

    Args:
        inputs: channels of the image; 6: the sharp one's, then the blurred one's.
        width: of the convolutions; tokens have four times that.
        blocks: pairs of convolutions, each added to what comes in.
        grid: cells a side.
        leaky: of the RealBlur variant: leaky ReLUs, and convolutions at the end that widen.
    """

    def __init__(
        self, inputs: int, width: int = 64, blocks: int = 6, grid: int = 4, leaky: bool = False
    ):
        super().__init__()

        def conv(before: int, after: int) -> nn.Conv2d:
            return nn.Conv2d(before, after, 3, padding=1)

        def active() -> nn.Module:
            return nn.LeakyReLU(0.1) if leaky else nn.GELU()

        def pair() -> nn.Sequential:
            return nn.Sequential(conv(width, width), active(), conv(width, width))

        tail = [conv(width, width)]
        if leaky:
            tail = [conv(width, 2 * width), active(), conv(2 * width, 2 * width), active()]
            tail += [conv(2 * width, 4 * width), active()]
        seen = 4 * width if leaky else width
        self.grid = grid
        self.stem = nn.Sequential(conv(inputs * FOLD**2, width), active())
        self.blocks = nn.ModuleList(pair() for _ in range(blocks))
        self.tail = nn.Sequential(*tail)
        self.mixer = Mixer(grid**2, seen, 0.5, 4)
        self.head = nn.Sequential(nn.Linear(seen, 4 * width), active())

    @property
    def reach(self) -> int:
        """How far a feature sees, in folded pixels: each convolution adds one."""
        return sum(isinstance(module, nn.Conv2d) for module in self.modules())

    def features(self, folded: Tensor) -> Tensor:
        """What the convolutions make of a folded image, (B, width, H / 4, W / 4)."""
        x = self.stem(folded)
        for block in self.blocks:
            x = x + block(x)
        return self.tail(x)

    def forward(self, image: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """The tokens of an image.

        Args:
            image: (B, inputs, H, W) in [0, 1], sides divisible by 4.
            tiles: what the convolutions compute at once. The tokens are the same, as their mean is
                that of the whole image all the same.

        Returns:
            (B, grid x grid, 4 width).
        """
        folded = F.pixel_unshuffle(image, FOLD)
        cut = tiles.of_states(FOLD).reaching(self.reach)
        features = cut(self.features, folded, stride=1)
        cells = F.adaptive_avg_pool2d(features, self.grid)
        return self.head(self.mixer(cells.flatten(2).transpose(1, 2)))


class TokenDenoiser(nn.Module):
    """The noise in tokens, of the GoPro variant.

    Args:
        token: width of a token.
        tokens: their number.
        width: of the layers within.
        blocks: mixers.
    """

    def __init__(self, token: int = 256, tokens: int = 16, width: int = 512, blocks: int = 2):
        super().__init__()
        self.time_scale = nn.Parameter(torch.full((1,), 1e-3))
        self.first = nn.Linear(3 * token, width)
        self.mixers = nn.ModuleList(Mixer(tokens, width, 0.5, 2) for _ in range(blocks))
        self.last = nn.Linear(width, token)

    def forward(self, z: Tensor, step: int, condition: Tensor) -> Tensor:
        """The noise in z (B, N, token) at a step, 1 to T; condition: y's tokens, alike."""
        time = torch.full_like(z, step) * self.time_scale
        x = F.leaky_relu(self.first(torch.cat([z, time, condition], dim=-1)), 0.2)
        for mixer in self.mixers:
            x = F.gelu(mixer(x))
        return F.gelu(self.last(x))


class PlainDenoiser(nn.Module):
    """The clean tokens, of the RealBlur variant: layers within each token alone.

    Args:
        token: width of a token.
        blocks: layers behind the first.
    """

    def __init__(self, token: int = 256, blocks: int = 4):
        super().__init__()
        self.first = nn.Linear(2 * token + 1, token)
        self.layers = nn.ModuleList(nn.Linear(token, token) for _ in range(blocks))

    def forward(self, z: Tensor, step: int, condition: Tensor) -> Tensor:
        """Clean tokens of z (B, N, token) at a step, 1 to T; condition: y's tokens, alike."""
        # as published: steps counted from 0, and by 50 whatever T is
        time = torch.full_like(z[..., :1], (step - 1) / 50)
        x = F.leaky_relu(self.first(torch.cat([condition, time, z], dim=-1)), 0.1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
        return x
