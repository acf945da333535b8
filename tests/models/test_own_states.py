"""A model whose bridge has the prior's own states (E-Bridge): sampling, training, backbones."""

import pipelines
import pytest
import torch
from conftest import small_unet
from losses import given

from irbridge.adapters.control import ControlAdapter
from irbridge.adapters.controlnet import ControlNet
from irbridge.adapters.sd3_controlnet import SD3ControlNet
from irbridge.adapters.static import StaticAdapter
from irbridge.backbones.pixel import PixelBackbone
from irbridge.bridges import Brownian, EBridge
from irbridge.errors import UserError
from irbridge.gaussian.marginal import draw
from irbridge.images.tiles import Tiles
from irbridge.models.irbridge import IRBridge
from irbridge.models.loss_options import LossOptions
from irbridge.models.timestep_schedule import critical
from irbridge.priors import VE, VP, Flow
from irbridge.priors.vp import vp_alphas_cumprod

PRIORS = {"vp": VP(vp_alphas_cumprod({})), "ve": VE(), "flow": Flow(3.0)}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(prior="vp", adapter=StaticAdapter, endpoint="anchor", bridge=None, **options):
    """A model on a tiny network; its adapter is not the identity."""
    backbone = PixelBackbone(small_unet(), PRIORS[prior])
    torch.manual_seed(0)
    adapter = adapter(backbone, [16, 16], anchor=endpoint == "anchor")
    with torch.no_grad():
        for p in adapter.parameters():
            p.add_(0.05 * noise(*p.shape, seed=1))
    bridge = bridge or EBridge()
    return IRBridge(backbone, adapter, bridge, critical(), endpoint, **options).eval()


def batch():
    clean, degraded, xi = (noise(2, 3, 16, 16, seed=k) for k in range(3))
    return clean.clamp(-1, 1), degraded.clamp(-1, 1), xi, torch.tensor([0.6, 0.1])


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("endpoint", ["y", "anchor"])
@pytest.mark.parametrize("adapter", [StaticAdapter, ControlAdapter])
def test_the_network_sees_the_bridges_states(prior, endpoint, adapter):
    model = built(prior, adapter, endpoint)
    y = noise(2, 3, 32, 32).clamp(-1, 1)
    states = list(model.trajectory(y, nfe=4))
    assert len(states) == 4 and all(torch.equal(s.x, s.z) for s in states)
    assert [s.t for s in states] == pytest.approx([1, 0.75, 0.5, 0.25])
    alpha, _, sigma = PRIORS[prior].marginal(model.timestep(1.0))
    condition = model.adapter.condition(y)
    rest = (states[0].x - float(alpha) * model.end(condition)) / float(sigma)
    assert abs(float(rest.mean())) < 0.06 and abs(float(rest.std()) - 1) < 0.06
    assert model.restore(y[:, :, :29, :31]).shape == (2, 3, 29, 31)


def test_the_default_rule_is_implicit_bit_for_bit():
    model, y = built(), noise(1, 3, 32, 32)
    reverse, implicit, drawn = (
        list(model.trajectory(y, nfe=4, rule=rule)) for rule in ("reverse", "implicit", "drawn")
    )
    assert all(torch.equal(a.x0, b.x0) for a, b in zip(reverse, implicit, strict=True))
    assert torch.equal(drawn[0].x, implicit[0].x) and not torch.allclose(
        drawn[2].x, implicit[2].x, atol=1e-3
    )


def test_ddim_starts_where_it_does():
    model, y = built(), noise(1, 3, 32, 32)
    first, *_ = model.trajectory(y, nfe=3)
    same, *_ = model.trajectory(y, nfe=3, rule="ddim")
    assert torch.allclose(first.z, same.z, atol=1e-5)
    assert same.t == pytest.approx(float(model.timestep(1.0)))


