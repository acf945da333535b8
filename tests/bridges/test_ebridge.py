"""E-Bridge: its law on every prior, its start, its reading of the network, and both loops against
the official code and closed forms."""

import warnings

import numpy as np
import pytest
import torch
from closed_form import Draws, column, law, run
from golden import assert_close, load
from hypothesis import given, settings
from hypothesis import strategies as st

from irbridge.bridges import Brownian, EBridge
from irbridge.errors import UserError
from irbridge.gaussian.marginal import broadcast, draw
from irbridge.gaussian.noise import Noise
from irbridge.models.prior_denoiser import DirectDenoiser, PriorDenoiser
from irbridge.models.timestep_schedule import critical
from irbridge.priors import VE, VP, Flow, prior_from_config
from irbridge.priors.vp import vp_alphas_cumprod
from irbridge.samplers import Estimate, drive, make

PRIORS = {
    "vp": VP(vp_alphas_cumprod({})),
    "cosine": VP(vp_alphas_cumprod({"beta_schedule": "squaredcos_cap_v2"})),
    "zero snr": VP(vp_alphas_cumprod({"rescale_betas_zero_snr": True}), "v_prediction"),
    "ve": VE(),
    "flow": Flow(),
    "shifted flow": Flow(3.0),
    "flow of eps": Flow(prediction_type="epsilon"),
    "sd": prior_from_config(
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    ),
}
EVERY = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)


def share(prior, tau):
    law = prior.marginal(tau)
    return float(law.noise / (law.clean + law.noise))


def reaching(prior, last):
    """The bridge whose start is at a noise share, whatever the prior's own last one."""
    return EBridge(T0=last / share(prior, prior.highest)).on(prior)


@EVERY
@pytest.mark.parametrize("T0", [0.1, 0.7, 0.8, 0.9, 1.0])
def test_its_states_are_the_priors_own(prior, T0):
    bridge = EBridge(T0=T0).on(prior)
    for s in (0.05, 0.3, 0.5, 0.99, 1.0):
        tau, now = bridge.timestep(s), bridge.marginal(s)
        alpha, _, sigma = prior.marginal(tau)
        assert_close(now, [alpha * (1 - s), alpha * s, sigma], 1e-12)
        wanted = max(s * T0 * share(prior, prior.highest), share(prior, prior.lowest))
        assert share(prior, tau) == pytest.approx(wanted, rel=1e-9)
    assert_close(bridge.marginal(0.0), [1, 0, 0], 0)
    assert float(bridge.timestep(0)) == prior.lowest


def test_without_a_prior_it_is_as_published():
    for s in (0, 0.3, 1):
        t = 0.8 * s
        assert_close(EBridge(T0=0.8).marginal(s), [(1 - t) * (1 - s), (1 - t) * s, t], 1e-15)
        assert_close(EBridge(T0=0.8).on(Flow()).marginal(s), EBridge(T0=0.8).marginal(s), 1e-15)


def test_the_whole_range_starts_where_the_prior_does():
    for name, prior in PRIORS.items():
        assert float(EBridge(T0=1.0).on(prior).timestep(1.0)) == pytest.approx(prior.highest), name


@EVERY
def test_it_starts_at_its_law(prior):
    """The degraded image noised to the level of the horizon: a sample of x_T."""
    bridge = EBridge().on(prior)
    y = torch.full((1, 3, 64, 64), 0.6)
    loop = make("implicit", nfe=3).loop(bridge, y, Noise([3]))
    t, x = next(loop)
    alpha, _, sigma = prior.marginal(bridge.timestep(1.0))
    assert t == 1 and not bridge.pinned
    assert_close(bridge.begin(), [0, alpha, sigma], 1e-12)
    assert_close(x, float(alpha) * y + float(sigma) * Noise([3])(y), 1e-4)
    # beside the end, as solvers start that step off it
    t, x = next(make("heun", nfe=3, boot=0.01).loop(bridge, y, Noise([3])))
    alpha, _, sigma = prior.marginal(bridge.timestep(0.99))
    assert t == 0.99
    assert_close(x, float(alpha) * y + float(sigma) * Noise([3])(y), 1e-4)


@EVERY
def test_it_reads_x0_off_what_the_prior_says_of_the_moving_image(prior):
    """The published head: v = eps - x0, of which the prior's reading m makes x0."""
    bridge, rng = EBridge(T0=0.8).on(prior), np.random.default_rng(0)
    x0, y, eps = (torch.tensor(rng.normal(size=(3, 1, 2, 2))) for _ in range(3))
    t = torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64)
    tau, now = bridge.timestep(t), bridge.marginal(t)
    alpha, _, sigma = (broadcast(v, x0) for v in prior.marginal(tau))
    # what is v = eps - x0 of a network that knows both, as the prior reads it
    z = draw(now, x0, y, eps)
    m = (z - sigma * (eps - x0)) / (alpha + sigma)
    assert_close(bridge.clean(m, y, tau), x0, 1e-12)
    # an estimate that leaves y as it is stays so
    assert_close(bridge.clean(y, y, tau), y, 1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(PRIORS)), st.floats(0.01, 1), st.floats(0, 1))
def test_the_reading_never_divides_by_little(name, T0, t):
    bridge = EBridge(T0=T0).on(PRIORS[name])
    one, zero = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1)
    divided = 1 / float(bridge.clean(one, zero.double(), bridge.timestep(t)))
    last = T0 * share(PRIORS[name], PRIORS[name].highest)
    assert divided >= min(last, 1 - 1 / (4 * last)) - 1e-9


# The loops


