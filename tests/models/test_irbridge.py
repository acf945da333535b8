"""The model on an analytic backbone whose answer is known, and what every user of ``restore``
counts on."""

import numpy as np
import pytest
import torch
from conftest import small_unet
from losses import given
from torch import nn

from irbridge.adapters.base import Adapter, Condition
from irbridge.adapters.control import ControlAdapter
from irbridge.adapters.static import StaticAdapter
from irbridge.adapters.trunk import Trunk
from irbridge.backbones.base import Backbone
from irbridge.backbones.pixel import PixelBackbone, inject
from irbridge.bridges.brownian import Brownian
from irbridge.bridges.ornstein_uhlenbeck import GOUB, IRSDE, RDBM
from irbridge.errors import UserError
from irbridge.experiments.config import composed
from irbridge.experiments.instantiate import instantiate
from irbridge.gaussian.marginal import broadcast, marginal
from irbridge.gaussian.noise import Noise
from irbridge.gaussian.transition import loss_weight
from irbridge.images.arrays import pad
from irbridge.models.irbridge import IRBridge
from irbridge.models.loss_options import LossOptions
from irbridge.models.regression import Regression
from irbridge.models.timestep_schedule import Timesteps, critical, linear
from irbridge.models.training_step import TrainingStep
from irbridge.priors.base import Prior
from irbridge.priors.vp import VP, vp_alphas_cumprod
from irbridge.samplers.base import REGISTRY

BRIDGES = {
    "brownian": Brownian(sigma=0.5),
    "ou": IRSDE(),
    "goub": GOUB(),
    "residual": RDBM(),
    "residual, plain": RDBM(pi="one"),
}
ON_PRIOR = "ddim", "ddim_fresh", "dpmpp"
PUBLISHED = Timesteps(offset={100: 300, 0: 0})
# no ODE to solve there
SERVED = [
    (b, r) for b in BRIDGES for r in REGISTRY if b != "residual" or not REGISTRY[r].kind.solves_ode
]


class Analytic(Backbone):
    """The exact denoiser of x0 ~ N(mean, variance), or a known x0 with variance 0, in the place of
    a network."""

    channels, stride, network = 3, 8, None

    def __init__(self, mean, variance=0.0):
        nn.Module.__init__(self)
        self.prior: Prior = VP(vp_alphas_cumprod({}))
        self.mean, self.variance, self.calls = mean, variance, []

    def denoise(self, z, tau, residuals=None):
        if residuals is not None:
            residuals(z, tau)
        self.calls.append(z)
        m = self.prior.marginal(tau)
        gain = broadcast(m.clean * self.variance / (m.clean**2 * self.variance + m.noise**2), z)
        return self.mean + gain * (z - broadcast(m.clean, z) * self.mean)

    def predict(self, inputs, time, residuals):
        raise NotImplementedError  # it has no network


class Blind(Adapter):
    """An adapter that changes nothing; its anchor is what it is told."""

    def __init__(self, anchor=None, stride=8):
        super().__init__()
        self.stride, self.anchor, self.anchored = stride, anchor, anchor is not None
        self.weight = nn.Parameter(torch.zeros(()))

    def condition(self, y, state=None):
        return Condition(y, self.anchor, None)

    def residuals(self, condition, z, time):
        return None


def toy(mean, variance=0.0, bridge=BRIDGES["goub"], timesteps=None, anchor=None, **sampler):
    return IRBridge(
        Analytic(mean, variance),
        Blind(anchor),
        bridge,
        timesteps or critical(),
        "y" if anchor is None else "anchor",
        sampler,
    )


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def real(
    backbone, adapter=StaticAdapter, bridge=BRIDGES["goub"], endpoint="anchor", seed=0, **options
):
    """An IRBridge on the tiny backbone whose adapter is not the identity."""
    torch.manual_seed(seed)
    adapter = adapter(backbone, [16, 16], anchor=True)
    with torch.no_grad():
        for p in adapter.parameters():
            p.add_(0.05 * noise(*p.shape, seed=1))
    return IRBridge(backbone, adapter, bridge, PUBLISHED, endpoint, **options).eval()


