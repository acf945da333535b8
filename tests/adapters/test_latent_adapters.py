"""Adapters of latent backbones against diffusers' and peft's classes called by hand; identity at
initialisation, gradients, what is stored, shapes of all kinds."""

import sys
import warnings
from copy import deepcopy
from functools import partial

import pytest
import torch
from conftest import ROOT, small_unet
from diffusers import ControlNetModel, SD3ControlNetModel, T2IAdapter
from losses import given
from omegaconf import OmegaConf
from pipelines import SAVE, kl, load
from torch import nn
from torch.optim.swa_utils import AveragedModel

from irbridge.adapters.controlnet import ControlNet
from irbridge.adapters.lora import LoRA
from irbridge.adapters.sd3_controlnet import SD3ControlNet
from irbridge.adapters.t2i import T2I
from irbridge.backbones.pixel import PixelBackbone
from irbridge.bridges.ornstein_uhlenbeck import GOUB
from irbridge.errors import UserError
from irbridge.experiments.instantiate import instantiate
from irbridge.models.irbridge import IRBridge
from irbridge.models.loss_options import LossOptions
from irbridge.models.timestep_schedule import critical
from irbridge.priors.vp import VP, vp_alphas_cumprod

MAKE = {
    "controlnet": ControlNet,
    "controlnet_latent": partial(ControlNet, hint="latent"),
    "t2i": T2I,
    "lora": partial(LoRA, rank=2),
    "sd3_controlnet": SD3ControlNet,
}
UNET_CASES = [
    (kind, name)
    for kind in ("sd15", "sd21")
    for name in ("controlnet", "controlnet_latent", "t2i", "lora")
]
CASES = [*UNET_CASES, ("sd3", "sd3_controlnet"), ("sd3", "lora")]
CLASSES = [case for case in CASES if case[0] != "sd21"]  # each class on each kind of network once
NOISE_LOSS = LossOptions("prior", "eps", "l2")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """``frozen("sd15", ...)``: a saved and loaded pipeline, its prompt's embedding made other than
    zero, as to_k and to_v would not learn from zeros, and of two tokens: attention over a single
    key is the same whatever the query, so that to_q and to_k would have rounding residue alone."""
    loaded = {}

    def make(kind="sd15", dtype="float32", levels=4, **changes):
        key = repr((kind, dtype, levels, changes))
        if key not in loaded:
            vae = {} if levels == 4 else {"vae": kl(levels)}
            folder = SAVE[kind](tmp_path_factory.mktemp(kind), **vae, **changes)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*has no text encoder")
                loaded[key] = load(kind, folder, dtype=dtype)
            for context in loaded[key].contexts:
                for seed, (name, value) in enumerate(list(context.named_buffers())):
                    shape = (1, 2, *value.shape[2:]) if value.dim() == 3 else value.shape
                    setattr(context, name, noise(*shape, seed=seed + 10).to(value))
        return deepcopy(loaded[key])

    pytest.importorskip("peft")
    return make


