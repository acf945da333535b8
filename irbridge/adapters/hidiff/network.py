"""HI-Diff as one network: the Transformer, and what makes its tokens."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from irbridge.adapters.hidiff.diffusion import TokenDiffusion
from irbridge.adapters.hidiff.latent import LatentEncoder, PlainDenoiser, TokenDenoiser
from irbridge.adapters.hidiff.transformer import Transformer
from irbridge.errors import UserError
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.ranges import Options, each, number, one_of, option, whole

GRID = 4  # cells a side that an image is summarised in, each by a token
WIDE = whole(1, 1024)
LAYERS = whole(1, 64)


@dataclass
class HIDiffOptions(Options):
    """The sizes of a HI-Diff network; those of the GoPro model where nothing is said.

    Attributes:
        variant: gopro or realblur, which differ in activations, schedule and the denoiser's head.
        width: channels at full size.
        blocks: of each level, finest first.
        heads: of each level.
        refinement: blocks at full size behind the decoder.
        expansion: of the gated layers.
        tokens: width of the latent encoders; a token has four times that.
        encoder_blocks: of the latent encoders.
        denoiser_width: of the gopro variant's denoiser.
        denoiser_blocks: of the denoiser.
        steps: of the diffusion.
        diffusion: false: one pass of the denoiser, from the blurred image's tokens, without noise.
    """

    KEY: ClassVar[str] = "hidiff"

    variant: str = option("gopro", one_of("gopro", "realblur"))
    width: int = option(48, whole(2, 1024))
    blocks: list[int] = option([3, 5, 6, 6], each(LAYERS))
    heads: list[int] = option([1, 2, 4, 8], each(WIDE))
    refinement: int = option(4, LAYERS)
    expansion: float = option(2.66, number(lambda v: 0 < v <= 16, "above 0 and at most 16"))
    tokens: int = option(64, WIDE)
    encoder_blocks: int = option(6, LAYERS)
    denoiser_width: int = option(512, WIDE)
    denoiser_blocks: int = option(2, LAYERS)
    steps: int = option(8, whole(2, 1000))
    diffusion: bool = True

    def __post_init__(self):
        super().__post_init__()
        levels = len(self.blocks)
        # the network takes images whose sides divide by 8
        if len(self.heads) != levels or not 2 <= levels <= 4:
            raise UserError(
                f"hidiff.blocks={self.blocks} and hidiff.heads={self.heads} must be lists of as"
                " many levels, 2 to 4."
            )
        if self.width % 2:
            raise UserError(f"hidiff.width={self.width} must be even, as levels halve it.")
        for i, heads in enumerate(self.heads):
            if self.width * 2**i % heads:
                raise UserError(
                    f"hidiff.heads={self.heads} must divide the channels of their levels, from"
                    f" hidiff.width={self.width} on; {heads} does not divide {self.width * 2**i}."
                )

    @property
    def gopro(self) -> bool:
        """Whether this is the GoPro variant."""
        return self.variant == "gopro"

    def encoder(self, inputs: int) -> LatentEncoder:
        """A latent encoder of so many channels."""
        return LatentEncoder(inputs, self.tokens, self.encoder_blocks, GRID, leaky=not self.gopro)

    def denoiser(self) -> nn.Module:
        """The denoiser of tokens."""
        token, blocks = 4 * self.tokens, self.denoiser_blocks
        if self.gopro:
            return TokenDenoiser(token, GRID**2, self.denoiser_width, blocks)
        return PlainDenoiser(token, blocks)


class HIDiffNetwork(nn.Module):
    """The Transformer with what makes its tokens in one of the two stages.

    In stage 1 an encoder sees the sharp image beside the blurred one. In stage 2 another sees the
    blurred one alone, and a diffusion makes of that what the first would have given; without the
    diffusion, one pass of its denoiser does, so that both have the same parameters.

    Images are in [0, 1] here, as published.

    Args:
        options: the sizes.
        stage: 1 or 2.
    """

    def __init__(self, options: HIDiffOptions, stage: int):
        super().__init__()
        self.stage = stage
        self.shape = GRID**2, 4 * options.tokens  # of the tokens
        self.transformer = Transformer(
            options.width,
            options.blocks,
            options.heads,
            options.refinement,
            options.expansion,
            self.shape[1],
            self.shape[0],
        )
        self.encoder = options.encoder(6 if stage == 1 else 3)
        self.denoiser = options.denoiser() if stage == 2 else None
        self.diffusion = TokenDiffusion(options.steps, options.gopro)
        self.diffuses = options.diffusion

    def tokens(self, seen: Tensor, start: Tensor | None = None, tiles: Tiles = WHOLE) -> Tensor:
        """The tokens that steer the Transformer, in float32 whatever comes after.

        Args:
            seen: what the encoder sees of the whole image, (B, 3 or 6, H, W).
            start: of stage 2, tokens at the diffusion's last step, (B, N, C).
            tiles: see :class:`~irbridge.adapters.hidiff.latent.LatentEncoder`.

        Returns:
            (B, N, C).
        """
        with torch.autocast(seen.device.type, enabled=False):
            z = self.encoder(seen, tiles)
            if self.denoiser is None:
                return z
            if not self.diffuses:
                return self.denoiser(z, 1, z)
            return list(self.diffusion.walk(self.denoiser, start, z))[-1]

    def forward(
        self, image: Tensor, sharp: Tensor | None = None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The restored image and the tokens that steered it.

        Args:
            image: the blurred one, (B, 3, H, W), sides divisible by 8.
            sharp: of stage 1, alike; None: the blurred one is taken for it.
            start: of stage 2, see :meth:`tokens`; None: zeros.
        """
        seen = image
        if self.stage == 1:
            seen = torch.cat([image if sharp is None else sharp, image], dim=1)
        if start is None:
            start = image.new_zeros(len(image), *self.shape)
        z = self.tokens(seen, start)
        return self.transformer(image, z), z