@pytest.mark.parametrize("bridge, rule", SERVED)
def test_path_reaches_a_known_image(bridge, rule):
    x0 = 0.5 * noise(2, 3, 8, 8).clamp(-1, 1)
    y = x0 + 0.5 * noise(2, 3, 8, 8, seed=1).clamp(-1, 1)
    model = toy(x0, bridge=BRIDGES[bridge], timesteps=PUBLISHED)
    states = list(model.trajectory(y, steps=20, rule=rule, boot=0.01))
    distance = [float((s.x - x0).square().mean().sqrt()) for s in states]
    assert torch.allclose(states[-1].x0, x0, atol=1e-5) and torch.allclose(
        model.restore(y, steps=20), x0, atol=1e-5
    )
    assert all(torch.isfinite(s.x).all() for s in states)
    if rule != "drift":  # which never lets go of the noise that it once had
        assert distance[-1] < 0.5 * distance[0]


@pytest.mark.parametrize("rule", ["reverse", "posterior", "implicit", "eta"])
def test_path_samples_the_right_law(rule):
    """With the exact denoiser of N(0.3, 0.5^2) the last estimate has about that law, whatever y
    says."""
    y = torch.full((4, 3, 64, 64), -0.4)
    *_, last = toy(0.3, 0.25, bridge=GOUB(lam=0.5), steps=80, rule=rule).trajectory(y)
    assert abs(float(last.x0.mean()) - 0.3) < 0.03, last.x0.mean()
    assert abs(float(last.x0.std()) / 0.5 - 1) < 0.08, last.x0.std()


def test_what_is_no_image_is_refused():
    model = toy(torch.zeros(1, 3, 8, 8))
    for y in (noise(1, 3, 9, 8), noise(3, 8, 8), np.zeros((8, 8, 3), np.float32)):
        with pytest.raises(UserError, match="trajectory takes a tensor.*divisible by 8"):
            next(model.trajectory(y))
    with pytest.raises(UserError, match="shape .H, W, 3.*read_image"):
        model.restore(np.zeros((8, 8), np.float32))


def test_first_state_is_the_end_and_times_are_even():
    y, anchor = noise(1, 3, 8, 8), noise(1, 3, 8, 8, seed=1)
    states = list(toy(torch.zeros(1, 3, 8, 8), anchor=anchor).trajectory(y, steps=5))
    assert [s.t for s in states] == pytest.approx([100, 80, 60, 40, 20])
    assert torch.allclose(states[0].x, anchor, atol=1e-6)  # GOUB is pinned


@pytest.mark.parametrize("adapter", [StaticAdapter, ControlAdapter])
def test_noise_of_an_image_does_not_depend_on_its_batch(backbone, adapter):
    model, y = real(backbone, adapter), noise(3, 3, 16, 16).clamp(-1, 1)
    together = model.restore(y, seed=7, steps=3, rule="posterior")
    alone = torch.cat(
        [model.restore(y[i : i + 1], seed=7 + i, steps=3, rule="posterior") for i in range(3)]
    )
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_seed_alone_decides(backbone):
    model, y = real(backbone), noise(1, 3, 16, 16).clamp(-1, 1)
    first = model.restore(y, seed=1, rule="posterior")
    torch.manual_seed(99)
    assert torch.equal(model.restore(y, seed=1, rule="posterior"), first)
    assert not torch.equal(model.restore(y, seed=2, rule="posterior"), first)


@pytest.mark.parametrize("height, width", [(33, 47), (17, 16), (16, 16), (3, 5), (1, 1), (2, 40)])
def test_any_size(backbone, height, width):
    image = np.random.default_rng(0).random((height, width, 3), dtype=np.float32)
    model = real(backbone)
    torch.manual_seed(0)
    trunk = Trunk([4, 4, 8, 8])
    for restorer in (model, Regression(trunk)):
        out = restorer.restore(image)
        assert (
            out.shape == image.shape
            and out.dtype == np.float32
            and 0 <= out.min() <= out.max() <= 1
        )
    # The trunk is the identity at its start, so what is cropped away again must be exactly the
    # padding.
    assert np.abs(out - image).max() < 1e-6


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (1, 3)])
def test_padding_reflects(size):
    image = noise(1, 3, *size)
    padded = pad(image, 8)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0 and padded.shape[-2] - size[0] < 8
    assert torch.equal(padded[..., : size[0], : size[1]], image)
    if size[1] == 9:
        assert torch.equal(padded[..., :5, 9:], image.flip(-1)[..., 1:8])


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_calls_of_the_network_are_the_steps(steps):
    model = toy(torch.zeros(1, 3, 8, 8))
    for rule in REGISTRY:
        for start in ("end", "noise"):
            model.backbone.calls.clear()
            model.restore(noise(1, 3, 8, 8), steps=steps, rule=rule, start=start, boot=0.01)
            assert len(model.backbone.calls) == steps, rule


