"""Gaussians on which every promise of a sampler is a number that can be computed exactly.

x0 ~ N(M0, V0) given y, or known, with its exact denoiser E[x0 | x_t]: a loop is then an affine map
of the noises that it draws. A state's first column is the run without noise, column k the run whose
k-th draw alone is 1, so that one run gives the exact mean and variance of its law."""

import numpy as np
import torch

from irbridge.bridges.brownian import BBDM, I2SB, Brownian
from irbridge.bridges.ddbm import DDBMVE, DDBMVP
from irbridge.bridges.nadb import NADB
from irbridge.bridges.ornstein_uhlenbeck import GOUB, IRSDE, RDBM, LinearOU, OUBridge, UniDB
from irbridge.bridges.shifting import RDDM, DiffUIR, ResShift
from irbridge.priors.flow import Flow
from irbridge.priors.ve import VE
from irbridge.priors.vp import VP, vp_alphas_cumprod
from irbridge.samplers import Estimate, PriorPath, drive
from irbridge.samplers.base import REGISTRY

M0, V0, Y, X0 = 0.3, 0.5, -0.4, 0.7
BRIDGES = {
    "brownian": Brownian(sigma=1.0),
    "bbdm": BBDM(T=100),
    "ou": IRSDE(lam=0.3),
    "linear ou": LinearOU(T=100, lam=0.3, last=0.1),
    "oubridge": OUBridge(lam=0.4, mean=0.5),
    "goub": GOUB(lam=0.5),
    "unidb": UniDB(lam=0.5),
    "unidb exact": UniDB(lam=0.5, gamma=100, exact=True),
    "residual": RDBM(),
    "residual one": RDBM(pi="one"),
    "residual zero": RDBM(pi="zero"),
    "i2sb": I2SB(),
    "i2sb exact": I2SB(official=False),
    "ddbmve": DDBMVE(),
    "ddbmvp": DDBMVP(),
    "resshift": ResShift(),
    "rddm": RDDM(T=100),
    "diffuir": DiffUIR(T=100),
    "nadb": NADB(),
}
PRIORS = {
    "vp": PriorPath(T=900, prior=VP(vp_alphas_cumprod({}))),
    "ve": PriorPath(T=80, prior=VE()),
    "flow": PriorPath(T=0.9, prior=Flow()),
}
OWN = [name for name, entry in REGISTRY.items() if not entry.kind.on_prior]


class Draws:
    """The k-th call gives 1 in column k and 0 elsewhere; ``count`` calls so far."""

    def __init__(self):
        self.count = 0

    def __call__(self, like):
        self.count += 1
        unit = torch.zeros_like(like)
        unit[0, self.count] = 1
        return unit


def column(value, width=64):
    return torch.full((1, width), value, dtype=torch.float64)


def law(x):
    """Mean and variance of a state."""
    return np.array([x[0, 0].item(), ((x[0] - x[0, 0]) ** 2).sum().item()])


def posterior_mean(m, x, y):
    """E[x0 | x] for a state x of the marginal m, x0 ~ N(M0, V0)."""
    a, b, c = (float(v) for v in m)
    gain = a * V0 / (a**2 * V0 + c**2) if a else 0.0
    return M0 + gain * (x - a * M0 - b * y)


def run(bridge, sampler, estimate=None, noise=None, start=None, y=None, **options):
    """Follow the bridge with ``estimate(t, x)``, by default the exact denoiser: ([(t, x), ...] of
    every call, the last x)."""
    y = column(Y) if y is None else y
    estimate = estimate or (lambda t, x: posterior_mean(bridge.marginal(t), x, y))
    loop, seen = sampler.loop(bridge, y, noise or Draws(), x=start, **options), []

    def ask(query):
        return Estimate(estimate(*query), query.x, bridge.marginal(query.t))

    running = drive(loop, ask)
    while True:
        try:
            query, _ = next(running)
        except StopIteration as end:
            return seen, end.value
        seen.append(tuple(query))
