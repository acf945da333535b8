"""The rates of every bridge, and the drifts that come from them, near both ends: against the
papers' formulas for a, b and c, differentiated with 60 digits."""

from itertools import accumulate

import pytest
import torch
from golden import inputs, load
from mpmath import mp, mpf

from irbridge.bridges.base import Bridge
from irbridge.bridges.brownian import BBDM, I2SB, Brownian
from irbridge.bridges.ddbm import DDBMVE, DDBMVP
from irbridge.bridges.ebridge import EBridge
from irbridge.bridges.nadb import NADB
from irbridge.bridges.ornstein_uhlenbeck import (
    GOUB,
    IRSDE,
    RDBM,
    OUBridge,
    UniDB,
    alpha_bar_theta,
    cosine_theta,
)
from irbridge.bridges.shifting import RDDM, DiffUIR, ResShift
from irbridge.priors.vp import VP
from irbridge.samplers.heun import velocity

DIGITS = 60


def line(table, t):
    """A table of whole times, read between them."""
    index = min(int(t), len(table) - 2)
    low, high = mpf(float(table[index])), mpf(float(table[index + 1]))
    return low + (t - index) * (high - low)


def pinned_process(past, whole, variance, mean=1):
    """An Ornstein-Uhlenbeck process held at both ends (GOUB, eq. 12)."""
    future = whole - past
    a, end = (mp.sinh(u) / mp.sinh(whole) for u in (future, past))
    return a, mean * (1 - a - end) + end, mp.sqrt(2 * variance * mp.sinh(past) * a)


def brownian(t):
    s = t / 100
    return 1 - s, s, mp.sqrt(2 * s * (1 - s))


def bbdm(t):
    m = line([0, *(0.001 + 0.998 * i / 999 for i in range(1000))], t)
    return 1 - m, m, mp.sqrt(2 * m * (1 - m))


def i2sb(official):
    roots = [0.01 + (0.0003**0.5 - 0.01) * i / 999 for i in range(500)]
    half = [root**2 for root in roots]
    table = [0.0, *accumulate(half + half[::-1])]

    def law(t):
        f = line(table, t)
        g = mpf(table[-1]) - line(table, max(t - 1, mpf(0)) if official else t)
        return g / (f + g), f / (f + g), mp.sqrt(f * g / (f + g))

    return law


def i2sb_of_dbim(t):
    roots = [0.01 + (0.0003**0.5 - 0.01) * i / 999 for i in range(500)]
    half = [root**2 for root in roots]
    table = [0.0, *accumulate(half + half[::-1])]
    f, whole = line(table, t), mpf(table[-1])
    g = whole - line(table, max(t - 1, mpf(0)))
    return g / whole, f / whole, mp.sqrt(f * g / whole)


def ddbm_ve(t):
    s = (t / 80) ** 2
    return 1 - s, s, t * mp.sqrt(1 - s)


def ddbm_vp(t):
    alpha, rho = (
        mp.exp(-t * t / 2 - t * mpf(0.1) / 2),
        mp.sqrt(mp.exp(t * t + t * mpf(0.1)) - 1),
    )
    alpha_end, rho_end = (
        mp.exp(-mpf(1) / 2 - mpf(0.1) / 2),
        mp.sqrt(mp.exp(1 + mpf(0.1)) - 1),
    )
    left = rho_end**2 - rho**2
    return (
        alpha * left / rho_end**2,
        alpha / alpha_end * rho**2 / rho_end**2,
        alpha * rho * mp.sqrt(left) / rho_end,
    )


def oubridge(t):
    return pinned_process(mpf(5.3) * t / 100, mpf(5.3), mpf(30 / 255) ** 2, mpf(0.3))


def irsde(t):
    past = line(cosine_theta(100), t)
    a = mp.exp(-past)
    return a, 1 - a, mpf(10 / 255) * mp.sqrt(1 - a**2)


def by_table(table, variance):
    return lambda t: pinned_process(line(table, t), mpf(float(table[-1])), variance)


def unidb(exact):
    table, variance = cosine_theta(100), mpf(30 / 255) ** 2

    def law(t):
        past, whole = line(table, t), mpf(float(table[-1]))
        s = [variance * (1 - mp.exp(-2 * u)) for u in (past, whole - past, whole)]
        share = (mpf(1e-7) + s[1]) / (mpf(1e-7) + s[2])
        a = mp.exp(-past) * share
        noise = mp.sqrt(s[0] * share) if exact else by_table(table, variance)(t)[2]
        return a, 1 - a, noise

    return law


def resshift(t):
    table = [0, *(0.02 * (0.99 / 0.02) ** ((i / 14) ** 0.3) for i in range(15))]
    root = line(table, t)
    return 1 - root**2, root**2, 2 * root


def rddm(t):
    share = t * (2001 - t) / 1001000
    return 1 - share, share, mp.sqrt(mpf(0.01) * t * (t + 1) / 1001000)


def diffuir(t):
    betas = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    weights = [1e-6 + (1.8e-3 - 1e-6) * i / 999 for i in range(1000)]
    log_abar = line([0, *accumulate(mp.log(1 - mpf(beta)) for beta in betas)], t)
    alpha = mp.exp(log_abar / 2)
    gone = line([0, *accumulate(weights)], t)
    return alpha, 1 - alpha - gone, mp.sqrt(1 - alpha**2)