@pytest.mark.parametrize("bridge, rule", SERVED)
@pytest.mark.parametrize("steps", [1, 3])
def test_every_bridge_with_every_rule_is_finite(backbone, bridge, rule, steps):
    model = real(
        backbone,
        bridge=BRIDGES[bridge],
        sampler={"steps": steps, "rule": rule, "eta": 0.5, "boot": 0.01},
    )
    out = model.restore(noise(1, 3, 16, 16).clamp(-1, 1))
    assert out.shape == (1, 3, 16, 16) and out.isfinite().all()


@pytest.mark.parametrize("rule", ["ddim_fresh", "reverse"])
def test_a_bridge_of_little_noise_is_ddim_with_fresh_noise(rule):
    """y cancels, and with kappa = (c/a) / (sigma/alpha) near 0 nothing of the noise is kept: each
    state is the last estimate with new noise, as without a bridge."""
    y, x0 = (0.5 * noise(2, 3, 8, 8, seed=k).clamp(-1, 1) for k in range(2))
    model = toy(x0, 0.04, bridge=Brownian(sigma=1e-7), timesteps=linear(600), nfe=6)
    draws, known = Noise([3, 4]), y
    if rule == "reverse":
        draws(y)  # of the start, which is pinned
    for state in model.trajectory(y, seeds=[3, 4], rule=rule):
        tau = state.t if rule == "ddim_fresh" else model.timestep(state.t)
        law = model.backbone.prior.marginal(tau)
        assert torch.allclose(state.z, law.clean * known + law.noise * draws(y), atol=1e-4)
        known = state.x0


def test_baselines(backbone):
    model, y = real(backbone), noise(1, 3, 16, 16).clamp(-1, 1)
    assert torch.equal(
        model.restore(y, trajectory=model.coarse), model.adapter.condition(y).anchor.clamp(-1, 1)
    )
    x0 = noise(1, 3, 8, 8).clamp(-1, 1)
    for start, rule in [(s, r) for s in ("noise", "end") for r in ON_PRIOR]:
        assert torch.allclose(
            toy(x0).restore(y[..., :8, :8], rule=rule, start=start), x0, atol=1e-5
        )


@pytest.mark.parametrize("rule", ON_PRIOR)
def test_baselines_on_the_prior_start_where_they_say(rule):
    """ "end": the end noised to the bridge's first timestep, where the published loop starts too;
    "noise": the prior's last timestep and pure noise, whatever the end is. Both walk the prior: x
    is the state that the network sees."""
    y, n = torch.full((1, 3, 64, 64), -0.7), Noise([0])(torch.empty(1, 3, 64, 64))
    model = toy(torch.zeros(1, 3, 64, 64), timesteps=PUBLISHED)
    prior = model.backbone.prior
    states = {
        start: list(model.trajectory(y, start=start, rule=rule, steps=4))
        for start in ("end", "noise")
    }
    first = float(PUBLISHED(model.bridge, prior, 100.0))
    for start, tau, mean in [("end", first, -0.7), ("noise", prior.highest, 0.0)]:
        m = prior.marginal(tau)
        assert [s.t for s in states[start]] == pytest.approx([tau * k / 4 for k in (4, 3, 2, 1)])
        assert torch.allclose(
            states[start][0].z, m.clean.float() * mean + m.noise.float() * n, atol=1e-6
        )
        assert all(torch.equal(s.x, s.z) for s in states[start])


