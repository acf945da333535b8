"""Tiny pipelines of the real classes, written with save_pretrained as users' folders are."""

import json

import torch
from conftest import save_backbone, small_unet
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def seeded(cls, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return cls(**options)


def kl(levels=4, **changes):
    """An untrained VAE that shrinks by 2 ** (levels - 1)."""
    options = {
        "block_out_channels": (4, 4, 8, 8, 8)[:levels],
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "sample_size": 32,
        "scaling_factor": 0.18215,
        **changes,
    }
    return seeded(AutoencoderKL, **options)


def tiny_vae(levels=4, **changes):
    options = {
        "encoder_block_out_channels": (8,) * levels,
        "decoder_block_out_channels": (8,) * levels,
        "num_encoder_blocks": (1,) * levels,
        "num_decoder_blocks": (1,) * levels,
        "latent_channels": 4,
        **changes,
    }
    return seeded(AutoencoderTiny, **options)


def conditional_unet(channels=(8, 16), **changes):
    n = len(channels)
    options = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": channels,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        "down_block_types": ("CrossAttnDownBlock2D",) * (n - 1) + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (n - 1),
        **changes,
    }
    return seeded(UNet2DConditionModel, **options)


def transformer(**changes):
    options = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 4,
        "num_attention_heads": 2,
        "joint_attention_dim": 8,
        "caption_projection_dim": 8,
        "pooled_projection_dim": 6,
        "pos_embed_max_size": 32,
        **changes,
    }
    return seeded(SD3Transformer2DModel, **options)


def save(folder, network, vae, scheduler, text=None):
    """Write a pipeline's folder; ``text``: (text encoder, tokenizer) of transformers, saved by the
    pipeline itself."""
    part = "transformer" if isinstance(network, SD3Transformer2DModel) else "unet"
    if text:
        from diffusers import StableDiffusionPipeline

        StableDiffusionPipeline(
            vae, *text, network, scheduler, None, None, requires_safety_checker=False
        ).save_pretrained(folder)
        return folder
    parts = {part: network, "vae": vae, "scheduler": scheduler}
    for name, component in parts.items():
        component.save_pretrained(folder / name)
    index = {name: ["diffusers", type(component).__name__] for name, component in parts.items()}
    kind = "StableDiffusion3Pipeline" if part == "transformer" else "StableDiffusionPipeline"
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": kind, **index, "text_encoder": [None, None]})
    )
    return folder


def save_sd15(folder, channels=(8, 16), vae=None, text=None, **changes):
    """As Stable Diffusion 1.x: eps prediction, its own betas, PNDM's config."""
    return save(
        folder,
        conditional_unet(channels, **changes),
        vae or kl(),
        PNDMScheduler(**STABLE, skip_prk_steps=True, steps_offset=1),
        text,
    )


def save_sd21(folder, channels=(8, 16), vae=None, **changes):
    """As Stable Diffusion 2.x with zero terminal SNR: v prediction, linear projections, heads per
    level."""
    changes = {"use_linear_projection": True, "attention_head_dim": [2] * len(channels)} | changes
    return save(
        folder,
        conditional_unet(channels, **changes),
        vae or kl(),
        DDIMScheduler(**STABLE, prediction_type="v_prediction", rescale_betas_zero_snr=True),
    )


def save_sd3(folder, vae=None, **changes):
    """As Stable Diffusion 3: rectified flow with shift 3, a VAE with a shift and without quant
    convolutions."""
    vae = vae or kl(
        scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
    )
    return save(folder, transformer(**changes), vae, FlowMatchEulerDiscreteScheduler(shift=3.0))


def save_adm(folder, **changes):
    """As ADM: pixels, attention, a learned variance in the last channels."""
    changes = {
        "out_channels": 6,
        "down": ("DownBlock2D", "AttnDownBlock2D"),
        "up": ("AttnUpBlock2D", "UpBlock2D"),
        "resnet_time_scale_shift": "scale_shift",
    } | changes
    return save_backbone(
        folder, small_unet(**changes), DDPMScheduler(variance_type="learned_range"), pipeline=True
    )


SAVE = {"sd15": save_sd15, "sd21": save_sd21, "sd3": save_sd3, "adm": save_adm}


def load(kind, folder, **options):
    """The backbone of such a folder, through the project's own path."""
    from irbridge.backbones.latent import load_latent
    from irbridge.backbones.pixel import load_backbone

    return (load_backbone if kind == "adm" else load_latent)(str(folder), **options)


def text_encoder(folder, width=8, tokens=12):
    """An untrained CLIP text encoder and its tokenizer, which knows the letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = [c + end for end in ("", "</w>") for c in "abcdefghijklmnopqrstuvwxyz"]
    words = [*letters, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=tokens
    )
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokens,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    return seeded(lambda config: CLIPTextModel(config).eval(), config=config), tokenizer
