"""Bridges: coefficients, scalings and single steps of the official codes, and what holds for all
classes. The official index + 1 is t where its first state is noisy."""

import numpy as np
import pytest
import torch
from golden import assert_close, inputs, load, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from irbridge.bridges.base import Bridge
from irbridge.bridges.brownian import BBDM, I2SB, Brownian
from irbridge.bridges.ddbm import DDBMVE, DDBMVP
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
from irbridge.errors import UserError
from irbridge.gaussian.transition import step
from irbridge.models.bridge_network import readout
from irbridge.samplers import make
from irbridge.samplers.heun import velocity


def at(t):
    return torch.tensor(t, dtype=torch.float64)


def is_step(table, laws, mean, std=0.0, atol=2e-6, std_atol=1e-6):
    """The step from the table's x_t with its true x0 has this mean, and this std of fresh noise."""
    x, x0, y, _ = inputs(table)
    got = step(x, x0, y, *laws)
    assert_close(got, mean, atol)
    assert_close(step(x, x0, y, *laws, torch.ones_like(x)) - got, np.full(4, std), std_atol)


# Coefficients and scalings


@pytest.mark.parametrize(
    "name,bridge,offset",
    [
        ("goub", GOUB(), 0),
        ("goub_lambda2", GOUB(lam=2 / 255), 0),
        ("irsde_sigma10", IRSDE(), 0),
        ("irsde_sigma30", IRSDE(lam=30 / 255), 0),
        ("irsde_sigma50", IRSDE(lam=50 / 255), 0),
        ("bbdm_linear", BBDM(), 1),
        ("rdbm_first_lamb10_255", RDBM(), 1),
        ("rdbm_head_lamb1e-4", RDBM(lam=1e-4), 1),
        ("i2sb_betamax0.3", I2SB(), 1),
        ("i2sb_betamax1.0", I2SB(beta_max=1.0), 1),
        ("ddbm_ve", DDBMVE(), 0),
        ("dbim_ve", DDBMVE(), 0),
        ("dbim_vp", DDBMVP(), 0),
        ("ddbm_vp", DDBMVP(), 0),
    ],
)
def test_coefficients(name, bridge, offset):
    """Most official codes are in float32, so that their tables are exact to 2.5e-7; DDBM's VP loses
    digits near T even in its float64 column, which DBIM's table of the same bridge does not."""
    rows = load(name)["coefficients"]
    assert len(rows) >= 10
    for row in rows:
        m = bridge.marginal(row["t"] + offset)
        a, b, c = (row.get(f"{key}_f64", row[key]) for key in "abc")
        assert_close(m[:2], [a, b], 2.5e-7, 0)
        assert_close(m.noise, c, 1e-9, 2e-4 if name == "ddbm_vp" else 1e-5)
        if "std_fwd" in row:
            assert_close(bridge.spread(row["t"] + 1), row["std_fwd"], 1e-7, 0)


def test_unidb_coefficients():
    """gamma_inv 0.1 is not published, but shows the terminal cost; the published std has none of
    it."""
    for row in load("unidb")["coefficients"]:
        bridge = UniDB(gamma=1 / row["gamma_inv"])
        assert_close(bridge.marginal(row["t"]), [row["a"], row["b"], row["c"]], 2.5e-7, 0)
        assert bridge.marginal(row["t"]).noise == GOUB().marginal(row["t"]).noise


def test_rates_are_the_published_ones():
    table = load("goub")
    for row in table["coefficients"][1:]:
        assert_close(np.diff(cosine_theta(100))[row["t"] - 1], row["theta"] * table["dt"], 1e-7)
    for row in load("rdbm_first_lamb10_255")["coefficients"]:
        assert_close(np.diff(alpha_bar_theta(100))[row["t"]], row["theta"], 1e-6)


