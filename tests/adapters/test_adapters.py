"""Adapters: identity at initialisation, injection against a forward written out by hand, gradients,
what is stored."""

import pytest
import torch
from conftest import small_unet
from losses import given

from irbridge.adapters.control import ControlAdapter
from irbridge.adapters.static import StaticAdapter
from irbridge.adapters.trunk import NAFTrunk, Trunk, bridge_network, make_trunk
from irbridge.backbones.pixel import PixelBackbone, inject, skip_layout
from irbridge.bridges.brownian import Brownian
from irbridge.bridges.ornstein_uhlenbeck import GOUB
from irbridge.errors import UserError
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.irbridge import IRBridge
from irbridge.models.loss_options import LossOptions
from irbridge.models.timestep_schedule import critical, linear
from irbridge.priors.vp import VP, vp_alphas_cumprod

UNETS = {
    "two levels": {},
    "three levels, two layers": {"channels": (8, 8, 16), "layers_per_block": 2},
    "four levels": {"channels": (4, 8, 8, 16)},
    "attention": {
        "down": ("DownBlock2D", "AttnDownBlock2D"),
        "up": ("AttnUpBlock2D", "UpBlock2D"),
        "add_attention": True,
    },
    "asymmetric": {"down": ("AttnDownBlock2D", "DownBlock2D"), "up": ("UpBlock2D", "UpBlock2D")},
    "resnet samplers": {
        "down": ("ResnetDownsampleBlock2D", "DownBlock2D"),
        "up": ("UpBlock2D", "ResnetUpsampleBlock2D"),
    },
}
TRUNKS = {"one level": [8], "two": [8, 4], "four": [4, 8, 8, 12]}
TAU = torch.tensor(300.0, dtype=torch.float64)


def frozen(shape):
    return PixelBackbone(small_unet(**UNETS[shape]), VP(vp_alphas_cumprod({})))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(adapter, seed=0):
    """The adapter with its zero layers made nonzero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapter.parameters():
            if not p.any():
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return adapter


def denoise(backbone, adapter, z, y, tau=TAU):
    condition = adapter.condition(y)
    return backbone.denoise(z, tau, lambda inputs, time: adapter.residuals(condition, inputs, time))


def adapters(backbone):
    for name, trunk in TRUNKS.items():
        for layers in (1, 2):
            yield f"static, {name}, {layers}", StaticAdapter(backbone, trunk, layers)
    yield "control", ControlAdapter(backbone)
    yield "control, anchor", ControlAdapter(backbone, TRUNKS["four"], anchor=True)


@pytest.mark.parametrize("shape", UNETS)
@torch.no_grad()
def test_identity_at_initialisation_and_only_there(shape):
    backbone = frozen(shape)
    z, y = noise(2, 3, 16, 24), noise(2, 3, 16, 24, seed=1)
    plain = backbone.denoise(z, TAU)
    for name, adapter in adapters(backbone):
        anchor = adapter.condition(y).anchor
        assert anchor is None or torch.equal(anchor, y), name
        assert torch.equal(denoise(backbone, adapter, z, y), plain), name
        changed = denoise(backbone, awake(adapter), z, y)
        assert (changed - plain).abs().max() > 1e-3, name
        assert (denoise(backbone, adapter, z, -y) - changed).abs().max() > 1e-4, name


def by_hand(unet, z, t, residuals):
    """UNet2DModel's forward, written out, with residuals added to its skips and its mid block."""
    embedding = unet.time_embedding(unet.time_proj(torch.full((len(z),), t)))
    hidden = unet.conv_in(z)
    skips = [hidden]
    for block in unet.down_blocks:
        hidden, made = block(hidden, embedding)
        skips += made
    skips = [s + r for s, r in zip(skips, residuals[:-1], strict=True)]
    hidden = unet.mid_block(hidden, embedding) + residuals[-1]
    for block in unet.up_blocks:
        n = len(block.resnets)
        hidden, skips = block(hidden, tuple(skips[-n:]), embedding), skips[:-n]
    assert not skips
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))


