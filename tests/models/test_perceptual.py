"""LPIPS as a term of the loss: the metric's own number, a gradient, every method, refusals."""

import numpy as np
import pytest
import torch
from conftest import small_unet
from losses import given

from irbridge.adapters.static import StaticAdapter
from irbridge.adapters.trunk import bridge_network, make_trunk
from irbridge.backbones.pixel import PixelBackbone
from irbridge.bridges import GOUB, RDBM, Brownian
from irbridge.errors import UserError
from irbridge.evaluation.metrics import LPIPS
from irbridge.models import perceptual as module
from irbridge.models.bridge_network import BridgeNetwork
from irbridge.models.distilled import Distilled
from irbridge.models.irbridge import IRBridge
from irbridge.models.loss_options import LossOptions
from irbridge.models.perceptual import perceptual
from irbridge.models.regression import Regression
from irbridge.models.timestep_schedule import critical
from irbridge.priors import VP
from irbridge.priors.vp import vp_alphas_cumprod

W = 0.5


def batch(side=32):
    generator = torch.Generator().manual_seed(0)
    clean, degraded, xi = (torch.randn(2, 3, side, side, generator=generator) for _ in range(3))
    return clean.clamp(-1, 1), degraded.clamp(-1, 1), xi, torch.tensor([0.6, 0.1])


def through_prior(lpips=W, kind=IRBridge):
    backbone = PixelBackbone(small_unet(), VP(vp_alphas_cumprod({})))
    torch.manual_seed(0)
    adapter = StaticAdapter(backbone, [16, 16], anchor=True)
    options = LossOptions("bridge", anchor_first=0, lpips=lpips)
    sampler = {"nfe": 2}
    return kind(backbone, adapter, Brownian(sigma=0.5), critical(), "anchor", sampler, options)


def from_scratch(lpips=W, bridge=GOUB, target="residual", loss="l1"):
    torch.manual_seed(0)
    network = bridge_network(channels=[8, 8])
    return BridgeNetwork(bridge(), network, target=target, loss=loss, lpips=lpips)


def plain(lpips=W):
    torch.manual_seed(0)
    return Regression(make_trunk(channels=[8, 8]), lpips)


METHODS = {"irbridge": through_prior, "bridge": from_scratch, "regression": plain}


def test_it_is_the_metric():
    rng = np.random.default_rng(0)
    restored, clean = (rng.integers(0, 256, (2, 40, 48, 3)).astype(float) for _ in range(2))
    pair = [torch.from_numpy(x / 127.5 - 1).permute(0, 3, 1, 2).float() for x in (restored, clean)]
    metric = LPIPS()
    expected = [metric.measure(a, b) for a, b in zip(restored, clean, strict=True)]
    assert perceptual(*pair).tolist() == pytest.approx(expected, abs=1e-5)
    assert perceptual(pair[1], pair[1]).tolist() == [0, 0]


def test_its_gradient_lowers_it():
    """Also where a metric, which needs none, loaded the network."""
    module.lpips_network.cache_clear(), module._on.cache_clear()
    black, white = np.zeros((32, 32, 3)), np.full((32, 32, 3), 255.0)
    assert LPIPS().measure(black, white) > 0
    clean, restored, *_ = batch()
    restored = restored.requires_grad_()
    before = perceptual(restored, clean)
    (slope,) = torch.autograd.grad(before.sum(), restored)
    after = perceptual(restored - 0.01 * slope / slope.abs().max(), clean)
    assert (after < before).all()


def test_half_precision_does_not_reach_it():
    clean, restored, *_ = batch()
    with torch.autocast("cpu", torch.bfloat16):
        half = perceptual(restored.bfloat16().float(), clean)
    assert torch.equal(half, perceptual(restored.bfloat16().float(), clean))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_adds_it(method):
    """The other terms are what they are without it, and it scales with its weight."""
    none, one, two = (METHODS[method](w).loss(*given(*batch())) for w in (0.0, W, 2 * W))
    added = one.keys() - none.keys()
    assert added and all("lpips" in key for key in added)
    assert all(torch.equal(one[key], none[key]) for key in none)
    for key in added:
        assert torch.allclose(two[key], 2 * one[key]) and (one[key] > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_what_trains(method):
    model = METHODS[method]()
    losses = model.loss(*given(*batch()))
    sum(value.sum() for key, value in losses.items() if "lpips" in key).backward()
    assert any(p.grad is not None and p.grad.any() for p in model.trainable().parameters())


def test_a_bridge_compares_the_estimate_that_it_samples_by():
    """The LPIPS is of ``denoise``'s x0, whatever the network predicts."""
    clean, degraded, xi, uniform = batch()
    for target in ("x0", "residual", "difference", "score", "edm"):
        model = from_scratch(target=target)
        asked = []
        estimate = BridgeNetwork.denoise
        output = model.output

        def kept(x, t, y, form, output=output, asked=asked):
            asked.append((x, t))
            return output(x, t, y, form)

        model.output = kept
        found = model.loss(*given(clean, degraded, xi, uniform))["lpips"]
        x0 = estimate(model, *asked[0], degraded)
        assert torch.allclose(found, W * perceptual(x0, clean), atol=1e-5), target


@pytest.mark.parametrize("target, loss", [("noise", "l1"), ("product", "l1"), ("x0", "likelihood")])
def test_a_target_of_noise_is_refused(target, loss):
    with pytest.raises(UserError, match=r"loss\.lpips .*target=residual"):
        from_scratch(bridge=RDBM if target == "product" else GOUB, target=target, loss=loss)


def test_distilling_refuses_it():
    with pytest.raises(UserError, match=r"loss\.lpips needs clean images"):
        through_prior(kind=Distilled)


def test_latents_refuse_it():
    backbone = PixelBackbone(small_unet(), VP(vp_alphas_cumprod({})))
    backbone.vae = torch.nn.Identity()
    adapter = StaticAdapter(backbone, [16, 16], anchor=True)
    with pytest.raises(UserError, match=r"loss\.lpips compares pixels"):
        IRBridge(backbone, adapter, Brownian(), critical(), "anchor", None, LossOptions(lpips=W))


def test_small_crops_are_refused():
    with pytest.raises(UserError, match=r"31 pixels .*have 16; give a larger trainer\.crop"):
        plain().loss(*given(*batch(16)))


def test_a_missing_trunk_is_named(monkeypatch, tmp_path):
    module._on.cache_clear()
    monkeypatch.setattr(module, "TRUNK", tmp_path / "none.safetensors")
    try:
        with pytest.raises(UserError, match=r"none\.safetensors is missing.*loss\.lpips"):
            plain().loss(*given(*batch()))
    finally:
        module._on.cache_clear()
