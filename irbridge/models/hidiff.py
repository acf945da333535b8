"""HI-Diff: regression steered by tokens that a diffusion makes (Chen et al., NeurIPS 2023)."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from irbridge.adapters.hidiff.network import HIDiffNetwork, HIDiffOptions
from irbridge.errors import UserError
from irbridge.gaussian.noise import Noise
from irbridge.images.arrays import to_tensor
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.perceptual import perceptual
from irbridge.models.restorer import Restorer, Row, State
from irbridge.models.training_step import Batch, TrainingStep

ORACLE = "HI-Diff stage 1, oracle (sees the clean image)"


class HIDiff(Restorer):
    """A Transformer and the 16 tokens of the whole image that steer it.

    Stage 1 trains it with an encoder that sees the clean image too: an oracle, of use for stage 2
    alone. There that encoder is frozen, and all else learns at once to restore, and to give its
    tokens, through every step of the diffusion.

    Args:
        options: the sizes.
        stage: 1 or 2.
        lpips: weight of the LPIPS beside the L1 error.
        first: the trained model of stage 1, from which stage 2 begins; None: of a finished one,
            which restores alone.
    """

    stride = 8
    masked = False

    def __init__(
        self,
        options: HIDiffOptions,
        stage: int = 2,
        lpips: float = 0.0,
        first: "HIDiff | None" = None,
    ):
        super().__init__()
        self.options, self.stage, self.lpips = options, stage, lpips
        self.network = HIDiffNetwork(options, stage)
        self.sees_clean = stage == 1
        self.steps = options.steps if stage == 2 and options.diffusion else 1
        self.teacher: nn.Module | None = None
        if first is not None:
            self.network.transformer.load_state_dict(first.network.transformer.state_dict())
            self.teacher = first.network.encoder.eval().requires_grad_(False)

    @override
    def trainable(self) -> nn.Module:
        return self.network

    @override
    def parts(self) -> dict[str, nn.Module]:
        frozen = {} if self.teacher is None else {"frozen": self.teacher}
        return {"trainable": self.network, **frozen}

    @override
    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.network.shape

    @override
    def rows(self, **options) -> list[Row]:
        if self.stage == 1:
            return [Row(ORACLE, "hidiff_oracle", {})]
        return [Row("HI-Diff", "hidiff", {})]

    @override
    def random(self, **options) -> bool:
        return self.stage == 2 and self.options.diffusion

    @override
    def loss(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """L1 error of the image in [0, 1]; in stage 2 also that of the tokens."""
        clean, image = (part / 2 + 0.5 for part in (batch.clean, batch.degraded[:, :3]))
        losses = {}
        if self.stage == 1:
            restored, _ = self.network(image, clean)
        else:
            wanted = self._wanted(clean, image)
            start = self.network.diffusion.start(wanted, step.noise)
            restored, z = self.network(image, start=start)
            losses["tokens"] = (z - wanted).abs().flatten(1).mean(1)
        losses["image"] = (restored - clean).abs().flatten(1).mean(1)
        if self.lpips:
            losses["lpips"] = self.lpips * perceptual(restored * 2 - 1, batch.clean)
        return losses

    @torch.no_grad()
    def _wanted(self, clean: Tensor, image: Tensor) -> Tensor:
        """The tokens that stage 1 has of these images."""
        if self.teacher is None:
            raise UserError(
                "Stage 2 of HI-Diff learns from a stage 1; give stage1=RUN, a run of stage=1."
            )
        with torch.autocast(image.device.type, enabled=False):
            return self.teacher(torch.cat([clean, image], dim=1))

    @override
    @torch.no_grad()
    def trajectory(
        self,
        y: Tensor,
        tiles: Tiles = WHOLE,
        seeds: list[int] | None = None,
        clean=None,
        tokens: Tensor | None = None,
        **options,
    ) -> Iterator[State]:
        """The one state of a restoration.

        Args:
            y: (B, 3, H, W) in [-1, 1], sides divisible by 8.
            tiles: of the Transformer; the tokens are always those of the whole image.
            seeds: of the diffusion's start, one for each image.
            clean: of stage 1, the clean image: as y, or an array (H, W, 3) in [0, 1].
            tokens: (B, N, C) instead of the model's own.
            options: none.

        Yields:
            The restored image.
        """
        y = self.given(y)[:, :3]
        image = y / 2 + 0.5
        z = self.tokens(image, seeds, clean, tiles) if tokens is None else tokens

        def restored(part: Tensor) -> Tensor:
            with self.networks():
                # one image's tiles follow those of the others
                return self.network.transformer(part, z.repeat(len(part) // len(z), 1, 1))

        x0 = tiles.reaching(self.reach)(restored, image, stride=self.stride) * 2 - 1
        yield State(0.0, x0, y, x0)

    @torch.no_grad()
    def tokens(
        self, image: Tensor, seeds: list[int] | None = None, clean=None, tiles: Tiles = WHOLE
    ) -> Tensor:
        """The tokens of whole images.

        Args:
            image: (B, 3, H, W) in [0, 1], sides divisible by 8.
            seeds: as of :meth:`trajectory`, as are clean and tiles.
            clean: likewise.
            tiles: what the encoder's convolutions compute at once.

        Returns:
            (B, N, C).
        """
        tiles = replace(tiles, progress=None)  # a progress bar counts the Transformer's
        if self.stage == 1:
            both = torch.cat([self._clean(clean, image), image], dim=1)
            return self.network.tokens(both, tiles=tiles)
        like = image.new_empty(len(image), *self.network.shape)
        start = Noise(list(range(len(image))) if seeds is None else seeds)(like)
        return self.network.tokens(image, start, tiles)

    def _clean(self, clean, image: Tensor) -> Tensor:
        """The clean image in [0, 1] as the networks take it; UserError where there is none."""
        if clean is None:
            raise UserError(
                "This is stage 1 of HI-Diff, an oracle that sees the clean image and so restores"
                " none; train stage 2 from it, irbridge train recipe=hidiff stage=2 stage1=RUN."
            )
        if isinstance(clean, np.ndarray):
            clean = to_tensor(clean)[None]
        clean = self.fitted(clean.to(image))
        if clean.shape != image.shape:
            raise UserError(
                f"clean must be an image of the degraded one's size, {tuple(image.shape)} with"
                f" what is padded, not {tuple(clean.shape)}."
            )
        return clean / 2 + 0.5