@pytest.mark.parametrize(
    "name,bridge,atol", [("ddbm_vp", DDBMVP(), 1e-7), ("ddbm_ve", DDBMVE(), 1e-9)]
)
def test_ddbm_scalings(name, bridge, atol):
    for row in load(name)["coefficients"]:
        form = readout("edm", bridge, at(row["t"]))
        assert form.end == 0
        assert_close(
            [form.state, form.output, form.scale],
            [row["c_skip"], row["c_out"], row["c_in"]],
            atol,
            1e-6,
        )
    table = load("ddbm_ve")
    x, _, _, eps = inputs(table)
    for row in table["preconditioning"]["rows"]:
        form = readout("edm", DDBMVE() if row["mode"] == "ve" else DDBMVP(), at(row["t"]))
        assert_close(form.scale * x, row["network_input"], 1e-8)
        assert_close(form.state * x + form.output * eps, row["denoised"], 1e-8)


def test_i2sbs_label():
    """Its network predicts (x_t - x0) / std_fwd, the std of the free Brownian motion."""
    table = load("i2sb_betamax1.0")
    x, x0, _, _ = inputs(table)
    form = readout("score", I2SB(beta_max=1.0), at(501.0))
    assert_close(form.state * x + form.output * tensor(table["target"]["label_at_t500"]), x0, 1e-6)


@pytest.mark.parametrize(
    "bridge,start",
    [
        (BBDM(), (0, 1, 0)),
        (BBDM(start="marginal"), (0, 1, 0.0447)),
        (I2SB(), (0, 1, 0)),
        (GOUB(), (0, 1, 0)),
        (UniDB(), (0, 1, 0)),
        (UniDB(exact=True), (0, 1, 3.162e-4)),
        (IRSDE(), (0, 1, 0.0392)),
        (IRSDE(start="y"), (0, 1, 0)),
        (DDBMVE(), (0, 1, 0)),
        (DDBMVP(), (0, 1, 0)),
        (RDBM(), (0, 1, 0)),
        (Brownian(T=3), (0, 1, 0)),
    ],
)
def test_starts(bridge, start):
    assert_close(bridge.begin(), start, 2e-5, 0)


# Single steps


@pytest.mark.parametrize(
    "name,bridge,atol",
    [
        ("goub_lambda2", GOUB(lam=2 / 255), 2e-6),
        ("irsde_sigma50", IRSDE(lam=50 / 255), 2e-5),
        ("unidb", None, 5e-6),
    ],
)
def test_posterior_steps(name, bridge, atol):
    table = load(name)
    rows = [row for row in table["reverse_steps"] if row.get("posterior_mean")]
    assert len(rows) >= 6
    for row in rows:
        laws = make("posterior").laws(
            bridge or UniDB(gamma=1 / row["gamma_inv"]), row["t"], row["t_next"]
        )
        is_step(table, laws, row["posterior_mean"], row["posterior_std"], atol)


@pytest.mark.parametrize("name,bridge", [("dbim_vp", DDBMVP()), ("dbim_ve", DDBMVE())])
def test_dbim_eta_steps(name, bridge):
    table = load(name)
    for row in table["reverse_steps"]:
        laws = make("eta", eta=row["eta"]).laws(bridge, row["t"], row["t_next"])
        is_step(table, laws, row["mean"], row["std"], 1e-8)


@pytest.mark.parametrize("name,bridge", [("ddbm_vp", DDBMVP()), ("ddbm_ve", DDBMVE())])
def test_ddbm_drifts(name, bridge):
    """dx/dt of the reverse SDE, its g^2, and dx/dt of the probability-flow ODE; ours from numerical
    derivatives."""
    table = load(name)
    x, x0, y, _ = inputs(table)
    for row in table["reverse_drifts"]:
        slope, rate = velocity(bridge, at(row["t"]), x, x0, y, markov=True)
        assert_close(slope, row["drift_sde"], 1e-4)
        assert_close(rate, row["g2"], 1e-5)
        assert_close(velocity(bridge, at(row["t"]), x, x0, y)[0], row["drift_pf_ode"], 1e-4)


