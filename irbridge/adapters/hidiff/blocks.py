"""What HI-Diff's Transformer is made of: Restormer's blocks, and the modules that tokens enter by.

Restormer is Zamir et al., CVPR 2022. Attention here is between channels, over all pixels of what is
given: a tile of an image has other statistics than the whole.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irbridge.adapters.nafnet import PixelNorm


class Modulation(nn.Module):
    """``x * (W1 z) + W2 z``: the channels of x scaled and shifted by what is in one token.

    Nothing is added to the factor, as the released code has it: a token of zeros with biases of
    zero gives zeros.

    Args:
        channels: of x.
        token: width of z.
    """

    def __init__(self, channels: int, token: int):
        super().__init__()
        self.scale, self.shift = nn.Linear(token, channels), nn.Linear(token, channels)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """X (B, channels, H, W) as the token z (B, token) has it."""
        return x * self.scale(z)[..., None, None] + self.shift(z)[..., None, None]


class ChannelAttention(nn.Module):
    """Attention between channels, each of which is compared over all pixels (MDTA).

    Args:
        channels: of input and output.
        heads: groups of channels that attend among themselves.
        token: width of the token that modulates what comes in; None: none does.
    """

    def __init__(self, channels: int, heads: int, token: int | None = None):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.widen = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.depthwise = nn.Conv2d(
            3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False
        )
        self.project = nn.Conv2d(channels, channels, 1, bias=False)
        self.modulation = Modulation(channels, token) if token else None

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """What the channels of x (B, C, H, W) take from one another; z: the token, (B, token)."""
        if self.modulation is not None:
            x = self.modulation(x, z)
        batch, channels, height, width = x.shape
        three = self.depthwise(self.widen(x)).chunk(3, dim=1)
        shape = batch, self.heads, channels // self.heads, height * width
        query, key, value = (part.reshape(shape) for part in three)
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        alike = (query @ key.transpose(-2, -1)) * self.temperature
        return self.project((alike.softmax(dim=-1) @ value).reshape(x.shape))


class GatedFeedForward(nn.Module):
    """A depth-wise layer whose one half of channels gates the other (GDFN).

    Args:
        channels: of input and output.
        expansion: how much wider the layer within is.
        token: as of :class:`ChannelAttention`.
    """

    def __init__(self, channels: int, expansion: float, token: int | None = None):
        super().__init__()
        within = int(channels * expansion)
        self.widen = nn.Conv2d(channels, 2 * within, 1, bias=False)
        self.depthwise = nn.Conv2d(
            2 * within, 2 * within, 3, padding=1, groups=2 * within, bias=False
        )
        self.project = nn.Conv2d(within, channels, 1, bias=False)
        self.modulation = Modulation(channels, token) if token else None

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """The layer of x (B, C, H, W); z: the token, (B, token)."""
        if self.modulation is not None:
            x = self.modulation(x, z)
        gate, value = self.depthwise(self.widen(x)).chunk(2, dim=1)
        return self.project(F.gelu(gate) * value)


class Block(nn.Module):
    """Attention between channels and a gated layer, each added to what comes in.

    Args:
        channels: of input and output.
        heads: of the attention.
        expansion: of the gated layer.
        token: width of the token that modulates both; None: none does.
    """

    def __init__(self, channels: int, heads: int, expansion: float, token: int | None = None):
        super().__init__()
        self.norm1, self.norm2 = PixelNorm(channels), PixelNorm(channels)
        self.attention = ChannelAttention(channels, heads, token)
        self.feedforward = GatedFeedForward(channels, expansion, token)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """X (B, C, H, W) with both added; z: the token, (B, token), where one modulates."""
        x = x + self.attention(self.norm1(x), z)
        return x + self.feedforward(self.norm2(x), z)


class Integration(nn.Module):
    """Cross-attention by which each pixel takes what it needs of the tokens (HIM).

    Args:
        channels: of the image.
        heads: of the attention.
        token: width of the tokens.
    """

    def __init__(self, channels: int, heads: int, token: int):
        super().__init__()
        self.heads = heads
        self.norm, self.token_norm = PixelNorm(channels), nn.LayerNorm(token)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(token, 2 * channels, bias=False)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """X (B, C, H, W) with what its pixels take of the tokens (B, N, token) added."""

        def by_head(rows: Tensor) -> Tensor:
            return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query = self.query(self.norm(x).flatten(2).transpose(1, 2))
        key, value = self.key_value(self.token_norm(tokens)).chunk(2, dim=-1)
        taken = F.scaled_dot_product_attention(by_head(query), by_head(key), by_head(value))
        rows = self.project(taken.transpose(1, 2).flatten(2))
        return x + rows.transpose(1, 2).reshape(x.shape)


class Level(nn.Module):
    """The blocks of one size, behind the integration of the tokens.

    Args:
        channels: of input and output.
        blocks: their number.
        heads: of every attention.
        expansion: of the blocks.
        token: width of the tokens.
        modulated: a single token modulates each block, instead of tokens that are integrated
            first: so at the coarsest size.
    """

    def __init__(
        self,
        channels: int,
        blocks: int,
        heads: int,
        expansion: float,
        token: int,
        modulated: bool = False,
    ):
        super().__init__()
        self.integration = None if modulated else Integration(channels, heads, token)
        within = token if modulated else None
        self.blocks = nn.ModuleList(
            Block(channels, heads, expansion, within) for _ in range(blocks)
        )
        self.gradient_checkpointing = False  # turned on by the trainer, as in diffusers

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """X (B, C, H, W) behind the blocks; z: tokens (B, N, token), or the single one."""
        if self.integration is None:
            within = z
        else:
            x, within = self.integration(x, z), None
        for block in self.blocks:
            if self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, x, within)
            else:
                x = block(x, within)
        return x
