"""Step rules and loops: what each rule promises, call counts, times, diffusers as an oracle, and
refusals. Means and variances are exact, see ``closed_form``; the orders of convergence are in
``test_exactness``."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from closed_form import BRIDGES, OWN, PRIORS, X0, Draws, Y, column, law, run
from golden import assert_close

from irbridge.bridges.base import Bridge
from irbridge.bridges.brownian import I2SB, Brownian
from irbridge.bridges.ornstein_uhlenbeck import GOUB, IRSDE, RDBM
from irbridge.bridges.shifting import RDDM, ResShift
from irbridge.errors import UserError
from irbridge.gaussian.marginal import draw, marginal
from irbridge.priors.vp import VP, vp_alphas_cumprod
from irbridge.samplers import Estimate, PriorPath, make
from irbridge.samplers.base import REGISTRY
from irbridge.samplers.spacing import SPACINGS

# Rules are what they are called


def everywhere(name, sampler, estimate, noise=None):
    """Walk off the bridge's own start, over the same uneven times for all."""
    bridge = BRIDGES[name]
    times = tuple(bridge.T * u for u in (1.0, 0.83, 0.6, 0.31, 0.07, 0.0))
    return [x for _, x in run(bridge, sampler.changed(times=times), estimate, noise)[0]]


@pytest.mark.parametrize("name", BRIDGES)
def test_eta_joins_implicit_and_posterior(name):
    def estimate(t, x):
        return torch.tanh(1.3 * x + 0.2)

    walks = {
        (how, eta): everywhere(name, make(how, eta=eta), estimate)
        for how, eta in [("implicit", 1), ("posterior", 1), ("eta", 0), ("eta", 1), ("eta", 0.5)]
    }
    assert all(map(torch.equal, walks["eta", 1], walks["posterior", 1]))
    assert all(map(torch.equal, walks["eta", 0], walks["implicit", 1]))
    if name != "residual zero":  # no noise, no choice
        assert not torch.equal(walks["eta", 0.5][-1], walks["eta", 0][-1])
        assert not torch.equal(walks["eta", 0.5][-1], walks["eta", 1][-1])


DRAWN = {
    "reverse": 0,
    "implicit": 0,
    "posterior": 4,
    "eta": 4,
    "mean": 0,
    "renoise": 4,
    "dbim2": 0,
    "dbim3": 0,
    "odes3": 0,
    "heun": 5,
}  # in five steps, the last to the clean end, after the start


@pytest.mark.parametrize("how", DRAWN)
@pytest.mark.parametrize("name", ["ou", "ddbmvp", "goub", "resshift", "brownian"])
def test_which_rules_draw_how_much(name, how):
    """One draw for the start, one for each step that does not keep all noise, among them any off a
    pinned end."""
    bridge, noise = BRIDGES[name], Draws()
    if how == "heun" and bridge.pinned:
        bridge = IRSDE(lam=0.3)
    times = tuple(bridge.T * u for u in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0))
    off = bridge.pinned and how in ("implicit", "dbim2", "dbim3", "odes3")
    run(bridge, make(how, times=times, eta=0.5), noise=noise)
    assert noise.count == 1 + DRAWN[how] + off
    quiet = Draws()
    run(bridge, make(how, times=times, eta=0.5, noise=False), noise=quiet)
    assert quiet.count == 1
    without = Draws()
    run(bridge, make("heun", times=(0.9 * bridge.T, *times[1:]), churn=0.0), noise=without)
    assert without.count == 1


def test_drift_draws_where_the_bridge_gets_noisier():
    bridge, noise = BRIDGES["brownian"], Draws()
    run(bridge, make("drift", times=(100, 80, 60, 40, 20, 0)), noise=noise)
    assert noise.count == 1 + 2


