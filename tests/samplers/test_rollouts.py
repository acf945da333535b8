"""The official codes' own sampling loops, in float64, from our loop: the tables' toy network for
the trained one, and one fixed eps for every draw. Official times, plus 1 where the official code
counts from 0 for a noisy state."""

from itertools import chain, repeat

import numpy as np
import pytest
import torch
from golden import assert_close, inputs, load, tensor

from irbridge.bridges.base import Bridge
from irbridge.bridges.brownian import BBDM, I2SB
from irbridge.bridges.ddbm import DDBMVE, DDBMVP
from irbridge.bridges.nadb import NADB
from irbridge.bridges.ornstein_uhlenbeck import GOUB, IRSDE, RDBM, UniDB, cosine_theta
from irbridge.bridges.shifting import RDDM, DiffUIR, ResShift
from irbridge.samplers import Estimate, make
from irbridge.samplers.heun import velocity


def toy(x, y, t, rate=0.05):
    return 0.6 * x + 0.3 * y + 0.05 * np.cos(rate * t)


def rollout(bridge, sampler, table, x=None, *, network=toy, draws=None):
    """(last x, last estimate, number of calls) of the loop from x, or from the bridge's own start;
    ``draws`` are its noise, or else the table's eps each time."""
    _, _, y, eps = inputs(table)
    draws = repeat(eps) if draws is None else draws
    loop = sampler.loop(bridge, y, lambda like: next(draws), x=x)
    reply, calls = None, 0
    while True:
        try:
            t, state = loop.send(reply)
        except StopIteration as end:
            return end.value, reply[0], calls
        reply, calls = Estimate(network(state, y, t), state, bridge.marginal(t)), calls + 1


def shifted(x, y, t):
    """The toy network asked with the index of an official code whose first index is noisy."""
    return toy(x, y, t - 1)


def spaced(n, last):
    """The whole times of linspace(-1, last, n + 1), cut to integers, as our descending times."""
    return tuple((torch.linspace(-1, last, n + 1, dtype=torch.float64).int() + 1).tolist()[::-1])


def final_is(result, expected, calls, atol=1e-5):
    final, _, made = result
    assert made == calls
    assert_close(final, expected, atol)


# Interpolants


@pytest.mark.parametrize("n", ("3", "4", "5", "10"))
def test_diffuir(n):
    """Its network predicts y - x0, clamped; sampling starts at the published start, not at the end
    of training. As the rule leaves the noise in place, the answer is the last estimate, not the
    last state."""
    table = load("diffuir")
    run = table["rollout"]["final_by_sampling_timesteps"][n]
    times = spaced(int(n), 999)
    assert [t - 1 for t in times] == run["times"]

    def network(x, y, t):
        return (y - (y - shifted(x, y, t)).clamp(-1, 1)).clamp(-1, 1)

    _, answer, calls = rollout(DiffUIR(), make("drift", times=times), table, network=network)
    assert calls == int(n)
    assert_close(answer, run["final"], 1e-6)


@pytest.mark.parametrize("n", ("5", "10", "50"))
def test_rddm(n):
    table = load("rddm")
    run = table["rollout"]["final_by_sampling_timesteps"][n]
    result = rollout(
        RDDM(sum_scale=1.0), make("implicit", times=spaced(int(n), 999)), table, network=shifted
    )
    final_is(result, run["final"], int(n))


@pytest.mark.parametrize(
    "run",
    [r for r in load("nadb")["rollout"]["runs"] if r["d"] == "smallest"],
    ids=lambda run: str(run["nfe"]),
)
def test_nadb(run):
    """Both stages of its sampler; from the mean network's output, which the table takes for y."""
    for key, noise in (("final", True), ("final_without_noise", False)):
        result = rollout(
            NADB(), make("posterior", times=run["steps"][::-1], noise=noise), load("nadb")
        )
        final_is(result, run[key], run["nfe"], 1e-8)


def test_resshift():
    table = load("resshift_15step")
    run = table["rollout"]
    for key, noise in (("final", True), ("final_without_noise", False)):
        sampler = make("posterior", times=tuple(range(15, -1, -1)), noise=noise)
        final_is(rollout(ResShift(), sampler, table, network=shifted), run[key], 15)


# Exact bridges


@pytest.mark.parametrize("n", ("2", "5", "10", "20", "100"))
@pytest.mark.parametrize(
    "name,lam", [("rdbm_first_lamb10_255", 10 / 255), ("rdbm_head_lamb1e-4", 1e-4)]
)
def test_rdbm(name, lam, n):
    """Without any noise, so that the first step off the pinned end sets the mean of the next
    marginal."""

    def network(x, y, t):
        return shifted(x, y, t).clamp(-1, 1)

    table = load(name)
    sampler = make("implicit", noise=False, times=spaced(int(n), 99))
    result = rollout(RDBM(lam=lam), sampler, table, network=network)
    final_is(result, table["rollout"]["final_by_sampling_timesteps"][n], int(n), 1e-4)