@pytest.mark.parametrize("shape", UNETS)
@torch.no_grad()
def test_injection_is_the_forward_written_out(shape):
    unet = small_unet(**UNETS[shape])
    z = noise(2, 3, 16, 16)
    residuals = [
        noise(2, c, 16 // s, 16 // s, seed=k) for k, (c, s) in enumerate(skip_layout(unet))
    ]
    with inject(unet, residuals):
        got = unet(z, 250).sample
    assert torch.allclose(got, by_hand(unet, z, 250, residuals), atol=1e-5)
    assert (got - unet(z, 250).sample).abs().max() > 1e-2  # and nothing stays hooked
    assert torch.allclose(
        unet(z, 250).sample, by_hand(unet, z, 250, [torch.zeros(1)] * len(residuals)), atol=1e-5
    )


def test_hooks_leave_after_an_error():
    unet = small_unet()
    with (
        pytest.raises(ValueError),
        inject(unet, [noise(1, c, 16 // s, 16 // s) for c, s in skip_layout(unet)]),
    ):
        raise ValueError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())


@torch.no_grad()
def test_control_encoder_is_the_frozen_one_with_y_added():
    backbone = frozen("two levels")
    adapter = ControlAdapter(backbone)
    z, y, time = noise(2, 3, 16, 16), noise(2, 3, 16, 16, seed=1), torch.tensor([7.0, 300.0])
    seen = []
    handle = backbone.network.mid_block.register_forward_hook(lambda m, a, out: seen.append(out))
    for convolution in adapter.zero.convs:
        convolution.weight.copy_(torch.eye(len(convolution.weight))[..., None, None])
    backbone.network(z, time)
    handle.remove()
    assert torch.allclose(adapter.residuals(adapter.condition(y), z, time)[-1], seen[0], atol=1e-5)


@pytest.mark.parametrize("kind", [StaticAdapter, ControlAdapter])
@pytest.mark.parametrize("shape", ["two levels", "attention", "asymmetric"])
def test_gradients_reach_every_adapter_tensor_and_no_frozen_one(kind, shape):
    backbone = frozen(shape)
    adapter = awake(kind(backbone, TRUNKS["two"], anchor=True))
    model = IRBridge(
        backbone, adapter, GOUB(), critical(), "anchor", {"steps": 2}, LossOptions(states="visited")
    )
    images = (noise(2, 3, 16, 16, seed=k) for k in range(3))
    losses = model.loss(*given(*images, torch.tensor([0.7, 0.2])))
    sum(v.mean() for v in losses.values()).backward()
    without = [n for n, p in adapter.named_parameters() if p.grad is None or not p.grad.any()]
    # A layer that shifts a whole channel in front of a normalisation has no effect; all else must
    # learn.
    assert not [n for n in without if not n.endswith("bias")], without
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())


def test_anchor_that_is_not_trained_has_no_output_layer():
    assert not hasattr(Trunk([8, 8], predicts=False).unet.conv_out, "weight")
    image, features = Trunk([8, 16], predicts=False)(noise(1, 3, 16, 16))
    assert (
        image is None
        and {s: f.shape[1] for s, f in features.items()} == Trunk([8, 16]).features_layout
    )
    adapter = awake(StaticAdapter(frozen("two levels"), [8, 16], anchor=False))
    assert adapter.condition(noise(1, 3, 16, 16)).anchor is None


@pytest.mark.parametrize("kind", [StaticAdapter, ControlAdapter])
def test_nothing_frozen_is_stored_or_counted(kind):
    backbone = frozen("three levels, two layers")
    adapter = kind(backbone, TRUNKS["two"])
    model = IRBridge(backbone, adapter, GOUB(), critical(), "y")
    own = {p.data_ptr() for p in backbone.parameters()}
    assert model.trainable() is adapter and not own & {
        v.data_ptr() for v in adapter.state_dict().values()
    }
    assert not any("backbone" in name for name in adapter.state_dict())
    assert {id(p) for p in model.parameters() if p.requires_grad} == {
        id(p) for p in adapter.parameters()
    }


def test_compiles():
    backbone = frozen("two levels")
    adapter = awake(ControlAdapter(backbone, TRUNKS["two"], anchor=True))
    z, y = noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=1)
    expected = denoise(backbone, adapter, z, y)
    # The hooks come and go inside the compiled region, so the graph breaks there, but the result
    # must be the same.
    compiled = torch.compile(denoise, backend="eager")(backbone, adapter, z, y)
    assert torch.allclose(compiled, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_adapters_stay_float32_over_a_frozen_network_of_another_precision(dtype):
    whole = frozen("attention")
    half = PixelBackbone(small_unet(**UNETS["attention"]).to(dtype), whole.prior)
    z, y = noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=1)
    for name, adapter in adapters(whole):
        adapter = awake(adapter)
        got, wanted = denoise(half, adapter, z, y), denoise(whole, adapter, z, y)
        assert got.dtype == torch.float32 and torch.allclose(
            got, wanted, atol=0.05 * float(wanted.abs().max())
        ), name


@pytest.mark.parametrize("tiles", [WHOLE, Tiles(32, 8)])
def test_features_that_are_nothing_are_not_computed(backbone, tiles, monkeypatch):
    """After a training of g(y) alone the trunk is asked once, not at every call, and the result is
    the same."""
    adapter = StaticAdapter(backbone, [8, 8])
    torch.nn.init.normal_(adapter.trunk.unet.conv_out.weight, std=0.1)
    model = IRBridge(
        backbone, adapter, Brownian(T=100, sigma=0.07), linear(30.0, 1.0), sampler={"nfe": 3}
    ).eval()
    y, asked = torch.rand(1, 3, 32, 48), []
    adapter.trunk.register_forward_hook(lambda *a: asked.append(1))
    assert adapter.silent
    found, once = model.restore(y, tiles=tiles), len(asked)
    monkeypatch.setattr(StaticAdapter, "silent", False)
    assert torch.equal(model.restore(y, tiles=tiles), found) and len(asked) - once == once * (
        1 if tiles is WHOLE else 4
    )
    monkeypatch.undo()
    torch.nn.init.normal_(adapter.zero.convs[0].bias)
    assert not adapter.silent


@pytest.mark.parametrize(
    "sizes",
    [
        {"trunk": "nafnet", "width": 16384, "encoder": [1, 1, 1, 2], "decoder": [1, 1, 1, 1]},
        {"trunk": "unet", "channels": [4096] * 6, "layers": 8},
    ],
)
@pytest.mark.parametrize("make", [make_trunk, bridge_network])
def test_a_network_beyond_the_memory_is_refused_before_it_is_made(make, sizes):
    with pytest.raises(UserError, match=r"billion weights takes .* give a smaller adapter.width"):
        make(**sizes)


def test_looking_at_the_memory_draws_no_numbers():
    torch.manual_seed(0)
    plain = NAFTrunk(True, 3, False, width=8, encoder=[1], middle=1, decoder=[1])
    torch.manual_seed(0)
    checked = make_trunk("nafnet", width=8, encoder=[1], middle=1, decoder=[1])
    for a, b in zip(plain.parameters(), checked.parameters(), strict=True):
        assert torch.equal(a, b)
