"""The step between two marginals: against the official codes, against diffusers, and its
identities."""

import numpy as np
import pytest
import torch
from golden import assert_close, inputs, load, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from irbridge.bridges.brownian import Brownian
from irbridge.bridges.ornstein_uhlenbeck import GOUB, IRSDE, RDBM
from irbridge.gaussian.marginal import draw, marginal
from irbridge.gaussian.transition import implicit_keep, posterior_keep, step
from irbridge.priors.vp import VP
from irbridge.samplers import PriorPath, make
from irbridge.samplers.base import REGISTRY
from irbridge.samplers.single_step import SingleStep

CLEAN = marginal(1, 0, 0)
SINGLE = [name for name, entry in REGISTRY.items() if issubclass(entry.kind, SingleStep)]
BRIDGES = {"brownian": Brownian(), "ou": IRSDE(), "goub": GOUB(), "residual": RDBM()}
fast = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def moved(now, then, keep, fresh=True):
    """Coefficients of the stepped state on (x0, y, own noise, fresh noise); step is linear in
    them."""
    x0, y, own, new = torch.eye(4, dtype=torch.float64).unsqueeze(1)
    state = now.clean * x0 + now.degraded * y + now.noise * own
    return step(state, x0, y, now, then, keep, new if fresh else None)[0]


# Golden tables: single steps

GOLDEN_BRIDGES = [
    ("goub", GOUB(), 2e-6),
    ("irsde_sigma10", IRSDE(), 2e-5),
    ("irsde_sigma30", IRSDE(lam=30 / 255), 2e-5),
]


@pytest.mark.parametrize("name,bridge,atol", GOLDEN_BRIDGES)
def test_posterior_step(name, bridge, atol):
    table = load(name)
    x, x0, y, _ = inputs(table)
    rows = [row for row in table["reverse_steps"] if "posterior_mean" in row]
    assert len(rows) >= 6
    for row in rows:
        now, then = bridge.marginal(row["t"]), bridge.marginal(row["t_next"])
        keep = posterior_keep(now, then)
        mean = step(x, x0, y, now, then, keep)
        assert_close(mean, row["posterior_mean"], atol)
        std = step(x, x0, y, now, then, keep, torch.ones_like(x)) - mean
        assert_close(std, np.full(4, row["posterior_std"]), 1e-6)
        assert_close(draw(now, x0, y, tensor(row["true_eps"])), x, 1e-6)


def test_resshift_posterior():
    """ResShift is Markov given x0 (its shift is part of the kernel), so its k is c'^2 / c and y
    drops out."""
    rows = load("resshift_4step")["coefficients"]
    marginals = [CLEAN] + [marginal(row["a"], row["b"], row["c"]) for row in rows]
    for row, then, now in zip(rows, marginals[:-1], marginals[1:]):
        keep = then.noise**2 / now.noise
        a, b, _, fresh = moved(now, then, keep)
        ratio = float(keep / now.noise)
        own = [ratio, then.clean - ratio * now.clean]
        assert_close(own, [row["post_coef_xt"], row["post_coef_x0"]], 1e-9)
        assert_close([a, b, fresh**2], [then.clean, then.degraded, row["post_var"]], 1e-9)
        assert float(then.degraded - ratio * now.degraded) == pytest.approx(0, abs=1e-12)


def test_non_adjacent_posteriors_residual_modulation_and_eta():
    table, bridge = load("derived_general"), GOUB()
    x, x0, y, eps = inputs(table)
    modulated = table["residual_modulated_goub"]
    pi = RDBM().scale(x0, y)
    assert_close(pi, modulated["pi"], 1e-12)
    for row in modulated["x_t"]:
        assert_close(draw(bridge.marginal(row["t"]), x0, y, pi * eps), row["x"], 1e-6)
    for rows, scale in (
        ("goub_posterior_nonadjacent", torch.ones_like(x)),
        ("posterior", pi.abs()),
    ):
        for row in table.get(rows, modulated.get(rows)):
            now, then = bridge.marginal(row["t"]), bridge.marginal(row["s"])
            keep = posterior_keep(now, then)
            mean = step(x, x0, y, now, then, keep)
            assert_close(keep / now.noise, row["k"], 1e-7)
            assert_close(mean, row["mean"], 1e-6)
            assert_close(step(x, x0, y, now, then, keep, scale) - mean, row["std"], 1e-6)
    for row in modulated["deterministic_step"]:
        now, then = bridge.marginal(row["t"]), bridge.marginal(row["s"])
        assert_close(step(x, x0, y, now, then, implicit_keep(now, then)), row["x_s"], 1e-6)
    for row in table["goub_eta_family"]:
        now, then, keep = make("eta", eta=row["eta"]).laws(bridge, row["t"], row["s"])
        assert_close(keep / now.noise, row["k"], 1e-6)
        assert_close((then.noise**2 - keep**2).clamp(min=0).sqrt(), row["sigma"], 1e-6)
        assert_close(step(x, x0, y, now, then, keep), row["mean"], 1e-6)


