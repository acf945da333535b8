"""Bridges trained from scratch: targets and losses against published formulas, sampling, and what
is refused."""

import numpy as np
import pytest
import torch
from golden import assert_close, inputs, load, tensor
from losses import given
from torch import nn

from irbridge.adapters.trunk import bridge_network
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
from irbridge.gaussian.marginal import draw, marginal
from irbridge.models.bridge_network import LOSSES, TARGETS, BridgeNetwork, readout

BRIDGES = {
    "brownian": Brownian(),
    "bbdm": BBDM(),
    "irsde": IRSDE(lam=20 / 255),
    "goub": GOUB(lam=60 / 255),
    "unidb": UniDB(),
    "unidb exact": UniDB(exact=True),
    "rdbm": RDBM(),
    "rdbm one": RDBM(pi="one"),
    "oubridge": OUBridge(),
    "rdbm zero": RDBM(pi="zero"),
    "i2sb": I2SB(),
    "i2sb exact": I2SB(official=False),
    "ddbm_ve": DDBMVE(),
    "ddbm_vp": DDBMVP(),
    "resshift": ResShift(),
    "resshift4": ResShift(4, min_noise=0.2),
    "rddm": RDDM(),
    "diffuir": DiffUIR(),
    "nadb": NADB(),
}
SKIPPED = ("goub", "unidb", "rdbm", "rdbm one")  # pinned, and trained on noise


def batch(*shape, count=3, seed=0, dtype=torch.float64):
    return (
        torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 1.8
        - 0.9
    )


class Fixed(nn.Module):
    """A network that returns what it is given, or ``answer(inputs, time)``, and keeps what it was
    asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, []

    def forward(self, inputs, time):
        self.asked.append((inputs, time))
        return type(
            "Output",
            (),
            {"sample": self.answer(inputs, time) if callable(self.answer) else self.answer},
        )


def model_of(bridge, answer=None, **options):
    torch.manual_seed(0)
    model = BridgeNetwork(bridge, bridge_network(channels=[8, 8]), **options)
    if answer is not None:
        model.network = Fixed(answer)
    return model


# Targets


def encode(target, bridge, t, x, x0, y, eps):
    """What a network should predict, by the definitions in the papers; I2SB's std is that of its
    official code."""
    a, b, c = (float(v) for v in bridge.marginal(t))
    if target == "edm":  # DDBM, App. A.3, with sigma_0 = sigma_T = 0.5 and no covariance
        variance = 0.25 * a**2 + 0.25 * b**2 + c**2
        return (x0 - 0.25 * a / variance * x) / ((b**2 * 0.5**4 + 0.25 * c**2) / variance) ** 0.5
    if isinstance(bridge, I2SB):
        c = next(
            row["std_fwd"] for row in load("i2sb_betamax0.3")["coefficients"] if row["t"] == t - 1
        )
    return {
        "noise": lambda: eps,
        "product": lambda: eps * bridge.scale(x0, y),
        "x0": lambda: x0,
        "residual": lambda: x0 - y,
        "difference": lambda: x - x0,
        "score": lambda: (x - x0) / c,
        "velocity": lambda: (x - x0) / b,
    }[target]()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", BRIDGES)
def test_a_readout_undoes_its_target(name, target):
    """At times early, late and at T, where the target is defined."""
    bridge = BRIDGES[name]
    x0, y, eps = batch(1, 3, 4, 4)
    for t in (
        (2, 501, 1000) if isinstance(bridge, I2SB) else (0.1 * bridge.T, 0.6 * bridge.T, bridge.T)
    ):
        m = bridge.marginal(t)
        noisy = target in ("noise", "product")
        if noisy and m.clean < 1e-4 or target == "score" and not bridge.spread(t) > 0:
            continue
        scale = 1.0 if target == "noise" else bridge.scale(x0, y)
        x = draw(m, x0, y, eps * scale)
        form = readout(target, bridge, torch.tensor(t, dtype=torch.float64))
        got = form.state * x + form.end * y + form.output * encode(target, bridge, t, x, x0, y, eps)
        assert_close(got, x0, 1e-6 if isinstance(bridge, I2SB) and target == "score" else 1e-9, 0)


class Diffusion(Bridge):
    """A bridge without a degraded end: EDM's diffusion."""

    def marginal(self, t):
        return marginal(1, 0, t)


