"""What every method is to those who train, score and use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

import irbridge
from irbridge.backbones.half_precision import working
from irbridge.errors import UserError
from irbridge.gaussian.noise import sample_seed
from irbridge.images.arrays import check_range, pad, to_image, to_tensor
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.training_step import Batch, TrainingStep
from irbridge.ranges import SAMPLES, SEEDS, check_values, shown, whole
from irbridge.samplers import Sampler

ANY_SEED = whole(-SEEDS, SEEDS)  # what torch takes


class State(NamedTuple):
    """One network call.

    States are images in [-1, 1], or latents where the frozen network works on those;
    ``Restorer.image`` shows either.

    Args:
        t: the bridge's time.
        x: the bridge's state, (B, C, H, W).
        z: the prior's state that the network saw.
        x0: its estimate of the clean state.
    """

    t: float
    x: Tensor
    z: Tensor
    x0: Tensor


class Row(NamedTuple):
    """One way in which a model restores, as a row of a table.

    Args:
        label: what the table calls it.
        key: its short name in records.
        options: of ``Restorer.restore``.
        nfe: its sampler's network calls; None where it has no sampler.
    """

    label: str
    key: str
    options: dict[str, Any]
    nfe: int | None = None


class Restorer(nn.Module):
    """What training, evaluation and users need of any method.

    A method implements ``trainable``, ``loss``, ``trajectory`` and ``rows``; ``restore`` is shared.

    Attributes:
        stride: the sides of an image that the networks take are divisible by it.
        masked: whether it fills holes: y has a fourth channel, the mask, 1 where the image is to be
            filled, else -1.
        precision: what its networks restore in, "float32" or "bf16"; see
            :mod:`irbridge.models.precision`.
        reach: pixels from a tile's edge that its first pass over y tells from the image's own;
            None: all of a tile counts.
        first_share: share of the training whose steps cost as the first one does.
        sampler: how it samples; None: a single pass.
        steps: of a model without a sampler, those that it takes for an image.
        sees_clean: it restores given the clean image too (``clean=``), an oracle whose scores are a
            bound and no result.
        keeps_known: pixels outside a mask come back as they are; not where they have noise.
        hole: what the pixels of a hole were in training, in [0, 1]: whatever lies there, the
            networks see that; None: the method shows them no holes.
        samples: a restored image is the mean of so many draws.
        digest: a hash of its frozen network's weights; None: it has none.
        folder: that it was loaded from.
    """

    stride: int
    masked: bool = False
    precision: str = "float32"
    reach: int | None = None
    first_share: float = 1.0
    sampler: Sampler | None = None
    steps: int = 1
    sees_clean: bool = False
    keeps_known: bool = True
    hole: float | None = None
    samples: int = 1
    digest: str | None = None
    folder: Path | None = None

    def trainable(self) -> nn.Module:
        """The one module that trains, is averaged and is stored."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict]:
        """What trains, in groups for the optimizer.

        ``share`` of a group is its part of the learning rate, 1 where it is missing.
        """
        return [{"params": list(self.trainable().parameters())}]

    def loss(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """The training losses by name, (B,) each; the sum of their means is minimised."""
        raise NotImplementedError

    @override
    def forward(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """:meth:`loss`, so that a distributed wrapper sees the call."""
        return self.loss(batch, step)

    def networks(self) -> AbstractContextManager:
        """A block for the calls of networks alone, within which these compute in ``precision``."""
        at = next(self.parameters(), None)
        return working(self.precision, torch.device("cpu") if at is None else at.device)

    def trajectory(self, y: Tensor, **options) -> Iterator[State]:
        """The trajectory of a restoration, one :class:`State` for every network call.

        Args:
            y: (B, 3 or 4, H, W) in [-1, 1], sides divisible by ``stride``.
            options: ``seeds``, one per image; ``tiles``, for large images; and the fields of a
                :class:`~irbridge.samplers.Sampler`.
        """
        raise NotImplementedError

    def rows(self, **options) -> list[Row]:
        """The rows that the model gives a table, itself the last, after baselines of its own parts.

        Args:
            options: fields of its sampler.

        Raises:
            UserError: the model cannot run such a sampler.
        """
        raise NotImplementedError

    def told(self, clean: np.ndarray | Tensor) -> dict[str, np.ndarray | Tensor]:
        """What ``restore`` is told besides of an image whose clean version is known.

        Args:
            clean: that version, of the kind and shape of what is restored.

        Returns:
            Options of ``restore``: none, but of an oracle.
        """
        return {"clean": clean} if self.sees_clean else {}

    def parts(self) -> dict[str, nn.Module]:
        """Its networks by name: "trainable", "frozen" and "vae", those that it has."""
        return {"trainable": self.trainable()}

    def describe(self) -> dict[str, dict]:
        """What a folder must say of its parts besides its config, by key of the config."""
        return {}

    def load(self) -> None:
        """Load a frozen network now that otherwise waits for its first call."""

    def fitted(self, y: Tensor) -> Tensor:
        """An image of any sides as ``trajectory`` takes it, (B, C, H, W)."""
        return pad(y, self.stride)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what is restored from an image of these sides."""
        return height, width

    def image(self, state: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """A state's x0 as an image, (B, 3, H, W); the same where states are images."""
        return state

    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the state of an image (C, H, W), and so of the noise that ``loss`` takes."""
        return tuple(image_shape)

    def sampler_with(self, **options) -> Sampler | None:
        """Its sampler with other options; None where it has none.

        Raises:
            UserError: the model cannot run such a sampler.
        """
        return None

    def check_fixed(self, **options) -> None:
        """UserError where fields of a sampler are given, and the model's steps are fixed.

        Args:
            options: the fields; None, and as many calls as the model's own steps, pass.
        """
        if self.sampler_with(**options) is not None:
            return
        own = {"nfe": self.steps, "steps": self.steps}
        for name, value in options.items():
            if value in (None, own.get(name)):
                continue
            key = "steps" if name in own else f"sampler.{name}"
            counted = "1 step" if self.steps == 1 else f"{self.steps} steps"
            raise UserError(
                f"{key}={shown(value)} is for a model that samples, and this one always restores"
                f" in {counted}, as it was trained; leave {key} out."
            )

    def calls(self, **options) -> int:
        """How often ``trajectory`` with these options calls its network."""
        sampler = self.sampler_with(**options)
        return 1 if sampler is None else sampler.nfe

    def passes(self, **options) -> int:
        """How often ``trajectory`` sends the image through networks, for a progress bar."""
        return self.calls(**options)

    def random(self, **options) -> bool:
        """Whether another seed may give another image; of no call there is no noise."""
        return self.calls(**options) > 0

    def average(self, samples: int | None, **options) -> None:
        """Restore by the mean of so many draws from now on; None: as before.

        Args:
            samples: their number.
            options: fields of its sampler.

        Raises:
            UserError: all draws would be the same image.
        """
        if samples and samples > 1 and not self.random(**options):
            why, remedy = "as this model restores without noise", "leave samples out"
            if self.sampler_with(**options) is not None:
                why = "as this model makes no call of its network here, and so draws no noise"
                remedy = "give a number of steps as well, or leave samples out"
            raise UserError(f"samples={samples} would all be one image, {why}; {remedy}.")
        # no more of an image without noise than one, whatever the model says
        self.samples = (samples or self.samples) if self.random(**options) else 1

    @staticmethod
    def from_pretrained(
        folder,
        device="cpu",
        backbone=None,
        frozen: dict | None = None,
        precision: str = "float32",
        **sampler,
    ) -> Restorer:
        """A trained model from a folder; see :mod:`irbridge.experiments.build`."""
        # by the public face: what makes a model stands above this chapter
        return irbridge.from_pretrained(folder, device, backbone, frozen, precision, **sampler)

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
        return irbridge.push_to_hub(self, repository, **options)

    @torch.inference_mode()
    def restore(
        self,
        image,
        seed: int = 0,
        trajectory: Callable[..., Iterator[State]] | None = None,
        mask=None,
        samples: int | None = None,
        **options,
    ):
        """Restore an image of any height and width, or a batch of one size.

        Args:
            image: float (H, W, 3) array in [0, 1], or tensor (B, 3, H, W) in [-1, 1]; any floating
                type is taken as float32.
            seed: of the noise; image i of a batch has seed + i, or give ``seeds``.
            trajectory: what gives it, by default ``self.trajectory``.
            mask: of a task with holes, True where the image is to be filled: bool (H, W) array, or
                (B, 1, H, W) tensor. The other pixels come back bit for bit.
            samples: the mean of so many draws; None: as the model says.
            options: those of the trajectory, such as ``nfe``, ``rule`` or ``tiles``.

        Returns:
            The restored image, of the kind and shape of the given one; float32.

        Raises:
            UserError: image or mask is not of such a kind.

        Example:
            >>> model = IRBridge.from_pretrained("derain")  # doctest: +SKIP
            >>> restored = model.restore(irbridge.read_image("photo.jpg"), nfe=5)  # doctest: +SKIP
        """
        if isinstance(image, np.ndarray):
            options |= {"seed": seed, "trajectory": trajectory, "samples": samples}
            return self._restore_array(image, mask, **options)
        fits = torch.is_tensor(image) and image.dim() == 4 and image.shape[1] == 3
        image = _floats("restore takes an array (H, W, 3) or a tensor (B, 3, H, W)", image, fits)
        if not ANY_SEED.fits(seed):
            raise UserError(f"seed={shown(seed)} must be {ANY_SEED.wanted}.")
        options.setdefault("seeds", [seed + i for i in range(len(image))])
        if not isinstance(options.get("tiles", WHOLE), Tiles):
            raise UserError(
                f"tiles={shown(options['tiles'])} must be such as irbridge.images.tiles.Tiles(512)."
            )
        _check_seeds(options["seeds"], len(image))
        y = (
            image
            if mask is None
            else torch.cat([self.emptied(image, mask), mask.to(image) * 2 - 1], 1)
        )
        restored = self._mean(self._draws(samples), y, trajectory or self.trajectory, options)
        _check_finite(restored, image)
        return keep_known(restored, image, mask if self.keeps_known else None)

    def emptied(self, image: Tensor, mask: Tensor) -> Tensor:
        """An image (B, 3, H, W) whose holes, above 0 in mask (B, 1, H, W), are as in training."""
        if self.hole is None:
            return image
        return torch.where(mask > 0, image.new_tensor(2 * self.hole - 1), image)

    def _mean(self, draws: int, y: Tensor, trajectory: Callable, options: dict) -> Tensor:
        """The mean of so many draws, one after the other so that memory stays flat, (B, 3, H, W).

        Args:
            draws: their number.
            y: the degraded images, (B, 3 or 4, H, W), of any sides.
            trajectory: what gives a draw.
            options: of it, with the images' own seeds.
        """
        height, width = self.sides(*y.shape[-2:])
        mean = None
        for number in range(draws):
            seeds = [sample_seed(seed, number) for seed in options["seeds"]]
            for state in trajectory(self.fitted(y), **options | {"seeds": seeds}):
                last = state.x0
            drawn = self.image(last, options.get("tiles", WHOLE))[..., :height, :width]
            drawn = drawn.clamp(-1, 1)
            mean = drawn if mean is None else mean + (drawn - mean) / (number + 1)
        return mean

    def _draws(self, samples: int | None) -> int:
        """How many draws an image is the mean of; UserError where it is no such number."""
        check_values({"samples": SAMPLES}, {"samples": samples}, "")
        return samples or self.samples

    def _restore_array(self, image: np.ndarray, mask, **options) -> np.ndarray:
        _check_array(image, mask)
        at, holes = next(self.parameters()).device, None
        if mask is not None:
            holes = torch.from_numpy(np.ascontiguousarray(mask))[None, None].to(at)
        batch = self.restore(to_tensor(image)[None].to(at), mask=holes, **options)
        restored = to_image(batch[0])
        kept = mask is not None and self.keeps_known
        return np.where(mask[..., None], restored, image) if kept else restored

    def given(self, y: Tensor) -> Tensor:
        """What ``trajectory`` is given, as float32; UserError where it is no such tensor."""
        fits = torch.is_tensor(y) and y.dim() == 4 and y.shape[1] in (3, 4)
        fits = fits and all(side and side % self.stride == 0 for side in y.shape[-2:])
        wanted = "trajectory takes a tensor (B, 3, H, W) in [-1, 1] with sides divisible by"
        return _floats(f"{wanted} {self.stride}", y, fits, "; restore takes any image")

    def seen(self, y: Tensor) -> Tensor:
        """What the networks see of y (B, 3 or 4, H, W): the mask too, where they take one.

        Raises:
            UserError: a model that fills holes is given no mask.
        """
        if self.masked and y.shape[1] < 4:
            raise UserError(
                "This model fills holes and must be told where they are; give mask=, True where the"
                " image is to be filled (irbridge restore: mask=FILE, white there)."
            )
        return y if self.masked else y[:, :3]


# what resizing and noise never bring a tensor in [-1, 1] to, but 0 to 255 are beyond
BYTES = 10.0


def _floats(wanted: str, y, fits: bool, remedy: str = "") -> Tensor:
    """A tensor as float32; UserError where it is none, does not fit, or is of another range."""
    if not fits:
        given = tuple(getattr(y, "shape", ())) or type(y).__name__
        raise UserError(f"{wanted}, not {given}{remedy}.")
    if not y.is_floating_point():
        raise UserError(
            f"{wanted}, of floats in [-1, 1], not of {str(y.dtype).removeprefix('torch.')}; bytes"
            " become such by image.float() / 127.5 - 1."
        )
    if y.layout != torch.strided or y.is_meta or not y.numel():
        what = "an empty one" if not y.numel() else "one of another kind"
        raise UserError(f"{wanted}, that holds the values of its pixels, not {what}.")
    y = y.float()
    if float(y.abs().max()) > BYTES:  # not of NaN, which is told where it ends
        raise UserError(
            f"{wanted}, of floats in [-1, 1], but there are values up to {float(y.abs().max()):g};"
            " 0 to 255 become such by image / 127.5 - 1."
        )
    return y


def _check_finite(restored: Tensor, image: Tensor) -> None:
    """UserError where what was restored has values that are no numbers, which would show black."""
    if torch.isfinite(restored).all():
        return
    if not torch.isfinite(image).all():
        raise UserError(
            "The image to restore has values that are no numbers (NaN or infinite); repair them."
        )
    raise UserError(
        "The result has values that are no numbers (NaN or infinite): these weights overflow with"
        " this sampler and precision; give precision=float32, or other weights."
    )


def _check_seeds(seeds: list[int], images: int) -> None:
    """UserError unless there is a seed for each image, and torch takes it."""
    if not isinstance(seeds, list | tuple) or len(seeds) != images:
        raise UserError(f"seeds={shown(seeds)} must be a list of {images}, one for each image.")
    for seed in seeds:  # None: a model that draws no noise needs none
        check_values({"seeds": ANY_SEED}, {"seeds": seed}, "")


def _check_array(image: np.ndarray, mask) -> None:
    """UserError unless it is an image, with a mask of its size or none."""
    check_range(image, "An image to restore")
    if mask is None:
        return
    kind, shape = getattr(mask, "dtype", None), getattr(mask, "shape", "")
    if kind != np.dtype(bool) or shape != image.shape[:2]:
        given = f"{type(mask).__name__ if kind is None else kind} {shape}".strip()
        raise UserError(
            f"A mask of an image of shape {image.shape} must be bool {image.shape[:2]},"
            f" True in the holes, not {given}."
        )


def keep_known(x0: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """X0 in the holes and y elsewhere.

    Args:
        x0: an estimate, (B, C, H, W).
        y: what is known, alike.
        mask: (B, 1, H, W), above 0 or True in the holes; None: x0 is all there is.
    """
    return x0 if mask is None else torch.where(mask > 0, x0, y)
