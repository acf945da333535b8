"""Train, evaluate and restore with latent and hub-like backbones, as a user types it, on tiny
pipelines."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, save_images
from pipelines import SAVE, save_sd15, tiny_vae
from safetensors import safe_open

from irbridge import read_image
from irbridge.experiments.build import from_pretrained

pytestmark = pytest.mark.filterwarnings("ignore:.*has no text encoder")
CASES = {
    "sd15": ["backbone=sd15", "task=derain"],
    "sd21": ["backbone=sd21", "task=lowlight", "adapter=controlnet_latent", "bridge=ou"],
    "sd3": ["backbone=sd3", "task=inpaint", "data.cache_latents=true"],
    "adm": ["backbone=celebahq256", "task=dehaze"],
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "cache"))


def keys(path):
    with safe_open(path, "pt") as file:
        return list(file.keys())


@pytest.mark.parametrize("kind", CASES)
def test_train_evaluate_and_restore(kind, command, tmp_path):
    words = [
        *CASES[kind],
        f"backbone.pretrained={SAVE[kind](tmp_path / kind)}",
        "debug=default",
        "trainer.device=cpu",
        "baseline=false",
        "evaluate.all_rows=false",
        "trainer.sample_every=9",
    ]
    status, printed, error = command("train", *words)
    assert status == 0, error
    table = printed.split("Wrote:")[0]
    # again: nothing is done twice
    assert "IRBridge" in table and command("train", *words)[1].split("Wrote:")[0] == table
    run = next((tmp_path / "runs").iterdir())
    backbone = json.loads((run / "config.json").read_text())["backbone"]
    assert backbone["pretrained"] == str(tmp_path / kind) and len(backbone["digest"]) == 64
    model = from_pretrained(run)
    trained = keys(run / "model.safetensors")
    assert set(trained) == set(model.adapter.state_dict())
    assert len(list(run.glob("checkpoints/step-*"))) == 1
    assert set(keys(next(run.glob("checkpoints/step-*")) / "model.safetensors")) == set(trained)
    status, printed, error = command(
        "evaluate", f"run={run}", "size=48", "limit=1", "sampler.nfe=3", "all_rows=false"
    )
    assert status == 0 and "3 calls" in printed, error
    photo = save_images(tmp_path / "photos", 1, (75, 101)) / "0.png"
    status, _, error = command(
        "restore",
        f"run={run}",
        f"input={photo}",
        f"output={tmp_path / 'out.png'}",
        "tile=64",
        "overlap=16",
        "save_path=true",
    )
    restored = read_image(tmp_path / "out.png")
    assert (
        status == 0
        and restored.shape == (75, 101, 3)
        and not np.allclose(restored, read_image(photo))
    ), error
    assert (tmp_path / "out-path.png").exists()


def test_other_weights_than_trained_on_are_refused(command, tmp_path):
    words = [
        "backbone=sd15",
        f"backbone.pretrained={save_sd15(tmp_path / 'a')}",
        "debug=default",
        "trainer.device=cpu",
        "evaluate.enabled=false",
    ]
    assert command("train", *words)[0] == 0
    run = tmp_path / "runs/derain-debug"
    save_sd15(tmp_path / "a", channels=(8, 24))
    status, _, error = command("evaluate", f"run={run}")
    assert status == 2 and "other weights" in error and error.count("\n") == 1


def test_a_frozen_model_that_has_moved(command, tmp_path):
    words = ["backbone=sd15", "debug=default", "trainer.device=cpu", "evaluate.enabled=false"]
    assert command("train", *words, f"backbone.pretrained={save_sd15(tmp_path / 'a')}")[0] == 0
    run, photo = tmp_path / "runs/derain-debug", save_images(tmp_path / "photos", 1) / "0.png"
    (tmp_path / "a").rename(tmp_path / "b")
    status, _, error = command("restore", f"run={run}", f"input={photo}")
    assert status == 2 and "neither a folder here" in error
    here = f"backbone.pretrained={tmp_path / 'b'}"
    assert command("restore", f"run={run}", f"input={photo}", here)[0] == 0
    assert command("evaluate", f"run={run}", "size=32", "limit=1", "all_rows=false", here)[0] == 0
    # it goes on, as the weights are the same
    status, printed, error = command("train", *words, here)
    assert status == 0 and (run / "checkpoints/step-00000003").exists(), error


@pytest.mark.parametrize(
    "words, said",
    [
        (["backbone=sd15", "adapter=static"], ["latent", "controlnet"]),
        (["adapter=controlnet", "endpoint=y"], ["UNet2DModel", "static"]),
        (["backbone=sd15", "endpoint=anchor"], ["endpoint=anchor", "endpoint=y"]),
        (["data.cache_latents=true"], ["cache_latents", "VAE"]),
        (["backbone=sd15", "backbone.dtype=float16"], ["backbone.dtype=float16", "bfloat16"]),
        (["backbone=sd15", "baseline=true"], ["regression", "ControlNet", "baseline=false"]),
        (["backbone=sd15", "recipe=bridge"], ["bridge", "ControlNet", "adapter=static"]),
        (["backbone=sd15", "adapter.hint=word"], ["adapter.hint=word", "image, latent"]),
        (["backbone=sd15", "trainer.crop=20"], ["trainer.crop=20", "multiple of 8"]),
    ],
)
def test_what_does_not_go_together(command, tmp_path, words, said):
    words = [
        *words,
        *[f"backbone.pretrained={save_sd15(tmp_path / 'a')}"] * ("backbone=sd15" in words),
    ]
    status, _, error = command("train", "debug=default", "trainer.device=cpu", *words)
    line = error.strip().splitlines()[-1]
    assert status == 2 and all(word in line for word in said) and line.startswith("Error:"), error


BLOCKED = """
import sys
blocked = "transformers", "peft", "pyiqa", "bitsandbytes", "gradio", "torch_fidelity"
sys.modules |= dict.fromkeys(blocked)   # as if they were not installed: an import of them fails
from irbridge.cli import main
"""


@pytest.mark.slow
def test_the_default_install_is_enough(tmp_path):
    """Without any optional package, a text encoder or what looks like one; the UNet's levels and
    the VAE unlike others."""
    unet = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
    }
    folder = save_sd15(tmp_path / "sd", (4, 8, 12), tiny_vae(3), **unet)
    words = [
        "debug=default",
        "trainer.device=cpu",
        f"run_root={tmp_path}",
        "evaluate.limit=1",
        "evaluate.all_rows=false",
        "baseline=false",
        "trainer.sample_every=9",
    ]
    pixels = ["adapter.width=4", "adapter.encoder=[1,1]", "adapter.decoder=[1,1]"]
    latents = ["backbone=sd15", f"backbone.pretrained={folder}", "name=latent"]
    script = BLOCKED
    for more in (pixels, latents):
        script += f"sys.argv = ['irbridge', 'train', *{[*words, *more]!r}]\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.count("Wrote:") == 2, done.stderr[-2000:]
