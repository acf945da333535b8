"""Bridges: coefficients and rollouts of the official codes, each bridge's own SDE, and both ends."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from golden import assert_close, inputs, load, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from irbridge.bridges import GOUB, OU, Bridge, Brownian, Residual, alpha_bar_theta, cosine_theta
from irbridge.errors import UserError
from irbridge.process import RULES, draw, implicit_keep, marginal, posterior_keep, step

KINDS = (Brownian, OU, GOUB, Residual)


def toy_x0(x, y, t):
    return 0.6 * x + 0.3 * y + 0.05 * np.cos(0.05 * t)


# Golden tables

@pytest.mark.parametrize("name,bridge,offset", [
    ("goub", GOUB(), 0), ("irsde_sigma10", OU(), 0), ("irsde_sigma30", OU(lam=30 / 255), 0),
    ("rdbm_first_lamb10_255", Residual(), 1), ("rdbm_head_lamb1e-4", Residual(lam=1e-4), 1)])
def test_coefficients(name, bridge, offset):
    rows = load(name)["coefficients"]
    assert len(rows) == 13
    for row in rows:
        m = bridge.marginal(row["t"] + offset)
        assert_close(m[:2], [row["a"], row["b"]], 2.5e-7, 0)
        assert_close(m.noise, row["c"], 1e-9, 1e-5)


def test_rates_are_the_published_ones():
    table = load("goub")
    for row in table["coefficients"][1:]:
        assert_close(np.diff(cosine_theta(100))[row["t"] - 1], row["theta"] * table["dt"], 1e-7)
    for row in load("rdbm_first_lamb10_255")["coefficients"]:
        assert_close(np.diff(alpha_bar_theta(100))[row["t"]], row["theta"], 1e-6)


def euler(bridge, t, x, y, score, share=1.0):
    """The official Euler step of the reverse SDE's drift from t to t - 1; ``share`` 0.5 is IR-SDE's ODE."""
    theta = cosine_theta(100)
    rate = pull = theta[t] - theta[t - 1]
    if isinstance(bridge, GOUB) and t < 100:   # the h-transform, which the official loop leaves out at T
        pull += 2 * rate / np.expm1(2 * (theta[100] - theta[t]))
    if isinstance(bridge, GOUB) and t == 100:
        score = 0.0
    return x - pull * (y - x) + share * 2 * bridge.lam**2 * rate * score


@pytest.mark.parametrize("name,bridge,key,share", [
    ("goub", GOUB(), "euler_sde_mean", 1.0), ("irsde_sigma10", OU(), "euler_sde_mean", 1.0),
    ("irsde_sigma10", OU(), "euler_ode", 0.5), ("irsde_sigma30", OU(lam=30 / 255), "euler_ode", 0.5)])
def test_official_euler_steps_and_rollouts(name, bridge, key, share):
    """GOUB's and IR-SDE's own loops on our marginals: their score is -eps / c, eps a toy network."""
    table = load(name)
    x, _, y, eps = inputs(table)
    for row in table["reverse_steps"]:
        score = -tensor(row.get("true_eps", [0.0] * 4)) / bridge.marginal(row["t"]).noise
        assert_close(euler(bridge, row["t"], x, y, score, share), row[key], 5e-6)
    if name != "goub" and key != "euler_ode":
        return
    x = y if name == "goub" else y + bridge.lam * eps
    for t in range(100, 0, -1):
        toy = 0.5 * x - 0.3 * y + 0.1 * np.sin(0.05 * t)
        x = euler(bridge, t, x, y, -toy / bridge.marginal(t).noise, share)
    assert_close(x, table["rollout"]["final"], 1e-4)


@pytest.mark.parametrize("name,lam", [("rdbm_first_lamb10_255", 10 / 255), ("rdbm_head_lamb1e-4", 1e-4)])
def test_rdbm_implicit_steps_and_rollouts(name, lam):
    """Official index + 1 is t. At the pinned end the official code sets the mean of the next marginal."""
    table, bridge = load(name), Residual(lam=lam)
    x, x0, y, _ = inputs(table)

    def implicit(x, x0, t, t_next):
        now, then = bridge.marginal(t + 1), bridge.marginal(t_next + 1)
        return step(x, x0, y, now, then, implicit_keep(now, then))

    for row in table["reverse_steps"]:
        assert_close(implicit(x, x0, row["t"], row["t_next"]), row["mean_pred_x_start_branch"])
    for n, final in table["rollout"]["final_by_sampling_timesteps"].items():
        times, state = torch.linspace(-1, 99, int(n) + 1).int().tolist()[::-1], y
        for t, t_next in pairwise(times):
            toy = toy_x0(state, y, t)
            state = implicit(state, toy.clamp(-1, 1), t, t_next)
        assert_close(state, final, 1e-4)


def bbdm(t):
    return Brownian(T=1, sigma=2**0.5).marginal(np.linspace(0.001, 0.999, 1000)[t])


def test_bbdm_steps_and_rollouts():
    """BBDM's "eta = 0" is not DDIM but the posterior's mean: the rule ``mean``."""
    table = load("bbdm_linear")
    x, x0, y, _ = inputs(table)
    for row in table["coefficients"]:
        assert_close(bbdm(row["t"]), [row["a"], row["b"], row["c"]], 1e-6)
    for row in table["reverse_steps"]:
        now, then = bbdm(row["t"]), marginal(1, 0, 0) if row["t_next"] is None else bbdm(row["t_next"])
        mean = step(x, x0, y, now, then, posterior_keep(now, then))
        assert_close(mean, row["mean"])
        if row["eta"] == 1:
            noisy = step(x, x0, y, now, then, posterior_keep(now, then), torch.ones_like(x))
            assert_close(noisy - mean, np.full(4, row["std"]))
    for n, run in table["rollout"]["final_by_sample_step"].items():
        times = torch.arange(999, 1, -(999 / (int(n) - 2))).long().tolist() + [1, 0]
        assert run["steps"] in (None, times)
        state = y
        for i, t in enumerate(times):
            toy = toy_x0(state, y, t)
            now, then = bbdm(t), marginal(1, 0, 0) if i == len(times) - 1 else bbdm(times[i + 1])
            state = step(state, toy, y, now, then, RULES["mean"].keep(now, then, 1.0))
        assert_close(state, run["final"], 1e-4)


def test_i2sb_steps_and_rollouts():
    """p_posterior is the posterior between marginals N(x0, std_fwd^2): y drops out, as in any h-transform."""
    table = load("i2sb_betamax0.3")
    x, x0, y, _ = inputs(table)
    half = np.linspace(1e-4**0.5, (0.3 / 1000) ** 0.5, 1000) ** 2
    std_fwd = np.sqrt(np.cumsum(np.concatenate([half[:500], half[:500][::-1]])))

    def at(t):
        return marginal(1, 0, std_fwd[t])

    for row in table["coefficients"]:
        assert_close(std_fwd[row["t"]], row["std_fwd"])
    for row in table["reverse_steps"]:
        now, then = at(row["t"]), at(row["t_next"])
        mean = step(x, x0, y, now, then, posterior_keep(now, then))
        assert_close(mean, row["posterior_mean"])
        noisy = step(x, x0, y, now, then, posterior_keep(now, then), torch.ones_like(x))
        assert_close(noisy - mean, np.full(4, row["analytic_std"]))
    for run in table["rollout"]["final_by_nfe"].values():
        times = (run["steps"] or [])[::-1]
        state = y
        for t, t_next in pairwise(times):
            toy = toy_x0(state, y, t)
            state = step(state, toy, y, at(t), at(t_next), posterior_keep(at(t), at(t_next)))
        if times:
            assert_close(state, run["final"], 1e-4)


# Each bridge's own SDE

def simulate(drift_and_rate, x0, y, times, substeps):
    """Euler-Maruyama from x0: yields (t, paths) at integer times. drift_and_rate(x, t) per unit of t."""
    generator = torch.Generator().manual_seed(0)
    x = x0.expand(4000, -1).clone()
    for i in range(max(times) * substeps):
        drift, rate = drift_and_rate(x, i / substeps)
        x += drift / substeps + (rate / substeps) ** 0.5 * torch.randn(x.shape, generator=generator,
                                                                       dtype=torch.float64)
        if (i + 1) % substeps == 0 and (i + 1) // substeps in times:
            yield (i + 1) // substeps, x


def brownian_sde(bridge, x0, y):
    return lambda x, t: ((y - x) / (bridge.T - t), bridge.sigma**2 / bridge.T)


def ou_sde(bridge, x0, y):
    """dx = theta (y - x) dt + sqrt(2 lam^2 theta) dw."""
    rate = np.diff(cosine_theta(bridge.T))
    return lambda x, t: (rate[int(t)] * (y - x), 2 * bridge.lam**2 * rate[int(t)])


def goub_sde(bridge, x0, y):
    """OU's, with the h-transform's drift g^2 exp(-2 th_tT) (y - x) / (lam^2 (1 - exp(-2 th_tT)))."""
    total, rate = cosine_theta(bridge.T), np.diff(cosine_theta(bridge.T))

    def sde(x, t):
        left = np.exp(-2 * (total[-1] - np.interp(t, np.arange(len(total)), total)))
        return rate[int(t)] * (1 + 2 * left / (1 - left)) * (y - x), 2 * bridge.lam**2 * rate[int(t)]
    return sde


def residual_sde(bridge, x0, y):
    """dx = theta coth(th_tT) (y - x) dt + sqrt(2 pi^2 lam theta) dw, pi = x0 - y element-wise."""
    total, rate = alpha_bar_theta(bridge.T), np.diff(alpha_bar_theta(bridge.T))

    def sde(x, t):
        left = total[-1] - np.interp(t, np.arange(len(total)), total)
        return rate[int(t)] / np.tanh(left) * (y - x), 2 * bridge.lam * (x0 - y) ** 2 * rate[int(t)]
    return sde


@pytest.mark.parametrize("bridge,sde,substeps", [
    (Brownian(T=20, sigma=0.7), brownian_sde, 50), (OU(lam=0.4), ou_sde, 10), (GOUB(lam=0.4), goub_sde, 10),
    (Residual(lam=0.5), residual_sde, 10)])
def test_marginal_is_that_of_the_sde(bridge, sde, substeps):
    """Mean and standard deviation of 4000 paths within 4.5 standard errors of the claimed marginal."""
    x0, y = torch.tensor([[0.3, -0.5, 0.8], [-0.3, 0.4, 0.5]], dtype=torch.float64).unsqueeze(1)
    times = [int(f * bridge.T) for f in (0.15, 0.4, 0.7, 0.9)]
    seen = 0
    for t, paths in simulate(sde(bridge, x0, y), x0, y, times, substeps):
        m, scale = bridge.marginal(t), torch.as_tensor(bridge.scale(x0, y)).abs()
        std = (m.noise * scale).expand(1, 3)
        assert ((paths.mean(0) - draw(m, x0, y, 0 * x0)).abs() < 4.5 * std / 4000**0.5).all()
        assert ((paths.std(0) / std - 1).abs() < 4.5 / 8000**0.5).all()
        seen += 1
    assert seen == 4


# Invariants

@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(KINDS), st.sampled_from((1, 7, 100, 1000)), st.floats(0, 1), st.floats(0, 1))
def test_levels_grow_and_the_ends_share_the_weight(kind, T, u, v):
    bridge, (s, t) = kind(T=T), sorted((u * T, v * T))
    early, late = bridge.marginal(s), bridge.marginal(t)
    assert early.level <= late.level * (1 + 1e-9)
    for m in (early, late):
        assert 0 <= m.clean <= 1 and m.noise >= 0
        assert float(m.clean + m.degraded) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("T", (1, 7, 100, 1000))
@pytest.mark.parametrize("kind", KINDS)
def test_ends(kind, T):
    """Clean at 0 and, but for OU, pinned at y at T; to float64's precision."""
    assert_close(kind(T=T).marginal(0), [1, 0, 0], 1e-15, 0)
    end = kind(T=T).marginal(T)
    if kind is OU:
        assert_close(end, [0.005, 0.995, 10 / 255 * (1 - 0.005**2) ** 0.5], 1e-15, 1e-12)
    else:
        assert_close(end, [0, 1, 0], 1e-15, 0)
        assert end.level == torch.inf


def test_times_between_the_published_ones_interpolate():
    for kind in KINDS:
        batch = kind().marginal(torch.tensor([40.0, 40.5, 41.0]))
        assert batch.clean.shape == (3,) and batch.clean.dtype == torch.float64
        assert batch.clean[0] > batch.clean[1] > batch.clean[2]
        assert batch.noise[1] == kind().marginal(40.5).noise


def test_bad_T():
    with pytest.raises(UserError, match="T=0"):
        Bridge(T=0)
