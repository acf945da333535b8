"""Stochastic refinement: derived numbers of the paper's chain and loss, the law of its sampler on a
Gaussian, what trains, whole images, and what is refused."""

from dataclasses import replace
from itertools import pairwise

import closed_form
import numpy as np
import pytest
import torch
from golden import load, tensor
from losses import given
from runs_alike import assert_same
from scipy import optimize
from torch import nn

from irbridge.adapters.residual_unet import ResidualUNet
from irbridge.adapters.trunk import bridge_network, make_trunk
from irbridge.bridges import IRSDE, LinearOU
from irbridge.errors import UserError
from irbridge.gaussian.noise import sample_seed
from irbridge.images.tiles import Tiles
from irbridge.models.refine_options import RefineOptions
from irbridge.models.refinement import Refinement
from irbridge.models.regression import Regression
from irbridge.profiling.flops import cost
from irbridge.samplers import Estimate, drive, make
from irbridge.training.trainer import Trainer

GOLDEN = load("stochastic_refinement")
CHAIN = GOLDEN["sampling3"]
LAWS = GOLDEN["gaussian_pd_curve"]["rows"]
SMALL = {"trunk": "residual", "channels": [8, 8], "layers": 1}
ENDS = {10: 0.846, 20: 0.545, 50: 0.252, 100: 0.132, 250: 0.0543, 500: 0.0274}


def model_of(sizes=SMALL, sampler=None, **options):
    """A small one whose last layers are not 0."""
    torch.manual_seed(0)
    model = Refinement(
        LinearOU(), make_trunk(**sizes), bridge_network(**sizes), RefineOptions(**options), sampler
    )
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return model


class Fixed(nn.Module):
    """A network that is a formula of its inputs: of a time as well, or of y alone."""

    stride, reach, masked = 1, 0, False

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.offset = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, inputs, time=None):
        if time is None:
            return self.answer(inputs) + self.offset, {}
        level = time.double().reshape(-1, 1, 1, 1) / 1000
        shown = self.answer(inputs[:, :3], inputs[:, 3:], level)
        return type("Output", (), {"sample": shown})


def published(z, y, level):
    return 0.7 * z - 0.2 * y + 0.1 * level


# Golden numbers


def test_the_residuals_chain_is_that_of_the_process_around_the_prediction():
    """Our sampler on the shifted state against the DDPM of the residual; both are golden."""
    y, noises = tensor(CHAIN["y"]), [tensor(values) for values in CHAIN["noise"]]
    end = 0.9 * y + 0.03
    process = LinearOU(T=3, first=0.1, last=0.9)
    drawn = iter([*noises, torch.zeros_like(y)])

    def ask(query):
        law = process.marginal(query.t)
        residual = query.x - end
        noise = published(residual, y, law.clean)
        left = (residual - law.noise * noise) / law.clean
        return Estimate(end + left.clamp(-1, 1), query.x, law)

    start = end + tensor(CHAIN["states"][0])
    loop = make("posterior", nfe=3).loop(process, end, lambda like: next(drawn), x=start)
    running, shifted = drive(loop, ask), []
    while True:
        try:
            shifted.append(next(running)[0].x)
        except StopIteration as stop:
            shifted.append(stop.value)
            break
    for state, moved, residual in zip(
        shifted, CHAIN["shifted_states"], CHAIN["states"], strict=True
    ):
        assert torch.allclose(state, tensor(moved), rtol=0, atol=1e-12)
        assert torch.allclose(state - end, tensor(residual), rtol=0, atol=1e-12)
    assert torch.allclose(shifted[-1], tensor(CHAIN["restored"]), rtol=0, atol=1e-12)


def test_the_posterior_is_ddpms():
    process, table = LinearOU(T=3, first=0.1, last=0.9), CHAIN["schedule"]
    shares = [1.0, *(float(process.marginal(t).clean) ** 2 for t in (1, 2, 3))]
    assert shares[1:] == pytest.approx(table["ab"], abs=1e-12)
    assert shares[:3] == pytest.approx(table["abp"], abs=1e-12)
    betas = [1 - now / before for before, now in pairwise(shares)]
    assert betas == pytest.approx(table["beta"], abs=1e-12)
    for t in (1, 2, 3):
        now, then, keep = process.posterior(t, t - 1)
        ratio = float(keep / now.noise)
        weights = float(then.clean - ratio * now.clean), ratio, float(then.noise**2 - keep**2)
        wanted = table["c0"][t - 1], table["ct"][t - 1], table["std"][t - 1] ** 2
        assert weights == pytest.approx(wanted, abs=1e-12)


