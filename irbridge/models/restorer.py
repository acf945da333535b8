"""What every method is to those who train, score and use it; and plain regression, the honest
baseline.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from irbridge.backbones.half_precision import working
from irbridge.errors import UserError
from irbridge.images.arrays import pad, to_image, to_tensor
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.training_step import Batch, TrainingStep


class State(NamedTuple):
    """One network call: bridge time t; the bridge's x, the prior's z that it saw, its estimate x0,
    (B, C, H, W): images in [-1, 1], or latents where the frozen network works on those;
    ``Restorer.image`` shows either.
    """

    t: float
    x: Tensor
    z: Tensor
    x0: Tensor


class Restorer(nn.Module):
    """What training, evaluation and users need of any method: ``loss``, ``path`` and
    ``restore``.
    """

    stride: int
    # it fills holes: y has a fourth channel, the mask, 1 where the image is to be filled, else -1
    masked: bool = False
    precision: str = "float32"  # what its networks restore in; "bf16": see irbridge.precision
    # pixels from a tile's edge that its first pass over y tells from the image's own; None: all
    reach: int | None = None
    first_share: float = 1.0  # share of the training whose steps cost as the first one does
    folder: Path | None = None  # that it was loaded from

    def trainable(self) -> nn.Module:
        """The one module that trains, is averaged and is stored."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict]:
        """What trains, in groups for the optimizer; ``share`` of a group is its part of the
        learning rate, 1 by default.
        """
        return [{"params": list(self.trainable().parameters())}]

    def loss(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """The training losses by name, (B,) each; the sum of their means is minimised."""
        raise NotImplementedError

    def forward(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """:meth:`loss`, so that a distributed wrapper sees the call."""
        return self.loss(batch, step)

    def networks(self) -> AbstractContextManager:
        """A block for the calls of networks alone, within which these compute in ``precision``."""
        at = next(self.parameters(), None)
        return working(self.precision, torch.device("cpu") if at is None else at.device)

    def path(self, y: Tensor, **options) -> Iterator[State]:
        """Restore y (B, 3 or 4, H, W) in [-1, 1], sides divisible by ``stride``, yielding every
        :class:`State`. The options are ``seeds``, one per image, ``tiles``, for large images, and
        the fields of a :class:`~irbridge.samplers.base.Sampler`.
        """
        raise NotImplementedError

    def image(self, state: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """A state's x0 as an image, (B, 3, H, W); the same where states are images."""
        return state

    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the state of an image (C, H, W), and so of the noise that ``loss`` takes."""
        return tuple(image_shape)

    def passes(self, **options) -> int:
        """How often ``path`` with these options sends the image through networks, for a progress
        bar.
        """
        return self.sampler.changed(**options).nfe

    @staticmethod
    def from_pretrained(
        folder,
        device="cpu",
        backbone=None,
        frozen: dict | None = None,
        precision: str = "float32",
        **sampler,
    ) -> "Restorer":
        """A trained model from a run's folder; see :func:`irbridge.experiments.build.from_pretrained`."""
        from irbridge.experiments.build import from_pretrained

        return from_pretrained(folder, device, backbone, frozen, precision, **sampler)

    def push_to_hub(self, repository: str, **options) -> str:
        """Share the model on the Hugging Face hub, with its config and a card with its scores.

        Args:
            repository: such as "user/model"; made where it does not exist.
            options: ``private``, ``token``, ``commit_message``, ``branch`` and ``create_pr`` of
                huggingface_hub's ``ModelHubMixin.push_to_hub``.

        Returns:
            The address of the upload.

        Raises:
            UserError: the model was not loaded from a folder, or the hub refuses.
        """
        from irbridge.hub import push

        return push(self, repository, **options)

    @torch.inference_mode()
    def restore(
        self,
        image,
        seed: int = 0,
        path: Callable[..., Iterator[State]] | None = None,
        mask=None,
        **options,
    ):
        """Restore an image of any height and width, or a batch of one size.

        Args: image: float HxWx3 array in [0, 1] (returns the same), or tensor (B, 3, H, W) in [-1,
            1]. mask: of a task with holes, True where the image is to be filled: bool (H, W) array,
            or (B, 1, H, W) tensor.
                The other pixels come back bit for bit.
            seed: of the noise; image i of a batch has seed + i, or give ``seeds``.
            path: the sampling loop, by default ``self.path``; ``options`` are its own, such as
                ``steps`` or ``tiles``.
        """
        if isinstance(image, np.ndarray):
            if image.dtype.kind != "f":
                raise UserError(
                    f"An image to restore must be float in [0, 1], not {image.dtype}; use"
                    " irbridge.read_image."
                )
            if image.ndim != 3 or image.shape[-1] != 3:
                raise UserError(
                    f"An image to restore must be of shape (H, W, 3), not {image.shape}; use"
                    " irbridge.read_image."
                )
            if mask is not None and (
                getattr(mask, "dtype", None) != bool or mask.shape != image.shape[:2]
            ):
                raise UserError(
                    f"A mask of an image of shape {image.shape} must be bool {image.shape[:2]},"
                    f" True in the holes, not {getattr(mask, 'dtype', type(mask).__name__)}"
                    f" {getattr(mask, 'shape', '')}.".replace(" .", ".")
                )
            at = next(self.parameters()).device
            holes = (
                None
                if mask is None
                else torch.from_numpy(np.ascontiguousarray(mask))[None, None].to(at)
            )
            restored = to_image(
                self.restore(to_tensor(image)[None].to(at), seed, path, holes, **options)[0]
            )
            return restored if mask is None else np.where(mask[..., None], restored, image)
        height, width = image.shape[-2:]
        options.setdefault("seeds", [seed + i for i in range(len(image))])
        y = image if mask is None else torch.cat([image, mask.to(image) * 2 - 1], dim=1)
        for state in (path or self.path)(pad(y, self.stride), **options):
            last = state.x0
        restored = self.image(last, options.get("tiles", WHOLE))[..., :height, :width].clamp(-1, 1)
        return keep_known(restored, image, mask)

    def seen(self, y: Tensor) -> Tensor:
        """What the networks see of y (B, 3 or 4, H, W): the mask too, where they take one.
        UserError where it lacks.
        """
        if self.masked and y.shape[1] < 4:
            raise UserError(
                "This model fills holes and must be told where they are; give mask=, True where the"
                " image is to be filled (irbridge restore: mask=FILE, white there)."
            )
        return y if self.masked else y[:, :3]


def keep_known(x0: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """x0 in the holes of the mask (B, 1, H, W), above 0 or True there, and y elsewhere; x0 without
    a mask.
    """
    return x0 if mask is None else torch.where(mask > 0, x0, y)
