"""The U-Net of lucidrains' DDPM, which DiffUIR and RDBM train, for bridges from scratch.

Residual blocks with standardised weights, linear attention at every level and full attention in the
middle. DiffUIR's sizes L, B, S and T are channels [64, 128, 256, 512], [64, 128, 128, 256],
[32, 64, 64, 128] and [32, 32, 32, 32] (Zheng et al., CVPR 2024).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irbridge.adapters.nafnet import Output
from irbridge.backbones.half_precision import keep_ends
from irbridge.errors import UserError
from irbridge.images.arrays import pad

GROUPS = 8  # of its group normalisation
HEADS, HEAD = 4, 32  # attention heads, and the channels of one


def least(x: Tensor) -> float:
    """What is added to a variance before anything is divided by its root; as published."""
    return 1e-5 if x.dtype == torch.float32 else 1e-3


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose weights have mean 0 and std 1 per output channel (Qiao et al., 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.Conv2d``."""
        var, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        return self._conv_forward(x, (self.weight - mean) * (var + least(x)).rsqrt(), self.bias)


class ChannelNorm(nn.Module):
    """Normalisation over the channels of each pixel of (B, channels, H, W), with a gain alone."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x, (B, channels, H, W)."""
        var, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
        return (x - mean) * (var + least(x)).rsqrt() * self.gain


class ResBlock(nn.Module):
    """Two standardised convolutions, the first one scaled and shifted by the time.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        times: width of the time's embedding.
    """

    def __init__(self, inputs: int, outputs: int, times: int):
        super().__init__()
        self.modulation = nn.Linear(times, 2 * outputs)
        self.conv1 = StandardisedConv2d(inputs, outputs, 3, padding=1)
        self.norm1 = nn.GroupNorm(GROUPS, outputs)
        self.conv2 = StandardisedConv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, outputs, H, W) of x (B, inputs, H, W) and the time's embedding (B, times)."""
        scale, shift = self.modulation(F.silu(time))[..., None, None].chunk(2, dim=1)
        inner = F.silu(self.norm1(self.conv1(x)) * (1 + scale) + shift)
        return F.silu(self.norm2(self.conv2(inner))) + self.skip(x)