@pytest.mark.parametrize("n", ("10", "50", "200"))
def test_bbdm(n):
    """BBDM's "eta = 0" is not DDIM but the posterior's mean."""
    table = load("bbdm_linear")
    run = table["rollout"]["final_by_sample_step"][n]
    indices = torch.arange(999, 1, -(999 / (int(n) - 2))).long().tolist() + [1, 0]
    assert run["steps"] in (None, indices)
    sampler = make("mean", times=tuple(t + 1 for t in indices) + (0,))
    final_is(rollout(BBDM(), sampler, table, network=shifted), run["final"], int(n), 1e-4)


@pytest.mark.parametrize("n", (1, 2, 5, 10, 100))
@pytest.mark.parametrize("name,beta_max", [("i2sb_betamax0.3", 0.3), ("i2sb_betamax1.0", 1.0)])
def test_i2sb(name, beta_max, n):
    """The official loop ends at its index 0, our t = 1, with the mean of the posterior."""
    table = load(name)
    run = table["rollout"]["final_by_nfe"][str(n)]
    indices = [round(i * 999 / n) for i in range(n, -1, -1)]
    assert run["steps"] in (None, indices[::-1])
    times, bridge = tuple(t + 1 for t in indices), I2SB(beta_max=beta_max)
    *_, eps = inputs(table)
    final_is(
        rollout(bridge, make("mean", times=times), table, network=shifted), run["final"], n, 1e-4
    )
    if "final_with_fixed_eps" in run:
        noisy = rollout(
            bridge,
            make("posterior", times=times),
            table,
            network=shifted,
            draws=chain([eps], repeat(eps, n - 1), repeat(0 * eps)),
        )
        final_is(noisy, run["final_with_fixed_eps"], n, 1e-4)


def label(value):
    """A run's name in the tests' ids."""
    if not isinstance(value, dict):
        return type(value).__name__ if isinstance(value, Bridge) else str(value)
    return "-".join(
        f"{key}{value[key]}" for key in ("N", "churn_step_ratio", "eta", "order") if key in value
    )


DDBM = [(DDBMVE(), "rollout", 2e-3, 0.05, run) for run in load("ddbm_ve")["rollout"]["runs"]]
DDBM += [(DDBMVP(), "rollout_vp", 1e-4, 5.0, run) for run in load("ddbm_ve")["rollout_vp"]["runs"]]


@pytest.mark.parametrize("bridge,key,low,rate,run", DDBM, ids=label)
def test_ddbm(bridge, key, low, rate, run):
    """Karras' times from T - 1e-4, where x is y exactly; the last interval is one Euler step to
    0."""
    ramp = np.linspace((bridge.T - 1e-4) ** (1 / 7), low ** (1 / 7), run["N"]) ** 7
    table = load("ddbm_ve")
    assert_close(run.get("sigmas", np.append(ramp, 0)), np.append(ramp, 0), 0, 1e-8)
    sampler = make("heun", churn=run["churn_step_ratio"], times=(*ramp, 0.0))
    result = rollout(
        bridge,
        sampler,
        table,
        tensor(table[key]["start"]),
        network=lambda x, y, t: toy(x, y, t, rate),
    )
    final_is(result, run["final"], run["nfe"], 1e-6)


DBIM = [
    (bridge, name, rate, run)
    for bridge, name, rate in ((DDBMVP(), "dbim_vp", 5.0), (DDBMVE(), "dbim_ve", 0.05))
    for run in load(name)["rollout"]["runs"]
]


@pytest.mark.parametrize("bridge,name,rate,run", DBIM, ids=label)
def test_dbim(bridge, name, rate, run):
    """A booting draw at T - 1e-3, then uniform steps; the result is the state at the earliest time,
    without noise."""
    table, low = load(name), {"dbim_vp": 1e-4, "dbim_ve": 2e-3}[name]
    *_, eps = inputs(table)
    times = (bridge.T, *np.linspace(bridge.T - 1e-3, low, run["N"] + 1))
    sampler = make(
        "eta" if "eta" in run else f"dbim{run['order']}",
        eta=run.get("eta", 1.0),
        boot=0.01,
        times=times,
    )
    result = rollout(
        bridge,
        sampler,
        table,
        tensor(table["rollout"]["start"]),
        draws=chain(repeat(eps, run["N"]), repeat(0 * eps)),
        network=lambda x, y, t: toy(x, y, t, rate),
    )
    final_is(result, run["final"], run["nfe"], 1e-7)


DBIM_I2SB = [
    (schedule, run)
    for schedule in load("dbim_i2sb")["schedules"]
    for run in schedule["rollout"]["runs"]
]