def test_tiles_give_a_large_image():
    model, y = built(adapter=ControlAdapter), noise(1, 3, 64, 64).clamp(-1, 1)
    *_, last = model.trajectory(y, tiles=Tiles(size=48, overlap=16))
    assert last.x0.isfinite().all() and last.x0.shape == y.shape


@pytest.mark.parametrize("prior", PRIORS)
def test_training_states_are_draws_of_the_bridge(prior):
    model = built(prior, loss=LossOptions(states="bridge"), sampler={"nfe": 4})
    clean, degraded, xi, _ = batch()
    condition = model.adapter.condition(degraded)
    for uniforms, times in (([0.0, 0.24], [1.0, 1.0]), ([0.25, 0.625], [0.0, 0.5])):
        step = given(clean, degraded, xi, torch.tensor(uniforms))[1]
        z, tau = model.STATES["bridge"](model, clean, condition, step)
        t = torch.tensor(times, dtype=torch.float64)
        expected = draw(model.bridge.marginal(t), clean, model.end(condition), xi)
        assert torch.allclose(z, expected, atol=1e-5)
        assert torch.equal(tau, model.bridge.timestep(t))


def test_visited_states_are_those_of_the_loop():
    model = built(sampler={"nfe": 4}, loss=LossOptions(states="visited"))
    clean, degraded, xi, _ = batch()
    uniform = torch.tensor([0.6, 0.1])
    condition = model.adapter.condition(degraded)
    step = given(clean, degraded, xi, uniform)[1]
    z, tau = model.STATES["visited"](model, clean, condition, step)
    with torch.no_grad():
        seeds = [int(v * 2**31) for v in uniform.tolist()]
        states = list(model.trajectory(degraded, seeds=seeds))
    assert torch.allclose(z, states[2].x, atol=1e-5)
    assert float(tau) == float(model.bridge.timestep(0.5))


@pytest.mark.parametrize("states", ["bridge", "visited"])
def test_the_loss_is_that_of_what_the_sampler_reads(states):
    """The error of x0, not of the moving image that the network is shown."""
    model = built(loss=LossOptions(states, norm="l2", anchor_first=0))
    clean, degraded, xi, uniform = batch()
    condition = model.adapter.condition(degraded)
    at = given(clean, degraded, xi, uniform)
    z, tau = model.STATES[states](model, clean, condition, at[1])
    x0 = model.bridge.clean(model.denoise(z, tau, condition), model.end(condition), tau)
    expected = (x0 - clean).square().flatten(1).mean(1)
    assert torch.allclose(model.loss(*at)["prior"], expected, rtol=1e-4)


@pytest.mark.parametrize("states", IRBridge.STATES)
@pytest.mark.parametrize("prior", PRIORS)
def test_consistency_compares_two_times_of_one_path(states, prior):
    options = LossOptions(states, consistency=2.0, consistency_step=0.1, anchor_first=0)
    model = built(prior, loss=options, sampler={"nfe": 4})
    clean, degraded, xi, _ = batch()
    # times 1, .4 and, a tenth before which there is the clean image, .04
    clean, degraded, xi = (torch.cat([v, v[:1]]) for v in (clean, degraded, xi))
    uniform = torch.tensor([0.1, 0.25 + 0.4 * 0.75, 0.25 + 0.04 * 0.75])
    at = given(clean, degraded, xi, uniform)
    losses = model.loss(*at)
    assert losses.keys() == {"anchor", "prior", "consistency"}
    condition = model.adapter.condition(degraded)
    end = model.end(condition)

    def estimate(times):
        t = torch.tensor(times, dtype=torch.float64)
        z, tau = draw(model.bridge.marginal(t), clean, end, xi), model.bridge.timestep(t)
        return model.bridge.clean(model.denoise(z, tau, condition), end, tau)

    now, goal = estimate([1.0, 0.4, 0.04]), estimate([0.9, 0.3, 0.0])
    goal[2] = clean[2]
    expected = 2 * (now - goal).abs().flatten(1).mean(1)
    assert torch.allclose(losses["consistency"], expected, rtol=1e-3, atol=1e-5)


