"""A pipeline's folder from outside: safetensors alone, known classes alone, no code of its own."""

import json
import os

import pytest
import torch
from pipelines import save_sd15, text_encoder

from irbridge.backbones.latent import load_latent
from irbridge.backbones.pixel import load_backbone
from irbridge.errors import UserError


class Payload:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A whole pipeline with a text encoder, whose prompts are not in the cache."""
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "cache"))
    return save_sd15(tmp_path / "pipeline", text=text_encoder(tmp_path / "text"))


def changed(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_pipeline_itself_loads(pipeline):
    assert load_latent(str(pipeline)).contexts


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_pickled_parts_are_never_read(pipeline, tmp_path, part):
    for weights in (pipeline / part).glob("*.safetensors"):
        weights.unlink()
    stem = "pytorch_model" if part == "text_encoder" else "diffusion_pytorch_model"
    torch.save(Payload(tmp_path / "PWNED"), pipeline / part / f"{stem}.bin")
    with pytest.raises(UserError, match=part):
        load_latent(str(pipeline))
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    "key, value",
    [
        ("text_encoder", ["evil", "CLIPTextModel"]),
        ("text_encoder", ["transformers", "AutoModel"]),
        ("text_encoder", ["transformers", "pipeline"]),
        ("text_encoder", ["transformers", ["CLIPTextModel"]]),
        ("text_encoder", ["transformers"]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
        ("tokenizer", ["os", "system"]),
        ("scheduler", ["evil", "PNDMScheduler"]),
        ("scheduler", ["diffusers", "DiffusionPipeline"]),
        ("_class_name", "DiffusionPipeline"),
        ("_class_name", "AutoPipelineForText2Image"),
        ("_class_name", "utils"),
        ("_class_name", ["pipeline.py", "Mine"]),
        ("_class_name", None),
        ("custom_pipelines", {"x": "y"}),
    ],
)
def test_an_index_names_known_classes_alone(pipeline, tmp_path, key, value):
    (pipeline / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'PWNED')!r})")
    changed(pipeline / "model_index.json", **{key: value})
    with pytest.raises(UserError, match=rf"model_index.json: {key}"):
        load_latent(str(pipeline))
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("key", ["auto_map", "quantization_config", "attn_implementation"])
def test_a_parts_config_names_no_other_code_or_weights(pipeline, part, key):
    changed(pipeline / part / "config.json", **{key: {"AutoModel": "evil--mine.Mine"}})
    with pytest.raises(UserError, match=rf"{part}/config.json: {key} is not covered"):
        load_latent(str(pipeline))


def test_an_encoders_adapter_is_refused(pipeline):
    (pipeline / "text_encoder/adapter_config.json").write_text('{"base_model_name_or_path": "x"}')
    with pytest.raises(UserError, match="adapter_config.json would load other weights"):
        load_latent(str(pipeline))


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": "DiffusionPipeline"},
        {"_class_name": "utils"},
        {"_class_name": ["x.py", "Mine"]},
        {"_class_name": None},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": 10**12},
        {"beta_start": float("nan")},
        {"beta_end": "x"},
        {"trained_betas": ["x"]},
        {"prediction_type": 5},
    ],
    ids=str,
)
def test_a_schedulers_config_is_checked(backbone_folder, tmp_path, changes):
    import shutil

    folder = shutil.copytree(backbone_folder, tmp_path / "b")
    changed(folder / "scheduler_config.json", **changes)
    with pytest.raises(UserError, match=f"scheduler_config.json: {next(iter(changes))}"):
        load_backbone(str(folder))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_neither_does_a_list_within_it(pipeline, part):
    changed(pipeline / part / "config.json", parts=[[{"auto_map": {"A": "evil--mine.Mine"}}]])
    with pytest.raises(UserError, match=rf"{part}/config.json: auto_map is not covered"):
        load_latent(str(pipeline))
