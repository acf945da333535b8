"""The sampling loop on a Gaussian x0 with its exact denoiser: which law does every combination
converge to, how fast?

The law of x0 given y is N(M0, V0) and the denoiser is E[x0 | state]. Every operation is then
affine, so the final mean and variance are exact numbers, not Monte Carlo (see ``closed_form``). The
limits below follow from the continuous-time loop in u = (x - b y) / a, whose level c / a is s: with
q = s^2, the exact gain is g = V0 / (V0 + q).
"""

from itertools import pairwise

import closed_form
import numpy as np
import pytest
import torch
from closed_form import M0, V0, Draws, Y, column, law, posterior_mean, run
from golden import assert_close

from irbridge.bridges.brownian import I2SB, Brownian
from irbridge.bridges.ornstein_uhlenbeck import GOUB, IRSDE, RDBM
from irbridge.gaussian.marginal import draw
from irbridge.gaussian.transition import forward_keep, implicit_keep, step
from irbridge.priors.flow import Flow
from irbridge.priors.ve import VE
from irbridge.priors.vp import VP, vp_alphas_cumprod
from irbridge.samplers import Estimate, PriorPath, make
from irbridge.samplers.base import REGISTRY
from irbridge.samplers.single_step import SingleStep

ETA = 0.5
STEPS = (30, 60, 120)
BRIDGES = {
    "brownian": Brownian(sigma=1.0),
    "ou": IRSDE(lam=0.3, eps=0.02),
    "goub": GOUB(lam=0.5),
    "residual": RDBM(lam=0.25, pi="one"),
}
PINNED = ("brownian", "goub", "residual")
PRIORS = {"direct": None, "vp": VP(vp_alphas_cumprod({})), "ve": VE(1e-4, 1e3), "flow": Flow()}
CONVERGING = ("implicit", "posterior", "eta", "reverse")
COMBINATIONS = [
    (b, p, r)
    for b in BRIDGES
    for p in PRIORS
    for r in CONVERGING
    if (p, r) != ("direct", "reverse")
]


def final_law(bridge, rule, prior, steps, raised=1.0):
    """Mean and variance of the loop's last state; the prior's level is ``raised`` times the
    critical one."""
    y, noise = column(Y, 2 * steps + 3), Draws()
    loop, x0 = make(rule, nfe=steps, eta=ETA).loop(bridge, y, noise), y
    t, x = next(loop)
    while True:
        level, z = bridge.marginal(t), x
        if prior:
            now, level = level, prior.marginal(prior.timestep(raised * level.level))
            z = step(x, x0, y, now, level, forward_keep(now, level), noise(y))
        x0 = posterior_mean(level, z, y)
        try:
            t, x = loop.send(Estimate(x0, z, level))
        except StopIteration as end:
            return law(end.value)


def start_level(bridge, prior, rule):
    """Level at which the loop starts with y in the place of x0; infinite where that costs
    nothing."""
    start = bridge.marginal(bridge.T).level
    if rule == "reverse":
        start = prior.marginal(prior.timestep(start)).level
    return float(start)


def limit_law(rule, start):
    """The limit of many steps from u = y + start * xi, which differs from the marginal's x0 + start
    * xi.

    The deviation from M0 shrinks as (V0 + q)^p, where p is 1/2 without fresh noise and 1 for the
    posterior, and the variance V obeys V - V0 - q ~ (V0 + q)^(2 p).
    """
    remains = V0 / (V0 + start**2)
    power = {"implicit": 0.5, "reverse": 0.5, "eta": (1 + ETA**2) / 2, "posterior": 1.0}[rule]
    return np.array([M0 + (Y - M0) * remains**power, V0 * (1 - remains ** (2 * power))])