def test_edm_without_a_degraded_end_is_edm():
    """Karras et al. 2022, Table 1, sigma_data 0.5."""
    sigma = torch.tensor([0.002, 0.3, 1.0, 80.0], dtype=torch.float64)
    form = readout("edm", Diffusion(), sigma)
    assert_close(form.state, 0.25 / (sigma**2 + 0.25), 1e-15, 1e-12)
    assert_close(form.output, sigma * 0.5 / (sigma**2 + 0.25).sqrt(), 1e-15, 1e-12)
    assert_close(form.scale, 1 / (sigma**2 + 0.25).sqrt(), 1e-15, 1e-12)


@pytest.mark.parametrize(
    "row", load("ddbm_ve")["preconditioning"]["rows"], ids=lambda row: f"{row['mode']}-{row['t']}"
)
def test_edm_is_that_of_ddbm(row):
    """The official denoise() with a network that returns the fixed eps."""
    x, _, y, eps = inputs(load("ddbm_ve"))
    model = model_of(DDBMVE() if row["mode"] == "ve" else DDBMVP(), eps)
    got = model.denoise(x, torch.tensor([row["t"]], dtype=torch.float64), y)
    ((asked, time),) = model.network.asked
    assert_close(got, row["denoised"], 1e-6)
    assert_close(asked, [*row["network_input"], *y.flatten()], 1e-8)
    assert_close(time, row["network_time"], 1e-3)


# Losses


def golden_loss(table, row, shift):
    """The official Euler step with the true noise + shift, against the official posterior mean."""
    at = next(c for c in table["coefficients"] if c["t"] == row["t"])
    euler = tensor(row["euler_sde_mean"]) - table["dt"] * at["g"] ** 2 / at["c"] * shift
    return (euler - tensor(row["posterior_mean"])).abs().mean()


@pytest.mark.parametrize("shift", [-1.0, 0.5])
@pytest.mark.parametrize(
    "name, bridge",
    [("goub", GOUB()), ("irsde_sigma10", IRSDE()), ("irsde_sigma30", IRSDE(lam=30 / 255))],
)
def test_the_likelihood_loss_is_that_of_the_official_tables(name, bridge, shift):
    table, checked = load(name), 0
    _, x0, y, _ = inputs(table)
    for row in table["reverse_steps"]:
        if not 10 <= row["t"] < 100:  # nearer to the clean end the official float32 cancels
            continue
        true = tensor(row["true_eps"])
        model = model_of(bridge, true + shift)
        uniform = torch.tensor([(row["t"] - 1) / (model.first - 1)], dtype=torch.float64)
        got = model.loss(*given(x0, y, true, uniform))
        assert list(got) == ["likelihood"] and got["likelihood"].shape == (1,)
        assert_close(got["likelihood"], golden_loss(table, row, shift), 1e-6, 1e-4)
        checked += 1
    assert checked >= 3


def posterior_mean(bridge, t, s, x, x0, y):
    """E[x_s | x_t, x0] of an Ornstein-Uhlenbeck process about y, by precisions: a GOUB's is the
    same, given x_t."""
    theta = cosine_theta(int(bridge.T))
    past, gap = np.interp([s, t], np.arange(len(theta)), theta)
    gap -= past
    before, after = -np.expm1(-2 * past), -np.expm1(-2 * gap)
    mean = np.exp(-past) * (x0 - y) / before + np.exp(-gap) * (x - y) / after
    return y + mean / (1 / before + np.exp(-2 * gap) / after)