@pytest.mark.parametrize(
    "name,bridge,last",
    [
        ("goub", GOUB(), 99),
        ("goub_lambda2", GOUB(lam=2 / 255), 99),
        ("irsde_sigma10", IRSDE(), 100),
        ("irsde_sigma30", IRSDE(lam=30 / 255), 100),
        ("irsde_sigma50", IRSDE(lam=50 / 255), 100),
    ],
)
def test_official_euler_steps(name, bridge, last):
    """A step of 1 along our reverse SDE; off GOUB's pinned end, where the official score is 0."""
    table = load(name)
    x, x0, y, _ = inputs(table)
    rows = [row for row in table["reverse_steps"] if row["t"] <= last]
    assert len(rows) >= 6
    for row in rows:
        slope, rate = velocity(bridge, at(row["t"]), x, x0, y, markov=True)
        assert_close(x - slope, row["euler_sde_mean"], 2e-5)
        assert_close(rate.sqrt(), row.get("euler_sde_std", rate.sqrt()), 1e-7)
        if "euler_ode" in row:
            assert_close(x - velocity(bridge, at(row["t"]), x, x0, y)[0], row["euler_ode"], 2e-5)


@pytest.mark.parametrize(
    "name,lam", [("rdbm_first_lamb10_255", 10 / 255), ("rdbm_head_lamb1e-4", 1e-4)]
)
def test_rdbm_implicit_steps(name, lam):
    """At the pinned end the official code sets the mean of the next marginal."""
    table = load(name)
    x, x0, y, _ = inputs(table)
    for row in table["reverse_steps"]:
        laws = make("implicit").laws(RDBM(lam=lam), row["t"] + 1, row["t_next"] + 1)
        assert_close(step(x, x0, y, *laws), row["mean_pred_x_start_branch"])


def test_bbdm_steps():
    """Its eta scales the fresh noise alone: 0 is the posterior's mean, not DDIM."""
    table = load("bbdm_linear")
    for row in table["reverse_steps"]:
        laws = make("mean").laws(
            BBDM(), row["t"] + 1, 0 if row["t_next"] is None else row["t_next"] + 1
        )
        x, x0, y, _ = inputs(table)
        mean = step(x, x0, y, *laws)
        assert_close(mean, row["mean"])
        if row["eta"] == 1:
            assert_close(step(x, x0, y, *laws, torch.ones_like(x)) - mean, np.full(4, row["std"]))


@pytest.mark.parametrize("name,beta_max", [("i2sb_betamax0.3", 0.3), ("i2sb_betamax1.0", 1.0)])
def test_i2sb_steps(name, beta_max):
    """y drops out of its posterior, as in any h-transform; not out of that of its own marginals,
    whose sums count beta_t twice, unless those are mended."""
    table = load(name)
    for row in table["reverse_steps"]:
        t, s = row["t"] + 1, row["t_next"] + 1
        is_step(
            table,
            I2SB(beta_max=beta_max).posterior(t, s),
            row["posterior_mean"],
            row["analytic_std"],
        )
    exact = I2SB(beta_max=beta_max, official=False)
    for t, s in ((900, 300), (500, 499), (30, 0)):
        mine, generic = exact.posterior(t, s), Bridge.posterior(exact, t, s)
        x, x0, y, eps = inputs(table)
        assert_close(step(x, x0, y, *mine, eps), step(x, x0, y, *generic, eps), 1e-12, 1e-9)


# Invariants of all classes

KINDS = {
    "brownian": Brownian,
    "ou": IRSDE,
    "goub": GOUB,
    "unidb": UniDB,
    "unidb_exact": lambda T: UniDB(T=T, exact=True),
    "residual": RDBM,
    "bbdm": BBDM,
    "i2sb": I2SB,
    "i2sb_exact": lambda T: I2SB(T=T, official=False),
    "ddbm_ve": DDBMVE,
    "ddbm_vp": DDBMVP,
    "oubridge": OUBridge,
    "oubridge_mean": lambda T: OUBridge(T=T, mean=0.4),
    "resshift": ResShift,
    "rddm": RDDM,
    "diffuir": DiffUIR,
    "nadb": NADB,
}
PINNED = {
    "brownian",
    "goub",
    "unidb",
    "residual",
    "i2sb_exact",
    "ddbm_ve",
    "ddbm_vp",
    "oubridge",
    "oubridge_mean",
    "nadb",
}
LEAKY = {"diffuir", "ddbm_vp", "oubridge_mean"}  # a + b < 1 between the ends
SIMILAR = ("brownian", "nadb", "oubridge", "oubridge_mean")
lengths = (2, 7, 100, 1000)


