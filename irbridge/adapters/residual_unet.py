"""SR3's residual U-Net without normalisation and attention (Whang et al., CVPR 2022).

It is fully convolutional: moving an image by ``stride`` pixels moves what it gives, and a tile
gives what the whole image gives, but for a border as wide as its reach.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irbridge.adapters.nafnet import Output, sinusoidal
from irbridge.backbones.half_precision import keep_ends

MIDDLE = 2  # residual blocks at the coarsest size


def shrunk(x: Tensor) -> Tensor:
    """(B, C, H, W) at half the size, by averages."""
    return F.avg_pool2d(x, 2)


def enlarged(x: Tensor) -> Tensor:
    """(B, C, H, W) at twice the size, each pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class ResBlock(nn.Module):
    """Two convolutions added to what comes in, as of BigGAN but without its normalisation.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        times: width of the noise level's embedding; None: no level.
        resample: changes the size of what comes in, :func:`shrunk` or :func:`enlarged`.
    """

    def __init__(self, inputs: int, outputs: int, times: int | None = None, resample=None):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.level = nn.Linear(times, outputs) if times else None
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.resample = resample

    def forward(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        """(B, outputs, H', W') of x (B, inputs, H, W) and the level's embedding (B, times)."""
        inner = F.silu(x)
        if self.resample is not None:
            x, inner = self.resample(x), self.resample(inner)
        inner = self.conv1(inner)
        if self.level is not None:
            inner = inner + self.level(level)[..., None, None]
        return self.conv2(F.silu(inner)) + self.skip(x)


class ResidualUNet(nn.Module):
    """An image-to-image network whose output is 0 at initialisation.

    The published sizes are channels [64, 128, 192, 256] (the predictor) and [32, 64, 96, 128] (the
    denoiser) with 3 layers.

    Args:
        channels: width per level, finest first.
        layers: residual blocks per level on the way down; one more on the way up.
        inputs: channels of the image it takes.
        outputs: channels of the image it gives.
        timed: it takes a noise level as well.
    """

    def __init__(
        self,
        channels: Sequence[int],
        layers: int = 3,
        inputs: int = 3,
        outputs: int = 3,
        timed: bool = False,
    ):
        super().__init__()
        self.channels, self.layers = list(channels), layers
        self.stride = 2 ** (len(channels) - 1)
        finest = channels[0]
        times = finest if timed else None
        self.embed = None
        if timed:
            self.embed = nn.Sequential(
                nn.Linear(finest, 4 * finest), nn.SiLU(), nn.Linear(4 * finest, finest)
            )
        self.intro = nn.Conv2d(inputs, finest, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.enlarge = nn.ModuleList(), nn.ModuleList()
        now, skips = finest, [finest]
        for level, own in enumerate(channels):
            if level:
                self.shrink.append(ResBlock(now, now, times, shrunk))
                skips.append(now)
            blocks = nn.ModuleList(
                ResBlock(now if i == 0 else own, own, times) for i in range(layers)
            )
            self.down.append(blocks)
            now = own
            skips += [own] * layers
        self.middle = nn.ModuleList(ResBlock(now, now, times) for _ in range(MIDDLE))
        for level in reversed(range(len(channels))):
            own, blocks = channels[level], nn.ModuleList()
            for _ in range(layers + 1):
                blocks.append(ResBlock(now + skips.pop(), own, times))
                now = own
            self.up.append(blocks)
            if level:
                self.enlarge.append(ResBlock(now, now, times, enlarged))
        self.ending = nn.Conv2d(finest, outputs, 3, padding=1)
        nn.init.zeros_(self.ending.weight)
        nn.init.zeros_(self.ending.bias)
        keep_ends(self.intro, self.ending)

    @property
    def reach(self) -> int:
        """How far from a tile's edge, in pixels, the output differs from the whole image's."""
        depth = 1  # of the first convolution; each block adds two pixels of its own level
        for level in range(len(self.channels)):
            if level:
                depth = -(-depth // 2) + 2
            depth += 2 * self.layers
        depth += 2 * MIDDLE
        for level in range(len(self.channels)):
            if level:
                depth = 2 * depth + 2
            depth += 2 * (self.layers + 1)
        return depth + 1

    def forward(self, image: Tensor, time: Tensor | None = None) -> Output:
        """The network's image and features.

        Args:
            image: (B, inputs, H, W), sides divisible by ``stride``.
            time: of a timed network, (B,), about 0 to 1000.

        Returns:
            The output (B, outputs, H, W), and the features by stride, coarsest first.
        """
        level = None
        if self.embed is not None:
            angles = sinusoidal(time, self.channels[0])
            level = self.embed(angles.to(self.embed[0].weight.dtype))
        x = self.intro(image)
        skips, features, stride = [x], {}, self.stride
        for index, blocks in enumerate(self.down):
            if index:
                x = self.shrink[index - 1](x, level)
                skips.append(x)
            for block in blocks:
                x = block(x, level)
                skips.append(x)
        for block in self.middle:
            x = block(x, level)
        for index, blocks in enumerate(self.up):
            for block in blocks:
                x = block(torch.cat([x, skips.pop()], dim=1), level)
            features[stride] = x
            stride //= 2
            if index < len(self.enlarge):
                x = self.enlarge[index](x, level)
        return Output(self.ending(F.silu(x)), features)