def test_the_loss_and_its_gradient_to_the_predictors_offset():
    """At the level .8, which one step of beta .36 has."""
    y, eps, clean = tensor(CHAIN["y"]), tensor(CHAIN["states"][0]), tensor(GOLDEN["loss"]["x"])
    y, eps, clean = (value.expand(1, 3, 2, 2) for value in (y, eps, clean))
    predictor, denoiser = Fixed(lambda y: 0.9 * y + 0.03), Fixed(published)
    model = Refinement(LinearOU(T=1, last=0.36), predictor, denoiser)
    found = model.loss(*given(clean, y, eps, torch.zeros(1)))["noise"]
    assert found.item() == pytest.approx(GOLDEN["loss"]["value"], abs=1e-7)  # the time is float32
    found.sum().backward()
    slope = GOLDEN["loss"]["d_loss_d_offset"]
    assert predictor.offset.grad.item() == pytest.approx(slope, abs=1e-12)


def test_the_schedule_is_sr3s_and_a_uniform_time_draws_its_levels():
    process = LinearOU()
    table = GOLDEN["sr3_schedule_2000_1e-6_1e-2"]["sqrt_abar_with_leading_1"]
    for t, share in table.items():
        assert float(process.marginal(int(t)).clean) == pytest.approx(share, abs=1e-12)
    low, high = (process.marginal(t).clean for t in (700, 701))
    between = process.marginal(torch.tensor([700.25, 700.5])).clean
    share = torch.tensor([0.25, 0.5], dtype=torch.float64)
    assert torch.allclose(between, low + share * (high - low), atol=1e-12)


@pytest.mark.parametrize("steps", ENDS)
def test_the_grid_of_a_sampler_leads_to_the_named_end(steps):
    process = LinearOU.down_to(1e-3, steps)
    assert process.T == steps and process.last == pytest.approx(ENDS[steps], abs=6e-4)
    assert float(process.marginal(steps).clean ** 2) == pytest.approx(1e-3, rel=1e-9)
    assert float(LinearOU.down_to(1e-3, 1).marginal(1).clean ** 2) == pytest.approx(1e-3)


# The law of the sampler on a Gaussian


def law_by_recursion(process, mean, variance):
    """Mean and variance of the sampled residual, by exact steps of the posterior."""
    m, v = 0.0, process.lam**2  # the start
    for t in range(int(process.T), 0, -1):
        now, then, keep = process.posterior(t, t - 1)
        a, c = float(now.clean), float(now.noise)
        gain = a * variance / (a**2 * variance + c**2)
        rest = float(keep) / c
        share = float(then.clean) - rest * a
        slope = rest + share * gain
        m = slope * m + share * (1 - gain * a) * mean
        v = slope**2 * v + float(then.noise**2 - keep**2)
    return m, v


def processed(row):
    return LinearOU(T=row["T"], first=row["beta_first"], last=row["beta_last"])


@pytest.mark.parametrize("row", LAWS, ids=lambda row: f"{row['posterior_var']}-{row['T']}")
def test_the_law_of_the_sampler_by_recursion(row):
    process = processed(row)
    mean, variance = law_by_recursion(process, row["residual_mean"], row["posterior_var"])
    assert float(process.marginal(row["T"]).clean ** 2) == pytest.approx(row["abar_T"], rel=1e-9)
    assert (mean, variance) == pytest.approx((row["mean"], row["var"]), abs=1e-9)
    bias = mean - row["residual_mean"]
    single = row["posterior_var"] + bias**2 + variance
    of_8 = row["posterior_var"] + bias**2 + variance / 8
    assert (single, of_8) == pytest.approx((row["mse_single"], row["mse_mean_of_8"]), abs=1e-9)
    assert 10 * np.log10(single / of_8) == pytest.approx(row["psnr_gain_of_8_db"], abs=1e-6)


