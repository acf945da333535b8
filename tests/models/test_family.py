"""The exact family of bridges: which limit is which published bridge, and each closed form against
its own SDE."""

import numpy as np
import pytest
import torch
from golden import assert_close

from irbridge.bridges.brownian import BBDM, I2SB, Brownian
from irbridge.bridges.ddbm import DDBMVE, DDBMVP
from irbridge.bridges.ornstein_uhlenbeck import (
    GOUB,
    IRSDE,
    RDBM,
    OUBridge,
    UniDB,
    alpha_bar_theta,
    cosine_theta,
)
from irbridge.gaussian.marginal import draw, marginal

# Limits of the exact family

SHARES = torch.tensor([0.001, 0.1, 0.35, 0.5, 0.8, 0.999], dtype=torch.float64)


def same(one, other, atol=1e-12):
    for got, expected in zip(one, other):
        assert_close(got, expected, atol, 0)


@pytest.mark.parametrize("mean", (0.0, 0.3, 1.0))
def test_slow_rate_is_brownian(mean):
    """rate -> 0 with 2 lam^2 rate = sigma^2: VE, I2SB and BBDM, whatever the mean."""
    rate, sigma = 1e-5, 0.7
    slow = OUBridge(rate=rate, lam=sigma / (2 * rate) ** 0.5, mean=mean)
    same(slow.marginal(100 * SHARES), Brownian(sigma=sigma).marginal(100 * SHARES), 1e-5)


@pytest.mark.parametrize(
    "bridge,family,clock",
    [
        (
            GOUB(),
            OUBridge(T=1, rate=-np.log(0.005), lam=30 / 255),
            lambda t: cosine_theta(100)[t] / -np.log(0.005),
        ),
        (
            RDBM(lam=0.2),
            OUBridge(T=1, rate=alpha_bar_theta(100)[-1], lam=0.2**0.5),
            lambda t: alpha_bar_theta(100)[t] / alpha_bar_theta(100)[-1],
        ),
        (
            DDBMVP(),
            OUBridge(T=1, rate=0.55, lam=1.0, mean=0.0),
            lambda t: (0.5 * t**2 + 0.05 * t) / 0.55,
        ),
        (DDBMVE(), Brownian(T=1, sigma=80.0), lambda t: (t / 80) ** 2),
        (BBDM(max_var=0.5), Brownian(T=1, sigma=1.0), lambda t: 0.001 + 0.998 * (t - 1) / 999),
    ],
)
def test_published_bridges_are_the_family_in_a_time_of_their_own(bridge, family, clock):
    t = (bridge.T * SHARES.numpy()).round().clip(1) if bridge.steps else bridge.T * SHARES.numpy()
    same(bridge.marginal(t), family.marginal(clock(t.astype(int) if bridge.steps else t)), 1e-11)


def test_vp_bridge_in_numbers():
    """Derived in float64 from the mean-0 family, apart from this code."""
    for t, *expected in (
        (0.1, 0.980070454248653, 0.017296789635711917, 0.14000619906546258),
        (0.5, 0.7104578161562627, 0.2604215437209488, 0.4625337928682386),
        (0.9, 0.17325343278696756, 0.8048788828417502, 0.40155224281246626),
    ):
        assert_close(DDBMVP().marginal(t), expected, 1e-14, 0)


@pytest.mark.parametrize("beta_max", (0.3, 1.0))
def test_exact_i2sb_is_brownian_in_the_time_of_its_betas(beta_max):
    """The official sums differ from it by no more than one beta of 1000."""
    bridge = I2SB(beta_max=beta_max, official=False)
    betas = np.linspace(0.01, (beta_max / 1000) ** 0.5, 1000)[:500] ** 2
    sums = np.cumsum(np.concatenate([[0.0], betas, betas[::-1]]))
    t = np.array([0, 1, 300, 777, 1000])
    same(bridge.marginal(t), Brownian(T=1, sigma=sums[-1] ** 0.5).marginal(sums[t] / sums[-1]))
    same(bridge.marginal(t[1:]), I2SB(beta_max=beta_max).marginal(t[1:]), 0.011)


def test_unidb_nears_goub_and_its_own_std():
    same(UniDB(gamma=1e30).marginal(100 * SHARES), GOUB().marginal(100 * SHARES), 1e-9)
    same(UniDB(gamma=1e30, exact=True).marginal(100 * SHARES), GOUB().marginal(100 * SHARES), 1e-9)
    for t, exact in (
        (50, 0.10971258341213011),
        (90, 0.10991105985683913),
        (99, 0.05099842563909454),
        (100, 0.00031622662362166366),
    ):  # derived in float64, at gamma = 1e7
        assert_close(UniDB(exact=True).marginal(t).noise, exact, 1e-12, 1e-9)