def build(name, backbone, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MAKE[name](backbone, **options)


def awake(adapter, seed=0):
    """The adapter with its zero layers made nonzero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapter.parameters():
            if not p.any():
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return adapter


def middle(backbone):
    prior = backbone.prior
    return torch.tensor((float(prior.lowest) + float(prior.highest)) / 2, dtype=torch.float64)


def odd(backbone, batch=2):
    """An image whose latent has sides that no UNet halves evenly, and a noisy state of its size."""
    rows, columns = (5 * backbone.stride, 7 * backbone.stride)
    y = noise(batch, 3, rows, columns, seed=1).clamp(-1, 1)
    return y, noise(batch, backbone.channels, rows // backbone.factor, columns // backbone.factor)


def answer(backbone, adapter, z, y):
    condition = adapter.condition(y, backbone.encode(y))
    with adapter.active(backbone.network):
        return backbone.denoise(z, middle(backbone), partial(adapter.residuals, condition))


def bridge(backbone, adapter):
    return IRBridge(backbone, adapter, GOUB(), critical(), "y", {"steps": 2}, NOISE_LOSS)


def batch(backbone, side=2):
    side *= backbone.stride
    clean, degraded = (noise(2, 3, side, side, seed=k).clamp(-1, 1) for k in (3, 4))
    state = side // backbone.factor
    xi = noise(2, backbone.channels, state, state, seed=5)
    return given(clean, degraded, xi, torch.tensor([0.3, 0.6]))


def total(losses):
    return sum(v.mean() for v in losses.values())


@pytest.mark.parametrize("kind, name", CASES)
@torch.no_grad()
def test_identity_at_initialisation_and_only_there(frozen, kind, name):
    backbone = frozen(kind)
    y, z = odd(backbone)
    plain = backbone.denoise(z, middle(backbone))
    adapter = build(name, backbone)
    assert torch.equal(answer(backbone, adapter, z, y), plain)
    changed = answer(backbone, awake(adapter), z, y)
    assert (changed - plain).abs().max() > 1e-3
    assert (answer(backbone, adapter, z, -y) - changed).abs().max() > 1e-4
    # the frozen network alone is what it was
    assert torch.equal(backbone.denoise(z, middle(backbone)), plain)


@pytest.mark.parametrize("kind, name", CASES)
def test_gradients_reach_every_adapter_tensor_and_no_frozen_one(frozen, kind, name):
    backbone = frozen(kind, **{"num_layers": 4} if kind == "sd3" else {})
    adapter = awake(build(name, backbone))
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "lora_" not in k}
    optimizer = torch.optim.SGD(adapter.parameters(), 0.1)
    total(bridge(backbone, adapter).loss(*batch(backbone, 4))).backward()
    # Attention does not change when all keys shift, and a residual layer's shift may vanish in a
    # normalisation behind it: such biases have rounding residue at most. Of the last block of an
    # SD3 ControlNet the part that goes on with the prompt leads nowhere.
    last, dead = (
        "net.transformer_blocks.1.",
        ("norm1_context", "attn.to_add_out", "ff_context", "attn.add_q_proj"),
    )
    sizes = {
        n: 0.0 if p.grad is None else p.grad.abs().max().item()
        for n, p in adapter.named_parameters()
        if not n.endswith("bias") and not (n.startswith(last) and any(d in n for d in dead))
    }
    # what flows is above 1e-4 of the largest, the residue of attention over one key below 1e-8
    assert not {n: v for n, v in sizes.items() if v < 1e-6 * max(sizes.values())}
    own = {id(p) for p in adapter.parameters()}
    assert all(
        p.requires_grad == (id(p) in own) and (p.grad is None or id(p) in own)
        for p in backbone.parameters()
    )
    optimizer.step()
    after = backbone.state_dict()
    assert before and all(torch.equal(after[k], v) for k, v in before.items())


@pytest.mark.parametrize("kind, name", CASES)
def test_one_step_lowers_the_loss_of_a_fixed_batch(frozen, kind, name):
    backbone = frozen(kind)
    model, fixed = bridge(backbone, build(name, backbone)), batch(backbone)
    optimizer = torch.optim.AdamW(model.trainable().parameters(), 1e-4)
    first = total(model.loss(*fixed))
    first.backward()
    optimizer.step()
    assert total(model.loss(*fixed)) < first


@pytest.mark.parametrize("kind, name", CLASSES)
def test_a_photograph_of_odd_sides_is_restored(frozen, kind, name):
    backbone = frozen(kind)
    restored = bridge(backbone, awake(build(name, backbone))).restore(
        noise(1, 3, 37, 51).clamp(-1, 1)
    )
    assert restored.shape == (1, 3, 37, 51) and restored.isfinite().all()


@pytest.mark.parametrize("kind, name", CLASSES)
def test_only_trained_float32_tensors_are_stored_under_stable_names(frozen, kind, name):
    backbone = frozen(kind, "bfloat16")
    first, second = (build(name, b) for b in (backbone, backbone))
    state = first.state_dict()
    assert (
        set(state)
        == {n for n, p in first.named_parameters() if p.requires_grad}
        == set(second.state_dict())
    )
    assert {v.dtype for v in state.values()} == {torch.float32}
    if name != "lora":  # whose own layers sit in the network
        pointers = {p.data_ptr() for p in backbone.parameters()}
        assert not pointers & {v.data_ptr() for v in state.values()}


@pytest.mark.parametrize("kind, name", CLASSES)
def test_a_frozen_network_in_bfloat16_takes_float32_adapters(frozen, kind, name):
    exact, rough = frozen(kind), frozen(kind, "bfloat16")
    y, z = odd(exact)
    answers = [answer(b, awake(build(name, b)), z, y) for b in (exact, rough)]
    assert answers[1].dtype == torch.float32 and rough.network.dtype == torch.bfloat16
    error, change = (
        (answers[1] - answers[0]).norm(),
        (answers[0] - exact.denoise(z, middle(exact))).norm(),
    )
    assert error < 0.1 * answers[0].norm() and error < 0.5 * change
    for backbone in (exact, rough):
        adapter = awake(build(name, backbone))
        with torch.autocast("cpu", torch.bfloat16):  # as training with precision=bf16 calls it
            loss = total(bridge(backbone, adapter).loss(*batch(backbone)))
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in adapter.parameters())


def call(backbone, z, **options):
    """The frozen network, called by hand."""
    inputs, time = backbone.prior.network_input(z, middle(backbone).expand(len(z)))
    context = backbone.contexts[0].expanded(len(z))
    return backbone.network(inputs, timestep=time.float(), **context, **options).sample, (
        inputs,
        time.float(),
        context,
    )


def through(backbone, adapter, z, y):
    """The network's output with the adapter, through the project."""
    inputs, time = backbone.prior.network_input(z, middle(backbone).expand(len(z)))
    condition = adapter.condition(y, backbone.encode(y))
    with adapter.active(backbone.network):
        return backbone.predict(inputs, time.float(), partial(adapter.residuals, condition))


def same(got, expected, plain):
    assert (expected - plain).abs().max() > 1e-3
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["sd15", "sd21"])
@torch.no_grad()
def test_controlnet_is_the_diffusers_class_with_the_image_as_hint(frozen, kind):
    backbone = frozen(kind)
    y, z = odd(backbone)
    adapter = awake(build("controlnet", backbone))
    # its own hint network shrinks by 8, as this VAE does
    oracle = ControlNetModel.from_unet(backbone.network)
    parts = {"net.": "", "hint.": "controlnet_cond_embedding."}
    trained = {
        parts[k[: k.index(".") + 1]] + k.split(".", 1)[1]: v
        for k, v in adapter.state_dict().items()
    }
    oracle.load_state_dict(trained)
    plain, (inputs, time, context) = call(backbone, z)
    down, mid = oracle(
        inputs, time, context["encoder_hidden_states"], (y + 1) / 2, return_dict=False
    )
    expected, _ = call(
        backbone, z, down_block_additional_residuals=down, mid_block_additional_residual=mid
    )
    same(through(backbone, adapter, z, y), expected, plain)