class Attention(nn.Module):
    """Attention between all pixels, added to what comes in.

    Args:
        channels: of input and output, (B, channels, H, W).
        linear: keys and values are summed up first, so that the cost grows with the pixels, not
            with their square (Shen et al., WACV 2021).
    """

    def __init__(self, channels: int, linear: bool):
        super().__init__()
        self.before = ChannelNorm(channels)
        self.split = nn.Conv2d(channels, 3 * HEADS * HEAD, 1, bias=False)
        self.join = nn.Conv2d(HEADS * HEAD, channels, 1)
        self.after = ChannelNorm(channels) if linear else nn.Identity()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """X with what it attends to, (B, channels, H, W)."""
        parts = self.split(self.before(x)).chunk(3, dim=1)
        # (B, heads, channels of one, pixels)
        query, key, value = (part.reshape(len(x), HEADS, HEAD, -1) for part in parts)
        if self.linear:
            found = linear_attention(query, key, value)
        else:
            query, key, value = (part.transpose(2, 3) for part in (query, key, value))
            found = F.scaled_dot_product_attention(query, key, value).transpose(2, 3)
        return x + self.after(self.join(found.reshape(len(x), -1, *x.shape[2:])))


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Queries' softmax over their channels, keys' over the pixels, values divided by their number.

    All are (B, heads, channels, pixels), and so is what they give.
    """
    query = query.softmax(2) * query.shape[2] ** -0.5
    context = key.softmax(3) @ value.transpose(2, 3) / value.shape[3]
    return context.transpose(2, 3) @ query


class Level(nn.Module):
    """Two residual blocks and linear attention, with a convolution to the next level behind.

    Args:
        inputs: channels that come in at each residual block.
        channels: of the level itself.
        times: width of the time's embedding.
        out: the convolution.
    """

    def __init__(self, inputs: int, channels: int, times: int, out: nn.Module):
        super().__init__()
        self.first = ResBlock(inputs, channels, times)
        self.second = ResBlock(inputs, channels, times)
        self.attention = Attention(channels, linear=True)
        self.out = out


class LucidUNet(nn.Module):
    """An image-to-image network on an image and a time.

    Args:
        channels: behind each level, finest first, multiples of 8; the first is also the stem's.
        inputs: channels of the image it takes.
        outputs: channels of the image it gives.

    Raises:
        UserError: a level's channels are no multiple of 8.
    """

    stride = 1  # it pads images itself, by reflection to 2 ** levels

    def __init__(self, channels: Sequence[int], inputs: int = 6, outputs: int = 3):
        super().__init__()
        if any(width % GROUPS for width in channels):
            raise UserError(
                f"adapter.channels={list(channels)} must be multiples of {GROUPS} with"
                " adapter.trunk=lucid, which normalises so many groups of them."
            )
        stem, last, times = channels[0], channels[-1], 4 * channels[0]
        pairs = list(zip([stem, *channels[:-1]], channels, strict=True))
        self.multiple = 2 ** len(channels)
        self.intro = nn.Conv2d(inputs, stem, 7, padding=3)
        self.time = nn.Sequential(nn.Linear(stem, times), nn.GELU(), nn.Linear(times, times))
        self.down = nn.ModuleList(
            Level(before, before, times, _shrink(before, after, index == len(pairs) - 1))
            for index, (before, after) in enumerate(pairs)
        )
        self.middle = nn.ModuleList(
            [ResBlock(last, last, times), Attention(last, False), ResBlock(last, last, times)]
        )
        self.up = nn.ModuleList(
            Level(before + after, after, times, _enlarge(after, before, index == 0))
            for index, (before, after) in reversed(list(enumerate(pairs)))
        )
        self.last = ResBlock(2 * stem, stem, times)
        self.ending = nn.Conv2d(stem, outputs, 1)
        keep_ends(self.intro, self.ending)

    def forward(self, image: Tensor, time: Tensor) -> Output:
        """The network's image.

        Args:
            image: (B, inputs, H, W), of any size.
            time: (B,), about 0 to 1000.

        Returns:
            The output, (B, outputs, H, W); it has no features for others.
        """
        height, width = image.shape[-2:]
        time = self.time(times_of(time, self.intro.out_channels).to(self.time[0].weight.dtype))
        x = stem = self.intro(pad(image, self.multiple))
        skips = []
        for level in self.down:
            x = level.first(x, time)
            skips.append(x)
            x = level.attention(level.second(x, time))
            skips.append(x)
            x = level.out(x)
        before, attention, after = self.middle
        x = after(attention(before(x, time)), time)
        for level in self.up:
            x = level.first(torch.cat([x, skips.pop()], dim=1), time)
            x = level.second(torch.cat([x, skips.pop()], dim=1), time)
            x = level.out(level.attention(x))
        x = self.last(torch.cat([x, stem], dim=1), time)
        return Output(self.ending(x)[..., :height, :width], {})


def _shrink(inputs: int, outputs: int, last: bool) -> nn.Module:
    """To half the size; at the last level to other channels alone."""
    if last:
        return nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)


def _enlarge(inputs: int, outputs: int, finest: bool) -> nn.Module:
    """To twice the size; at the finest level to other channels alone."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    return convolution if finest else nn.Sequential(nn.Upsample(scale_factor=2), convolution)


def times_of(time: Tensor, width: int) -> Tensor:
    """Sines and cosines of times (B,) as (B, width), with periods from 2 pi to 2 pi 10^4."""
    half = width // 2
    steps = torch.arange(half, device=time.device, dtype=torch.float64) / (half - 1)
    angles = time.double()[:, None] * torch.exp(-math.log(1e4) * steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