@pytest.mark.parametrize("bridge,prior,rule", COMBINATIONS)
def test_error_falls_like_one_over_steps(bridge, prior, rule):
    """At the critical timestep the loop converges, at first order, to N(M0, V0) up to the start's
    own error.

    The start is exact for a pinned bridge sampled on itself: the limit is N(M0, V0). It is not
    exact for IRSDE, whose x_T is drawn around y although a_T = eps > 0, nor for ``reverse``
    through a prior of finite highest level, which keeps the noise of z_T = alpha y + sigma xi as if
    alpha x0 were in it. Both floors are at most of order (y - M0) sqrt(V0) / level for the mean,
    and are what ``limit_law`` says.
    """
    limit = limit_law(rule, start_level(BRIDGES[bridge], PRIORS[prior], rule))
    errors = [
        np.abs(final_law(BRIDGES[bridge], rule, PRIORS[prior], n) - limit).sum() for n in STEPS
    ]
    assert errors[0] < 0.15
    for coarse, fine in pairwise(errors):
        assert 1.5 < coarse / fine < 2.2  # Brownian's levels ~ sqrt(t) add a logarithm: 1/N log N


@pytest.mark.parametrize("rule", ("implicit", "posterior", "eta"))
@pytest.mark.parametrize("bridge", PINNED)
def test_pinned_bridges_have_no_floor(bridge, rule):
    """The limit there is the true posterior, its mean without any discretisation error at all."""
    assert limit_law(rule, start_level(BRIDGES[bridge], None, rule)) == pytest.approx([M0, V0])
    assert final_law(BRIDGES[bridge], rule, None, STEPS[0])[0] == pytest.approx(M0, abs=1e-9)


@pytest.mark.parametrize("bridge", BRIDGES)
def test_mean_contracts_to_the_posterior_mean(bridge):
    """Without fresh noise u - M0 shrinks as V0 + q: no variance is left but what the start of IRSDE
    brought."""
    start = start_level(BRIDGES[bridge], None, "mean")
    remains = V0 / (V0 + start**2)
    limit = [M0 + (Y - M0) * remains, (start * remains) ** 2 if remains else 0.0]
    assert final_law(BRIDGES[bridge], "mean", None, 60) == pytest.approx(limit, abs=1e-6)
    assert final_law(BRIDGES[bridge], "mean", PRIORS["flow"], 60) == pytest.approx(limit, abs=1e-3)


@pytest.mark.parametrize("prior", ("direct", "flow"))
@pytest.mark.parametrize("bridge", PINNED)
def test_renoise_ends_with_half_the_variance(bridge, prior):
    """Redrawing all noise re-denoises the same state: var <- g^2 (var + q), whose fixed point is
    V0^2 / (2 V0 + q), that is V0 / 2 at the clean end. The mean is right; it nears slower than
    1/steps.
    """
    laws = [final_law(BRIDGES[bridge], "renoise", PRIORS[prior], n) for n in STEPS]
    errors = [abs(law[1] - V0 / 2) for law in laws]
    assert laws[-1][0] == pytest.approx(M0, abs=1e-3)
    assert errors[-1] < 0.02
    assert 1.3 < errors[0] / errors[1] < 2 and 1.3 < errors[1] / errors[2] < 2


@pytest.mark.parametrize("rule", ("implicit", "posterior", "eta"))
@pytest.mark.parametrize("bridge", PINNED)
def test_above_the_critical_level_the_variance_shrinks(bridge, rule):
    """A prior state at ``raised`` times the bridge's level blunts the denoiser: its estimate,
    averaged over the transition's noise, has gain V0 / (V0 + raised^2 q). The variance converges to
    V0 / raised^2.
    """
    raised = 1.5
    mean, variance = final_law(BRIDGES[bridge], rule, PRIORS["flow"], 120, raised)
    assert mean == pytest.approx(M0, abs=1e-6)
    assert variance == pytest.approx(V0 / raised**2, abs=0.005)


