"""The diffusion of HI-Diff's tokens: few steps, and no noise but that of the start."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from torch import Tensor

from irbridge.gaussian.marginal import Marginal, draw, marginal
from irbridge.gaussian.transition import posterior_keep, step

FIRST, LAST = 0.1, 0.99  # betas of the first and the last step

Denoiser = Callable[[Tensor, int, Tensor], Tensor]


class TokenDiffusion:
    """How clean tokens become noise in T steps, and how a network makes them of noise.

    It is a variance-preserving process whose every step is the mean of DDPM's posterior.

    Args:
        steps: T.
        gopro: of the GoPro variant: betas evenly spaced, a network that predicts noise, clean
            estimates cut to [-1, 1]. Else the roots of betas evenly spaced, and a network that
            predicts clean tokens.
    """

    def __init__(self, steps: int = 8, gopro: bool = True):
        self.steps, self.gopro = steps, gopro
        betas = np.linspace(FIRST, LAST, steps)
        if not gopro:
            betas = np.linspace(FIRST**0.5, LAST**0.5, steps) ** 2
        self.kept = np.concatenate([[1.0], np.cumprod(1 - betas)])  # abar, of step 0 on

    def law(self, k: int) -> Marginal:
        """The law of the tokens at a step, from 0, where they are clean, to T."""
        return marginal(self.kept[k] ** 0.5, 0.0, (1 - self.kept[k]) ** 0.5)

    def start(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Tokens at step T of clean ones, from which a training's walk begins.

        The GoPro variant's code has abar where its root is meant; it changes little, as abar is
        3e-5 there.

        Args:
            clean: (B, N, C).
            noise: unit normal, alike.
        """
        last = self.kept[-1]
        law = marginal(last, 0.0, (1 - last**2) ** 0.5) if self.gopro else self.law(self.steps)
        return draw(law, clean, clean, noise)

    def clean(self, z: Tensor, k: int, predicted: Tensor) -> Tensor:
        """The clean tokens that a network's output means, of tokens z at step k."""
        if not self.gopro:
            return predicted
        law = self.law(k)
        return ((z - float(law.noise) * predicted) / float(law.clean)).clamp(-1, 1)

    def walk(self, denoiser: Denoiser, z: Tensor, condition: Tensor) -> Iterator[Tensor]:
        """The tokens from step T on, of which the last are clean.

        Args:
            denoiser: called as ``denoiser(z, k, condition)`` with k from T to 1.
            z: (B, N, C) at step T; unit normal, or of :meth:`start`.
            condition: the tokens of the degraded image, alike.

        Yields:
            The tokens at step T, T - 1, ... 0.
        """
        yield z
        for k, next_k in pairwise(range(self.steps, -1, -1)):
            clean = self.clean(z, k, denoiser(z, k, condition))
            now, then = self.law(k), self.law(next_k)
            z = step(z, clean, clean, now, then, posterior_keep(now, then))
            yield z
