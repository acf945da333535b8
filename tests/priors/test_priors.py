"""Priors: tables, times and predictions against diffusers; transitions between a bridge and a
prior."""

import numpy as np
import pytest
import torch
from golden import assert_close, inputs, load, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from irbridge.bridges.brownian import Brownian
from irbridge.bridges.ornstein_uhlenbeck import GOUB, IRSDE, RDBM
from irbridge.errors import UserError
from irbridge.gaussian.marginal import draw
from irbridge.gaussian.transition import forward_keep, implicit_keep, step
from irbridge.priors.flow import Flow
from irbridge.priors.from_diffusers import prior_from_config
from irbridge.priors.ve import VE
from irbridge.priors.vp import VP, vp_alphas_cumprod

SD15 = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
BRIDGES = {"brownian": Brownian(), "ou": IRSDE(), "goub": GOUB(), "residual": RDBM()}
PRIORS = {
    "vp": VP(vp_alphas_cumprod(SD15)),
    "ddpm": VP(vp_alphas_cumprod({})),
    "ve": VE(),
    "flow": Flow(),
    "shifted": Flow(3.0),
}
fast = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def random_tensors(n, dtype=torch.float64):
    return torch.randn(n, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)


# Tables and configs


def test_alphas_cumprod_golden():
    table = load("irbridge_derived")
    for config, key in ((SD15, "sd15_alphas_cumprod"), ({}, "ddpm_linear_alphas_cumprod")):
        abar = vp_alphas_cumprod(config)
        for t, value in table[key].items():
            assert abar[int(t)] == pytest.approx(value, rel=1e-12)
            m = VP(abar).marginal(int(t))
            assert_close([m.clean**2, m.degraded, m.noise**2], [value, 0, 1 - value], 1e-12, 1e-10)


@pytest.mark.parametrize(
    "config",
    [
        {},
        SD15,
        {"beta_schedule": "sigmoid"},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 500},
        {"trained_betas": [0.1, 0.2, 0.4], "num_train_timesteps": 3},
        {**SD15, "rescale_betas_zero_snr": True},
    ],
)
def test_alphas_cumprod_is_diffusers(config):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(**config)
    assert_close(vp_alphas_cumprod(dict(scheduler.config)), scheduler.alphas_cumprod, 1e-6)
    prior = prior_from_config({"_class_name": "DDPMScheduler", **scheduler.config})
    assert isinstance(prior, VP) and prior.prediction_type == "epsilon"


def test_zero_terminal_snr_ends_one_step_earlier():
    prior = VP(vp_alphas_cumprod({**SD15, "rescale_betas_zero_snr": True}))
    assert prior.highest == 998
    assert prior.timestep(np.inf) == 998 and prior.marginal(998).level.isfinite()