def test_the_published_loop():
    """E-Bridge's own code on stand-in networks, T0 = .8: velocity .7 x - .3 y + .2 t."""
    table = load("ebridge")["rollout"]
    y = torch.tensor(table["y_packed"], dtype=torch.float64).reshape(1, 1, 4, 4)
    states = [torch.tensor(v, dtype=torch.float64).reshape(1, 1, 4, 4) for v in table["states"]]
    prior = Flow()
    bridge = EBridge(T0=0.8).on(prior)

    def ask(z, tau):
        m = prior.clean(z, 0.7 * z - 0.3 * y + 0.2 * float(tau), tau)
        return bridge.clean(m, y, tau)

    noise = (states[0] - 0.2 * y) / 0.8
    loop = make("drawn", nfe=3).loop(bridge, y, lambda like: noise)
    answered = drive(loop, DirectDenoiser(ask, bridge, bounded=False))
    seen = []
    while True:
        try:
            seen.append(next(answered)[0].x)
        except StopIteration as end:
            seen.append(end.value)
            break
    assert len(seen) == len(states)
    for got, wanted in zip(seen, states, strict=True):
        assert_close(got, wanted, 1e-7, 0)


@pytest.mark.filterwarnings("ignore:.*too much variance")
@pytest.mark.parametrize("row", load("ebridge")["gaussian_law"]["rows"])
@pytest.mark.parametrize("prior", ["vp", "ve", "flow", "shifted flow"])
def test_law_of_both_loops(row, prior):
    """The restored pixel of x0 | y ~ N(.3, v), y = .1, with the exact denoiser, up to .8: the same
    for every prior, as only noise / signal counts."""
    bridge, v, y = reaching(PRIORS[prior], 0.8), row["posterior_var"], column(0.1)

    def estimate(t, x):
        a, b, c = (float(u) for u in bridge.marginal(t))
        return 0.3 + a * v / (a**2 * v + c**2) * (x - a * 0.3 - b * y)

    for rule, key in (("drawn", "drawn_eps"), ("implicit", "implicit")):
        if prior != "flow" and row["steps"] > 50:  # beside the prior's lowest level
            continue
        _, last = run(bridge, make(rule, nfe=row["steps"]), estimate=estimate, noise=Draws(), y=y)
        assert_close(law(last), [row[key]["mean"], row[key]["var"]], 1e-9, 0)


def test_the_published_loop_warns_of_its_variance():
    y = column(0.1)
    with pytest.warns(UserWarning, match="too much variance beyond 10 calls.*implicit"):
        next(make("drawn", nfe=11).loop(EBridge(), y, Draws()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(make("drawn", nfe=10).loop(EBridge(), y, Draws()))
        next(make("implicit", nfe=100).loop(EBridge(), y, Draws()))


def test_given_a_state_the_published_loop_draws_its_noise_once():
    draws = Draws()
    loop = make("drawn", nfe=3).loop(EBridge(), column(0.1), draws, x=column(0.2))
    assert float(next(loop).x[0, 0]) == pytest.approx(0.2)
    _, last = run(EBridge(), make("drawn", nfe=3), noise=draws, start=column(0.2), y=column(0.1))
    assert draws.count == 1 and last.isfinite().all()


def next_input(denoiser, bridge, y, z, x0):
    """What the network sees at .3 T after it answered x0 to the state z at .6 T."""
    loop = make("reverse", times=(0.6 * bridge.T, 0.3 * bridge.T, 0.0)).loop(
        bridge, y, denoiser.noise, x=z
    )
    denoiser.x0 = x0
    tau, _ = denoiser.enter(next(loop))[1:]
    level = bridge.marginal(0.6) if bridge.prior_states else PRIORS["vp"].marginal(tau)
    return denoiser.enter(loop.send(Estimate(x0, z, level))).z


def test_y_does_not_cancel():
    """Whatever the end is, the same state of the prior and the same answer lead a Brownian bridge
    to the same next state; E-Bridge's moves with the end."""
    prior, ends = PRIORS["vp"], [torch.full((1, 3, 8, 8), v) for v in (0.4, -0.5)]
    z, x0 = (Noise([k])(ends[0]) for k in (1, 2))
    bridge, brownian = EBridge().on(prior), Brownian(sigma=0.5)
    theirs, ours = [], []
    for y in ends:
        denoiser = PriorDenoiser(None, brownian, prior, critical(50), y, Noise([0]))
        theirs.append(next_input(denoiser, brownian, y, z, x0))
        denoiser = DirectDenoiser(None, bridge, bounded=False)
        denoiser.noise = Noise([0])
        ours.append(next_input(denoiser, bridge, y, z, x0))
    assert_close(*theirs, 2e-6)
    now, then = bridge.marginal(0.6), bridge.marginal(0.3)
    moved = float(then.degraded - then.noise / now.noise * now.degraded)
    assert abs(moved) > 0.05
    assert_close(ours[0] - ours[1], moved * (ends[0] - ends[1]), 1e-6)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_horizon_that_the_prior_does_not_have(value):
    with pytest.raises(UserError, match=r"bridge.T0=.* above 0 and at most 1, the prior's last"):
        EBridge(T0=value)


def test_a_start_that_is_no_state_of_the_prior():
    with pytest.raises(UserError, match=r"bridge.start=y is no state of the prior.*marginal"):
        EBridge(start="y")


def test_a_bridge_of_its_own_is_the_same_on_any_prior():
    bridge = Brownian()
    assert bridge.on(PRIORS["vp"]) is bridge and not bridge.prior_states
    assert EBridge().on(PRIORS["vp"]).schedule is PRIORS["vp"] and EBridge().schedule is None
    assert repr(EBridge().on(PRIORS["vp"])) == repr(EBridge())