def nadb(t):
    u = t / 1000
    rise = u ** mpf(0.4)
    return 1 - rise, rise, mpf(0.75) * u * (1 - u)


def ebridge(t):
    u = t * mpf(0.8)
    return (1 - u) * (1 - t), (1 - u) * t, u


# of levels down to 3e-7
PRIOR = VP([1 - 1e-13, 1e-4])


def ebridge_on_vp(t):
    last = mpf(1e-4)
    u = t * mpf(0.9) / (1 + mp.sqrt(last / (1 - last)))
    alpha = 1 / mp.sqrt(1 + (u / (1 - u)) ** 2)
    return alpha * (1 - t), alpha * t, alpha * u / (1 - u)


LAWS = {
    "brownian": (Brownian(), brownian),
    "bbdm": (BBDM(), bbdm),
    "i2sb": (I2SB(), i2sb(True)),
    "i2sb exact": (I2SB(official=False), i2sb(False)),
    "i2sb of dbim": (I2SB(convention="dbim"), i2sb_of_dbim),
    "ddbm_ve": (DDBMVE(), ddbm_ve),
    "ddbm_vp": (DDBMVP(), ddbm_vp),
    "oubridge": (OUBridge(mean=0.3), oubridge),
    "irsde": (IRSDE(), irsde),
    "goub": (GOUB(), by_table(cosine_theta(100), mpf(30 / 255) ** 2)),
    "unidb": (UniDB(), unidb(False)),
    "unidb exact": (UniDB(exact=True), unidb(True)),
    "rdbm": (RDBM(pi="one"), by_table(alpha_bar_theta(100), mpf(10 / 255))),
    "resshift": (ResShift(), resshift),
    "rddm": (RDDM(), rddm),
    "diffuir": (DiffUIR(), diffuir),
    "nadb": (NADB(), nadb),
    "ebridge": (EBridge(T0=0.8), ebridge),
    "ebridge on vp": (EBridge().on(PRIOR), ebridge_on_vp),
}


def drifts(law, t, x0, y, x):
    """(probability-flow ODE, Markov reverse SDE) by theory: a' x0 + b' y + (c'/c [+ e/c^2]) (x - a
    x0 - b y), e = c c' - (a'/a) c^2."""
    a, b, c = law(t)
    da, db, dc = (mp.diff(lambda u, i=i: law(u)[i], t, h=mpf(10) ** -25) for i in range(3))
    mean = [a * u + b * v for u, v in zip(x0, y, strict=True)]
    excess = (c * dc - da / a * c**2) / c**2
    rows = []
    for pull in (dc / c, dc / c + excess):
        rows.append(
            [
                float(da * u + db * v + pull * (w - m))
                for u, v, w, m in zip(x0, y, x, mean, strict=True)
            ]
        )
    return rows, float(2 * c**2 * excess)


@pytest.mark.parametrize("name", LAWS)
def test_drifts_near_both_ends(name):
    """Up to a millionth before T and from a millionth after 0, on any state, not the mean."""
    bridge, law = LAWS[name]
    x, x0, y, _ = inputs(load("goub"))
    flat = [[mpf(v) for v in u.flatten().tolist()] for u in (x0, y, x)]
    shares = (1e-6, 1.07e-3, 0.0123, 0.4567, 0.98713, 0.99907)  # at no kink of a table
    times = [u * bridge.T for u in shares] + [bridge.T - left for left in (1e-2, 1e-4, 1e-6)]
    with mp.workdps(DIGITS):
        for time in times:
            expected, variance = drifts(law, mpf(time), *flat)
            t = torch.tensor(time, dtype=torch.float64)
            for markov, wanted in zip((False, True), expected, strict=True):
                got, noise = velocity(bridge, t, x, x0, y, markov)
                # what the state itself, of 16 digits, can tell beside 1 / (T - t)
                lost = 1e-15 * float(bridge.T) / min(time, bridge.T - time)
                torch.testing.assert_close(
                    got.flatten(),
                    torch.tensor(wanted, dtype=torch.float64),
                    rtol=1e-8,
                    atol=1e-9 + lost,
                    msg=lambda m, at=time: f"t={at}: {m}",
                )
                assert float(noise) == pytest.approx(variance, rel=1e-6, abs=1e-9), time


@pytest.mark.parametrize("name", LAWS)
def test_a_formula_is_the_difference_of_the_law_on_both_sides(name):
    """Between whole times, and on either side of a kink."""
    bridge, _ = LAWS[name]
    for share in (0.2, 0.31, 0.6):
        t = torch.tensor(round(share * bridge.T, 1), dtype=torch.float64)
        for ahead in (False, True):
            ours, base = bridge.rates(t, ahead), Bridge.rates(bridge, t, ahead)
            for got, wanted in zip(ours, base, strict=True):
                assert got.shape == t.shape
                assert float(got) == pytest.approx(float(wanted), rel=1e-4, abs=1e-8)


def test_rates_take_a_batch_of_times():
    for bridge, _ in LAWS.values():
        t = torch.tensor([0.3, 0.55, 0.9], dtype=torch.float64) * bridge.T
        rows = bridge.rates(t)
        for index in range(3):
            one = bridge.rates(t[index])
            assert all(torch.equal(r[index], o) for r, o in zip(rows, one, strict=True))