@pytest.mark.parametrize(
    "schedule,run", DBIM_I2SB, ids=lambda v: str(v["beta_max"]) if "beta_max" in v else label(v)
)
def test_dbim_with_the_convention_of_its_i2sb(schedule, run):
    """Its times are indices round(999 t), ours one more. All of its noise is the free motion's."""
    table = load("dbim_i2sb")
    _, _, y, eps = inputs(table)
    times = (1000, *(np.rint(999 * np.linspace(1 - 1e-3, 1e-4, run["N"] + 1)) + 1))
    asked = (1.0, *np.linspace(1 - 1e-3, 1e-4, run["N"] + 1))

    def network(x, y, t):
        return 0.6 * x + 0.3 * y + 0.05 * np.cos(5 * asked[times.index(t)])

    result = rollout(
        I2SB(beta_max=schedule["beta_max"], convention="dbim"),
        make(
            "eta" if "eta" in run else f"dbim{run['order']}",
            eta=run.get("eta", 1.0),
            boot=0.01,
            times=times,
        ),
        table,
        y,
        draws=chain(repeat(eps, run["N"]), repeat(0 * eps)),
        network=network,
    )
    final_is(result, run["final"], run["nfe"], 3e-8)


# The Euler loops of IR-SDE, GOUB and UniDB, in steps of 1


def noise_network(x, y, t):
    return 0.5 * x - 0.3 * y + 0.1 * np.sin(0.05 * t)


def euler(bridge, x, y, network, noise=None, markov=True):
    """Euler steps of our reverse SDE, or probability-flow ODE, down from T; network(x, y, t) gives
    x0. At a pinned end the official drift is 0 where x = y, and the noise that of the free process.
    """
    for t in range(int(bridge.T), 0, -1):
        at = torch.tensor(t, dtype=torch.float64)
        if bridge.marginal(t).noise > 0:
            slope, variance = velocity(bridge, at, x, network(x, y, t), y, markov)
        else:
            slope, variance = (
                0.0,
                2 * bridge.lam**2 * torch.tensor(np.diff(cosine_theta(bridge.T))[t - 1]),
            )
        x = x - slope - (0.0 if noise is None else variance.sqrt() * noise)
    return x


def by_noise(bridge):
    """x0 of the toy network that predicts eps."""

    def network(x, y, t):
        a, b, c = bridge.marginal(t)
        return (x - b * y - c * noise_network(x, y, t)) / a

    return network


@pytest.mark.parametrize(
    "name,bridge",
    [
        ("goub", GOUB()),
        ("goub_lambda2", GOUB(lam=2 / 255)),
        ("irsde_sigma10", IRSDE()),
        ("irsde_sigma30", IRSDE(lam=30 / 255)),
        ("irsde_sigma50", IRSDE(lam=50 / 255)),
    ],
)
def test_noise_networks(name, bridge):
    """GOUB's "mean-ODE", the reverse SDE without its noise, from y; IR-SDE's probability-flow ODE
    from y + lam eps."""
    table, goub = load(name), isinstance(bridge, GOUB)
    _, _, y, eps = inputs(table)
    start = y if goub else y + bridge.lam * eps
    assert_close(start, table["rollout"].get("start", start), 1e-9)
    assert_close(
        euler(bridge, start, y, by_noise(bridge), markov=goub), table["rollout"]["final"], 1e-4
    )


def test_goub_and_irsde_reverse_sde():
    for name, bridge, mean in (
        ("goub_lambda2", GOUB(lam=2 / 255), "final_mean_ode"),
        ("irsde_sigma50", IRSDE(lam=50 / 255), "final_ode"),
    ):
        table = load(name)
        _, _, y, eps = inputs(table)
        start = tensor(table["rollout_x0"]["start"])
        final = euler(bridge, start, y, toy, markov=isinstance(bridge, GOUB))
        assert_close(final, table["rollout_x0"][mean], 1e-5)
        assert_close(euler(bridge, start, y, toy, eps), table["rollout_x0"]["final_sde"], 1e-5)


@pytest.mark.parametrize(
    "key,rule", [("final_posterior", "posterior"), ("final_posterior_mean", "mean")]
)
def test_irsde_posterior(key, rule):
    table = load("irsde_sigma50")
    start = tensor(table["rollout_x0"]["start"])
    result = rollout(IRSDE(lam=50 / 255), make(rule, times=tuple(range(100, -1, -1))), table, start)
    final_is(result, table["rollout_x0"][key], 100)


@pytest.mark.parametrize(
    "run", load("unidb")["rollout"]["final_by_gamma_inv"], ids=lambda run: str(run["gamma_inv"])
)
def test_unidb(run):
    """Its Euler steps are of the controlled SDE, with the score of a std that is not that SDE's
    own."""
    bridge, table = UniDB(gamma=1 / run["gamma_inv"]), load("unidb")
    theta = cosine_theta(100)
    _, _, y, eps = inputs(table)
    for key, noise in (("reverse_mean_ode", 0.0), ("reverse_sde_with_fixed_eps", eps)):
        x = y
        for t in range(100, 0, -1):
            a, b, c = bridge.marginal(t)
            variance, left = (
                2 * bridge.lam**2 * (theta[t] - theta[t - 1]),
                np.exp(-2 * (theta[-1] - theta[t])),
            )
            drift = (theta[t] - theta[t - 1]) * (y - x)
            if t < 100:
                drift = drift + variance * left / (
                    run["gamma_inv"] + bridge.lam**2 * (1 - left)
                ) * (y - x)
                drift = drift + variance * (x - a * toy(x, y, t) - b * y) / c**2
            x = x - drift - variance**0.5 * noise
        assert_close(x, run[key], 1e-5)
