"""The recipe of the shipped adapters: it composes for every task, runs, goes on, and its second
half starts from its first."""

import json
import tarfile

import pytest
import torch
from conftest import ROOT, configured, save_images
from omegaconf import OmegaConf

from irbridge.experiments.build import from_pretrained
from irbridge.experiments.task_data import training_sources, training_stream, validation_pairs
from irbridge.weights import load_weights

TASKS = ["derain", "lowlight", "dehaze", "inpaint", "raindrop", "desnow", "deblur", "denoise", "sr"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What data.folder holds, in miniature."""
    root = tmp_path_factory.mktemp("ship")
    for name, prefix in (("derain", ""), ("lowlight", ""), ("dehaze", "nyu_")):
        source = root / name
        for k, half in enumerate(("clean", "degraded")):
            save_images(source / half, 9, (48, 48), seed=k)
            for path in sorted((source / half).iterdir()):
                path.rename(path.with_name(f"{prefix}{path.stem}{'_1' if prefix else ''}.png"))
        with tarfile.open(root / f"{name}.tar", "w") as tar:
            tar.add(source, arcname=name)
    for k, name in enumerate(("photos256", "photos256b")):
        save_images(root / name, 6, (48, 64), seed=k)
        with tarfile.open(root / f"{name}.tar", "w") as tar:
            tar.add(root / name, arcname=name)
    return root


def recipe(task, folder, *words, experiment="ship"):
    cfg = configured(
        "train",
        f"task={task}",
        f"experiment={experiment}",
        f"data.folder={folder}",
        "name=x",
        *words,
    )
    return OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_its_mix(task, folder):
    config = recipe(task, folder)
    sources = training_sources(config)
    assert abs(sum(s.weight for s in sources) - 1) < 1e-9 and all(
        s.same > 0 or s.lighter > 0 or task == "inpaint" for s in sources
    )
    assert (len(sources) == 2) == (task in ("derain", "lowlight", "dehaze"))
    assert (
        config["loss"]["anchor_first"] == 1
        and config["sampler"]["nfe"] == 0
        and config["data"]["validation"] == 16
    )
    draw = training_stream(config, 32)[0]
    assert draw["clean"].shape == (3, 32, 32) and len(validation_pairs(config, 32)) >= len(sources)
    assert len(sources[-1].images) == 331 + 12  # the project's own photographs and the two tars


def test_every_task_is_in_the_recipe():
    found = OmegaConf.load(ROOT / "configs/experiment/ship.yaml")["ship"].keys() - {"photographs"}
    assert found == set(TASKS)


@pytest.mark.parametrize("experiment", ["ship", "ship_features"])
def test_the_gpus_trainer_goes_with_the_recipe(experiment, folder):
    cpu, gpu = (
        recipe("derain", folder, "start=x", *words, experiment=experiment)["trainer"]
        for words in ([], ["trainer=ship_gpu"])
    )
    assert (
        gpu["batch_size"] > cpu["batch_size"]
        and gpu["steps"] > cpu["steps"] >= 12500
        and cpu["crop"] % 16 == 0
    )
    assert cpu.keys() == gpu.keys() and cpu["save_seconds"] <= 300


def test_a_task_with_holes_runs(folder, small, command, tmp_path):
    tiny = [w for w in small if not w.startswith(("data.", "sampler."))]
    status, out, err = command(
        "train",
        "experiment=ship",
        *tiny,
        "task=inpaint",
        f"data.folder={folder}",
        "trainer.steps=2",
        "trainer.batch_size=2",
        "trainer.crop=16",
        "trainer.validate_every=2",
        "evaluate.limit=1",
    )
    assert status == 0 and "IRBridge" in out and "Anchor g(y) alone" in out, err
    assert (tmp_path / "runs/inpaint-ship/samples/step-000002.png").is_file()
    status, out, err = command(
        "profile_speed",
        *tiny,
        "task=inpaint",
        "benchmark.steps=1",
        "benchmark.warmup=1",
        "benchmark.size=32",
        "trainer.batch_size=2",
        "trainer.crop=16",
    )
    assert status == 0 and "images/s" in out, err


def test_the_recipe_runs_and_its_features_start_from_its_trunk(folder, small, command, tmp_path):
    tiny = [w for w in small if not w.startswith(("data.", "sampler."))]
    words = [
        *tiny,
        "task=derain",
        f"data.folder={folder}",
        "trainer.steps=4",
        "trainer.batch_size=2",
        "trainer.crop=16",
        "trainer.validate_every=2",
        "evaluate.limit=1",
    ]
    status, out, err = command("train", "experiment=ship", *words)
    assert status == 0 and "Anchor g(y) alone" in out, err
    run = tmp_path / "runs/derain-ship"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 4] and all(
        "prior" not in line for line in lines
    )
    trunk = load_weights(run / "model.safetensors")
    assert not any(v.any() for k, v in trunk.items() if k.startswith("zero."))
    # it goes with any prior
    assert "digest" not in json.loads((run / "config.json").read_text())["backbone"]
    status, out, err = command(
        "train", "experiment=ship_features", f"start={run}", *words, "trainer.lr=1e-2"
    )
    assert status == 0, err
    second = tmp_path / "runs/derain-ship-features"
    features = load_weights(second / "model.safetensors")
    assert any(v.any() for k, v in features.items() if k.startswith("zero."))
    moved = max((features[k] - v).abs().max() for k, v in trunk.items() if k.startswith("trunk."))
    assert 0 < moved < 0.05
    model = from_pretrained(second)
    assert (
        model.sampler.nfe == 3
        and "digest" in json.loads((second / "config.json").read_text())["backbone"]
    )
    y = torch.zeros(1, 3, 32, 32)
    assert (
        len(list(model.trajectory(y))) == 3 and len(list(from_pretrained(run).trajectory(y))) == 1
    )


def test_what_the_recipe_lacks_is_told(command, tmp_path):
    status, _, err = command("train", "experiment=ship", "task=derain", f"data.folder={tmp_path}")
    assert status == 2 and "derain.tar does not exist" in err
    status, _, err = command("train", "experiment=ship", "task=derain")
    assert status == 2 and "data.folder" in err