@pytest.mark.parametrize("row", [row for row in LAWS if row["T"] <= 50], ids=lambda r: str(r["T"]))
def test_the_law_of_our_sampler(row):
    """By the exact denoiser, around a prediction that is .05 too low."""
    process, end = processed(row), 0.2
    y = closed_form.column(end)
    mean, variance = end + row["residual_mean"], row["posterior_var"]

    def estimate(t, x):
        a, b, c = (float(value) for value in process.marginal(t))
        gain = a * variance / (a**2 * variance + c**2)
        return mean + gain * (x - a * mean - b * end)

    _, last = closed_form.run(process, make("posterior", nfe=row["T"]), estimate, y=y)
    found = closed_form.law(last)
    assert found == pytest.approx((end + row["mean"], row["var"]), abs=1e-9)


def law_by_betas(betas, mean, variance):
    """The law of DDPM's sampler on a Gaussian residual, by the formulas of its betas alone."""
    abar = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], abar[:-1]])
    m, v = 0.0, 1.0
    for beta, now, then in zip(betas[::-1], abar[::-1], before[::-1], strict=True):
        gain = np.sqrt(now) * variance / (now * variance + 1 - now)  # of E[r0 | r_t]
        share = np.sqrt(then) * beta / (1 - now)
        slope = np.sqrt(1 - beta) * (1 - then) / (1 - now) + share * gain
        m = slope * m + share * (1 - gain * np.sqrt(now)) * mean
        v = slope**2 * v + beta * (1 - then) / (1 - now)
    return m, v


def betas_to(end, steps):
    """Betas in a straight line from 1e-6 that leave ``end``; a single one is the last."""

    def line(last):
        return np.linspace(1e-6, last, steps) if steps > 1 else np.array([last])

    return line(optimize.brentq(lambda last: np.prod(1 - line(last)) - end, 1e-6, 1, xtol=1e-15))


def law_of_the_sampler(steps, end, mean, variance, rule="posterior", boot=0.0):
    """The law of the model's own grid, or the training's, with the exact denoiser; g(y) is .2."""
    process = LinearOU.down_to(end, steps) if end else LinearOU()

    def estimate(t, x):
        a, b, c = (float(value) for value in process.marginal(t))
        gain = a * variance / (a**2 * variance + c**2)
        return 0.2 + mean + gain * (x - a * (0.2 + mean) - b * 0.2)

    y = closed_form.column(0.2, steps + 2)
    _, last = closed_form.run(process, make(rule, nfe=steps, boot=boot), estimate, y=y)
    m, v = closed_form.law(last)
    return m - 0.2, v


@pytest.mark.parametrize(
    ("rule", "end", "variance"),
    [("implicit", 1e-3, 0.0059), ("dbim2", 1e-3, 0.0155), ("dbim2", None, 0.0071)],
)
def test_a_rule_of_higher_order_overshoots_on_the_grid_of_linear_betas(rule, end, variance):
    """What docs/refinement.md says of 50 steps and a true variance of .01."""
    boot = 0.001 * (rule == "dbim2")
    found = law_of_the_sampler(50, end, 0.05, 0.01, rule, boot)[1]
    assert found == pytest.approx(variance, abs=6e-5)


@pytest.mark.parametrize("end", [1e-3, 4.4e-5, 0.05])
@pytest.mark.parametrize("variance", [1e-4, 0.01, 0.3])
def test_more_steps_trade_distortion_for_perception(variance, end):
    """Of the sampler itself: its variance rises to the true one, and so does its error."""
    laws = []
    for steps in (1, 2, 5, 10, 50, 200):
        betas = betas_to(end, steps)
        laws.append(law_of_the_sampler(steps, end, 0.05, variance))
        assert laws[-1] == pytest.approx(law_by_betas(betas, 0.05, variance), abs=1e-9)
    spreads = [v for _, v in laws]
    assert all(fewer < more < variance for fewer, more in pairwise(spreads))
    errors = [variance + (m - 0.05) ** 2 for m, _ in laws]
    gains = [10 * np.log10((e + v) / (e + v / 8)) for e, v in zip(errors, spreads, strict=True)]
    assert all(fewer < more < 3.02 for fewer, more in pairwise(gains))