def test_prior_from_config_reads_diffusers_configs():
    from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler

    def read(scheduler):
        return prior_from_config({"_class_name": type(scheduler).__name__, **scheduler.config})

    flow = read(FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert isinstance(flow, Flow) and flow.shift == 3 and flow.prediction_type == "flow_prediction"
    edm = read(
        EDMEulerScheduler(
            sigma_min=0.01, sigma_max=50.0, sigma_data=0.7, prediction_type="v_prediction"
        )
    )
    assert (edm.lowest, edm.highest, edm.sigma_data, edm.prediction_type) == (
        0.01,
        50,
        0.7,
        "v_prediction",
    )
    sd = read(PNDMScheduler(**SD15, prediction_type="v_prediction"))
    assert sd.prediction_type == "v_prediction"
    assert_close(sd.marginal(999.0).clean ** 2, 0.004660098513077238, 1e-12)


@pytest.mark.parametrize(
    "config,word",
    [
        ({"prediction_type": "score"}, "score"),
        ({"beta_schedule": "laplace"}, "laplace"),
        ({"_class_name": "KarrasVeScheduler", "sigma_min": 0.02}, "KarrasVeScheduler"),
    ],
)
def test_unsupported_configs_are_named(config, word):
    with pytest.raises(UserError, match=word):
        prior_from_config(config)


# What the network is fed and predicts


def test_prediction_conversions_golden():
    table = load("derived_general")["prediction_conversions_vp_alpha0.8_sigma0.6"]
    z, tau = tensor(table["z"]), torch.tensor(0.0)
    for kind, key in (("epsilon", "eps"), ("v_prediction", "v"), ("sample", "x0")):
        assert_close(VP([0.64], kind).clean(z, tensor(table[key]), tau), table["x0"], 1e-12)


@pytest.mark.parametrize("prediction", ("epsilon", "v_prediction"))
def test_edm_is_diffusers(prediction):
    """Input, output and time conditioning of EDM's network, sigma by sigma and in a batch."""
    from diffusers import EDMEulerScheduler

    scheduler = EDMEulerScheduler(sigma_data=0.5, prediction_type=prediction)
    prior = VE(prediction_type=prediction)
    z, output = random_tensors(2)
    sigmas = torch.tensor([0.002, 0.3, 1.0, 80.0], dtype=torch.float64)
    for sigma in sigmas:
        fed, time = prior.network_input(z, sigma)
        assert_close(fed, scheduler.precondition_inputs(z, sigma), 1e-12, 1e-12)
        assert_close(time, scheduler.precondition_noise(sigma), 1e-12, 1e-12)
        expected = scheduler.precondition_outputs(z, output, sigma)
        assert_close(prior.clean(z, output, sigma), expected, 1e-12, 1e-12)
    two = sigmas[1:3]
    for i in range(2):
        assert_close(prior.network_input(z, two)[0][i], prior.network_input(z, two[i])[0][i], 1e-14)
        assert_close(prior.clean(z, output, two)[i], prior.clean(z, output, two[i])[i], 1e-14)


def test_plain_ve_is_eps_prediction():
    z, eps = random_tensors(2)
    prior = VE(sigma_data=None)
    fed, time = prior.network_input(z, torch.tensor(2.0))
    assert fed is z and time == 2
    assert_close(prior.clean(z, eps, torch.tensor(2.0)), z - 2 * eps, 1e-12)


@pytest.mark.parametrize("shift", (1.0, 3.0))
def test_flow_is_diffusers(shift):
    """Levels, network time, noising and one Euler step of the velocity, which is the implicit
    step."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler, prior = FlowMatchEulerDiscreteScheduler(shift=shift), Flow(shift)
    tau = torch.arange(1000, 0, -1) / 1000
    x0, noise = random_tensors(2, torch.float32)
    assert_close(prior.marginal(tau).noise, scheduler.sigmas, 1e-7)
    assert_close(prior.network_input(x0, tau)[1], scheduler.timesteps, 1e-4)
    u = [0.9, 0.6, 0.25]
    scheduler.set_timesteps(sigmas=u)
    z = scheduler.scale_noise(x0, scheduler.timesteps[:1], noise)
    assert_close(draw(prior.marginal(u[0]), x0, 0 * x0, noise), z, 1e-6)
    for here, there, time in zip(u, u[1:] + [0.0], scheduler.timesteps):
        now, then = prior.marginal(here), prior.marginal(there)
        velocity = noise - 0.7 * z
        expected = scheduler.step(velocity, time, z).prev_sample
        tau = prior.timestep(now.level)
        estimate = prior.clean(z, velocity, tau)
        z = step(z, estimate, 0 * z, now, then, implicit_keep(now, then))
        assert_close(z, expected, 2e-6)


# Time mapping


@fast
@given(st.sampled_from(list(PRIORS)), st.floats(0, 1))
def test_timestep_inverts_marginal(name, u):
    prior = PRIORS[name]
    tau = prior.lowest + u * (prior.highest - prior.lowest)
    assert float(prior.timestep(prior.marginal(tau).level)) == pytest.approx(
        tau, abs=1e-9 * prior.highest
    )
    assert float(prior.critical(prior.marginal(tau))) == pytest.approx(
        tau, abs=1e-9 * prior.highest
    )


@pytest.mark.parametrize("name", PRIORS)
def test_levels_outside_the_range_are_clamped_and_grow_inside(name):
    prior = PRIORS[name]
    tau = prior.timestep(torch.tensor([0.0, 1e-12, torch.inf]))
    assert_close(tau, [prior.lowest, prior.lowest, prior.highest], 1e-9)
    level = prior.marginal(torch.linspace(prior.lowest, prior.highest, 500)).level
    assert (level.diff() > 0).all()


# Transitions between a bridge and a prior


def test_transitions_of_vp():
    table, prior = load("irbridge_derived"), PRIORS["vp"]
    x, x0, y, eps = inputs(table)
    for row in table["transitions"]:
        bridge = (IRSDE if row["bridge"] == "irsde" else GOUB)(lam=row["lam"] / 255)
        now, then, level = (
            bridge.marginal(row["i"]),
            bridge.marginal(row["i"] - 1),
            prior.marginal(row["j"]),
        )
        assert_close(now, [row["a_i"], row["b_i"], row["c_i"]], 1e-7)
        assert_close([level.clean, level.noise], [row["sqrt_abar"], row["sqrt_1m_abar"]], 1e-12)
        keep = forward_keep(now, level)
        assert_close(keep / level.noise, row["kappa"], 1e-7)
        z = step(x, x0, y, now, level, keep, eps)
        assert_close(z, row["z_from_x_t_and_eps"], 1e-6)
        assert_close(step(x, x0 + 5, y, now, level, keep, eps), z, 1e-9)  # x0 drops out
        x_next = step(z, x0, y, level, then, implicit_keep(level, then))
        assert_close(x_next, row["x_next_with_x0hat_eq_x0"], 1e-6)


def test_transitions_of_flow_and_edm():
    """The row i = 99 has no x0-free transition to its rf_tau, below the critical one: only its z is
    used."""
    table, bridge, flow, edm = load("derived_general"), GOUB(), Flow(), VE(sigma_data=None)
    x, x0, y, eps = inputs(table)
    for row in table["transitions_other_backbones"]["rows"]:
        now, then = bridge.marginal(row["i"]), bridge.marginal(row["i"] - 1)
        level, z = flow.marginal(row["rf_tau"]), tensor(row["z"])
        assert_close(flow.critical(now), row["rf_tau_critical"], 1e-8)
        if row["rf_tau"] > row["rf_tau_critical"]:
            assert_close(step(x, x0, y, now, level, forward_keep(now, level), eps), z, 1e-6)
        assert_close(flow.clean(z, tensor(row["v_if_x0hat_eq_x0"]), row["rf_tau"]), x0, 1e-9)
        assert_close(step(z, x0, y, level, then, implicit_keep(level, then)), row["x_next"], 1e-6)
        assert_close(edm.critical(now), row["edm_sigma_critical"], 1e-6)
        level = edm.marginal(row["edm_sigma"])
        assert_close(step(x, x0, y, now, level, forward_keep(now, level), eps), row["z_edm"], 1e-5)


def moved(now, then, keep):
    """Coefficients of the stepped state on (x0, y, own noise, fresh noise); step is linear in
    them."""
    x0, y, own, new = torch.eye(4, dtype=torch.float64).unsqueeze(1)
    state = now.clean * x0 + now.degraded * y + now.noise * own
    return step(state, x0, y, now, then, keep, new)[0]


def times(T):
    return st.lists(st.floats(0, T), min_size=2, max_size=2).map(sorted)


@fast
@given(st.sampled_from(list(BRIDGES)), st.sampled_from(list(PRIORS)), times(100), st.floats(0, 1))
def test_transitions_keep_the_marginal(name, prior, t, raise_by):
    """Into a prior at or above the critical timestep x0 has no part; in and out, the law is the
    target's."""
    then, now, prior = *(BRIDGES[name].marginal(s) for s in t), PRIORS[prior]
    tau = prior.critical(now)
    level = prior.marginal(tau + raise_by * (prior.highest - tau))
    keep = forward_keep(now, level)
    assert 0 <= keep <= level.noise * (1 + 1e-12)
    a, b, kept, fresh = moved(now, level, keep)
    assert_close([a, b, kept**2 + fresh**2], [level.clean, 0, level.noise**2], 1e-9)
    if now.noise > 0 and now.level <= level.level * (1 - 1e-9):
        # x0 itself adds nothing
        assert_close(now.clean * keep / now.noise, level.clean, 1e-12, 1e-9)
    a, b, kept, fresh = moved(level, then, implicit_keep(level, then))
    assert_close([a, b, kept, fresh], [*then, 0], 1e-7)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("name", BRIDGES)
def test_y_cancels(name, prior):
    """Reverse then forward is alpha' x0 + kappa sigma' eps_z + sqrt(1 - kappa^2) sigma' eps for any
    y."""
    rng, prior, bridge = np.random.default_rng(5), PRIORS[prior], BRIDGES[name]
    for _ in range(20):
        x0, y, eps_z, eps = (tensor(rng.normal(size=4)) for _ in range(4))
        here = bridge.marginal(rng.uniform(5, 75))
        low, high = float(prior.critical(here)), prior.highest
        before, after = (
            prior.marginal(low + u * (high - low)) for u in rng.uniform(0.01, 0.5, size=2)
        )
        z = draw(before, x0, y, eps_z)
        x = step(z, x0, y, before, here, implicit_keep(before, here))
        z = step(x, x0 + rng.normal(), y, here, after, forward_keep(here, after), eps)
        kappa = here.level / after.level
        expected = after.clean * x0 + after.noise * (kappa * eps_z + (1 - kappa**2).sqrt() * eps)
        assert_close(z, expected, 1e-12, 1e-12)


def test_round_trip_at_the_critical_timestep_is_the_identity():
    bridge, prior = GOUB(), PRIORS["vp"]
    x, x0, y, _ = inputs(load("goub"))
    here = bridge.marginal(60.5)
    level = prior.marginal(prior.critical(here))
    z = step(x, x0, y, here, level, forward_keep(here, level))
    assert_close(step(z, x0, y, level, here, implicit_keep(level, here)), x, 1e-12)
