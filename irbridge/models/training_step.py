"""What the training loop hands to a model's loss."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """The images of one forward pass.

    Args:
        clean: (B, 3, H, W) in [-1, 1].
        degraded: alike; a task with holes adds its mask as a fourth channel, 1 where the image is
            to be filled, else -1.
    """

    clean: Tensor
    degraded: Tensor


class TrainingStep(NamedTuple):
    """Where the training stands, and all that is random in the loss of one forward pass.

    Args:
        progress: share of the training that is done, in [0, 1].
        uniform: (B,), uniform in [0, 1), one number for each image.
        noise: unit normal, shaped as the images' states, see ``Restorer.state_shape``.
        shared: one more uniform number, the same for all images of an optimizer step, however many
            passes and processes share it; None: the first of ``uniform``.
    """

    progress: float
    uniform: Tensor
    noise: Tensor
    shared: float | None = None
