"""Loading frozen networks: every layout, every prediction type against diffusers, one sentence for
every failure."""

import json

import pytest
import torch
from conftest import ROOT, save_backbone, small_unet
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    PNDMScheduler,
    ScoreSdeVeScheduler,
    UNet2DModel,
)
from safetensors.torch import load_file, save_file

from irbridge.backbones.pixel import PixelBackbone, load_backbone, skip_layout
from irbridge.errors import UserError
from irbridge.priors.from_diffusers import prior_from_config
from irbridge.priors.ve import VE
from irbridge.priors.vp import VP

TIMES = (0, 10, 400, 999)


def state(unet, size=(16, 24), seed=1):
    return torch.randn(
        2, unet.config.in_channels, *size, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("pipeline", [False, True])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@torch.no_grad()
def test_denoise_is_the_schedulers_own_conversion(tmp_path, kind, pipeline):
    unet = small_unet()
    scheduler = DDPMScheduler(
        prediction_type=kind,
        clip_sample=False,
        beta_schedule="squaredcos_cap_v2" if pipeline else "linear",
    )
    backbone = load_backbone(str(save_backbone(tmp_path, unet, scheduler, pipeline)))
    z = state(unet)
    for t in TIMES[:3]:
        expected = scheduler.step(unet(z, t).sample, t, z).pred_original_sample
        got = backbone.denoise(z, torch.tensor(float(t), dtype=torch.float64))
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4), t


