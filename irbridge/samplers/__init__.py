"""How a bridge is walked from its degraded to its clean end."""

from irbridge.samplers.base import RULES, Sampler

__all__ = [
    "RULES",
    "Sampler",
]
