"""What every adapter promises; the classes are found from ``Adapter`` itself."""

import warnings
from copy import deepcopy
from functools import partial
from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules

import pytest
import torch
from conftest import ROOT, small_unet
from losses import given
from pipelines import SAVE, load
from torch import nn

import irbridge.adapters
from irbridge.adapters.base import Adapter, Condition, fitting
from irbridge.backbones.pixel import PixelBackbone
from irbridge.bridges.ornstein_uhlenbeck import GOUB
from irbridge.models.irbridge import IRBridge
from irbridge.models.timestep_schedule import critical
from irbridge.priors.vp import VP, vp_alphas_cumprod

for module in iter_modules(irbridge.adapters.__path__):
    import_module(f"irbridge.adapters.{module.name}")


def subclasses(kind):
    for child in kind.__subclasses__():
        yield from subclasses(child)
        if not isabstract(child) and child.__module__.startswith("irbridge."):
            yield child


CLASSES = sorted(set(subclasses(Adapter)), key=lambda kind: kind.__name__)
LEAVES = [kind for kind in CLASSES if not kind.__subclasses__()]
PIPELINES = {"UNet2DConditionModel": "sd15", "SD3Transformer2DModel": "sd3"}
CASES = [(kind, network) for kind in LEAVES for network in kind.networks]
TAU = torch.tensor(0.4, dtype=torch.float64)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """``frozen("UNet2DModel")``: a backbone whose network is of that class, each time a new one."""
    pytest.importorskip("peft")
    loaded = {"UNet2DModel": PixelBackbone(small_unet(), VP(vp_alphas_cumprod({})))}

    def make(network):
        if network not in loaded:
            kind = PIPELINES[network]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*has no text encoder")
                loaded[network] = load(kind, SAVE[kind](tmp_path_factory.mktemp(kind)))
        return deepcopy(loaded[network])

    return make


def built(kind, backbone, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(backbone)


def awake(adapter, seed=0):
    """The adapter with its zero layers made nonzero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapter.parameters():
            if not p.any():
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return adapter


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sizes(adapter, backbone, batch=2):
    """A degraded image and a noisy state of its size."""
    side = 2 * max(adapter.stride, backbone.stride)
    y = noise(batch, 3, side, side, seed=1).clamp(-1, 1)
    return y, noise(batch, backbone.channels, side // backbone.factor, side // backbone.factor)


def plain(backbone, z):
    return backbone.denoise(z, TAU * backbone.prior.highest)


def answer(backbone, adapter, z, y):
    condition = adapter.condition(y, backbone.encode(y))
    residuals = partial(adapter.residuals, condition)
    with adapter.active(backbone.network):
        return backbone.denoise(z, TAU * backbone.prior.highest, residuals)


def test_the_family_is_found():
    assert {"StaticAdapter", "ControlAdapter", "ControlNet", "T2I", "LoRA", "SD3ControlNet"} <= {
        kind.__name__ for kind in LEAVES
    }


def test_what_is_abstract_is_abstract():
    class Half(Adapter):
        def condition(self, y, state):
            return Condition(y, None, None)

    for kind in (Adapter, Half):
        with pytest.raises(TypeError, match="abstract"):
            kind()


@pytest.mark.parametrize("kind", LEAVES)
def test_each_has_a_config_and_a_docstring(kind):
    targets = [p.read_text() for p in (ROOT / "configs/adapter").glob("*.yaml")]
    assert any(f"_target_: {kind.__module__}.{kind.__name__}\n" in text for text in targets)
    assert kind.__doc__ and kind.networks


@pytest.mark.parametrize("network", sorted({network for _, network in CASES}))
def test_those_that_fit_a_network_are_found_from_the_configs(network):
    names = fitting(network)
    assert names and set(names) <= {p.stem for p in (ROOT / "configs/adapter").glob("*.yaml")}
    assert len(names) >= sum(network in kind.networks for kind in LEAVES)


@pytest.mark.parametrize("kind, network", CASES)
def test_it_changes_nothing_at_first_and_something_later(frozen, kind, network):
    backbone = frozen(network)
    adapter = built(kind, backbone)
    y, z = sizes(adapter, backbone)
    with torch.no_grad():
        before = plain(backbone, z)
        assert torch.equal(answer(backbone, adapter, z, y), before)
        changed = answer(backbone, awake(adapter), z, y)
        assert changed.shape == z.shape and (changed - before).abs().max() > 1e-3
        assert (answer(backbone, adapter, z, -y) - changed).abs().max() > 1e-4
        assert torch.equal(plain(backbone, z), before)


@pytest.mark.parametrize("kind, network", CASES)
@torch.no_grad()
def test_its_condition_says_what_the_class_says(frozen, kind, network):
    backbone = frozen(network)
    adapter = built(kind, backbone)
    y, _ = sizes(adapter, backbone)
    condition, estimate = adapter.condition(y, backbone.encode(y)), adapter.estimate(y)
    assert isinstance(adapter.stride, int) and adapter.stride % backbone.stride == 0
    assert condition.y.shape == backbone.encode(y).shape and condition.mask is None
    assert (condition.anchor is not None) == (estimate is not None) == adapter.anchored
    if adapter.anchored:
        assert estimate.shape == y.shape
        torch.testing.assert_close(condition.anchor, estimate)


@pytest.mark.parametrize("kind, network", CASES)
@torch.no_grad()
def test_it_counts_within_its_block_alone(frozen, kind, network):
    """Also after an error within the block, and with a second adapter on the same network."""
    backbone = frozen(network)
    adapter, other = (awake(built(kind, backbone, seed), seed) for seed in (0, 1))
    y, z = sizes(adapter, backbone)
    before, changed = plain(backbone, z), answer(backbone, adapter, z, y)
    with pytest.raises(ZeroDivisionError), adapter.active(backbone.network):
        _ = 1 / 0
    assert torch.equal(plain(backbone, z), before)
    assert (answer(backbone, other, z, y) - changed).abs().max() > 1e-4
    with other.active(backbone.network):  # the innermost block counts
        assert torch.equal(answer(backbone, adapter, z, y), changed)
    assert torch.equal(plain(backbone, z), before)


@pytest.mark.parametrize("kind, network", CASES)
def test_it_alone_trains_and_is_stored(frozen, kind, network):
    backbone = frozen(network)
    adapter = awake(built(kind, backbone))
    model = IRBridge(backbone, adapter, GOUB(), critical(), "y", {"steps": 2})
    clean, z = sizes(adapter, backbone)
    losses = model.loss(*given(clean, -clean, z, torch.tensor([0.3, 0.6])))
    sum(value.mean() for value in losses.values()).backward()
    own = {id(p) for p in adapter.parameters()}
    assert own == {id(p) for p in model.parameters() if p.requires_grad}
    assert any(p.grad is not None and p.grad.any() for p in adapter.parameters())
    assert all(p.grad is None for p in backbone.parameters() if id(p) not in own)
    stored = adapter.state_dict()
    assert {v.dtype for v in stored.values() if v.is_floating_point()} == {torch.float32}
    frozen_weights = {p.data_ptr() for p in backbone.parameters() if id(p) not in own}
    assert not frozen_weights & {v.data_ptr() for v in stored.values()}
    again = built(kind, frozen(network), seed=5)
    again.load_state_dict(stored)
    assert isinstance(again, nn.Module)