def widened(convolution, extra):
    """A convolution over twice the channels: its own, and those that ``extra`` sees."""
    wide = nn.Conv2d(
        2 * extra.in_channels, extra.out_channels, extra.kernel_size, extra.stride, extra.padding
    )
    wide.weight.data = torch.cat([convolution.weight, extra.weight], 1)
    wide.bias.data = convolution.bias + extra.bias
    return wide


@torch.no_grad()
def test_the_latent_hint_is_extra_channels_of_the_first_convolution(frozen):
    backbone = frozen()
    y, z = odd(backbone)
    adapter = build("controlnet_latent", backbone)
    assert not any(p.any() for p in adapter.hint.parameters())
    awake(adapter)
    oracle = ControlNetModel.from_unet(backbone.network)
    trained = {k[4:]: v for k, v in adapter.state_dict().items() if k.startswith("net.")}
    assert all(
        k.startswith("controlnet_cond")
        for k in oracle.load_state_dict(trained, strict=False).missing_keys
    )
    oracle.conv_in = widened(oracle.conv_in, adapter.hint)
    plain, (inputs, time, context) = call(backbone, z)
    down, mid = oracle(
        torch.cat([inputs, backbone.encode(y)], 1),
        time,
        context["encoder_hidden_states"],
        torch.zeros_like(y),
        return_dict=False,
    )  # through zero weights
    expected, _ = call(
        backbone, z, down_block_additional_residuals=down, mid_block_additional_residual=mid
    )
    same(through(backbone, adapter, z, y), expected, plain)