@pytest.mark.parametrize(("end", "steps", "said"), [(1e-20, 1, "larger"), (0.9999, 500, "smaller")])
def test_an_end_out_of_reach_is_said(end, steps, said):
    with pytest.raises(UserError) as refused:
        model_of(end=end, sampler={"nfe": steps})
    wanted = f"refine.end={end:g} is out of reach of {steps} steps; give a {said} one."
    assert str(refused.value) == wanted


def test_a_models_samples_have_that_law_and_so_has_their_mean():
    """4096 pixels of posterior std .1 around a prediction that is .05 too low."""
    variance, steps, count = 0.01, 10, 8

    def exact(z, y, level):
        c2 = 1 - level**2
        total = level**2 * variance + c2
        return (z - level * 0.05) * c2.sqrt() / total

    model = Refinement(LinearOU(), Fixed(lambda y: y - 0.05), Fixed(exact), sampler={"nfe": steps})
    y = torch.zeros(1, 3, 64, 64)
    mean, spread = law_by_recursion(LinearOU.down_to(1e-3, steps), 0.05, variance)
    single, several = model.restore(y, seed=1), model.restore(y, seed=1, samples=count)
    for image, wanted in ((single, spread), (several, spread / count)):
        assert float(image.var()) == pytest.approx(wanted, rel=0.06)
        assert float(image.mean()) == pytest.approx(mean - 0.05, abs=4 * (wanted / 12288) ** 0.5)


# Networks


@pytest.mark.parametrize(
    ("channels", "inputs", "timed", "count"),
    [([64, 128, 192, 256], 3, False, 26_065_027), ([32, 64, 96, 128], 6, True, 6_628_323)],
)
def test_the_published_networks_by_count(channels, inputs, timed, count):
    with torch.device("meta"):
        network = ResidualUNet(channels, 3, inputs, 3, timed)
    assert sum(p.numel() for p in network.parameters()) == count and network.stride == 8


@torch.no_grad()
def test_the_network_moves_with_the_image_by_its_stride():
    torch.manual_seed(0)
    network = ResidualUNet([4, 4, 4, 4], 1, timed=True).double()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    reach, time = network.reach, torch.tensor([700.0])
    side = 2 * reach + 24 + -(2 * reach) % 8
    image = torch.randn(1, 3, side, side, dtype=torch.float64)
    moved = network(torch.roll(image, (8, 8), (2, 3)), time).sample.roll((-8, -8), (2, 3))
    inner = slice(reach + 8, side - reach - 8)
    same = network(image, time).sample[..., inner, inner]
    assert same.numel() and torch.allclose(moved[..., inner, inner], same, rtol=0, atol=1e-12)
    # and nothing beyond the reach counts
    other = image.clone()
    other[..., : side - reach - 8] += 1
    far = network(other, time).sample - network(image, time).sample
    assert far[..., side - 8 :].abs().max() < 1e-12 < far.abs().max()


@pytest.mark.parametrize("kind", ["residual", "nafnet", "unet"])
def test_any_size_and_tiles_without_seams(kind):
    sizes = SMALL | {"trunk": kind, "width": 4, "encoder": [1], "decoder": [1], "middle": 1}
    model = model_of(sizes, {"nfe": 2, "rule": "implicit"})
    image = np.random.default_rng(0).random((40, 56, 3), dtype=np.float32)
    assert model.restore(image).shape == (40, 56, 3)
    if model.reach is not None:
        wide = torch.rand(1, 3, 16, 6 * (model.reach + 16)) * 2 - 1
        tiles = Tiles((16, 8), 4)
        assert tiles.reaching(model.reach).count(*wide.shape[2:], model.stride) > 1
        gap = (model.restore(wide, tiles=tiles) - model.restore(wide)).abs().max()
        assert gap < 2e-4