def test_ddim_is_the_published_loop_at_critical_timesteps(monkeypatch):
    """There the forward transition draws nothing after the start: DDIM on the prior from that start
    and timesteps."""
    monkeypatch.setattr(
        "irbridge.models.irbridge.Noise", lambda seeds: lambda like: noise(*like.shape, seed=7)
    )
    y, x0 = noise(1, 3, 8, 8), 0.5 * noise(1, 3, 8, 8, seed=1).clamp(-1, 1)
    model = toy(x0, variance=0.04, bridge=BRIDGES["goub"])
    loop = list(model.trajectory(y, steps=5, rule="reverse"))
    prior = model.backbone.prior
    at = [float(model.timesteps(model.bridge, prior, s.t)) for s in loop]
    alone = list(model.trajectory(y, rule="ddim", times=(*at, prior.lowest)))
    assert all(torch.allclose(a.z, b.z, atol=1e-5) for a, b in zip(alone, loop, strict=True))


def test_sampler_options_are_fields_of_a_sampler():
    model, y = toy(torch.zeros(1, 3, 8, 8), steps=4, rule="posterior"), noise(1, 3, 8, 8)
    assert (model.sampler.nfe, model.sampler.rule) == (4, "posterior")
    for options, calls in [
        ({}, 4),
        ({"nfe": 2}, 2),
        ({"steps": 3, "rule": "dbim2", "eta": None}, 3),
        ({"times": (100, 30, 10, 2, 1, 0)}, 5),
    ]:
        assert len(list(model.trajectory(y, **options))) == calls
    with pytest.raises(UserError, match="'step' is no sampler option; use rule, nfe"):
        model.restore(y, step=3)
    with pytest.raises(UserError, match="residual-modulated"):
        toy(torch.zeros(1, 3, 8, 8), bridge=BRIDGES["residual"], rule="heun", boot=0.01)


def test_wrong_endpoints(backbone):
    with pytest.raises(UserError, match="anchor"):
        model = IRBridge(
            backbone, StaticAdapter(backbone, [8, 8], anchor=False), GOUB(), critical(), "anchor"
        )
        model.restore(noise(1, 3, 16, 16))
    with pytest.raises(UserError, match="choose y or anchor"):
        real(backbone, endpoint="z")
    with pytest.raises(UserError, match="reverse"):
        real(backbone, sampler={"rule": "forward"})


def batch():
    clean, degraded, xi = (noise(2, 3, 16, 16, seed=k) for k in range(3))
    return clean.clamp(-1, 1), degraded.clamp(-1, 1), xi, torch.tensor([0.6, 0.1])


@pytest.mark.parametrize("states", IRBridge.STATES)
@pytest.mark.parametrize("weight", ["x0", "eps", "v"])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_loss_options(backbone, states, weight, norm):
    losses = real(backbone, loss=LossOptions(states, weight, norm)).loss(*given(*batch()))
    assert losses.keys() == {"prior", "anchor"}
    assert all(v.shape == (2,) and v.isfinite().all() and (v > 0).all() for v in losses.values())


def test_published_loss_is_that_of_the_noise():
    """states=prior, weight=eps, norm=l2 is the plain eps loss of the network's own output."""
    clean, degraded, xi, uniform = batch()
    model = real(
        PixelBackbone(small_unet(), VP(vp_alphas_cumprod({}))),
        loss=LossOptions("prior", "eps", "l2"),
    )
    tau, prior = uniform.double() * model.backbone.prior.highest, model.backbone.prior
    m = prior.marginal(tau)
    z = broadcast(m.clean, clean) * clean + broadcast(m.noise, clean) * xi
    condition = model.adapter.condition(degraded)
    with inject(model.backbone.network, condition.features):
        eps = model.backbone.network(z, tau.float()).sample
    expected = (eps - xi).square().flatten(1).mean(1)
    assert torch.allclose(
        model.loss(*given(clean, degraded, xi, uniform))["prior"], expected, rtol=1e-3
    )