def test_the_earlier_estimate_of_consistency_is_not_trained():
    """Its gradient is that towards a fixed goal."""
    options = LossOptions("bridge", norm="l2", consistency=1.0, anchor_first=0)
    model = built(loss=options, endpoint="y", sampler={"nfe": 1})
    clean, degraded, xi, uniform = batch()
    at = given(clean, degraded, xi, uniform)
    weights = [p for p in model.adapter.parameters() if p.requires_grad]

    def gradient(loss):
        return torch.autograd.grad(loss.mean(), weights, allow_unused=True)

    def estimate(t):
        condition = model.adapter.condition(degraded)
        z = draw(model.bridge.marginal(t), clean, degraded, xi)
        tau = model.bridge.timestep(t)
        return model.bridge.clean(model.denoise(z, tau, condition), degraded, tau)

    one = torch.ones(2, dtype=torch.float64)
    goal = estimate(0.95 * one).detach()
    wanted = gradient((estimate(one) - goal).square().flatten(1).mean(1))
    for got, want in zip(gradient(model.loss(*at)["consistency"]), wanted, strict=True):
        assert (got is None) == (want is None)
        assert got is None or torch.allclose(got, want, rtol=1e-3, atol=1e-6)


def test_consistency_draws_estimates_together():
    """Steps of it alone bring the answers of one call and of the next time nearer."""
    options = LossOptions("bridge", consistency=1.0, anchor=0.0, anchor_first=0)
    model = built(loss=options, endpoint="y", sampler={"nfe": 2}).train()
    at = given(*batch())
    optimizer = torch.optim.Adam(model.adapter.parameters(), lr=1e-2)
    values = []
    for _ in range(30):
        loss = model.loss(*at)["consistency"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.7 * values[0]


def test_consistency_of_a_bridge_that_has_no_such_states():
    with pytest.raises(UserError, match="loss.consistency.*Brownian has none; use bridge=ebridge"):
        built(bridge=Brownian(), loss=LossOptions(consistency=0.5))


def test_another_bridge_given_later_is_bound_as_well():
    model = built(bridge=Brownian())
    model.bridge = EBridge(T0=0.5)
    assert model.bridge.schedule is model.backbone.prior
    assert model.restore(noise(1, 3, 16, 16).clamp(-1, 1)).isfinite().all()


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sd3"])
def test_in_latents(kind, tmp_path, monkeypatch):
    """States are latents, of the VAE's own scale."""
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "cache"))
    adapter = SD3ControlNet if kind == "sd3" else ControlNet
    backbone = pipelines.load(kind, pipelines.SAVE[kind](tmp_path / kind))
    model = IRBridge(backbone, adapter(backbone), EBridge(), critical(), "y")
    y = noise(1, 3, 64, 64).clamp(-1, 1)
    states = list(model.trajectory(y, nfe=3))
    assert states[0].x.shape == states[0].z.shape == (1, *model.state_shape((3, 64, 64)))
    alpha, _, sigma = backbone.prior.marginal(model.timestep(1.0))
    rest = (states[0].x - float(alpha) * backbone.encode(y)) / float(sigma)
    assert 0.5 < float(rest.std()) < 1.5
    assert model.restore(y).shape == y.shape


@pytest.mark.parametrize("start", ["end", "noise"])
def test_baselines_read_the_adapter_as_it_was_trained(start):
    """The first call of DDIM: x0 as the bridge reads it, whatever the sampler starts from."""
    model, y = built(endpoint="y"), noise(1, 3, 32, 32).clamp(-1, 1)
    first, *_ = model.trajectory(y, nfe=3, rule="ddim", start=start)
    tau = torch.tensor(first.t, dtype=torch.float64)
    with torch.no_grad():
        m = model.denoise(first.z, tau, model.adapter.condition(y))
    assert torch.allclose(first.x0, model.bridge.clean(m, y, tau), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(first.x0, m, rtol=1e-2, atol=1e-2) or start == "noise"
