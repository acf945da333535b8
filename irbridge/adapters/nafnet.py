"""NAFNet, a light network for restoration without activation functions (Chen et al., ECCV 2022).

Nothing in it looks at the whole image: it normalises each pixel alone, and its channel attention,
where it is turned on, averages over a window of fixed size. So a tile gives what the whole image
gives, but for a border as wide as its reach.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irbridge.backbones.half_precision import FullConv2d

# image pixels a side of the channel attention's average; the crops of training are about as large
WINDOW = 64


class Output(NamedTuple):
    """What a network gives.

    Args:
        sample: its image, named as in diffusers.
        features: of its decoder, by their stride.
    """

    sample: Tensor
    features: dict[int, Tensor]


class PixelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x, (B, C, H, W)."""
        # no copy where memory is channels last
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def gate(x: Tensor) -> Tensor:
    """The product of the two halves of the channels, the network's only nonlinearity."""
    first, second = x.chunk(2, dim=1)
    return first * second


class Block(nn.Module):
    """A gated depth-wise part and a gated point-wise part, each added to what comes in.

    Both are multiplied by a factor that is 0 at initialisation.

    Args:
        channels: of input and output, (B, channels, H, W).
        window: side of the channel attention's average in pixels of this block; None: no attention.
        times: width of a time's embedding that scales and shifts what is normalised (Luo et al.,
            CVPRW 2023); None: no time.
    """

    def __init__(self, channels: int, window: int | None = None, times: int | None = None):
        super().__init__()
        self.norm1, self.norm2 = PixelNorm(channels, 1e-6), PixelNorm(channels, 1e-6)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.project = nn.Conv2d(channels, channels, 1)
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.contract = nn.Conv2d(channels, channels, 1)
        self.scale1, self.scale2 = (nn.Parameter(torch.zeros(channels, 1, 1)) for _ in range(2))
        self.window, self.attention = window, nn.Conv2d(channels, channels, 1) if window else None
        self.modulation = nn.Linear(times, 4 * channels) if times else None
        if times:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """X (B, channels, H, W) with both parts added; time: its embedding, (B, times)."""
        inner, modulation = self.norm1(x), None
        if self.modulation is not None:
            modulation = self.modulation(time)[..., None, None].chunk(4, dim=1)
            inner = inner * (1 + modulation[0]) + modulation[1]
        inner = gate(self.depthwise(self.widen(inner)))
        if self.attention is not None:
            inner = inner * self.attention(local_mean(inner, self.window))
        x = x + scaled(self.project, self.scale1, inner)
        inner = self.norm2(x)
        if modulation is not None:
            inner = inner * (1 + modulation[2]) + modulation[3]
        return x + scaled(self.contract, self.scale2, gate(self.expand(inner)))


def scaled(point: nn.Conv2d, scale: Tensor, x: Tensor) -> Tensor:
    """``scale * point(x)`` of a 1 x 1 convolution.

    The scale is taken into the few weights instead of the many pixels.
    """
    return F.conv2d(x, point.weight * scale[..., None], point.bias * scale.flatten())


def local_mean(x: Tensor, window: int) -> Tensor:
    """The mean over a window around each pixel, cut at the image's border.

    So a network sees the statistics that it was trained on: one that averaged over its crops would
    see others of whole images (Chu et al., ECCV 2022).

    Args:
        x: (B, C, H, W).
        window: side in pixels.

    Returns:
        (B, C, H, W); (B, C, 1, 1) where the window spans the whole image.
    """
    height, width = x.shape[-2:]
    if window >= max(height, width):
        return x.mean((2, 3), keepdim=True)
    sums = x.float()
    for axis, side in ((-2, height), (-1, width)):
        reach = min(window, side) // 2
        total = F.pad(sums.cumsum(axis), (1, 0) if axis == -1 else (0, 0, 1, 0))
        at = torch.arange(side, device=x.device)
        low, high = (at - reach).clamp(min=0), (at + reach + 1).clamp(max=side)
        shape = (-1, 1) if axis == -2 else (-1,)
        sums = (total.index_select(axis, high) - total.index_select(axis, low)) / (
            high - low
        ).reshape(shape)
    return sums.to(x.dtype)