def test_without_noise_a_slow_bridge_is_flow_matching():
    """lam -> 0, rate -> 0: the straight line from x0 to y."""
    same(OUBridge(T=1, rate=1e-5, lam=0.0).marginal(SHARES), marginal(1 - SHARES, SHARES, 0), 1e-9)
    bridge, (x0, y) = RDBM(pi="zero"), torch.tensor([[0.3], [-0.8]])
    assert_close(
        draw(bridge.marginal(40.0), x0, y, bridge.scale(x0, y) * torch.ones(1)),
        draw(bridge.marginal(40.0), x0, y, torch.zeros(1)),
        0,
        0,
    )


# Each bridge's own SDE


def rates(table):
    return lambda t: np.diff(table)[
        int(t)
    ], lambda t: table[-1] - np.interp(t, np.arange(len(table)), table)


def ornstein_uhlenbeck(rate, left, variance, hold, mean=1.0):
    """dx = rate (mean y - x) dt + g dw, g^2 = 2 variance rate, with the drift that leads the
    expected end to y: hold is 1 / gamma, 0 for a pin, inf for none. As (p, q, g^2) of dx = (p y - q
    x) dt + g dw."""

    def sde(t):
        r, e = rate(t), np.exp(-left(t))
        pull = 2 * variance * r * e / (hold + variance * (1 - e**2))
        return r * mean + pull * (1 - mean * (1 - e)), r + pull * e, 2 * variance * r

    return sde


def brownian(rate, left):
    return lambda t: (rate(t) / left(t), rate(t) / left(t), rate(t))


def vp(t):
    alpha, rho2 = (lambda u: np.exp(-(u**2) / 2 - 0.05 * u)), (lambda u: np.expm1(u**2 + 0.1 * u))
    g2 = 0.1 + 2 * t
    pull = g2 / (alpha(t) ** 2 * (rho2(1) - rho2(t)))
    return pull * alpha(t) / alpha(1), g2 / 2 + pull, g2


BETAS = np.concatenate([[0.0], np.cumsum(np.linspace(0.01, (0.3 / 40) ** 0.5, 40)[:20] ** 2)])
BETAS = np.concatenate([BETAS, BETAS[-1] + np.cumsum(np.diff(BETAS)[::-1])])


@pytest.mark.parametrize(
    "bridge,sde,until",
    [
        (
            Brownian(T=20, sigma=0.7),
            brownian(lambda t: 0.49 / 20, lambda t: 0.49 * (20 - t) / 20),
            0.9,
        ),
        (DDBMVE(T=5.0), brownian(lambda t: 2 * t, lambda t: 25 - t**2), 0.9),
        (DDBMVP(), vp, 0.9),
        (I2SB(T=40, official=False), brownian(*rates(BETAS)), 0.9),
        (IRSDE(lam=0.4), ornstein_uhlenbeck(*rates(cosine_theta(100)), 0.16, np.inf), 1),
        (GOUB(lam=0.4), ornstein_uhlenbeck(*rates(cosine_theta(100)), 0.16, 0), 0.9),
        (RDBM(lam=0.5), ornstein_uhlenbeck(*rates(alpha_bar_theta(100)), 0.5, 0), 0.9),
        (
            UniDB(lam=0.4, gamma=10.0, exact=True),
            ornstein_uhlenbeck(*rates(cosine_theta(100)), 0.16, 0.1),
            1,
        ),
        (
            OUBridge(T=1, rate=3.0, lam=0.4, mean=0.3),
            ornstein_uhlenbeck(lambda t: 3.0, lambda t: 3 * (1 - t), 0.16, 0, 0.3),
            0.9,
        ),
    ],
    ids=lambda v: type(v).__name__,
)
def test_marginal_is_that_of_the_sde(bridge, sde, until):
    """The moments of a linear SDE, a' = -q a, b' = p - q b, (c^2)' = g^2 - 2 q c^2, by the midpoint
    rule: the drift is written out here, the marginal is a closed form there."""

    def change(moments, t):
        p, q, g2 = sde(t)
        return np.array([0.0, p, g2]) - np.array([q, q, 2 * q]) * moments

    moments, h = np.array([1.0, 0.0, 0.0]), bridge.T / 4000
    for i in range(round(until * 4000)):
        t = i * h
        moments = moments + h * change(moments + h / 2 * change(moments, t), t + h / 2)
        if i % 400 == 399:
            a, b, c = bridge.marginal((i + 1) * h)
            assert_close(moments, [a, b, c**2], 3e-5, 0)
