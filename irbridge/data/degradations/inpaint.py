"""Holes to be inpainted."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from irbridge.data import hole_shapes
from irbridge.data.degradations.base import Degradation, Range
from irbridge.errors import UserError


@dataclass(frozen=True)
class Inpaint(Degradation):
    """Holes filled with a constant.

    Each image gets holes of one kind of :mod:`irbridge.data.hole_shapes`. Kinds that are drawn mark
    by mark are more frequent than the others: half images, frames, lines and lattices. Single
    pixels, kind ``pixels``, are lost only where ``kinds`` names them.

    Args:
        masked: fraction of the image, exceeded by less than one round of marks.
        width: of the strokes of kind ``brush``.
        fill: value of the holes, in [0, 1].
        kinds: which kinds of holes there are.
        scale: of the marks' sizes in pixels, below 1 for images that are smaller as a whole.
        noise: std of Gaussian noise on the pixels outside the holes, where white is 1. With any, no
            model keeps those pixels as they are.

    Raises:
        UserError: ``kinds`` is no list, empty, or names a kind that does not exist.
    """

    task: ClassVar[str] = "inpaint"
    masked: Range = (0.02, 0.5)
    width: Range = (3, 24)
    fill: float = 0.5
    kinds: tuple[str, ...] = tuple(hole_shapes.KINDS)
    scale: float = 1.0
    noise: Range = (0, 0)

    def __post_init__(self):
        super().__post_init__()
        kinds = set(self.kinds) if np.iterable(self.kinds) else set()
        known = hole_shapes.KINDS | hole_shapes.ASKED_FOR
        if not kinds or not kinds <= known.keys():
            known = ", ".join(known)
            raise UserError(f"Inpaint got kinds={self.kinds}; give a list of some of {known}.")

    @override
    def apply(self, image, rng):
        return self.fill_in(image, self.mask(image.shape[:2], rng), rng)

    def mask(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Holes of an image of a shape (H, W): bool (H, W), True in the holes."""
        weights = np.array([hole_shapes.WEIGHTS[kind] for kind in self.kinds])
        kind = str(rng.choice(list(self.kinds), p=weights / weights.sum()))
        share = rng.uniform(*self.masked)
        options = {"width": self.width} if kind == "brush" else {}
        if self.scale != 1 and kind in hole_shapes.IN_PIXELS:
            options["scale"] = self.scale
        draw = hole_shapes.KINDS.get(kind) or hole_shapes.ASKED_FOR[kind]
        return draw(shape, share, rng, **options)

    def fill_in(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The image (H, W, 3), with its noise, and ``fill`` where the mask (H, W) is True.

        Without noise nothing is drawn.
        """
        if self.noise[1] > 0:
            std = np.float32(rng.uniform(*self.noise))
            image = np.clip(image + std * rng.standard_normal(image.shape, np.float32), 0, 1)
        return np.where(mask[..., None], np.float32(self.fill), image)
