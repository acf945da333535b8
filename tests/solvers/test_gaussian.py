"""What each solver converges to on a Gaussian in the plane, beside the known table.

The prior is N(0, [[1, .8], [.8, 1]]) with its exact denoiser, the first coordinate is measured as
1.2. The table was computed by another program with 20,000 particles; so both sides have errors, and
the bar is three standard errors of their difference. Exact: mean .960 and variance .360 of the
hidden coordinate without noise; with std .3 means 1.101 and .881, variances .083 and .413.
"""

import math
from functools import cache

import pytest
import torch
from solvers.toys import plane_problem, whitened

from irbridge.solvers.base import strided
from irbridge.solvers.ddnm import DDNM
from irbridge.solvers.ddrm import DDRM
from irbridge.solvers.diffpir import DiffPIR
from irbridge.solvers.dps import DPS
from irbridge.solvers.pigdm import PiGDM
from irbridge.solvers.reddiff import REDdiff

PARTICLES = 20_000


class Even(DiffPIR):
    """DiffPIR at even levels, as the table has it; its s is in the units of states: lam / 4."""

    def indices(self, length):
        return strided(length, self.steps)


@cache
def moments(name, std):
    generator = torch.Generator().manual_seed(1)

    def noise(like):
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for step in TABLE[name][0].run(plane_problem(PARTICLES, noise, std)):
            x = step.x0
    x = x.reshape(PARTICLES, 2)
    return x.mean(0).tolist(), x.var(0).tolist()


def check(found, table):
    """Means and variances of the observed and the hidden coordinate; None is not in the table."""
    means, variances = table
    for coordinate in range(2):
        variance = found[1][coordinate]
        rounding = 0.0006
        if means[coordinate] is not None:
            bar = 3 * math.sqrt(2 * variance / PARTICLES) + rounding
            assert found[0][coordinate] == pytest.approx(means[coordinate], abs=bar)
        if variances[coordinate] is not None:
            bar = 3 * variance * math.sqrt(4 / PARTICLES) + rounding
            assert variance == pytest.approx(variances[coordinate], abs=bar)


PLAIN = {"steps": 100, "zeta": 1.0, "lam": 4.0, "clip": False}
PULLED = {"steps": 100, "zeta": 0.3, "lam": 28.0, "clip": False}
TABLE = {
    "ddrm": (DDRM(), ([1.2, 0.588], [0, 0.330]), ([1.031, 0.584], [0.036, 0.332])),
    "ddrm 1000": (
        DDRM(steps=1000),
        ([1.2, 0.926], [0, 0.282]),
        ([1.160, 0.870], [0.009, 0.315]),
    ),
    "ddrm 1000, eta 1": (
        DDRM(steps=1000, eta=1.0),
        ([1.2, 0.938], [0, 0.180]),
        ([0.216, 0.216], [0.470, 0.465]),
    ),
    "ddnm": (DDNM(), ([1.2, 0.885], [0, 0.285]), ([1.098, 0.795], [0.027, 0.317])),
    "dps": (
        DPS(zeta=0.3, clip=False),
        ([None, 1.180], [None, 0.303]),
        ([1.199, 1.166], [0.030, 0.298]),
    ),
    "pigdm": (
        PiGDM(replace=False),
        ([1.2, 1.102], [0, 0.274]),
        ([1.2, 1.146], [0.014, 0.270]),
    ),
    "diffpir": (Even(**PLAIN), ([1.2, 0.864], [0, 0.189]), ([1.096, 0.798], [0.035, 0.214])),
    "diffpir, pulled": (
        Even(**PULLED),
        ([1.2, 0.683], [0, 0.442]),
        ([0.776, 0.496], [0.299, 0.590]),
    ),
    # the table gives the spread of its hidden coordinate, .26, as optimiser noise
    "reddiff": (REDdiff(steps=1000, lr=0.1, spread=0.0), ([None, 0.918], [None, 0.26**2]), None),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table(name):
    _, clean, noisy = TABLE[name]
    check(moments(name, 0.0), clean)
    if noisy:
        check(moments(name, 0.3), noisy)


# mean and variance of the hidden coordinate by the number of levels, by the exact recursion
RECURSION = {
    10: (0.6683, 0.3424),
    25: (0.8026, 0.3572),
    50: (0.8599, 0.3601),
    100: (0.8943, 0.3612),
}


@pytest.mark.parametrize("steps", RECURSION)
def test_ddnm_without_new_noise_follows_the_exact_recursion(steps):
    """The maps are affine: whitened particles have exactly the moments of the law."""
    x0 = None
    with torch.no_grad():
        for step in DDNM(steps=steps, eta=0.0).run(plane_problem(2000, lambda _: whitened(2000))):
            x0 = step.x0.reshape(-1, 2)
    hidden = x0[:, 1]
    mean, variance = RECURSION[steps]
    assert float(hidden.mean()) == pytest.approx(mean, abs=6e-5)
    assert float(hidden.var(correction=0)) == pytest.approx(variance, abs=6e-5)
    assert torch.allclose(x0[:, 0], torch.full_like(hidden, 1.2), atol=1e-12)


def test_no_solver_reaches_the_posterior_at_its_published_constants():
    """So none may claim to sample it."""
    exact = 0.960, 0.360
    for name in ("ddrm", "ddnm", "dps", "pigdm", "diffpir", "reddiff"):
        means, variances = moments(name, 0.0)
        assert abs(means[1] - exact[0]) > 0.03 or abs(variances[1] - exact[1]) > 0.03