@pytest.mark.parametrize("how", ["posterior", "renoise", "heun", "implicit", "dbim3"])
def test_without_noise_nothing_is_left_to_chance(how):
    """From a pinned end (RDBM as published), or from a given state: all columns are the run without
    noise."""
    for name in ("goub", "residual one", "brownian", "ddbmve"):
        _, x = run(BRIDGES[name], make(how, nfe=7, boot=0.01, noise=False))
        assert law(x)[1] < 1e-28


# The marginal of every step

KEEPING = [name for name in OWN if name not in ("mean", "drift", "heun")]


def known(bridge, how, width=32):
    """Walk from the true law of x_T, or from beside the pinned end, with x0 known: rows (a X0 + b
    Y, c) and what the states have, at every later time. ``reverse`` is handed states of a prior."""
    times = np.array([bridge.T * u for u in (1.0, 0.9, 0.71, 0.5, 0.22, 0.03, 0.0)])
    noise, x0, y = Draws(), column(X0, width), column(Y, width)
    scale = bridge.scale(x0[0, 0], y[0, 0])
    start = draw(bridge.marginal(bridge.T), x0, y, noise(y) * scale)
    loop = make(how, times=tuple(times), eta=0.6).loop(bridge, y, noise, x=start)
    level, at, states = marginal(0.8, 0.0, 0.6), next(loop), []
    while len(states) < len(times) - 1:
        sent = (x0, at[1], bridge.marginal(at[0]))
        if how == "reverse":
            sent = (x0, draw(level, x0, y, noise(y) * scale), level)
        try:
            at = loop.send(Estimate(*sent))
        except StopIteration as end:
            at = (times[-1], end.value)
        # not a corrector, which comes at the time of the step's end
        if at[0] < times[len(states)]:
            states.append(at)
    laws = map(bridge.marginal, times[1:])
    want = [(float(m.clean * X0 + m.degraded * Y), float(m.noise * abs(scale))) for m in laws]
    return np.array(want).T, np.array([law(x) for _, x in states]).T ** [[1], [0.5]]


@pytest.mark.parametrize("how", KEEPING)
@pytest.mark.parametrize("name", BRIDGES)
def test_every_step_leads_to_its_marginal(name, how):
    want, got = known(BRIDGES[name], how)
    official = name == "i2sb" and how == "posterior"
    assert_close(got, want, 1e-3 if official else 1e-12, 2e-3 if official else 1e-9)
    if official:  # its posterior is that of sums which count beta_t once
        assert np.abs(got / want - 1)[1, :-1].max() > 1e-5


@pytest.mark.parametrize("name", [n for n in BRIDGES if n != "residual zero"])
def test_mean_and_drift_keep_the_mean_but_not_the_noise(name):
    """mean shrinks the noise at every step that should have drawn some; drift keeps the most that
    there ever was."""
    bridge = BRIDGES[name]
    (mean, std), (got, shrunk) = known(bridge, "mean")
    assert_close(got, mean, 1e-3, 2e-3)
    assert (shrunk[:-1] < 0.99 * std[:-1]).all()
    (mean, std), (got, grown) = known(bridge, "drift")
    first = float(bridge.marginal(bridge.T).noise) * abs(X0 - Y if name == "residual" else 1)
    assert_close(got, mean, 1e-12, 1e-9)
    assert_close(grown, np.maximum.accumulate([first, *std])[1:], 1e-12, 1e-9)
    assert grown[-1] > 0 and std[-1] == 0


# Network calls and times


def budgets(how):
    return [
        (boot, churn)
        for boot in (0.0, 0.01, 0.2)
        for churn in ((0.0, 0.33) if how == "heun" else (0.33,))
    ]