@pytest.mark.parametrize("bridge", [GOUB(lam=0.2), IRSDE(lam=0.2)])
def test_the_likelihood_loss_at_any_time(bridge):
    """A batch of times between the published ones, whose rate is that of the interval that they
    fall into."""
    x0, y, eps, guess = batch(6, 3, 4, 4, count=4)
    uniform = torch.tensor([0.001, 0.2134, 0.5, 0.71, 0.93, 0.999], dtype=torch.float64)
    model, theta = model_of(bridge, guess), cosine_theta(100)
    got = model.loss(*given(x0, y, eps, uniform))["likelihood"]
    for i, t in enumerate((1 + uniform * (model.first - 1)).tolist()):
        m, rate = bridge.marginal(t), np.diff(theta)[int(np.ceil(t)) - 1]
        x = draw(m, x0[i], y[i], eps[i])
        pull = rate
        if isinstance(bridge, GOUB):
            pull += 2 * rate / np.expm1(2 * (theta[-1] - np.interp(t, np.arange(101), theta)))
        euler = x - pull * (y[i] - x) - 2 * bridge.lam**2 * rate / m.noise * guess[i].float()
        assert_close(
            got[i],
            (euler - posterior_mean(bridge, t, t - 1, x, x0[i], y[i])).abs().mean(),
            1e-7,
            1e-4,
        )


@pytest.mark.parametrize("bridge", [GOUB(lam=0.2), IRSDE(lam=0.2)])
def test_the_true_noise_leaves_only_the_second_order(bridge):
    """Of an Euler step: away from the clean end a small part of what a wrong noise costs."""
    x0, y, eps = batch(16, 3, 4, 4)
    uniform = torch.linspace(0.3, 0.9, 16, dtype=torch.float64)
    right, wrong = (
        model_of(bridge, eps + shift).loss(*given(x0, y, eps, uniform))["likelihood"]
        for shift in (0, 1)
    )
    assert (right < 0.25 * wrong).all() and right.mean() < 0.1 * wrong.mean(), right / wrong


def test_losses_of_a_network_of_zeros():
    """The absolute or squared target itself: RDBM's residual times the noise, GOUB's noise, the
    residual."""
    x0, y, eps = batch(2, 3, 8, 8, dtype=torch.float32)
    uniform = torch.tensor([0.2, 0.7])
    for bridge, options, wanted in (
        (RDBM(), {}, ((x0 - y) * eps).abs()),
        (RDBM(), {"loss": "l2"}, ((x0 - y) * eps) ** 2),
        (RDBM(pi="one"), {}, eps.abs()),
        (RDBM(pi="zero"), {}, x0.abs()),
        (GOUB(lam=0.2), {"loss": "l2"}, eps**2),
        (RDDM(), {}, (x0 - y).abs()),
        (GOUB(), {"target": "residual", "loss": "l1"}, (x0 - y).abs()),
    ):
        model = model_of(bridge, **options)  # its last layer is 0 as it starts
        losses = model.loss(*given(x0, y, eps, uniform))
        assert list(losses) == [model.target]
        assert_close(losses[model.target].detach(), wanted.flatten(1).mean(1), 1e-4, 1e-4)