@torch.no_grad()
def test_t2i_is_the_diffusers_class_behind_zero_convolutions(frozen):
    backbone = frozen(channels=(8, 16, 16))
    y, z = odd(backbone)
    adapter = awake(build("t2i", backbone, channels=[4, 8, 12], layers=1))
    oracle = T2IAdapter(channels=[4, 8, 12], num_res_blocks=1, downscale_factor=8)
    oracle.load_state_dict(adapter.net.state_dict())
    features = [
        torch.einsum("oi,bihw->bohw", c.weight[..., 0, 0], f) + c.bias[:, None, None]
        for c, f in zip(adapter.zero.convs, oracle((y + 1) / 2), strict=True)
    ]
    plain, (inputs, time, context) = call(backbone, z)
    expected, _ = call(backbone, z, down_intrablock_additional_residuals=features)
    condition = adapter.condition(y, backbone.encode(y))
    for _ in range(2):  # the UNet empties the list that it is given
        same(
            call(backbone, z, **adapter.residuals(condition, inputs, time, **context))[0],
            expected,
            plain,
        )


@pytest.mark.parametrize("kind, alpha", [("sd15", None), ("sd21", 6.0), ("sd3", 3.0)])
@torch.no_grad()
def test_lora_is_merged_weights_and_extra_input_channels(frozen, kind, alpha):
    backbone = frozen(kind)
    y, z = odd(backbone)
    merged, (plain, (inputs, time, context)) = deepcopy(backbone.network), call(backbone, z)
    adapter = awake(build("lora", backbone, alpha=alpha))
    layers = dict(merged.named_modules())
    paths = [n for n in layers if n.endswith((".to_q", ".to_k", ".to_v", ".to_out.0"))]
    assert sorted(p.replace(".", "/") for p in paths) == sorted(adapter.low_rank)
    for path, pair in adapter.low_rank.items():
        layers[path.replace("/", ".")].weight += (
            (alpha or 2) / 2 * pair["B"].weight @ pair["A"].weight
        )
    owner, name = (merged.pos_embed, "proj") if kind == "sd3" else (merged, "conv_in")
    setattr(owner, name, widened(getattr(owner, name), adapter.input))
    expected = merged(torch.cat([inputs, backbone.encode(y)], 1), timestep=time, **context).sample
    same(through(backbone, adapter, z, y), expected, plain)


@pytest.mark.parametrize("layers", [None, 1])
@torch.no_grad()
def test_sd3_controlnet_is_the_diffusers_class_on_the_latent(frozen, layers):
    backbone = frozen("sd3", num_layers=5, qk_norm="rms_norm", dual_attention_layers=(0,))
    y, z = odd(backbone)
    before = dict(backbone.network.config)
    adapter = awake(build("sd3_controlnet", backbone, layers=layers))
    assert dict(backbone.network.config) == before and len(adapter.net.transformer_blocks) == (
        layers or 2
    )
    oracle = SD3ControlNetModel.from_transformer(deepcopy(backbone.network), layers or 2, 0)
    assert oracle.load_state_dict(adapter.net.state_dict(), strict=False).missing_keys == [
        "pos_embed.pos_embed"
    ]
    plain, (inputs, time, context) = call(backbone, z)
    (samples,) = oracle(inputs, backbone.encode(y), timestep=time, return_dict=False, **context)
    expected, _ = call(backbone, z, block_controlnet_hidden_states=samples)
    same(through(backbone, adapter, z, y), expected, plain)


CROSS, PLAIN, UP, CROSS_UP = (
    "CrossAttnDownBlock2D",
    "DownBlock2D",
    "UpBlock2D",
    "CrossAttnUpBlock2D",
)


def ordered(down, up, **changes):
    return {"down_block_types": down, "up_block_types": up, **changes}