@pytest.mark.parametrize("how", REGISTRY)
def test_exactly_nfe_calls(how):
    """Whatever the rule makes of its budget.

    The bridge is not pinned, so that boot may be 0."""
    bridge = PRIORS["vp"] if REGISTRY[how].kind.on_prior else BRIDGES["ou"]
    for nfe in (*range(1, 13), 20, 50):
        for boot, churn in budgets(how):
            sampler = make(how, nfe=nfe, boot=boot, churn=churn).check(bridge)
            times, calls = sampler.plan(bridge)
            assert sum(calls) == nfe and min(calls) >= 1 and len(times) == len(calls) + 1
            seen, x = run(bridge, sampler, lambda t, x: 0.5 * x)
            assert len(seen) == nfe and x.isfinite().all()
            assert {t for t, _ in seen} <= set(times) | {
                t + churn * (s - t) for t, s in pairwise(times)
            }


@pytest.mark.parametrize("how", [r for r in OWN if r != "reverse"])
@pytest.mark.parametrize("name", BRIDGES)
def test_every_bridge_walks_to_the_estimate(name, how):
    """From its own start. The last x is the last estimate, but drift keeps noise and heun ends with
    an Euler step."""
    bridge, sampler, said = BRIDGES[name], make(how, nfe=7, boot=0.01), []
    if name == "residual" and REGISTRY[how].kind.solves_ode:
        return
    seen, x = run(
        bridge, sampler.check(bridge), lambda t, x: said.append(0.3 * x + 0.1) or said[-1]
    )
    assert len(seen) == 7 and seen[0][0] == (bridge.T * 0.99 if how == "heun" else bridge.T)
    assert x.isfinite().all()
    if how not in ("drift", "heun"):
        assert_close(x, said[-1], 1e-12, 0)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", [*BRIDGES, *PRIORS])
def test_times_fall_from_the_start_to_the_clean_end(name, spacing):
    bridge = {**BRIDGES, **PRIORS}[name]
    for how in ("ddim", "ddim_fresh", "dpmpp") if name in PRIORS else OWN:
        for nfe in (1, 2, 3, 7, 12, 15):
            for boot, churn in budgets(how):
                times, _ = make(how, nfe=nfe, spacing=spacing, boot=boot, churn=churn).plan(bridge)
                assert times[0] == (bridge.T * (1 - boot) if how == "heun" else bridge.T)
                assert times[-1] == getattr(bridge, "lowest", 0.0) and (np.diff(times) < 0).all()
                if boot and len(times) > 2 and how != "heun":
                    assert times[1] == pytest.approx(bridge.T * (1 - boot))
                assert (
                    make(how, nfe=nfe, spacing=spacing).plan(bridge, first=0.6 * bridge.T)[0][0]
                    == 0.6 * bridge.T
                )


@pytest.mark.parametrize("name", ["goub", "ddbmvp", "resshift", "i2sb", "nadb"])
def test_spacings(name):
    """All but the last step, to the clean end, whose log-SNR is infinite."""
    bridge = BRIDGES[name]
    times = {
        spacing: make("implicit", nfe=9, spacing=spacing, rho=5.0).plan(bridge)[0]
        for spacing in SPACINGS
    }
    levels = bridge.marginal(times["logsnr"][1:-1]).level.log()
    for even in (times["time"], times["karras"][:-1] ** 0.2, levels.numpy()):
        np.testing.assert_allclose(np.diff(even), np.diff(even).mean(), rtol=1e-3)
    assert times["logsnr"][-2] == pytest.approx(bridge.near * bridge.T) == times["karras"][-2]


# diffusers' samplers on the same timesteps


def network(z, t):
    return torch.tanh(0.8 * z + torch.cos(torch.as_tensor(t, dtype=torch.float64) / 300)) + 0.2 * z