@pytest.mark.parametrize("name", BRIDGES)
def test_a_few_steps_lower_the_published_loss(name):
    model = model_of(BRIDGES[name])
    x0, y, eps = batch(4, 3, 8, 8, dtype=torch.float32)
    optimizer, losses = torch.optim.Adam(model.trainable().parameters(), 1e-2), []
    for _ in range(25):
        loss = sum(model(*given(x0, y, eps, torch.tensor([0.1, 0.4, 0.6, 0.9]))).values()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses


# Times and sampling


FIRST = {"goub": 99, "unidb": 99, "rdbm": 90, "rdbm one": 90}  # asked there first, as published


@pytest.mark.parametrize("name", BRIDGES)
def test_the_pinned_end_is_skipped_where_noise_is_predicted(name):
    bridge = BRIDGES[name]
    model = model_of(bridge)
    latest = 0.99 * bridge.T if name in SKIPPED else bridge.T
    y = batch(1, 3, 8, 8, dtype=torch.float32)[0]
    start = next(iter(model.trajectory(y, seeds=[0])))
    assert model.first == latest and start.t <= latest
    if name in SKIPPED:
        assert start.t == FIRST[name]
        quiet = next(iter(model.trajectory(y, seeds=[0], noise=False)))
        assert quiet.t == FIRST[name] and torch.equal(quiet.x, y)
    model.network = Fixed(torch.zeros(1, 3, 8, 8))
    model.loss(*given(y, y, y, torch.tensor([1 - 1e-7])))
    if model.target != "edm":
        assert float(model.network.asked[0][1]) == pytest.approx(1000 * latest / bridge.T, rel=1e-5)


@pytest.mark.parametrize("name, std", [("goub", 0.102), ("unidb", 0.051)])
def test_the_skipped_step_has_left_its_noise(name, std):
    """GOUB's first step moves nothing and adds its noise: .0537 in [0, 1] by Euler's step of its
    code (goub.json, t = 100), .0510 by the exact step; twice that in [-1, 1]."""
    y = torch.zeros(1, 3, 128, 128)
    model = model_of(BRIDGES[name])
    start = next(iter(model.trajectory(y, seeds=[0])))
    assert float(start.x.std()) == pytest.approx(std, rel=0.01)
    euler = next(r for r in load("goub")["reverse_steps"] if r["t"] == 100)["euler_sde_std"]
    assert std / (0.102 / 0.051 if name == "goub" else 1) == pytest.approx(euler, rel=0.06)
    quiet = next(iter(model.trajectory(y, seeds=[0], noise=False)))
    assert float(quiet.x.std()) == 0


def official_rdbm(y, product, n, lam=10 / 255):
    """RDBM's ddim_sample where the network predicts the product (MiliLab/RDBM, code/rdbm.py): whole
    indices from 99; the first one leaves y as it is; the estimates, their indices and the result.
    """
    theta = alpha_bar_theta(100)[1:]
    whole = theta[-1]
    share = np.sinh(whole - theta) / np.sinh(whole)
    std = np.sqrt(2 * lam * np.sinh(theta) * share)
    indices = np.linspace(-1, 99, n + 1).astype(int)[::-1]
    x, asked = y, []
    for now, then in zip(indices[:-1], indices[1:], strict=True):
        if now == 99:
            continue
        asked.append(now)
        x0 = y + ((x - y) - std[now] * product(x, now)) / share[now]
        x0 = x0.clamp(-1, 1)
        if then < 0:
            return x0, asked
        implied = ((x - y) - share[now] * (x0 - y)) / std[now]
        x = y + share[then] * (x0 - y) + std[then] * implied
    raise AssertionError("no estimate at all")


@pytest.mark.parametrize("n", [2, 5, 10, 20, 100])
@pytest.mark.parametrize("pi", ["residual", "one"])
def test_rdbm_is_sampled_at_the_official_times(pi, n):
    """n steps ask the network n - 1 times: of 10 steps, first at index 89, t = 90."""

    def product(x, index):
        return 0.3 * torch.sin(3 * x) + 0.05 * np.cos(0.05 * index)

    def answer(inputs, time):
        index = float(time[0]) / 10 - 1
        return product(inputs[:, :3], index)

    y = batch(1, 3, 4, 4)[0]
    model = model_of(RDBM(pi=pi), answer, sampler={"nfe": n})
    states = list(model.trajectory(y, seeds=[0]))
    wanted, indices = official_rdbm(y, product, n)
    assert [round(s.t, 6) for s in states] == [index + 1 for index in indices]
    assert len(model.network.asked) == n - 1 == model.calls() == model.sampler.nfe
    assert states[0].t == 100 - 100 // n and torch.equal(states[0].x, y.float())
    assert_close(states[-1].x0, wanted, 1e-4)


def test_rdbm_makes_no_call_at_the_end_whatever_is_asked_for():
    y = batch(1, 3, 8, 8, dtype=torch.float32)[0]
    model = model_of(RDBM())
    for options, times in (
        ({"nfe": 1}, [50.0]),
        ({"nfe": 4, "rule": "posterior"}, [75.0, 50.0, 25.0]),
        ({"nfe": 3, "rule": "posterior", "noise": True}, [99.0, 66.0, 33.0]),
        ({"times": (100, 60, 30, 0)}, [60.0, 30.0]),
        ({"times": (100, 0)}, [99.0]),
        ({"times": (80, 40, 0)}, [80.0, 40.0]),
    ):
        states = list(model.trajectory(y, seeds=[0], **options))
        assert [s.t for s in states] == times, options
        assert all(s.x.isfinite().all() and s.x0.isfinite().all() for s in states)
        assert model.calls(**options) == len(times)
    assert "9 calls" in model.rows()[0].label and model.rows()[0].nfe == 9
    zero = model_of(RDBM(pi="zero"))  # x0 is predicted, at T too
    assert [s.t for s in zero.trajectory(y, seeds=[0])] == list(range(100, 0, -10))


def test_the_times_of_the_user_may_begin_at_the_end_of_goub():
    """There its network would divide by nothing; the step off the end asks nothing."""
    y = batch(1, 3, 8, 8, dtype=torch.float32)[0]
    model = model_of(GOUB())
    states = list(model.trajectory(y, seeds=[0], times=tuple(range(100, -1, -1))))
    assert [s.t for s in states] == list(range(99, 0, -1))
    assert all(s.x0.isfinite().all() for s in states)
    assert not torch.equal(states[0].x, y)


@pytest.mark.parametrize("name", BRIDGES)
def test_the_published_sampler_with_a_perfect_network_returns_the_clean_image(name):
    """The network hands over the target of the states that the sampler visits, in as many calls as
    were published."""
    bridge = BRIDGES[name]
    x0, y = batch(2, 3, 4, 4, count=2)

    def answer(inputs, time):
        t = torch.as_tensor(model.now, dtype=torch.float64)
        form = readout(model.target, bridge, t)
        return (x0 - form.state * inputs[:, :3] / form.scale - form.end * y) / form.output

    model = model_of(bridge, answer)
    ask = model.denoise

    def denoise(x, t, y):
        model.now = float(t)
        return ask(x, t, y)

    model.denoise = denoise
    states = list(model.trajectory(y.clone(), seeds=[3, 4]))
    assert len(states) == len(model.network.asked) == model.sampler.nfe
    assert_close(states[-1].x0, x0, 1e-4, 0)
    assert states[0].t > states[-1].t


@pytest.mark.parametrize("name", ["irsde", "rdbm", "ddbm_vp", "diffuir"])
def test_an_image_is_restored_alike_in_any_batch(name):
    model = model_of(BRIDGES[name], sampler={"nfe": 4}).eval()
    nn.init.normal_(
        model.network.conv_out.weight, std=0.1, generator=torch.Generator().manual_seed(0)
    )
    y = batch(3, 3, 8, 8, dtype=torch.float32)[0]
    together = model.restore(y, seeds=[7, 8, 9])
    # float32, and RDBM divides by a small a
    assert_close(model.restore(y[1:2], seeds=[8]), together[1:2], 1e-3, 0)
    assert (model.restore(y[1:2], seeds=[3]) - together[1:2]).abs().max() > 1e-3 or name == "rdbm"


# What is refused


@pytest.mark.parametrize(
    "bridge, options, words",
    [
        (GOUB(), {"target": "foo"}, ["objective.target='foo'", *TARGETS]),
        (GOUB(), {"loss": "foo"}, ["objective.loss='foo'", *LOSSES]),
        (
            RDBM(),
            {"target": "noise"},
            ["objective.target=noise", "objective.target=product", "bridge.pi=one"],
        ),
        (RDBM(), {"loss": "likelihood"}, ["objective.loss=likelihood", "objective.loss=l1"]),
        (
            RDBM(pi="zero"),
            {"target": "product"},
            ["objective.target=product", "pi=zero", "objective.target=x0"],
        ),
        (
            RDBM(pi="zero"),
            {"target": "noise"},
            ["objective.target=noise", "objective.target=x0"],
        ),
        (GOUB(), {"sampler": {"nfe": 101}}, ["sampler.nfe=101", "100 steps", "bridge.T"]),
        (GOUB(), {"sampler": {"rule": "heun"}}, ["sampler.rule=heun", "sampler.boot"]),
    ],
)
def test_what_is_refused(bridge, options, words):
    with pytest.raises(UserError) as refused:
        model_of(bridge, **options)
    sentence = str(refused.value)
    assert sentence.endswith(".") and all(word in sentence for word in words), sentence


# Every bridge as published: when it is asked, and where it starts

# times of the first and last calls by the official code's own arithmetic, and the std of the start
# for y = 0, as the source of each says
OFFICIAL = {
    # diffuir: times of the golden rollout + 1, start 0.1 eps
    "diffuir": ({"nfe": 3}, [1000, 666, 333], 0.1),
    # rddm: linspace(-1, 999, n + 1).int() + 1, start y + sqrt(0.01) eps
    "rddm": ({}, list(range(1000, 0, -100)), 0.1),
    "rddm 3": ({"nfe": 3}, [1000, 666, 333], 0.1),
    # resshift: 14 ... 0, start y + kappa sqrt(eta_T) eps = 2 * 0.99
    "resshift": ({}, list(range(15, 0, -1)), 1.98),
    "resshift4": ({}, [4, 3, 2, 1], 1.98),
    # bbdm: arange(999, 1, -999 / 8).long() + [1, 0], start y
    "bbdm 10": ({"nfe": 10}, [1000, 875, 750, 625, 500, 375, 250, 125, 2, 1], 0.0),
    # i2sb: space_indices(1000, n + 1), start y
    "i2sb 5": ({"nfe": 5}, [1000, 800, 600, 401, 201], 0.0),
    "i2sb 2": ({"nfe": 2}, [1000, 501], 0.0),
    # nadb: 1000, 900, ... from x = y
    "nadb": ({}, list(range(1000, 0, -100)), 0.0),
    # irsde: noise_state, y + max_sigma eps
    "irsde": ({"nfe": 100}, list(range(100, 0, -1)), 20 / 255),
    # rdbm with an estimate of x0: linspace(-1, 99, n + 1).int() + 1, start y
    "rdbm zero": ({}, list(range(100, 0, -10)), 0.0),
    "rdbm zero 3": ({"nfe": 3}, [100, 66, 33], 0.0),
    # with that of the product: the same without its end
    "rdbm 3": ({"nfe": 3}, [66, 33], 0.0),
    "rdbm": ({}, list(range(90, 0, -10)), 0.0),
}


@pytest.mark.parametrize("case", OFFICIAL)
def test_every_bridge_is_asked_and_started_as_its_official_code_does(case):
    options, times, std = OFFICIAL[case]
    name = case if case in BRIDGES else case.rpartition(" ")[0]
    model = model_of(BRIDGES[name], sampler=options)
    y = torch.zeros(1, 3, 128, 128)
    states = []
    for state in model.trajectory(y, seeds=[0]):
        states.append(state)
    assert [s.t for s in states] == times
    assert len(states) == model.sampler.nfe == model.calls()
    assert float(states[0].x.std()) == pytest.approx(std, rel=0.02)
    again = [s.t for s in model.trajectory(y, seeds=[0], nfe=4, spacing="logsnr")]
    assert len(again) == 4 - (name in ("rdbm", "rdbm one"))


@pytest.mark.parametrize("name, T, low", [("ddbm_ve", 80.0, 2e-3), ("ddbm_vp", 1.0, 1e-4)])
def test_ddbm_starts_where_its_official_code_does(name, T, low):
    """Karras' times of N = 40 from T - 1e-4, at y, down to the last Euler step: 119 calls."""
    model = model_of(BRIDGES[name], sampler={})
    times, calls = model.sampler.plan(BRIDGES[name])
    ramp = np.linspace((T - 1e-4) ** (1 / 7), low ** (1 / 7), 40) ** 7
    assert_close(times, [*ramp, 0.0], 1e-12, 1e-9)
    assert sum(calls) == 119 == model.calls()
    y = torch.rand(1, 3, 8, 8)
    start = next(iter(model.trajectory(y, seeds=[0])))
    assert start.t == pytest.approx(T - 1e-4, abs=1e-12) and torch.equal(start.x, y)
