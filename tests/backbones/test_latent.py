"""Latent backbones on small pipelines of the real classes, against diffusers' own arithmetic."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler
from golden import load as golden
from pipelines import (
    STABLE,
    conditional_unet,
    kl,
    save,
    save_sd3,
    save_sd15,
    save_sd21,
    text_encoder,
    tiny_vae,
    transformer,
)
from pipelines import load as backbone_of
from torch import nn

from irbridge.adapters.base import Adapter, Condition
from irbridge.backbones import pretrained_files
from irbridge.backbones.latent import load_latent
from irbridge.backbones.pixel import load_backbone
from irbridge.bridges.ornstein_uhlenbeck import GOUB, IRSDE
from irbridge.errors import UserError
from irbridge.experiments.build import build_model, describe, from_pretrained, save_pretrained
from irbridge.experiments.config import composed
from irbridge.experiments.run_folder import contradiction
from irbridge.images.tiles import Tiles
from irbridge.models.irbridge import IRBridge
from irbridge.models.timestep_schedule import PAPER, critical
from irbridge.priors.flow import Flow
from irbridge.priors.from_diffusers import prior_from_config

SAVED = {"sd15": save_sd15, "sd21": save_sd21, "sd3": save_sd3}
pytestmark = pytest.mark.filterwarnings("ignore:.*has no text encoder")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "cache"))


class Nothing(Adapter):
    """An adapter without effect."""

    stride = 1

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def condition(self, y, state):
        return Condition(state, None, None)

    def residuals(self, condition, inputs, time, **context):
        return {}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def single(value):
    return torch.tensor(float(value), dtype=torch.float64)


def model_of(backbone, nfe=3, **options):
    return IRBridge(
        backbone, Nothing(), GOUB(lam=0.00784), critical(), "y", {"nfe": nfe}, **options
    )


# The frozen network

SCHEDULERS = {
    "eps": DDPMScheduler(**STABLE, clip_sample=False),
    "v": DDIMScheduler(**STABLE, clip_sample=False, prediction_type="v_prediction"),
    "v, zero terminal SNR": DDIMScheduler(
        **STABLE, clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True
    ),
    "sample, cosine": DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", clip_sample=False, prediction_type="sample"
    ),
    "500 steps": DDIMScheduler(500, clip_sample=False),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
@torch.no_grad()
def test_denoise_is_the_schedulers_own_conversion(tmp_path, kind):
    scheduler, unet = SCHEDULERS[kind], conditional_unet((8, 16, 24))
    backbone = backbone_of("sd15", save(tmp_path, unet, kl(2), scheduler))
    z, empty = noise(2, 4, 6, 10), torch.zeros(2, 1, 8)
    scheduler.set_timesteps(scheduler.config.num_train_timesteps)
    for t in (0, 10, 250, 490):
        expected = scheduler.step(unet(z, t, empty).sample, t, z).pred_original_sample
        got = backbone.denoise(z, single(t))
        assert got.dtype == torch.float32
        assert torch.allclose(got, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max())), t


@torch.no_grad()
def test_the_transformer_is_asked_at_the_shifted_time(tmp_path):
    """diffusers: x0 = z - sigma v, sigma shifted, the timestep 1000 sigma."""
    backbone, network = backbone_of("sd3", save_sd3(tmp_path)), transformer()
    assert isinstance(backbone.prior, Flow) and backbone.prior.shift == 3.0
    z, context = noise(1, 4, 8, 6), (torch.zeros(1, 1, 8), torch.zeros(1, 6))
    for u in (0.2, 0.7, 1.0):
        sigma = 3 * u / (1 + 2 * u)
        expected = z - sigma * network(z, *context, timestep=torch.tensor([1000 * sigma])).sample
        assert torch.allclose(backbone.denoise(z, single(u)), expected, rtol=1e-4, atol=1e-4), u


def test_a_solvers_scheduler_may_hide_a_flow():
    config = dict(
        UniPCMultistepScheduler(
            use_flow_sigmas=True, flow_shift=2.0, prediction_type="flow_prediction"
        ).config
    )
    prior = prior_from_config(config | {"_class_name": "UniPCMultistepScheduler"})
    assert isinstance(prior, Flow) and prior.shift == 2.0
    euler = prior_from_config(
        dict(EulerDiscreteScheduler(**STABLE).config) | {"_class_name": "EulerDiscreteScheduler"}
    )
    assert np.allclose(
        euler.log_level, prior_from_config(dict(DDPMScheduler(**STABLE).config)).log_level
    )


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_on_a_flows_path_a_network_may_predict_anything(kind):
    scheduler = UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type=kind)
    prior = prior_from_config(dict(scheduler.config) | {"_class_name": "UniPCMultistepScheduler"})
    scheduler.set_timesteps(10)
    z, output, index = noise(2, 4, 4, 4), noise(2, 4, 4, 4, seed=1), 4
    sigma = float(scheduler.sigmas[index])
    scheduler._step_index = index
    level = sigma / (1 - sigma)
    tau = prior.timestep(level)
    assert float(prior.network_input(z, tau)[1]) == pytest.approx(1000 * sigma, rel=1e-4)
    wanted = scheduler.convert_model_output(output, sample=z)
    assert torch.allclose(prior.clean(z, output, tau), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "EulerDiscreteScheduler", "beta_start": 0.1, "timestep_type": "continuous"},
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True},
        {"_class_name": "DDPMWuerstchenScheduler"},
        {"_class_name": "EDMEulerScheduler", "prediction_type": "sample"},
    ],
)
def test_schedulers_of_other_conventions_are_refused(config):
    with pytest.raises(UserError, match="scheduler"):
        prior_from_config(config)


def test_zero_terminal_snr_ends_before_the_level_without_signal(tmp_path):
    prior = backbone_of("sd21", save_sd21(tmp_path)).prior
    assert prior.highest == 998 and torch.isfinite(prior.marginal(prior.highest).level)


@torch.no_grad()
def test_what_an_adapter_returns_reaches_the_network_in_its_type(tmp_path):
    unet = conditional_unet()
    backbone = backbone_of("sd15", save_sd15(tmp_path), dtype="bfloat16")
    assert backbone.network.dtype == backbone.vae.dtype == torch.bfloat16
    seen = []

    def residuals(inputs, time, encoder_hidden_states):
        seen.append((inputs.dtype, encoder_hidden_states.dtype))
        return {"input": torch.ones(1, 8, 4, 4)}

    z = noise(1, 4, 4, 4)
    got = backbone.denoise(z, single(100), residuals)
    assert seen == [(torch.bfloat16, torch.bfloat16)] and got.dtype == torch.float32
    unet.conv_in.bias += 1  # the same as adding ones to its output
    m = backbone.prior.marginal(100)
    expected = (z - m.noise.float() * unet(z, 100, torch.zeros(1, 1, 8)).sample) / m.clean.float()
    assert torch.allclose(got, expected, atol=0.05)
    assert not torch.allclose(backbone.denoise(z, single(100)), expected, atol=0.05)


# The VAE


@pytest.mark.parametrize("kind, scale, shift", [("sd15", 0.18215, 0.0), ("sd3", 1.5305, 0.0609)])
@torch.no_grad()
def test_states_are_scaled_and_shifted_modes(tmp_path, kind, scale, shift):
    backbone = backbone_of(kind, SAVED[kind](tmp_path))
    vae, image = backbone.vae, noise(2, 3, 32, 48).clamp(-1, 1)
    state = backbone.encode(image)
    assert torch.allclose(state, (vae.encode(image).latent_dist.mean - shift) * scale, atol=1e-6)
    assert torch.allclose(
        backbone.decode(state), vae.decode(state / scale + shift).sample, atol=1e-6
    )
    # whatever the batch, but for rounding: processors may add in another order
    assert torch.allclose(backbone.encode(image[1:]), state[1:], atol=1e-5)


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("vae", [kl, tiny_vae])
@torch.no_grad()
def test_every_vae_and_factor_restores_odd_sizes(tmp_path, vae, levels):
    backbone = backbone_of("sd15", save_sd15(tmp_path, vae=vae(levels)))
    model = model_of(backbone)
    assert backbone.factor == backbone.stride == 2 ** (levels - 1) == model.stride
    assert model.state_shape((3, 32, 64)) == (4, 32 // backbone.factor, 64 // backbone.factor)
    image = np.random.default_rng(0).random((37, 51, 3), dtype=np.float32)
    model.restore(image, tiles=Tiles(32, 16))
    restored = model.restore(image)
    assert (
        restored.shape == image.shape
        and np.isfinite(restored).all()
        and restored.min() >= 0
        and restored.max() <= 1
    )


def test_another_vae_of_the_same_latents(tmp_path):
    folder = save_sd15(tmp_path / "pipeline")
    tiny_vae().save_pretrained(tmp_path / "tiny")
    backbone = load_latent(str(folder), vae=str(tmp_path / "tiny"))
    assert (
        type(backbone.vae).__name__ == "AutoencoderTiny"
        and backbone.digest != load_latent(str(folder)).digest
    )
    tiny_vae(latent_channels=8).save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError, match="8 latent channels.*takes 4"):
        load_latent(str(folder), vae=str(tmp_path / "wide"))


def test_a_vae_that_overflows_stays_float32(tmp_path):
    backbone = backbone_of("sd15", save_sd15(tmp_path), dtype="float16")
    assert backbone.network.dtype == torch.float16 and backbone.vae.dtype == torch.float32
    # not rounded before
    assert all(torch.equal(v, kl().state_dict()[k]) for k, v in backbone.vae.state_dict().items())
    with pytest.raises(UserError, match="dtype=int8.*bfloat16"):
        backbone_of("sd15", tmp_path, dtype="int8")


@pytest.mark.parametrize("kind", SAVED)
@torch.no_grad()
def test_large_images_go_in_tiles_also_through_the_vae(tmp_path, kind):
    """A flat image has no seams to show: each tile says the same, so the tiled result is about the
    untiled one."""
    model = model_of(backbone_of(kind, SAVED[kind](tmp_path)))
    sizes = []
    for part in (model.backbone.vae.encoder, model.backbone.vae.decoder):
        part.register_forward_pre_hook(lambda module, args: sizes.append(max(args[0].shape[-2:])))
    y = noise(1, 3, 150, 90).clamp(-1, 1)
    tiled = model.restore(y, tiles=Tiles(64, 16))
    assert tiled.shape == y.shape and tiled.isfinite().all() and max(sizes) <= 64
    again = model.restore(y, tiles=Tiles(64, 16))
    assert torch.equal(tiled, again)
    sizes.clear()
    model.restore(y)
    assert max(sizes) > 64  # tiling is off again


@torch.no_grad()
def test_tiles_of_states_cut_where_tiles_of_pixels_do():
    for size, overlap, factor in ((512, 64, 8), (96, 20, 8), (64, 16, 4)):
        tiles, states = Tiles(size, overlap), Tiles(size, overlap).of_states(factor)
        for height, width in ((512, 768), (1000, 520), (64, 64)):
            assert tiles.count(height, width, factor) == states.count(
                -(-height // factor), -(-width // factor), 1
            )
    assert Tiles(None).of_states(8).size is None
    # also where eighths would no longer overlap by half
    assert Tiles(100, 50).of_states(8).sides == (12, 12)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {
            "down_block_types": ("SimpleCrossAttnDownBlock2D",) * 2,
            "up_block_types": ("SimpleCrossAttnUpBlock2D",) * 2,
        },
        {
            "down_block_types": ("ResnetDownsampleBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        },
        {"downsample_padding": 0},
        {"cross_attention_dim": [8, 8]},
    ],
)
def test_unets_whose_blocks_cannot_interpolate(tmp_path, changes):
    backbone = backbone_of("sd15", save_sd15(tmp_path, vae=kl(2), **changes))
    assert backbone.stride == (2 if "cross_attention_dim" in changes else 4)
    assert model_of(backbone).restore(noise(1, 3, 33, 47).clamp(-1, 1)).shape == (1, 3, 33, 47)


@torch.no_grad()
def test_an_image_beyond_a_transformers_positions_wants_tiles(tmp_path):
    model = model_of(backbone_of("sd3", save_sd3(tmp_path, pos_embed_max_size=4)))
    y = noise(1, 3, 80, 64).clamp(-1, 1)
    with pytest.raises(UserError, match="80 x 64 pixels.*64 x 64.*tile=64"):
        model.restore(y)
    assert model.restore(y, tiles=Tiles(64, 16)).shape == y.shape


# Prompts


def test_the_prompts_embedding_is_computed_once_and_the_encoder_is_not_kept(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    encoder, tokenizer = text_encoder(tmp_path / "text")
    folder = save_sd15(tmp_path / "pipeline", text=(encoder, tokenizer))
    tokens = tokenizer("", padding="max_length", max_length=12, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = encoder(tokens)[0]
    backbone = load_latent(str(folder))
    found = backbone.contexts[0].encoder_hidden_states
    assert torch.allclose(found, expected, atol=1e-5) and not any(
        "text_" in name for name, _ in backbone.named_modules()
    )

    def refuse(*args, **options):
        raise AssertionError("the text encoder was loaded again")

    monkeypatch.setattr(transformers.CLIPTextModel, "from_pretrained", refuse)
    assert torch.equal(load_latent(str(folder)).contexts[0].encoder_hidden_states, found)
    with pytest.raises(UserError, match="text encoder.*again"):
        load_latent(str(folder), prompt="a photo")


@torch.no_grad()
def test_guidance_extrapolates_from_the_negative_prompt(tmp_path):
    pytest.importorskip("transformers")
    folder = save_sd15(tmp_path / "pipeline", text=text_encoder(tmp_path / "text"))
    alone = {p: load_latent(str(folder), prompt=p) for p in ("clean", "blur")}
    guided = load_latent(str(folder), prompt="clean", negative="blur", guidance=3.0)
    z = noise(1, 4, 4, 4)
    a, b = (alone[p].denoise(z, single(300)) for p in ("blur", "clean"))
    assert not torch.allclose(a, b, atol=1e-4)
    assert torch.allclose(guided.denoise(z, single(300)), a + 3 * (b - a), atol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_latent(str(folder), prompt="clean")


def test_without_a_text_encoder_zeros_and_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="no text encoder.*zeros"):
        backbone = load_latent(str(save_sd3(tmp_path)))
    tensors = dict(backbone.contexts[0].named_buffers())
    assert {k: v.shape for k, v in tensors.items()} == {
        "encoder_hidden_states": (1, 1, 8),
        "pooled_projections": (1, 6),
    }
    assert not any(v.any() for v in tensors.values())


def sd3_text(folder, vae=None):
    """A pipeline of SD3 with its two CLIP encoders, and a T5 that is named but not there."""
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    encoder, tokenizer = text_encoder(folder / "text")
    encoder.config.projection_dim = 3
    encoders = [CLIPTextModelWithProjection(encoder.config).eval() for _ in range(2)]
    network = transformer(joint_attention_dim=20, caption_projection_dim=8)
    pipeline = StableDiffusion3Pipeline(
        network,
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae or kl(),
        encoders[0],
        tokenizer,
        encoders[1],
        tokenizer,
        None,
        None,
    )
    pipeline.save_pretrained(folder / "pipeline")  # T5 is None
    return folder / "pipeline", encoders, tokenizer


@torch.no_grad()
def test_sd3_without_t5_has_zeros_in_its_place(tmp_path):
    pytest.importorskip("transformers")
    folder, encoders, tokenizer = sd3_text(tmp_path)
    tensors = dict(
        load_latent(str(folder), skip=["text_encoder_3", "tokenizer_3"]).contexts[0].named_buffers()
    )
    assert all(
        torch.equal(v, tensors[k]) for k, v in load_latent(str(folder)).contexts[0].named_buffers()
    )
    tokens = tokenizer(
        "", padding="max_length", max_length=12, truncation=True, return_tensors="pt"
    ).input_ids
    said = [e(tokens, output_hidden_states=True) for e in encoders]
    clip = torch.cat([s.hidden_states[-2] for s in said], dim=-1)
    assert torch.allclose(
        tensors["pooled_projections"], torch.cat([s[0] for s in said], dim=-1), atol=1e-5
    )
    assert torch.allclose(tensors["encoder_hidden_states"][:, :12, :16], clip, atol=1e-5)
    assert not tensors["encoder_hidden_states"][:, 12:].any() and tensors[
        "encoder_hidden_states"
    ].shape == (1, 268, 20)


def test_an_adapter_is_not_used_with_another_embedding(tmp_path, monkeypatch):
    """Zeros for what was a prompt, or the other way round, are told from the weights' hash, which
    is the same."""
    pytest.importorskip("transformers")
    folder = save_sd15(tmp_path / "pipeline", text=text_encoder(tmp_path / "text"))
    config = composed("train", "backbone=sd15", f"backbone.pretrained={folder}", "name=x")
    model = build_model(config)
    save_pretrained(model, tmp_path / "run", describe(config, model))
    assert from_pretrained(tmp_path / "run").backbone.digest == model.backbone.digest
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / part)
    # from the cache
    assert from_pretrained(tmp_path / "run").backbone.digest == model.backbone.digest
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "another"))
    with pytest.raises(UserError, match="embedding.*not the one"):
        from_pretrained(tmp_path / "run")
    recorded, now = (
        json.loads(json.dumps(describe(config, m))) for m in (model, build_model(config))
    )
    assert "signature was" in contradiction(recorded, now) and not contradiction(recorded, recorded)


def test_a_pipeline_that_does_not_name_its_encoders_is_refused(tmp_path):
    (save_sd15(tmp_path) / "model_index.json").unlink()
    load_latent(str(tmp_path))  # it has none
    (tmp_path / "text_encoder").mkdir()
    with pytest.raises(UserError, match="model_index.json is missing"):
        load_latent(str(tmp_path))


# Mistakes


def broken(folder, part, change):
    path = folder / part
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize(
    "part, change, words",
    [
        (
            "unet/config.json",
            {"_class_name": "UNet3DConditionModel"},
            ["UNet3DConditionModel", "UNet2DConditionModel"],
        ),
        (
            "unet/config.json",
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 56,
            },
            ["unet"],
        ),
        (
            "vae/config.json",
            {"_class_name": "VQModel"},
            ["VQModel", "AutoencoderKL or AutoencoderTiny"],
        ),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "score"},
            ["score", "v_prediction"],
        ),
    ],
)
def test_parts_that_are_not_covered(tmp_path, part, change, words):
    broken(save_sd15(tmp_path), part, change)
    with pytest.raises(UserError) as failure:
        load_latent(str(tmp_path))
    text = str(failure.value)
    assert all(word in text for word in words) and "\n" not in text and text.endswith("."), text


def test_a_vae_of_other_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="3 channels"):
        load_latent(str(save_sd15(tmp_path, vae=kl(2, in_channels=1, out_channels=1))))


def test_sdxl_is_refused_by_name():
    from irbridge.backbones.latent import _covered

    unet = conditional_unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=56,
    )
    with pytest.raises(UserError, match="addition_embed_type=text_time.*SDXL"):
        _covered(unet, "unet")


def test_a_pixel_model_is_no_pipeline(backbone_folder):
    with pytest.raises(UserError, match="backbone=embedded backbone.pretrained"):
        load_latent(str(backbone_folder))


def error_of(kind):
    from httpx import Request, Response
    from huggingface_hub import errors

    response = Response(403, request=Request("GET", "https://huggingface.co/owner/model"))
    return {
        "gated": lambda: errors.GatedRepoError("401", response=response),
        "unknown": lambda: errors.RepositoryNotFoundError("404", response=response),
        "offline": lambda: errors.LocalEntryNotFoundError("no connection"),
        "refused": lambda: ConnectionError("refused"),
    }[kind]()


@pytest.mark.parametrize(
    "kind, words",
    [
        (
            "gated",
            [
                "is gated",
                "https://huggingface.co/owner/model",
                "hf auth login",
                "hf download owner/model",
                "HF_HOME",
            ],
        ),
        ("unknown", ["spelling", "hf auth login", "folder"]),
        (
            "offline",
            ["hf download owner/model --local-dir DIR", "backbone.pretrained=DIR", "HF_HOME"],
        ),
        ("refused", ["ConnectionError", "HF_HOME"]),
    ],
)
@pytest.mark.parametrize("loader", [load_latent, load_backbone])
def test_the_hub_refuses_in_one_sentence(monkeypatch, kind, words, loader):
    import huggingface_hub

    asked = []

    def refuse(name, **options):
        asked.append(options)
        raise error_of(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError) as failure:
        loader("owner/model")
    text = str(failure.value)
    assert (
        all(word in text for word in ["owner/model", *words])
        and "\n" not in text
        and text.endswith(".")
    ), text
    assert any("unet/*.safetensors" in p for p in asked[0]["allow_patterns"])


def test_only_what_is_needed_is_downloaded(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    there = [
        "model_index.json",
        "v1-5-pruned.safetensors",
        "v1-5.ckpt",
        "unet/config.json",
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "vae/config.json",
        "scheduler/scheduler_config.json",
        "safety_checker/model.safetensors",
    ]
    wanted = []

    def download(name, allow_patterns, ignore_patterns):
        wanted.extend(
            filter_repo_objects(
                there, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            )
        )
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match="not completely in the cache .unet/config.json"):
        load_latent("owner/model")
    assert sorted(wanted) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
    ]


def test_a_digest_is_that_of_the_weights_that_are_read(tmp_path):
    digest = pretrained_files.digest(save_sd15(tmp_path) / "unet")
    (tmp_path / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"another copy")
    assert pretrained_files.digest(tmp_path / "unet") == digest
    (tmp_path / "unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match='only the variant "fp16"'):
        load_latent(str(tmp_path))
    (tmp_path / "unet/diffusion_pytorch_model.bin").touch()
    with pytest.raises(UserError, match="only pickled weights"):
        load_latent(str(tmp_path))


@pytest.mark.parametrize("lost", ["vae", "scheduler", "unet"])
def test_a_cache_that_holds_a_part_of_a_model(tmp_path, monkeypatch, lost):
    import huggingface_hub

    shutil.rmtree(save_sd15(tmp_path) / lost)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **patterns: str(tmp_path)
    )
    with pytest.raises(UserError, match=f"not completely in the cache .{lost}/.*connection"):
        load_latent("owner/model")
    with pytest.raises(UserError, match="whole" if lost != "unet" else "neither unet/config.json"):
        load_latent(str(tmp_path))


def test_a_bare_models_top_folder_is_fetched_by_name(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    there = [
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "scheduler_config.json",
        "v1-5-pruned.safetensors",
        "text_encoder/model.safetensors",
        "safety_checker/model.safetensors",
        "taesd_decoder.safetensors",
    ]
    wanted = []
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **p: wanted.extend(filter_repo_objects(there, **p)) or str(tmp_path),
    )
    with pytest.raises(UserError, match="config.json is missing"):
        load_backbone("owner/model")
    assert wanted == there[:3]


# The paper's schedules, of the scheduler that Stable Diffusion v1-5 comes with


@pytest.fixture(scope="module")
def sd15_prior(tmp_path_factory):
    return backbone_of("sd15", save_sd15(tmp_path_factory.mktemp("sd15"))).prior


@pytest.mark.parametrize("lam", [1, 2, 3, 4, 5])
def test_critical_timesteps_of_the_golden_table(sd15_prior, lam):
    wanted = golden("irbridge_derived")["critical_timesteps"][f"irsde_lambda{lam}"]["sd15"]
    bridge = IRSDE(lam=lam / 255)
    found = sd15_prior.critical_index(bridge.marginal(np.arange(1, 101)))
    assert found.tolist() == wanted


def test_task_schedules_are_the_figures(sd15_prior):
    bridge = IRSDE(lam=2 / 255)

    def at(name, i):
        return float(PAPER[name](bridge, sd15_prior, float(i)))

    crit = golden("irbridge_derived")["critical_timesteps"]["irsde_lambda2"]["sd15"]
    for i in (30, 60, 100):
        assert abs(at("derain", i) - (crit[i - 1] + 3 * i)) < 8
        assert abs(at("desnow", i) - max(1 + 549 * (i - 1) / 99, crit[i - 1])) < 8
    assert abs(at("lowlight", 100) - 850) < 1 and abs(at("lowlight", 50) - 800) < 1
    assert abs(at("inpaint", 100) - 800) < 1 and abs(at("inpaint", 30) - 400) < 1
    assert abs(at("dehaze", 100) - (crit[99] + 195)) < 8