def test_with_its_reflection_around_it_an_image_has_no_edge():
    """Of what convolutions pad with zeros, as networks do; else the outermost pixels differ."""

    def blurred(z, y, level):
        return nn.functional.avg_pool2d(z, 3, 1, 1)

    law = LinearOU().marginal(torch.tensor([900.0], dtype=torch.float64))
    guess, x = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5)
    for reflect, even in ((False, False), (True, True)):
        options = RefineOptions(reflect=reflect)
        model = Refinement(LinearOU(), Fixed(lambda y: y), Fixed(blurred), options)
        x0 = model.denoise(x, law, guess, guess)
        assert x0.shape == x.shape and bool(x0.std() < 1e-6) == even
        assert x0[..., 1:-1, 1:-1].std() < 1e-6


@pytest.mark.parametrize("size", [(40, 56), (3, 5)])
def test_reflected_an_image_of_any_size_and_tiles_without_seams(size):
    sizes = SMALL | {"trunk": "nafnet", "width": 4, "encoder": [1], "decoder": [1], "middle": 1}
    model = model_of(sizes, {"nfe": 2, "rule": "implicit"}, reflect=True)
    image = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    assert model.restore(image).shape == (*size, 3)
    wide = torch.rand(1, 3, 16, 6 * (model.reach + 16)) * 2 - 1
    gap = (model.restore(wide, tiles=Tiles((16, 8), 4)) - model.restore(wide)).abs().max()
    assert gap < 2e-4


def test_without_calls_it_is_the_predictor():
    model = model_of(samples=4)
    y = torch.rand(1, 3, 16, 16) * 2 - 1
    (state,) = model.trajectory(y, nfe=0)
    assert state.x0.equal(model.anchor(y)) and model.passes(nfe=0) == 1
    assert [row.key for row in model.rows(nfe=0)] == ["anchor"]
    with pytest.raises(UserError, match="samples=3 would all be one image.* makes no call"):
        model.average(3, nfe=0)
    model.average(None, nfe=0)
    assert model.samples == 1


def test_what_it_costs():
    """The predictor once, the denoiser at every call."""
    model = model_of()
    found = cost(model, 32)
    assert found["trainable"] == sum(p.numel() for p in model.own.parameters())
    alone = cost(Regression(make_trunk(**SMALL)), 32)
    assert found["condition"] == alone["condition"] < found["residuals"]


# Training


def batch(seed=0, count=2, side=16):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, count, 3, side, side, generator=generator) * 2 - 1
    noise = torch.randn(count, 3, side, side, generator=generator)
    return given(*images, noise, torch.rand(count, generator=generator))


def test_the_joint_loss_reaches_the_predictor_and_a_frozen_one_stays():
    joint = model_of()
    joint.loss(*batch())["noise"].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in joint.own["predictor"].parameters())
    frozen = model_of(joint=False, predictor="a finished run")
    frozen.loss(*batch())["noise"].sum().backward()
    assert all(p.grad is None for p in frozen.own["predictor"].parameters())
    assert all(p.grad.abs().sum() > 0 for p in frozen.denoiser.parameters())
    (group,) = frozen.parameter_groups()
    assert len(group["params"]) == len(list(frozen.denoiser.parameters()))


def test_the_measured_scale_is_that_of_the_first_batch():
    model = model_of(scale="measured")
    images, step = batch()
    left = images.clean - model.predict(images.degraded)
    model.loss(images, step)  # later, as a trial of speed asks: nothing is kept
    assert model.scale == 1.0
    model.loss(images, step._replace(progress=0.0))
    assert model.scale == pytest.approx(float(left.square().mean().sqrt()), rel=1e-6)
    kept = model.scale
    model.loss(batch(7)[0], step._replace(progress=0.0))
    assert model.scale == kept == model.bridge.lam == model.process(model.sampler).lam
    assert model.scale == pytest.approx(float(model.trainable().state_dict()["residual_std"]))


def test_the_denoiser_sees_y_the_level_and_a_residual_of_unit_size():
    """A scaled one is asked what an unscaled one is asked of a larger residual."""
    seen = []

    def answer(z, y, level):
        seen.append((z, y, level))
        return z

    images, step = batch()
    for scale, clean in ((1.0, images.clean), (0.5, images.degraded + 0.5 * left_of(images))):
        model = Refinement(
            LinearOU(), Fixed(lambda y: y), Fixed(answer), RefineOptions(scale=scale)
        )
        model.loss(images._replace(clean=clean), step)
    (first, y, level), (second, *_) = seen
    assert torch.allclose(first, second, atol=1e-6) and torch.equal(y, images.degraded)
    t = 2000 * (1 - step.uniform.double())
    assert torch.allclose(level.flatten(), LinearOU().marginal(t).clean, atol=1e-7)


