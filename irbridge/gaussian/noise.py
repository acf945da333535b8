"""Seeded noise: every random number is a function of what it is for."""

import zlib
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor


def name_rng(seed: int, name: str) -> np.random.Generator:
    """Randomness of (seed, name) alone, the same wherever the image is in a set."""
    return np.random.default_rng([seed, zlib.crc32(name.encode(errors="surrogateescape"))])


class Noise:
    """Unit normal noise of images, a function of (image's seed, number of the draw) alone.

    Each image has a generator of its own, so that its noise does not depend on its batch.

    Args:
        seeds: one per image.
    """

    def __init__(self, seeds: list[int]):
        self.generators = [torch.Generator().manual_seed(s) for s in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        """The next draw, of the shape (B, ...) and on the device of a tensor; float32."""
        drawn = [torch.randn(1, *like.shape[1:], generator=g) for g in self.generators]
        return (drawn[0] if len(drawn) == 1 else torch.cat(drawn)).to(like.device)


def image_seed(seed: int, name: str) -> int:
    """The seed of one image's noise: a function of the run's seed and the image's name."""
    # the bytes of any file name
    return zlib.crc32(f"{seed}/{name}".encode(errors="surrogateescape"))


def sample_seed(seed: int | None, draw: int) -> int | None:
    """The seed of one of several draws for an image: the first one has the image's own.

    Args:
        seed: of the image; None, where no noise is drawn, stays None.
        draw: the number of the draw, from 0.
    """
    return seed if seed is None or draw == 0 else image_seed(seed, f"sample {draw}")


def step_noise(seed: int, step: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise and uniforms of one training step: a function of (seed, step) alone.

    Args:
        seed: of the run.
        step: its number.
        shape: of the states, (B, C, H, W).

    Returns:
        Unit normal noise of that shape, and (B,) uniforms in [0, 1).
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    return torch.randn(shape, generator=generator), torch.rand(shape[0], generator=generator)


class StepNoises:
    """:func:`step_noise` of one step after the other; the last one is kept for its other passes.

    Args:
        seed: of the run.
        ahead: the next step's noise is drawn in a thread meanwhile, for a GPU that would wait for
            it. The numbers are the same.
    """

    def __init__(self, seed: int, ahead: bool = False):
        self.seed = seed
        self.thread = ThreadPoolExecutor(1) if ahead else None
        self.drawn: dict[tuple, Future | tuple[Tensor, Tensor]] = {}

    def __call__(self, step: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Noise and uniforms of a step, see :func:`step_noise`."""
        wanted = {(step, shape): self.drawn.get((step, shape)) or self._draw(step, shape)}
        if self.thread:
            following = step + 1, shape
            wanted[following] = self.drawn.get(following) or self._draw(*following)
        self.drawn = wanted
        found = wanted[step, shape]
        return found.result() if isinstance(found, Future) else found

    def _draw(self, step: int, shape: tuple[int, ...]):
        if self.thread:
            return self.thread.submit(step_noise, self.seed, step, shape)
        return step_noise(self.seed, step, shape)