@pytest.mark.parametrize(
    "option, value", [("states", "between"), ("weight", "snr"), ("norm", "l3")]
)
def test_unknown_loss_options(backbone, option, value):
    with pytest.raises(UserError, match=rf"loss\.{option}=.*{value}.*one of"):
        real(backbone, loss=LossOptions(**{option: value})).loss(*given(*batch()))


def test_anchor_weight_scales_the_anchor_loss_alone(backbone):
    one, ten = (
        real(backbone, loss=LossOptions(anchor=w)).loss(*given(*batch())) for w in (1.0, 10.0)
    )
    assert torch.allclose(10 * one["anchor"], ten["anchor"]) and torch.equal(
        one["prior"], ten["prior"]
    )


def test_loss_weights_convert_the_error_of_x0():
    m = marginal(0.6, 0.0, 0.8)
    z, x0, guess = 1.3, 0.2, 0.5
    errors = {
        "x0": guess - x0,
        "eps": (z - 0.6 * guess) / 0.8 - (z - 0.6 * x0) / 0.8,
        "v": (0.6 * z - guess) / 0.8 - (0.6 * z - x0) / 0.8,
    }
    for kind, error in errors.items():
        assert float(loss_weight(m, kind)) * abs(guess - x0) == pytest.approx(abs(error))


@pytest.mark.parametrize("uniform, call", [(0.0, 0), (0.3, 1), (0.6, 2), (0.99, 3)])
@pytest.mark.parametrize("adapter", [StaticAdapter, ControlAdapter])
def test_visited_states_are_those_of_the_path(backbone, adapter, uniform, call):
    model = real(
        backbone,
        adapter,
        sampler={"steps": 4, "rule": "posterior"},
        loss=LossOptions(states="visited"),
    )
    seen, denoise = [], backbone.denoise
    backbone.denoise = lambda z, *rest: (seen.append(z.clone()), denoise(z, *rest))[1]
    clean, degraded, xi, _ = batch()
    uniforms = torch.tensor([uniform, 0.5])
    model.loss(*given(clean, degraded, xi, uniforms))
    assert len(seen) == call + 1
    with torch.no_grad():
        states = list(model.trajectory(degraded, seeds=[int(v * 2**31) for v in uniforms.tolist()]))
    for k in range(call + 1):
        assert torch.allclose(seen[k], states[k].z, atol=1e-6), k


@pytest.mark.parametrize("bridge", ["ou", "goub", "brownian", "residual, plain"])
def test_bridge_states_have_the_law_that_the_network_knows(bridge):
    """With y = x0 every state of bridge and prior is x0 and the noise of its level, at each drawn
    timestep."""
    x0, n = torch.full((64, 3, 32, 32), 0.5), 64
    model = toy(x0, bridge=BRIDGES[bridge], timesteps=PUBLISHED)
    model.loss_options.states = "bridge"
    uniform = torch.arange(n) / n
    at = TrainingStep(1.0, uniform, noise(*x0.shape))
    z, tau = model.STATES["bridge"](model, x0, Condition(x0, None, None), at)
    m = model.backbone.prior.marginal(tau)
    # a quarter at the degraded end
    assert float(tau.max() - tau.min()) > 100 and (tau[: n // 4] == tau[0]).all()
    assert torch.allclose(z.mean((1, 2, 3)), 0.5 * m.clean.float(), atol=0.1)
    assert torch.allclose(z.std((1, 2, 3)), m.noise.float(), rtol=0.05)


def test_regression_is_y_at_its_start_and_learns_l1():
    model = Regression(Trunk([8, 8]))
    clean, degraded, *rest = batch()
    assert torch.allclose(model.restore(degraded), degraded)
    assert torch.allclose(
        model.loss(*given(clean, degraded, *rest))["regression"],
        (degraded - clean).abs().flatten(1).mean(1),
    )


def test_configured_parts_make_a_model(backbone):
    config = composed("train", "name=t", "adapter.channels=[8,8]")
    model = IRBridge(
        backbone,
        instantiate(config["adapter"], backbone),
        instantiate(config["bridge"]),
        instantiate(config["timesteps"]),
        config["endpoint"],
        config["sampler"],
        LossOptions(**config["loss"]),
    )
    assert model.restore(noise(1, 3, 16, 16)).isfinite().all()