def left_of(images):
    return images.clean - images.degraded


def test_the_readout_undoes_the_noise():
    """At any level and scale, with a perfect denoiser."""
    images, step = batch()
    guess = images.degraded
    for scale in (1.0, 0.1):
        model = Refinement(
            LinearOU(),
            Fixed(lambda y: y),
            Fixed(lambda z, y, level: step.noise),
            RefineOptions(scale=scale),
        )
        law = model.bridge.marginal(torch.tensor([300.0, 1200.0], dtype=torch.float64))
        a, b, c = (value.reshape(-1, 1, 1, 1) for value in law)
        x = a * images.clean.double() + b * guess.double() + c * step.noise.double()
        x0 = model.denoise(x, law, images.degraded, guess)
        assert torch.allclose(x0, images.clean.double(), atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"scale": "measured"}, {"joint": False, "predictor": "r"}])
def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(tmp_path, stream, options):
    from conftest import trainer_options

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(model_of(**options), stream, trainer_options(), 3, whole).run()
    for stop in (2, None):
        model = model_of(**options)
        Trainer(model, stream, trainer_options(stop=stop), 3, parts).run()
    assert_same(whole, parts)
    before, after = model_of(**options), model
    moved = [
        not torch.equal(p, q)
        for p, q in zip(before.own["predictor"].parameters(), after.own["predictor"].parameters())
    ]
    assert any(moved) == ("predictor" not in options)


# Sampling


def test_the_mean_of_samples_is_that_of_its_own_seeds():
    model = model_of(sampler={"nfe": 3})
    image = np.random.default_rng(0).random((40, 56, 3), dtype=np.float32)
    single = [model.restore(image, seeds=[sample_seed(5, k)]) for k in range(3)]
    assert np.array_equal(single[0], model.restore(image, seeds=[5]))
    assert np.abs(single[0] - single[1]).max() > 1e-3
    mean = model.restore(image, seeds=[5], samples=3)
    assert np.allclose(mean, np.mean(single, axis=0), atol=1e-6)
    model.samples = 3
    assert np.array_equal(model.restore(image, seeds=[5]), mean)


@pytest.mark.parametrize("rule", ["posterior", "implicit", "dbim2", "heun", "mean", "odes3"])
def test_any_rule_follows_it_in_so_many_calls(rule):
    model, y = model_of(), torch.rand(1, 3, 16, 16) * 2 - 1
    states = list(model.trajectory(y, rule=rule, nfe=5))
    assert len(states) == 5 == model.calls(rule=rule, nfe=5)
    assert all(state.x0.abs().max() <= 1 and state.x.isfinite().all() for state in states)
    assert states[0].t == 5
    own = list(model.trajectory(y, rule=rule, times=[2000.0, 700.0, 0.0]))
    assert [own[0].t, own[-1].t <= 700] == [2000, True]  # of the training's schedule


def test_its_rows_are_the_prediction_and_what_is_made_of_it():
    model, image = model_of(), np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    alone, own = model.rows(nfe=4)
    assert [alone.key, own.key, own.nfe] == ["anchor", "refine", 4] and "4 calls" in own.label
    y = torch.from_numpy(image).permute(2, 0, 1)[None] * 2 - 1
    guess = model.predict(y).clamp(-1, 1)[0].permute(1, 2, 0).detach().numpy() / 2 + 0.5
    assert np.allclose(model.restore(image, **alone.options), guess, atol=1e-6)


# Bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 0}, "refine.samples=0 must be a whole number from 1 to 1000."),
        ({"scale": 0.0}, "refine.scale=0.0 must be a number above 0, or measured."),
        ({"scale": "large"}, "refine.scale=large must be a number above 0, or measured."),
        ({"end": 1.0}, "refine.end=1.0 must be a number between 0 and 1, or null."),
    ],
)
def test_settings_out_of_range(options, said):
    with pytest.raises(UserError) as refused:
        RefineOptions(**options)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("make_it", "said"),
    [
        (lambda: model_of(joint=False), "learnt nothing yet; give refine.predictor=RUN"),
        (lambda: model_of(sampler={"nfe": 0}), "sampler.nfe=0 makes no call"),
        (lambda: model_of().restore(torch.zeros(1, 3, 8, 8), samples=0), "samples=0 must be"),
        (lambda: built(IRSDE()), "IRSDE.*use bridge=refine"),
        (lambda: built(LinearOU(start="y")), "use bridge=refine"),
        (lambda: built(replace(LinearOU(), lam=0.1)), "give refine.scale=0.1 instead"),
        (lambda: built(LinearOU(), masked=True), "takes 3 channels and this task's images have 4"),
    ],
)
def test_what_cannot_be_is_one_sentence(make_it, said):
    with pytest.raises(UserError, match=said) as refused:
        make_it()
    assert "\n" not in str(refused.value)


def built(bridge, **options):
    return Refinement(bridge, make_trunk(**SMALL), bridge_network(**SMALL), **options)


# Pretrained predictors


@pytest.fixture
def pretrained(tmp_path):
    """The file of a network that spandrel knows, as ``refine.predictor`` names it."""
    pytest.importorskip("spandrel")
    from safetensors.torch import save_file
    from spandrel.architectures.NAFNet import NAFNet

    torch.manual_seed(0)
    network = NAFNet(width=8, enc_blk_nums=[1], middle_blk_num=1, dec_blk_nums=[1])
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    return f"spandrel:{tmp_path / 'net.safetensors'}"


def config_of(**refine):
    from conftest import configured
    from omegaconf import OmegaConf

    from irbridge.experiments.config import plain

    words = ["recipe=refine", "task=deblur", "name=t", "adapter.width=4", "refine.denoiser.width=4"]
    config = configured("train", *words)
    config = OmegaConf.masked_copy(config, [key for key in config if key not in ("hydra", "run")])
    config = plain(config)
    return config | {"refine": config["refine"] | refine}


def test_a_pretrained_predictor_is_not_stored_and_may_move(pretrained, tmp_path):
    from irbridge.adapters.pretrained_anchor import load_anchor
    from irbridge.experiments.build import build_model, describe, from_pretrained, save_pretrained

    with pytest.raises(UserError, match="refine.joint=true trains the predictor"):
        build_model(config_of(predictor=pretrained))
    config = config_of(predictor=pretrained, joint=False)
    model = build_model(config)
    model.loss(*batch())["noise"].sum().backward()
    assert {name.split(".")[0] for name in model.own.state_dict()} == {"denoiser"}
    image = np.random.default_rng(0).random((40, 56, 3), dtype=np.float32)
    y = torch.from_numpy(image).permute(2, 0, 1)[None] * 2 - 1
    assert torch.allclose(model.predict(y), load_anchor(pretrained)(y))
    save_pretrained(model, tmp_path / "run", describe(config, model))
    again = from_pretrained(tmp_path / "run")
    assert np.array_equal(again.restore(image), model.eval().restore(image))
    place = tmp_path / "net.safetensors"
    moved = place.rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(UserError, match="refine.predictor=spandrel:.* does not exist"):
        from_pretrained(tmp_path / "run")
    found = from_pretrained(tmp_path / "run", frozen={"anchor": f"spandrel:{moved}"})
    assert np.array_equal(found.restore(image), again.restore(image))


@pytest.mark.parametrize(
    ("refine", "said"),
    [
        ({"denoiser": {"predicts": False}}, "refine.denoiser has no predicts"),
        ({"sizes": {"widht": 4}}, "refine.sizes has no widht; did you mean width"),
        ({"denoiser": {"width": -1}}, "adapter.width=-1 must be"),
        ({"denoiser": {"trunk": "lucide"}}, "adapter.trunk='lucide' is unknown"),
        ({"denoiser": 3}, "refine.denoiser=3 is a group of keys"),
    ],
)
def test_sizes_that_there_are_not(refine, said):
    from irbridge.experiments.build import build_model

    with pytest.raises(UserError, match=said) as refused:
        build_model(config_of(**refine))
    assert "\n" not in str(refused.value)
