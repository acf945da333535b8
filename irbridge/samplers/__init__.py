"""How a bridge is followed from its degraded to its clean end."""

from irbridge.samplers.base import Estimate, Query, Sampler, drive, make

# Messages list the samplers in the order in which their classes are defined.
# isort: split
from irbridge.samplers.single_step import (
    Drawn,
    Drift,
    Eta,
    Implicit,
    Mean,
    Posterior,
    Renoise,
    Reverse,
)

# isort: split
from irbridge.samplers.multistep import DBIM, ODES3

# isort: split
from irbridge.samplers.heun import DDBMHeun

# isort: split
from irbridge.samplers.prior_process import DDIM, DPMSolverPP, FreshDDIM, PriorPath

__all__ = [
    "DBIM",
    "DDIM",
    "ODES3",
    "DDBMHeun",
    "DPMSolverPP",
    "Drawn",
    "Drift",
    "Estimate",
    "Eta",
    "FreshDDIM",
    "Implicit",
    "Mean",
    "Posterior",
    "PriorPath",
    "Query",
    "Renoise",
    "Reverse",
    "Sampler",
    "drive",
    "make",
]