@torch.no_grad()
def test_each_image_of_a_batch_has_its_own_timestep(backbone):
    z, taus = state(backbone.network), torch.tensor([50.0, 700.0], dtype=torch.float64)
    alone = torch.cat([backbone.denoise(z[i : i + 1], taus[i]) for i in range(2)])
    assert torch.allclose(backbone.denoise(z, taus), alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_learned_variance_is_dropped(tmp_path):
    unet = small_unet(out_channels=6)
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    backbone = load_backbone(str(save_backbone(tmp_path, unet, scheduler)))
    z = state(unet)
    expected = scheduler.step(unet(z, 300).sample, 300, z).pred_original_sample
    assert torch.allclose(backbone.denoise(z, torch.tensor(300.0)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_edm_preconditioning(tmp_path, kind):
    unet = small_unet()
    scheduler = EDMEulerScheduler(prediction_type=kind)
    backbone = load_backbone(str(save_backbone(tmp_path, unet, scheduler)))
    assert isinstance(backbone.prior, VE)
    z = state(unet)
    for sigma in (0.01, 0.7, 30.0):
        sigma = torch.tensor(sigma)
        output = unet(
            scheduler.precondition_inputs(z, sigma), scheduler.precondition_noise(sigma)
        ).sample
        expected = scheduler.precondition_outputs(z, output, sigma)
        assert torch.allclose(backbone.denoise(z, sigma.double()), expected, rtol=1e-4, atol=1e-5)


SHAPES = {
    "attention below": {
        "down": ("DownBlock2D", "AttnDownBlock2D"),
        "up": ("AttnUpBlock2D", "UpBlock2D"),
    },
    "asymmetric": {
        "down": ("AttnDownBlock2D", "DownBlock2D"),
        "up": ("UpBlock2D", "UpBlock2D"),
        "add_attention": True,
    },
    "resnet samplers": {
        "down": ("ResnetDownsampleBlock2D", "DownBlock2D"),
        "up": ("UpBlock2D", "ResnetUpsampleBlock2D"),
    },
    "four levels": {"channels": (8, 8, 16, 16), "layers_per_block": 2},
}


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_skip_layout_is_what_the_encoder_makes(shape):
    unet = small_unet(**SHAPES[shape])
    made = []
    handles = [unet.conv_in.register_forward_hook(lambda m, a, out: made.append(out))]
    handles += [
        b.register_forward_hook(lambda m, a, out: made.extend(out[1])) for b in unet.down_blocks
    ]
    handles += [unet.mid_block.register_forward_hook(lambda m, a, out: made.append(out))]
    unet(state(unet, (16, 16)), 5)
    assert skip_layout(unet) == [(m.shape[1], 16 // m.shape[-1]) for m in made]


def test_frozen_and_recorded(backbone, backbone_folder, tmp_path):
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone.train().training and not backbone.network.training
    assert backbone.name == str(backbone_folder) and len(backbone.digest) == 64
    other = small_unet()
    with torch.no_grad():
        other.conv_out.bias += 1
    assert load_backbone(str(save_backbone(tmp_path, other))).digest != backbone.digest


def test_ddim_config_is_read_too(tmp_path):
    assert isinstance(
        load_backbone(
            str(save_backbone(tmp_path, None, DDIMScheduler(num_train_timesteps=500)))
        ).prior,
        VP,
    )


@torch.no_grad()
def test_embedded_prior_is_an_ordinary_diffusers_model():
    folder = ROOT / "data/prior"
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 40e6
    plain, embedded = UNet2DModel.from_pretrained(folder), load_backbone()
    assert all(
        torch.equal(v.float(), embedded.network.state_dict()[k])
        for k, v in plain.state_dict().items()
    )
    s = embedded.stride
    for size in ((s, s), (3 * s, 2 * s)):
        out = embedded.denoise(state(plain, size), torch.tensor(100.0))
        assert out.shape == (2, 3, *size) and out.isfinite().all()


def test_embedded_prior_denoises(images):
    from irbridge.data.image_source import ImageSource
    from irbridge.gaussian.marginal import draw
    from irbridge.images.arrays import to_tensor

    backbone = load_backbone()
    clean = to_tensor(ImageSource(images)[0])[None]
    tau = backbone.prior.timestep(2 * 25 / 255)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        restored = backbone.denoise(draw(backbone.prior.marginal(tau), clean, clean, noise), tau)
    assert (restored - clean).square().mean() < 0.2 * (2 * 25 / 255) ** 2


def one_sentence(failure, *words):
    text = str(failure.value)
    assert "\n" not in text and text.endswith(".") and "Traceback" not in text
    for word in words:
        assert word in text, text


def test_missing_model_names_the_hub_and_its_cache(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as failure:
        load_backbone("nobody/no-such-model")
    one_sentence(failure, "nobody/no-such-model", "hub", "HF_HOME")


def test_missing_folder(tmp_path):
    with pytest.raises(UserError) as failure:
        load_backbone(str(tmp_path / "nothing"))
    one_sentence(failure, "nothing", "hub", "HF_HOME")


def test_empty_folder(tmp_path):
    with pytest.raises(UserError) as failure:
        load_backbone(str(tmp_path))
    one_sentence(failure, str(tmp_path / "config.json"))


def test_model_of_another_class(tmp_path):
    save_backbone(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"_class_name": "UNet2DConditionModel"})
    )
    with pytest.raises(UserError) as failure:
        load_backbone(str(tmp_path))
    one_sentence(failure, "UNet2DConditionModel")


@pytest.mark.parametrize(
    "file, text",
    [
        ("config.json", "{"),
        ("scheduler_config.json", "[1"),
        ("config.json", '"a string"'),
        ("scheduler_config.json", "[]"),
        ("diffusion_pytorch_model.safetensors", "nonsense"),
    ],
)
def test_corrupt_files(tmp_path, file, text):
    save_backbone(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError) as failure:
        load_backbone(str(tmp_path))
    one_sentence(failure, str(tmp_path))


def test_truncated_weights(tmp_path):
    path = save_backbone(tmp_path) / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError) as failure:
        load_backbone(str(tmp_path))
    one_sentence(failure, str(tmp_path), "save_pretrained")


def test_missing_tensor(tmp_path):
    path = save_backbone(tmp_path) / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_out.weight"]
    save_file(weights, path)
    with pytest.raises(UserError) as failure:
        load_backbone(str(tmp_path))
    one_sentence(failure, str(tmp_path), "conv_out.weight is missing")


def test_missing_scheduler(tmp_path):
    (save_backbone(tmp_path) / "scheduler_config.json").unlink()
    with pytest.raises(UserError) as failure:
        load_backbone(str(tmp_path))
    one_sentence(failure, "scheduler_config.json")


def test_scheduler_that_is_not_covered(tmp_path):
    with pytest.raises(UserError) as failure:
        load_backbone(str(save_backbone(tmp_path, None, ScoreSdeVeScheduler())))
    one_sentence(failure, "ScoreSdeVeScheduler")
    PNDMScheduler().save_pretrained(tmp_path)
    assert isinstance(load_backbone(str(tmp_path)).prior, VP)


def test_prediction_type_that_is_not_covered():
    with pytest.raises(UserError) as failure:
        PixelBackbone(small_unet(), prior_from_config({"prediction_type": "score"}))
    one_sentence(failure, "score", "v_prediction")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"mid_block_type": None}, "a middle block"),
        ({"time_embedding_type": "fourier"}, "sinusoidal times"),
        ({"in_channels": 1, "out_channels": 1}, "3 channels"),
        ({"num_class_embeds": 3}, "no classes"),
        ({"down": ("SkipDownBlock2D", "DownBlock2D")}, "no Skip or K blocks"),
    ],
)
def test_networks_that_cannot_be_driven_are_refused(tmp_path, changes, words):
    with pytest.raises(UserError) as failure:
        load_backbone(str(save_backbone(tmp_path, small_unet(**changes))))
    one_sentence(failure, words, "choose another")