# diffusers' samplers are steps between VP marginals


def random_states(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, 3, 4, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("prediction", ("epsilon", "v_prediction", "sample"))
@pytest.mark.parametrize("eta", (0.0, 0.5, 1.0))
def test_ddim_is_diffusers(eta, prediction):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    scheduler.set_timesteps(20)
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    # its own products, without its rounding
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    prior = VP(scheduler.alphas_cumprod.numpy(), prediction)
    for t in scheduler.timesteps.tolist():
        z, output, noise = random_states(t)
        expected = scheduler.step(output, t, z, eta=eta, variance_noise=noise)
        now, then, keep = make("eta", eta=eta).laws(PriorPath(prior=prior), t, max(t - 50, 0))
        x0 = prior.clean(z, output, torch.tensor(t))
        assert_close(x0, expected.pred_original_sample, 1e-10, 1e-9)
        got = step(z, x0, torch.zeros_like(z), now, then, keep, noise)
        assert_close(got, expected.prev_sample, 1e-7, 0)


def test_ddpm_is_diffusers():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(clip_sample=False, variance_type="fixed_small")
    scheduler.set_timesteps(50)
    # its own products, without its rounding
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    prior = VP(scheduler.alphas_cumprod.numpy())
    for t in scheduler.timesteps.tolist():
        z, output, _ = random_states(t)
        expected = scheduler.step(
            output, t, z, generator=torch.Generator().manual_seed(t)
        ).prev_sample
        noise = torch.randn(
            z.shape, generator=torch.Generator().manual_seed(t), dtype=torch.float64
        )
        now, then = prior.marginal(t), prior.marginal(t - 20) if t >= 20 else CLEAN
        x0 = prior.clean(z, output, torch.tensor(t))
        got = step(z, x0, torch.zeros_like(z), now, then, posterior_keep(now, then), noise)
        assert_close(got, expected, 1e-10, 1e-9)


# Identities


def times(T):
    return st.lists(st.floats(0, T), min_size=3, max_size=3).map(sorted)


@fast
@given(st.sampled_from(list(BRIDGES)), times(100), st.floats(0, 1))
def test_keep_is_within_bounds_and_keeps_the_marginal(name, t, eta):
    """0 <= k <= c', and the stepped state has the coefficients of ``then``, for every preserving
    rule; drift alone may keep more noise than ``then`` has, and only its mean is right."""
    for rule in SINGLE:
        how = make(rule, eta=eta)
        now, then, keep = how.laws(BRIDGES[name], t[1], t[0])
        assert keep >= 0 and (rule == "drift" or keep <= then.noise * (1 + 1e-12))
        a, b, kept, fresh = moved(now, then, keep, how.fresh)
        assert_close([a, b], [then.clean, then.degraded], 1e-12)
        assert_close(kept, keep, 1e-12)
        if how.fresh:
            assert_close(kept**2 + fresh**2, torch.maximum(then.noise, keep) ** 2, 1e-14, 1e-9)


def test_mean_does_not_keep_the_variance():
    now, then = GOUB().marginal(80), GOUB().marginal(40)
    assert moved(now, then, posterior_keep(now, then), fresh=False)[2] < 0.1 * then.noise


@fast
@given(st.sampled_from(list(BRIDGES)), times(99.999))
def test_chapman_kolmogorov(name, t):
    """t -> s -> u is t -> u: the ratios k/c multiply and the variances add up."""
    u, s, t = (BRIDGES[name].marginal(s) for s in t)
    if not u.noise > 1e-9:
        return
    whole, first, second = posterior_keep(t, u), posterior_keep(t, s), posterior_keep(s, u)
    assert_close(first / t.noise * second / s.noise, whole / t.noise, 1e-12, 1e-9)
    variance = u.noise**2 - second**2 + (second / s.noise) ** 2 * (s.noise**2 - first**2)
    assert_close(variance, u.noise**2 - whole**2, 1e-12, 1e-9)


@fast
@given(st.sampled_from(list(BRIDGES)), times(100))
def test_eta_joins_implicit_and_posterior(name, t):
    now, then, none = make("eta", eta=0.0).laws(BRIDGES[name], t[1], t[0])
    assert_close(none, implicit_keep(now, then), 1e-12)
    for eta in (1.0, 1 - 1e-15):  # 1 is a branch of its own
        assert_close(
            make("eta", eta=eta).laws(BRIDGES[name], t[1], t[0])[2] ** 2,
            posterior_keep(now, then) ** 2,
            1e-12,
        )


@fast
@given(times(99.99))
def test_goub_and_irsde_share_their_posterior(t):
    """Conditioning on x_T drops out of the reverse step of a Markov process."""
    ratios, variances = [], []
    for bridge in (IRSDE(lam=0.5), GOUB(lam=0.5)):
        now, then = bridge.marginal(t[1]), bridge.marginal(t[0])
        keep = posterior_keep(now, then)
        ratios.append(keep / now.noise.clamp(min=1e-300))
        variances.append(then.noise**2 - keep**2)
    assert_close(*ratios, 1e-9, 1e-6)
    assert_close(*variances, 1e-12, 1e-6)


def test_pinned_end_draws_the_next_marginal():
    """At c = 0 the state is ignored and the fresh noise is all of it ("booting noise"), for every
    rule."""
    for bridge in (Brownian(), GOUB(), RDBM()):
        for rule in SINGLE:
            now, then, keep = make(rule, eta=0.5).laws(bridge, bridge.T, 60)
            assert_close(moved(now, then, keep), [*bridge.marginal(60)[:2], 0, then.noise], 1e-12)


def test_batched_times_equal_single_ones_and_dtype_is_the_states():
    now, then = (IRSDE().marginal(torch.tensor(t)) for t in ([90.0, 40.0], [80.0, 30.0]))
    generator = torch.Generator().manual_seed(0)
    x, x0, y, noise = torch.randn(4, 2, 3, 4, 4, generator=generator)
    batch = step(x, x0, y, now, then, posterior_keep(now, then), noise)
    assert batch.dtype == torch.float32
    for i, (t, s) in enumerate([(90, 80), (40, 30)]):
        now_i, then_i = IRSDE().marginal(t), IRSDE().marginal(s)
        single = step(
            x[i : i + 1],
            x0[i : i + 1],
            y[i : i + 1],
            now_i,
            then_i,
            posterior_keep(now_i, then_i),
            noise[i : i + 1],
        )
        assert torch.equal(single, batch[i : i + 1])


# What a step may keep


@pytest.mark.parametrize(
    "keep",
    [0.51, 2.0, -1e-3, float("nan"), float("inf"), -float("inf"), torch.tensor([0.1, 0.6])],
    ids=str,
)
@pytest.mark.parametrize("fresh", [True, False])
def test_a_step_keeps_no_more_noise_than_there_is(keep, fresh):
    """0 <= k <= c'; one time of a batch is enough to refuse it."""
    x = torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    now, then = marginal(0.3, 0.7, 0.8), marginal(0.6, 0.4, 0.5)
    with pytest.raises(ValueError, match="keep must be from 0 to that"):
        step(x, x, x, now, then, torch.as_tensor(keep).double(), x if fresh else None)
    with pytest.raises(ValueError, match="keep must be"):  # of a pinned end, too
        step(x, x, x, marginal(0, 1, 0), then, keep, x)


def test_what_a_step_may_keep():
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    now, then = marginal(0.3, 0.7, 0.8), marginal(0.6, 0.4, 0.5)
    for keep in (0, 0.5, 0.5 * (1 + 1e-12), torch.tensor(0.25), torch.tensor(0.25).double()):
        assert step(x, x, x, now, then, keep, x).isfinite().all()
    assert step(x, x, x, now, marginal(1, 0, 0), 0.0).isfinite().all()


@fast
@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(allow_nan=True, allow_infinity=True))
def test_any_keep_is_taken_or_refused_by_its_range(own, target, keep):
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    now, then = marginal(0.3, 0.7, own), marginal(0.6, 0.4, target)
    if 0 <= keep <= target:
        assert step(x, x, x, now, then, keep, x).isfinite().all()
    elif not keep <= target * (1 + 1e-6) + 1e-200 or keep < 0:
        with pytest.raises(ValueError, match="keep must be"):
            step(x, x, x, now, then, keep, x)
