"""Gaussian laws, the transition equation between them, and seeded noise."""

from irbridge.gaussian.marginal import Marginal, draw, marginal
from irbridge.gaussian.transition import forward_keep, implicit_keep, posterior_keep, step

__all__ = [
    "Marginal",
    "draw",
    "forward_keep",
    "implicit_keep",
    "marginal",
    "posterior_keep",
    "step",
]