@pytest.mark.parametrize("bridge", PINNED)
def test_reverse_above_the_critical_level_is_between_implicit_and_renoise(bridge):
    """IRBridge's own step adds fresh noise (1 - kappa^2) each time: kappa = 1 / raised. The fixed
    point of V <- h^2 (V + (raised^2 - 1) q), h = g + (1 - g) / raised, is V0 (1 + kappa) / 2 at the
    clean end: V0 at the critical level, V0 / 2 (renoise) far above it. Slower than 1/steps, as
    renoise is.
    """
    raised = 1.5
    errors = [
        V0 * (1 + 1 / raised) / 2
        - final_law(BRIDGES[bridge], "reverse", PRIORS["flow"], n, raised)[1]
        for n in STEPS
    ]
    assert 0 < errors[-1] < 0.04
    assert 1.3 < errors[0] / errors[1] < 2 and 1.3 < errors[1] / errors[2] < 2


def grid(bridge, steps, spacing):
    """Times from 0.9 to 0.1 of the range: uniform in time or log-SNR, or in its root, which starts
    with small steps."""
    low = getattr(bridge, "lowest", 0.0)
    first, last = (low + u * (bridge.T - low) for u in (0.9, 0.1))
    if spacing == "time":
        return np.linspace(first, last, steps + 1)
    times = np.linspace(last, first, 5001)
    level = np.log(bridge.marginal(torch.as_tensor(times)).level.numpy())
    share = (np.arange(steps + 1) / steps) ** (2 if spacing == "graded" else 1)
    return np.interp(level[-1] + (level[0] - level[-1]) * share, level, times)


def order(bridge, name, spacing="time", steps=(40, 80), **options):
    """Slope of the largest error of mean and std against the true law, from the true law on, as the
    step is halved. Gaussians flow affinely, so for a rule without noise these are the errors of the
    probability-flow ODE's path."""
    errors = []
    for n in steps:
        times = grid(bridge, n, spacing)
        y = column(0.0 if isinstance(bridge, PriorPath) else Y, 3 * n + 3)
        noise, start = Draws(), y.clone()
        truth = {
            t: (a * M0 + b * y[0, 0], (a**2 * V0 + c**2).sqrt())
            for t, (a, b, c) in zip(times, map(bridge.marginal, times))
        }
        start[0] = truth[times[0]][0] + truth[times[0]][1] * noise(y)[0]
        states = dict(
            run(bridge, make(name, times=(*times, 0.0), **options), noise=noise, start=start, y=y)[
                0
            ]
        )
        laws = np.array([[*law(states[t]), *truth[t]] for t in times])
        wrong = max(
            np.abs(laws[:, 0] - laws[:, 2]).max(), np.abs(laws[:, 1] ** 0.5 - laws[:, 3]).max()
        )
        errors.append(wrong / laws[:, 3].max())
    assert errors[0] < 0.1
    return np.log(errors[0] / errors[1]) / np.log(steps[1] / steps[0])


SMOOTH = ["brownian", "oubridge", "ddbmve", "ddbmvp", "nadb"]
TABLES = {
    "goub": GOUB(T=1000, lam=0.5),
    "ou": IRSDE(T=1000, lam=0.3),
    "i2sb exact": I2SB(official=False),
}
ORDERS = [
    *[
        (b, r, "time", p)
        for b in [*SMOOTH, *TABLES]
        for r, p in (("implicit", 1), ("posterior", 1), ("eta", 1), ("dbim2", 2), ("odes3", 2))
    ],
    *[(b, "dbim2", "logsnr", 2) for b in [*SMOOTH, *TABLES]],
    *[(b, "heun", "time", 2) for b in [*SMOOTH, *TABLES]],
    *[(b, r, "time", p) for b in closed_form.PRIORS for r, p in (("ddim", 1), ("dpmpp", 2))],
]