def diffusers_states(scheduler, steps):
    """(t, z) of every call, the last z, and the path of the same prior to walk."""
    scheduler.set_timesteps(steps)
    z = torch.randn(1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    states = []
    for t in scheduler.timesteps:
        states.append((float(t), z))
        z = scheduler.step(network(z, float(t)).to(z), t, z).prev_sample.double()
    return states, z


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
@pytest.mark.parametrize("how", ["ddim", "dpmpp"])
def test_prior_rules_are_diffusers(how, steps):
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    table = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    }
    scheduler = (
        DDIMScheduler(**table, clip_sample=False, set_alpha_to_one=False)
        if how == "ddim"
        else DPMSolverMultistepScheduler(
            **table,
            solver_order=2,
            algorithm_type="dpmsolver++",
            lower_order_final=True,
            final_sigmas_type="sigma_min",
        )
    )
    expected, last = diffusers_states(scheduler, steps)
    prior = VP(vp_alphas_cumprod(table))
    times = (*[t for t, _ in expected], 0.0)
    seen, x = run(
        PriorPath(T=times[0], prior=prior),
        make(how, times=times),
        lambda t, z: prior.clean(z, network(z, t), torch.tensor(t)),
        start=expected[0][1],
        y=column(0.0),
    )
    assert [t for t, _ in seen] == list(times[:-1])
    for (_, got), (_, want) in zip(seen, expected):
        assert_close(got, want, 1e-5, 1e-5)
    assert_close(x, last, 1e-5, 1e-5)


class OwnPosterior(I2SB):
    """I2SB that draws its posterior on its own marginals, and not on the free motion's, which needs
    no y."""

    posterior = Bridge.posterior


@pytest.mark.parametrize("how", ["dbim2", "dbim3", "odes3"])
@pytest.mark.parametrize("nfe", [3, 6, 20])
def test_multistep_remembers_the_levels_of_the_bridge_alone(how, nfe):
    """The step off I2SB's pinned end is taken on the free Brownian motion, whose level is no
    earlier one of the bridge's."""
    boot = 0.01 if how == "odes3" else 0.0
    bridges = I2SB(official=False), OwnPosterior(official=False)
    ours, own = (law(run(bridge, make(how, nfe=nfe, boot=boot))[1]) for bridge in bridges)
    assert ours == pytest.approx(own, rel=1e-9)


# Mistakes

RESIDUAL, PINNED = RDBM(), GOUB()


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: make("euler"), "rule='euler' is unknown; choose one of reverse, implicit"),
        (
            lambda: make(spacing="log"),
            "spacing='log' is unknown; choose one of time, logsnr, karras",
        ),
        (lambda: make().changed(step=3), "'step' is no sampler option; use rule, nfe"),
        (lambda: make(nfe=16).check(ResShift()), "nfe=16 is more than the 15 steps of ResShift"),
        (lambda: make("heun", boot=0.01).check(RESIDUAL), "rule=heun solves an ODE .* RDBM"),
        (
            lambda: make("odes3", boot=0.01).check(RESIDUAL),
            "rule=odes3 solves an ODE .* RDBM",
        ),
        (lambda: make("heun").check(PINNED), "rule=heun .* set sampler.boot"),
        (lambda: make("odes3").check(PINNED), "rule=odes3 .* set sampler.boot"),
        # nothing of x0 is left at T
        (lambda: make("heun").check(RDDM()), "rule=heun .* set sampler.boot"),
        (lambda: make("odes3").check(RDDM()), "rule=odes3 .* set sampler.boot"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_sentence(make, says):
    with pytest.raises(UserError, match=says) as refusal:
        make()
    assert str(refusal.value).endswith(".") and ". " not in str(refusal.value)


def test_what_can_be_served_is_not_refused():
    for sampler, bridge in [
        (make(nfe=15), ResShift()),
        (make(nfe=99), Brownian(T=1)),
        (make("ddim", nfe=50), ResShift()),
        (make("heun", boot=0.01), PINNED),
        (make("odes3"), IRSDE()),
        (make("dbim3"), PINNED),
        (make("heun", boot=0.01), RDBM(pi="one")),
        (make("posterior"), RESIDUAL),
    ]:
        assert sampler.check(bridge) is sampler
    assert make().changed(steps=5, rule=None, eta=0.3) == make(nfe=5, eta=0.3)
    assert make("heun").describe() == "heun" and "eta 0.5" in make("eta", eta=0.5).describe()