# The UNet's options and the levels of the VAE.
SHAPES = {
    "one level, VAE 2": (ordered([CROSS], [CROSS_UP], channels=(8,)), 2),
    "plain first, VAE 4": (ordered([PLAIN, CROSS], [CROSS_UP, UP]), 3),
    "three, plain between": (
        ordered([CROSS, PLAIN, CROSS], [CROSS_UP, UP, CROSS_UP], channels=(8, 4, 16)),
        4,
    ),
    "four, VAE 16": ({"channels": (4, 8, 8, 16), "layers_per_block": 2}, 5),
    "no attention in the middle": ({"mid_block_type": "UNetMidBlock2D"}, 4),
    "rounding down": (
        ordered(
            [PLAIN, CROSS, PLAIN], [UP, CROSS_UP, UP], channels=(8, 8, 16), downsample_padding=0
        ),
        3,
    ),
}


@pytest.mark.parametrize("name", ["controlnet", "controlnet_latent", "t2i", "lora"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_unets_of_other_widths_orders_and_vaes(frozen, shape, name):
    changes, levels = SHAPES[shape]
    backbone = frozen(levels=levels, **changes)
    assert backbone.factor == 2 ** (levels - 1)
    y, z = odd(backbone)
    plain, adapter = backbone.denoise(z, middle(backbone)), build(name, backbone)
    assert torch.equal(answer(backbone, adapter, z, y), plain)
    changed = answer(backbone, awake(adapter), z, y)
    assert (changed - plain).abs().max() > 1e-4
    assert (answer(backbone, adapter, z, -y) - changed).abs().max() > 1e-5


@torch.no_grad()
def test_t2i_residuals_have_the_sizes_of_the_blocks_outputs(frozen):
    """diffusers adds in front of the downsampler in blocks with cross-attention and behind it in
    the others; there in place, where a side of 1 would be spread without a word."""
    changes, levels = SHAPES["rounding down"]
    backbone, sizes = frozen(levels=levels, **changes), []
    # of the block's skips
    for block, at in zip(backbone.network.down_blocks, (-1, -2, -1), strict=True):
        block.register_forward_hook(
            lambda block, args, output, at=at: sizes.append(output[1][at].shape)
        )
    y, z = odd(backbone)
    call(backbone, z)
    assert [f.shape for f in build("t2i", backbone).condition(y, z).features] == sizes


@pytest.mark.parametrize("kind", ["sd15", "sd3"])
@torch.no_grad()
def test_low_rank_adapters_on_one_network_do_not_mix(frozen, kind):
    shared, y_z = frozen(kind), odd(frozen(kind))[::-1]
    plain = shared.denoise(y_z[0], middle(shared))
    together = [awake(build("lora", shared, rank=rank), seed=rank) for rank in (2, 3)]
    assert all(p.requires_grad for a in together for p in a.parameters())
    for rank, adapter in zip((2, 3), together):
        alone = frozen(kind)
        expected = answer(alone, awake(build("lora", alone, rank=rank), seed=rank), *y_z)
        assert torch.equal(answer(shared, adapter, *y_z), expected)
        assert torch.equal(shared.denoise(y_z[0], middle(shared)), plain)


def test_averages_and_copies_of_a_lora_leave_the_network_alone(frozen):
    backbone = frozen()
    y, z = odd(backbone)
    model = bridge(backbone, awake(build("lora", backbone)))
    expected = answer(backbone, model.adapter, z, y)
    average = AveragedModel(model.adapter)
    assert sum(p.numel() for p in average.parameters()) == sum(
        p.numel() for p in model.adapter.parameters()
    )
    assert not any(isinstance(m, type(backbone.network)) for m in average.modules())
    twin = deepcopy(model)
    with torch.no_grad():
        for p in [*average.module.parameters(), *twin.adapter.parameters()]:
            p.add_(0.3)
    assert torch.equal(answer(backbone, model.adapter, z, y), expected)
    changed = answer(twin.backbone, twin.adapter, z, y)
    assert (changed - expected).abs().max() > 1e-3
    # in place, so that it reaches the network
    model.adapter.load_state_dict(average.module.state_dict())
    assert torch.equal(answer(backbone, model.adapter, z, y), changed)


@pytest.mark.parametrize("kind, name", CLASSES)
def test_gradient_checkpointing_changes_no_gradient(frozen, kind, name):
    gradients = []
    for checkpointing in (False, True):
        backbone = frozen(kind)
        adapter = awake(build(name, backbone))
        for module in (backbone.network, getattr(adapter, "net", None)) if checkpointing else ():
            if getattr(module, "_supports_gradient_checkpointing", False):
                module.enable_gradient_checkpointing()
        total(bridge(backbone, adapter).loss(*batch(backbone))).backward()
        gradients.append([p.grad for p in adapter.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-7, rtol=1e-4) for a, b in zip(*gradients, strict=True))


@torch.no_grad()
def test_guidance_asks_the_adapter_for_both_prompts(frozen):
    backbone = frozen()
    y, z = odd(backbone)
    adapter = awake(build("lora", backbone))
    empty = through(backbone, adapter, z, y)
    backbone.contexts.append(deepcopy(backbone.contexts[0]))
    backbone.contexts[1].encoder_hidden_states.mul_(-1)
    backbone.contexts = backbone.contexts[1:]
    asked = through(backbone, adapter, z, y)
    backbone.contexts.insert(0, deepcopy(backbone.contexts[0]))
    backbone.contexts[0].encoder_hidden_states.mul_(-1)
    backbone.guidance = 3.0
    torch.testing.assert_close(through(backbone, adapter, z, y), empty + 3 * (asked - empty))


@pytest.mark.parametrize(
    "kind, name, words",
    [
        ("sd3", "controlnet", "sd3_controlnet or lora"),
        ("sd3", "t2i", "sd3_controlnet or lora"),
        ("sd15", "sd3_controlnet", "controlnet, controlnet_latent, t2i or lora"),
        *[("pixels", name, "static or control") for name in MAKE],
    ],
)
def test_adapters_that_do_not_fit_name_those_that_do(frozen, kind, name, words):
    pixels = kind == "pixels"
    backbone = PixelBackbone(small_unet(), VP(vp_alphas_cumprod({}))) if pixels else frozen(kind)
    with pytest.raises(UserError, match=f"choose adapter={words}."):
        build(name, backbone)


@pytest.mark.parametrize(
    "kind, name, changes, options, words",
    [
        ("sd15", "controlnet", {}, {"hint": "text"}, "one of image, latent"),
        (
            "sd15",
            "controlnet",
            {"layers_per_block": (1, 2)},
            {},
            "cannot be copied into a ControlNet.*choose adapter=lora",
        ),
        ("sd15", "t2i", {}, {"channels": [4]}, r"adapter.channels=\[4\] must have 2 widths"),
        (
            "sd15",
            "t2i",
            {"down_block_types": ("CrossAttnDownBlock2D", "AttnDownBlock2D")},
            {},
            "AttnDownBlock2D",
        ),
        (
            "sd15",
            "lora",
            {},
            {"targets": ["nothing"]},
            r"adapter.targets=\['nothing'\] fits no layer",
        ),
        ("sd3", "lora", {}, {"rank": 0}, "adapter.rank=0"),
        ("sd3", "sd3_controlnet", {"num_layers": 5}, {"layers": 3}, "must be 1 to 2"),
        ("sd3", "sd3_controlnet", {"num_layers": 1}, {}, "of one block"),
    ],
)
def test_options_that_cannot_be_are_refused(frozen, kind, name, changes, options, words):
    with pytest.raises(UserError, match=words):
        build(name, frozen(kind, **changes), **options)


def test_without_peft_the_extra_is_named(frozen, monkeypatch):
    backbone = frozen()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[lora\]"'):
        build("lora", backbone)


@pytest.mark.parametrize("kind, name", CLASSES)
def test_configs_build_them(frozen, kind, name):
    config = OmegaConf.to_container(OmegaConf.load(ROOT / f"configs/adapter/{name}.yaml"))
    adapter = instantiate(config, frozen(kind))
    assert (
        not adapter.anchored
        and adapter.stride
        and getattr(adapter, "image", None)
        == {"controlnet": True, "controlnet_latent": False}.get(name)
    )