@pytest.mark.parametrize("name, how, spacing, promised", ORDERS)
def test_order_of_convergence(name, how, spacing, promised):
    options = {"churn": 0.0} if how == "heun" else {"eta": 0.5} if how == "eta" else {}
    bridge = {**closed_form.BRIDGES, **TABLES, **closed_form.PRIORS}[name]
    assert order(bridge, how, spacing, **options) == pytest.approx(promised, abs=0.25)


@pytest.mark.parametrize("name", [*SMOOTH, *TABLES])
def test_dbim3_is_of_order_3_but_for_its_first_step(name):
    """Its first step knows no slope: it must be small, as on a graded grid, not to cost an
    order."""
    bridge = {**closed_form.BRIDGES, **TABLES}[name]
    assert order(bridge, "dbim3", "graded", (80, 160)) == pytest.approx(3, abs=0.3)
    assert order(bridge, "dbim2", "graded", (80, 160)) < 2.5


@pytest.mark.parametrize("how", ["dbim2", "dbim3", "odes3"])
@pytest.mark.parametrize("name", ["brownian", "goub", "ddbmvp", "oubridge"])
def test_solvers_are_worth_their_calls_from_the_degraded_end_on(name, how):
    """The std of the last estimate in 24 calls, stepping off the pinned end first, against that of
    implicit."""

    def wrong(rule):
        t, x = run(bridge, make(rule, nfe=24, spacing="logsnr", boot=0.01))[0][-1]
        mean, variance = law(posterior_mean(bridge.marginal(t), x, column(Y)))
        assert mean == pytest.approx(M0, abs=1e-6)
        return abs(variance**0.5 - V0**0.5)

    bridge = closed_form.BRIDGES[name]
    assert wrong(how) < 0.6 * wrong("implicit")


@pytest.mark.parametrize("name", SMOOTH)
def test_churn_has_the_right_law_in_the_limit(name):
    """DDBM's hybrid: the Euler-Maruyama share is of weak order 1."""
    assert order(closed_form.BRIDGES[name], "heun", churn=0.33) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("prior", [VP(vp_alphas_cumprod({})), VE(), Flow(3.0)])
@pytest.mark.parametrize("T", (1, 7, 1000))
@pytest.mark.parametrize("kind", sorted({type(b) for b in closed_form.BRIDGES.values()}, key=str))
def test_everything_is_finite_at_both_ends(kind, T, prior):
    """All pairs of times, ends and their neighbours too, in one batch: in, denoised, out by all
    rules."""
    bridge, near = kind(T=T), 1e-9 * T
    t, s = torch.tensor(
        [
            (t, s)
            for t in (0, 1e-300, near, 0.3 * T, T - near, T)
            for s in (0, 1e-300, near, 0.3 * T, T - near, T)
            if s <= t
        ],
        dtype=torch.float64,
    ).T
    now, then = bridge.marginal(t), bridge.marginal(s)
    x0, y, eps, fresh = torch.randn(
        4, len(t), 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    x = draw(now, x0, y, eps * bridge.scale(x0, y))
    tau = prior.critical(now)
    level = prior.marginal(tau)
    z = step(x, x0, y, now, level, forward_keep(now, level), fresh)
    estimate = prior.clean(z, eps, tau)
    states = [x, z, estimate]
    rules = [name for name, entry in REGISTRY.items() if issubclass(entry.kind, SingleStep)]
    for rule in rules:
        how = make(rule, eta=0.5)
        source, target, keep = how.laws(bridge, t, s)
        assert (keep >= 0).all() and (rule == "drift" or (keep <= target.noise * (1 + 1e-12)).all())
        states.append(step(x, estimate, y, source, target, keep, fresh if how.fresh else None))
    states.append(step(z, estimate, y, level, then, implicit_keep(level, then)))
    assert all(state.isfinite().all() for state in states)
    at_clean_end = s == 0
    for rule, state in zip([*rules, "to the bridge"], states[3:], strict=True):
        if rule != "drift":
            assert_close(state[at_clean_end], estimate[at_clean_end], 1e-9, 1e-9)
