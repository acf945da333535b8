"""Variance-preserving, variance-exploding and flow priors give one result, for every solver."""

import pytest
import torch
from solvers.toys import last, plane_problem

from irbridge.priors import VE, Flow
from irbridge.solvers.base import PUBLISHED, SOLVERS, solver

# both reach beyond the published levels, so that no level is cut off
OTHERS = {"ve": VE(sigma_min=1e-4, sigma_max=1000.0, sigma_data=None), "flow": Flow()}
PARTICLES = 50
CONSTANTS = {
    "scd": {"inner": 0},
    "dps": {"steps": 100, "clip": False, "eta": 0.5},
    "diffpir": {"clip": False, "zeta": 0.4},
    "deqir": {"scheme": "serial"},
    "reddiff": {"lr": 0.1, "spread": 0.0},
}


def result(name, prior, std):
    generator = torch.Generator().manual_seed(0)

    def noise(like):
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        posed = plane_problem(PARTICLES, noise, std, prior)
        return last(solver(name, **CONSTANTS.get(name, {})).run(posed))


@pytest.mark.parametrize("std", [0.0, 0.3])
@pytest.mark.parametrize("name", SOLVERS)
def test_all_priors_agree(name, std):
    """The same noise gives the same image, whatever alpha is, where levels are the same."""
    if std and name == "deqir":
        return  # refuses noise
    wanted = result(name, PUBLISHED, std)
    for prior in OTHERS.values():
        assert torch.allclose(result(name, prior, std), wanted, atol=1e-9), prior