def made(kind, T):
    """DDBM's VP bridge is so steep in t that it is only of use for T near 1."""
    return KINDS[kind](T=T / 100 if kind == "ddbm_vp" else T)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(KINDS)), st.sampled_from(lengths), st.floats(0, 1), st.floats(0, 1))
def test_levels_grow_and_weights_are_shares(kind, T, u, v):
    """The published UniDB has GOUB's std but not its mean, so that its level falls just before
    T."""
    bridge = made(kind, T)
    early, late = (bridge.marginal(w * bridge.T) for w in sorted((u, v)))
    if kind != "unidb":
        assert early.level <= late.level * (1 + 1e-9)
    for m in (early, late):
        assert all(torch.isfinite(field) for field in m)
        assert 0 <= m.clean <= 1 and -1e-12 <= m.degraded <= 1 and m.noise >= 0
        total = float(m.clean + m.degraded)
        assert total <= 1 + 1e-12 and (kind in LEAKY or total == pytest.approx(1, abs=1e-12))


@pytest.mark.parametrize("T", lengths)
@pytest.mark.parametrize("kind", KINDS)
def test_ends(kind, T):
    """Clean at 0, and pinned at T or not as published; to float64's precision."""
    bridge = made(kind, T)
    assert_close(bridge.marginal(0), [1, 0, 0], 1e-15, 0)
    end = bridge.marginal(bridge.T)
    assert bridge.pinned == (kind in PINNED) == (end.noise == 0)
    if kind in PINNED - {"unidb"}:
        assert_close(end, [0, 1, 0], 1e-15, 0)
        assert end.level == torch.inf
    elif kind == "ou":
        assert_close(end, [0.005, 0.995, 10 / 255 * (1 - 0.005**2) ** 0.5], 1e-15, 1e-12)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(SIMILAR), st.sampled_from(lengths), st.floats(0, 1))
def test_T_is_a_unit_of_time(kind, T, share):
    for one, other in zip(KINDS[kind](T=T).marginal(share * T), KINDS[kind](T=1).marginal(share)):
        assert_close(one, other, 1e-9, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_times_between_the_published_ones_interpolate(kind):
    bridge = made(kind, 100)
    t = bridge.T * torch.tensor([0.4, 0.405, 0.41], dtype=torch.float64)
    batch = bridge.marginal(t)
    assert all(field.shape == (3,) and field.dtype == torch.float64 for field in batch)
    assert batch.clean[0] > batch.clean[1] > batch.clean[2]
    assert_close(batch.noise[1], bridge.marginal(float(t[1])).noise, 0, 1e-14)


@pytest.mark.parametrize(
    "make,words",
    [
        (lambda: Bridge(T=0), "T=0"),
        (lambda: Brownian(T=-3.0), "T=-3.0 must be positive"),
        (lambda: GOUB(T=10.5), "whole number"),
        (lambda: I2SB(start="end"), "start='end'"),
        (lambda: GOUB(start="published"), "choose one of marginal, y."),
        (lambda: RDBM(pi="half"), "pi='half'"),
    ],
)
def test_bad_options(make, words):
    with pytest.raises(UserError, match=words):
        make()


@pytest.mark.parametrize("schedule", load("dbim_i2sb")["schedules"], ids=lambda s: s["beta_max"])
def test_i2sb_by_dbims_convention(schedule):
    """The official sums as shares of the sum of all betas; their code, but for index 999, which
    only starts a trajectory: there x is y."""
    bridge = I2SB(beta_max=schedule["beta_max"], convention="dbim")
    for row in schedule["coefficients"][:-1]:
        law = bridge.marginal(row["index"] + 1)
        assert_close(law, [row["a"], row["b"], row["c"]], 1e-12, 1e-9)
    assert bridge.pinned and list(bridge.marginal(1000)) == [0, 1, 0]
    published = I2SB(beta_max=schedule["beta_max"])
    apart = [
        (bridge.marginal(t).clean - published.marginal(t).clean).abs().item()
        for t in range(1, 1000)
    ]
    assert 1e-4 < max(apart) < 1e-3  # what the conventions differ by
    for wrong in ({"convention": "ddbm"}, {"convention": "dbim", "official": False}):
        with pytest.raises(UserError, match="bridge.convention"):
            I2SB(**wrong)