class NAFNet(nn.Module):
    """An image-to-image network whose output is 0 at initialisation.

    Args:
        inputs: channels of the image it takes.
        outputs: channels of the image it gives.
        width: channels at full size, doubled at each halving.
        encoder: blocks per level, finest first.
        middle: blocks at the coarsest size.
        decoder: blocks per level, finest first.
        attention: simplified channel attention, averaged over ``WINDOW`` image pixels a side.
        timed: it takes a time as well, for bridge networks.
    """

    def __init__(
        self,
        inputs: int = 3,
        outputs: int = 3,
        width: int = 24,
        encoder: list[int] = (1, 1, 1, 2),
        middle: int = 2,
        decoder: list[int] = (1, 1, 1, 1),
        attention: bool = False,
        timed: bool = False,
    ):
        super().__init__()
        levels = range(len(encoder))
        self.width, self.stride = width, 2 ** len(encoder)
        times = 4 * width if timed else None

        def blocks(level: int, count: int) -> nn.ModuleList:
            window = max(1, WINDOW // 2**level) if attention else None
            return nn.ModuleList(Block(width * 2**level, window, times) for _ in range(count))

        self.intro = FullConv2d(inputs, width, 3, padding=1)
        self.encoder = nn.ModuleList(blocks(level, encoder[level]) for level in levels)
        self.down = nn.ModuleList(
            nn.Conv2d(width * 2**i, width * 2 ** (i + 1), 2, stride=2) for i in levels
        )
        self.middle = blocks(len(encoder), middle)
        self.up = nn.ModuleList(
            nn.Conv2d(width * 2 ** (i + 1), width * 2 ** (i + 2), 1, bias=False) for i in levels
        )
        self.decoder = nn.ModuleList(blocks(level, decoder[level]) for level in levels)
        self.ending = nn.Conv2d(width, outputs, 3, padding=1)
        nn.init.zeros_(self.ending.weight)
        nn.init.zeros_(self.ending.bias)
        self.time = (
            nn.Sequential(nn.Linear(width, times), nn.SiLU(), nn.Linear(times, times))
            if timed
            else None
        )

    @property
    def reach(self) -> int | None:
        """How far from a tile's edge, in pixels, the output differs from the whole image's.

        None: everywhere, as attention averages widely.
        """
        blocks = (module for module in self.modules() if isinstance(module, Block))
        if any(block.attention is not None for block in blocks):
            return None
        depth = 1  # of the first convolution; each block adds one pixel of its own level
        for blocks in self.encoder:
            depth = -(-(depth + len(blocks)) // 2)
        depth += len(self.middle)
        for blocks in reversed(self.decoder):
            depth = 2 * depth + len(blocks)
        return depth + 1

    def forward(self, image: Tensor, time: Tensor | None = None) -> Output:
        """The network's image and features.

        Args:
            image: (B, inputs, H, W), sides divisible by ``stride``.
            time: of a timed network, (B,), about 0 to 1000.

        Returns:
            The output (B, outputs, H, W), float32, and the features, coarsest first.
        """
        embedding = None if self.time is None else self.time(sinusoidal(time, self.width))
        x, skips = self.intro(image), []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            for block in blocks:
                x = block(x, embedding)
            skips.append(x)
            x = down(x).float()
        for block in self.middle:
            x = block(x, embedding)
        features, stride = {self.stride: x}, self.stride
        for up, blocks in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x = skips.pop() + F.pixel_shuffle(up(x), 2)
            for block in blocks:
                x = block(x, embedding)
            stride //= 2
            features[stride] = x
        return Output(self.output(x), features)

    def output(self, features: Tensor) -> Tensor:
        """The output of the finest features, in float32 whatever came before.

        bfloat16 has 8 bits, as many as the image.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self.ending(features.float())


def sinusoidal(time: Tensor, width: int) -> Tensor:
    """Sines and cosines of times (B,) as (B, width) (Vaswani et al., 2017).

    Their periods go from 2 pi to 2 pi 10^4.
    """
    rates = torch.exp(-math.log(1e4) * torch.arange(width // 2, device=time.device) / (width // 2))
    angles = time.float()[:, None] * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))
