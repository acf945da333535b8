"""The commands from their first word to the files they leave, on tiny networks and images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, save_images
from safetensors.torch import load_file

from irbridge import IRBridge, read_image
from irbridge.backbones.pixel import load_backbone
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained
from irbridge.models.bridge_network import BridgeNetwork
from irbridge.models.regression import Regression

KINDS = {".safetensors", ".json", ".jsonl", ".png", ".md"}


@pytest.fixture
def debug(small, command):
    """Run ``train`` in debug mode; returns its stdout."""

    def run(*words):
        status, out, err = command("train", *small, "debug=default", *words)
        assert status == 0, err
        return out

    return run


def files(run):
    return {str(p.relative_to(run)): p for p in run.rglob("*") if p.is_file()}


def test_train_writes_everything_and_again_changes_nothing(debug, command, tmp_path):
    out, run = debug("task=derain"), tmp_path / "runs/derain-debug"
    made = files(run)
    assert {
        "run.json",
        "config.json",
        "model.safetensors",
        "metrics.jsonl",
        "table.md",
        "restored.png",
        "samples/step-000003.png",
        "regression/config.json",
        "regression/model.safetensors",
    } <= made.keys()
    assert {p.suffix for p in made.values()} <= KINDS and not any("tmp" in name for name in made)
    table = (run / "table.md").read_text()
    rows = [
        "Degraded input",
        "Plain regression",
        "DDIM from noise",
        "Anchor g(y) alone",
        "IRBridge (Brownian",
    ]
    assert all(row in table and row in out for row in rows) and str(run / "table.md") in out
    records = [
        json.loads(line)
        for p in (run / "results").rglob("records.jsonl")
        for line in p.read_text().splitlines()
    ]
    assert len(records) == 7 * 2 and all(0 < r["psnr"] <= 100 for r in records)
    assert read_image(run / "restored.png").std() > 0.01
    assert [
        json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()
    ] == [1, 2, 3]

    before = {name: p.read_bytes() for name, p in made.items() if p.suffix != ".md"}
    debug("task=derain")
    assert {name: p.read_bytes() for name, p in files(run).items() if p.suffix != ".md"} == before
    assert (run / "table.md").read_text() == table

    status, out, err = command(
        "evaluate",
        f"run={run}",
        "size=32",
        "limit=2",
        "sampler.steps=3",
        "sampler.rule=posterior",
        "save_images=true",
    )
    assert status == 0, err
    assert "posterior, 3 calls" in out and "Plain regression" in out
    results = Path(out.split("Wrote: ")[1].strip())
    # the classical method, and the clean ones
    assert results.is_dir() and len(list(results.rglob("*.png"))) == (8 + 1) * 2
    again = command(
        "evaluate", f"run={run}", "size=32", "limit=2", "sampler.steps=3", "sampler.rule=posterior"
    )[1]
    assert again == out
    clean, degraded = (
        save_images(tmp_path / "clean", 2),
        save_images(tmp_path / "degraded", 2, seed=1),
    )
    status, out, err = command(
        "evaluate",
        f"run={run}",
        f"data.clean={clean}",
        f"data.degraded={degraded}",
        "size=null",
        "all_rows=false",
    )
    assert status == 0 and "IRBridge" in out and "Degraded input" not in out, err


def test_resumed_is_uninterrupted(debug, tmp_path):
    quick = ["baseline=false", "evaluate.enabled=false"]
    assert "Stopped and saved" in debug("trainer.stop=2", "name=parts", *quick)
    assert "Wrote" in debug("name=parts", *quick)
    debug("name=whole", *quick)
    parts, whole = (
        load_file(tmp_path / f"runs/derain-{name}/model.safetensors") for name in ("parts", "whole")
    )
    assert all(torch.equal(parts[k], whole[k]) for k in whole)


def test_a_saved_model_is_the_trained_one(debug, backbone, tmp_path):
    debug("baseline=false", "evaluate.enabled=false")
    run = tmp_path / "runs/derain-debug"
    image = np.random.default_rng(0).random((33, 47, 3), dtype=np.float32)
    model = IRBridge.from_pretrained(run)
    assert isinstance(model, IRBridge) and not model.training
    restored = model.restore(image, seed=5)
    assert np.array_equal(from_pretrained(run, backbone=backbone).restore(image, seed=5), restored)
    assert model.trainable().state_dict().keys() == load_file(run / "model.safetensors").keys()
    ema = load_file(next(run.glob("checkpoints/step-*/ema.safetensors")))
    assert all(
        torch.equal(v, ema[f"module.{k}"]) for k, v in model.trainable().state_dict().items()
    )
    with pytest.raises(UserError, match="other weights"):
        from_pretrained(run, backbone=load_backbone())


@pytest.mark.parametrize(
    "words",
    [
        ["adapter=control", "adapter.channels=[8,8]"],
        ["loss=published", "endpoint=y", "bridge=ou"],
        ["bridge=residual", "timesteps=critical"],
        ["bridge=brownian", "sampler.rule=posterior"],
    ],
)
def test_variants(debug, tmp_path, words):
    debug(*words, "baseline=false", "evaluate.limit=1")
    assert "IRBridge" in (tmp_path / "runs/derain-debug/table.md").read_text()


def test_a_bridge_trained_from_scratch(debug, command, tmp_path):
    """In two parts and at once, alike; then scored with another sampler, and not gone on with for
    another target."""
    words = ["recipe=bridge", "bridge=goub", "evaluate.limit=1"]
    assert "Stopped and saved" in debug(*words, "trainer.stop=2", "name=parts")
    assert "Wrote" in debug(*words, "name=parts")
    out = debug(*words, "name=whole")
    assert "Bridge from scratch (GOUB, posterior, 2 calls)" in out and "IRBridge" not in out
    parts, whole = (tmp_path / f"runs/derain-{name}" for name in ("parts", "whole"))
    assert not (whole / "regression").exists() and (whole / "restored.png").exists()
    saved = [load_file(run / "model.safetensors") for run in (parts, whole)]
    assert saved[0].keys() == saved[1].keys() and all(
        torch.equal(v, saved[1][k]) for k, v in saved[0].items()
    )
    model = from_pretrained(whole)
    assert isinstance(model, BridgeNetwork) and (model.target, model.loss_name) == (
        "noise",
        "likelihood",
    )
    assert model.sampler.nfe == 2 and model.bridge.lam == pytest.approx(60 / 255, rel=1e-3)
    losses = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in losses] == [1, 2, 3] and all(
        line["likelihood"] > 0 for line in losses
    )

    status, out, err = command(
        "evaluate", f"run={whole}", "size=32", "limit=1", "sampler=dbim2", "sampler.nfe=3"
    )
    assert status == 0 and "Bridge from scratch (GOUB, dbim2, boot 0.001, 3 calls)" in out, err
    status, _, err = command(
        "train",
        "recipe=bridge",
        "debug=default",
        "bridge=goub",
        "objective.target=x0",
        "name=whole",
        "adapter.channels=[8,8]",
        "sampler.steps=2",
        "overwrite=false",
    )
    assert status == 2 and "was" in err and "is now" in err


@pytest.mark.parametrize("held", [False, True])
def test_paired_folders(command, small, tmp_path, held):
    folders = {
        name: save_images(tmp_path / name, 4, seed=k)
        for k, name in enumerate(("clean", "degraded", "held", "bad"))
    }
    words = [w for w in small if not w.startswith("data.")]
    words += (
        [f"data.test_clean={folders['held']}", f"data.test_degraded={folders['bad']}"]
        if held
        else ["data.hold_out=2"]
    )
    status, _, err = command(
        "train",
        *words,
        "debug=default",
        "task=paired",
        f"data.clean={folders['clean']}",
        f"data.degraded={folders['degraded']}",
    )
    assert status == 0, err
    records = (
        (tmp_path / "runs/paired-debug/results/degraded-input/records.jsonl")
        .read_text()
        .splitlines()
    )
    assert [json.loads(r)["name"] for r in records] == (["0", "1"] if held else ["0", "2"])


def test_regression_alone(debug, tmp_path):
    out = debug("recipe=regression")
    assert "Plain regression" in out and "IRBridge" not in out
    run = tmp_path / "runs/derain-debug"
    assert isinstance(from_pretrained(run), Regression) and not (run / "regression").exists()


def test_embedded_prior_with_the_defaults(command, tmp_path):
    """The command of the README, cut to its debug size: nothing of the test's own but the
    folder."""
    status, out, err = command("train", "debug=default", "evaluate.limit=1", "baseline=false")
    assert status == 0, err
    assert "IRBridge (Brownian" in out and (tmp_path / "runs/derain-debug/restored.png").exists()


def test_pretrain_makes_a_backbone(command, tmp_path, images):
    words = [
        f"data.train=[{images}]",
        f"data.exclude={ROOT / 'data/samples/test'}",
        "trainer.steps=2",
        "trainer.batch_size=2",
        "trainer.crop=16",
        "trainer.sample_every=2",
        "unet.block_out_channels=[8,16]",
        "trainer.device=cpu",
        "unet.down_block_types=[DownBlock2D,DownBlock2D]",
        "unet.up_block_types=[UpBlock2D,UpBlock2D]",
    ]
    for _ in range(2):
        status, out, err = command("pretrain", *words)
        assert status == 0 and "Finished" in out, err
    run = tmp_path / "runs/prior"
    assert {p.suffix for p in files(run).values()} <= KINDS
    backbone = load_backbone(str(run / "prior"))
    assert backbone.prior.prediction_type == "v_prediction" and backbone.stride == 2
    assert backbone.denoise(torch.zeros(1, 3, 4, 4), torch.tensor(50.0)).isfinite().all()
    status, out, err = command(
        "evaluate_prior",
        f"backbone.pretrained={run / 'prior'}",
        f"images={images}",
        "stds=[25]",
        "classical=false",
    )
    assert status == 0 and "| 25 |" in out, err
    status, out, err = command("pretrain", *words, "name=more", f"start={run / 'prior'}")
    assert status == 0 and "Finished" in out, err
