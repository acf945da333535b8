"""The noise schedules of pretrained diffusion models."""

from irbridge.priors.base import Prior
from irbridge.priors.flow import Flow
from irbridge.priors.from_diffusers import prior_from_config
from irbridge.priors.ve import VE
from irbridge.priors.vp import VP

__all__ = [
    "VE",
    "VP",
    "Flow",
    "Prior",
    "prior_from_config",
]
