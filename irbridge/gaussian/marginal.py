"""Gaussian marginals: what is known of a state at one time.

A process is a function ``t -> Marginal``: a restoration bridge has a clean and a degraded end, a
generative prior has ``degraded = 0``. Coefficients are float64 on the CPU and are cast where they
meet a state.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Marginal(NamedTuple):
    """The law ``N(clean * x0 + degraded * y, noise**2)`` of a state.

    Args:
        clean: the share of the clean image, float64, () or (B,), as all of them.
        degraded: the share of the degraded image.
        noise: the std of the noise.
    """

    clean: Tensor
    degraded: Tensor
    noise: Tensor

    @property
    def level(self) -> Tensor:
        """Noise-to-signal ratio noise / clean; infinite where nothing clean is left."""
        return torch.where(self.clean > 0, self.noise / self.clean, torch.inf)


def marginal(clean, degraded, noise) -> Marginal:
    """A :class:`Marginal` from numbers or tensors, all cast to float64 and to one shape."""
    fields = [torch.as_tensor(f, dtype=torch.float64) for f in (clean, degraded, noise)]
    return Marginal(*torch.broadcast_tensors(*fields))


def broadcast(coefficient: Tensor, like: Tensor) -> Tensor:
    """A coefficient in the dtype and with the dimensions of a state, ready to multiply it.

    Args:
        coefficient: float64, () or (B,).
        like: the state, (B, ...).

    Raises:
        ValueError: the state is of whole numbers, which no coefficient below 1 can multiply.
    """
    if not like.is_floating_point():
        raise ValueError(f"A state must be of floats, not {like.dtype}; give state.float().")
    coefficient = coefficient.to(like.dtype)
    # on the CPU: a scalar goes with a state on any device, without waiting for it
    if not coefficient.dim():
        return coefficient
    return coefficient.to(like.device).reshape(coefficient.shape + (1,) * (like.dim() - 1))


def draw(m: Marginal, x0: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """A state of a law: ``clean * x0 + degraded * y + std * noise``.

    Args:
        m: the law.
        x0: the clean image, (B, ...).
        y: the degraded image, alike.
        noise: unit normal, alike.
    """
    return (
        broadcast(m.clean, x0) * x0 + broadcast(m.degraded, x0) * y + broadcast(m.noise, x0) * noise
    )
