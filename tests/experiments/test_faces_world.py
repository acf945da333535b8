"""The world of faces: it composes with every recipe and task, its people are apart, and a fresh
clone can try it."""

import numpy as np
import pytest
import torch
from conftest import ROOT, configured, save_images, small_unet
from omegaconf import OmegaConf

from irbridge.backbones import pixel
from irbridge.backbones.pixel import PixelBackbone, load_backbone
from irbridge.errors import UserError
from irbridge.experiments.build import build_model
from irbridge.experiments.config import plain
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.schema import checked
from irbridge.experiments.task_data import (
    check_round,
    training_stream,
    validation_pairs,
)
from irbridge.experiments.task_data import (
    test_pairs as held_back,
)
from irbridge.priors.vp import VP, vp_alphas_cumprod

TASKS = "inpaint", "derain", "dehaze", "lowlight", "sr", "sr8", "deblur"
RECIPES = sorted(path.stem for path in (ROOT / "configs/recipe").glob("*.yaml"))
PRIOR = ROOT / "data/prior_faces"


def composed(*words):
    """As a command would see it; where the run goes is Hydra's business, which is not started."""
    cfg = configured("train", "experiment=faces", "name=t", *words)
    run = OmegaConf.masked_copy(cfg, [key for key in cfg if key not in ("hydra", "run")])
    checked("train", plain(run))
    return plain(run)


@pytest.fixture(scope="module")
def network():
    return PixelBackbone(small_unet((4, 8)), VP(vp_alphas_cumprod({}), "v_prediction"))


# what a recipe says where it has not what it needs, or cannot serve the task
NEEDS = {"refine_frozen": "refine.predictor=.* holds no finished run; train one, irbridge train"}
NO_MASK = "takes no mask, so it fills no holes"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("task", ["inpaint", "sr"])
def test_every_recipe_composes_and_builds(recipe, task, network):
    config = composed(f"task={task}", f"recipe={recipe}")
    assert config["backbone"]["pretrained"] == "data/prior_faces"
    assert config["trainer"]["crop"] == config["evaluate"]["size"] == 64
    assert config["task"]["name"] == task and not config["baseline"]
    small = {"channels": [4, 4], "width": 4} if config["adapter"].get("channels") else {}
    config |= {"adapter": config["adapter"] | small}
    masked = recipe.startswith("hidiff") and task == "inpaint"
    if said := NO_MASK if masked else NEEDS.get(recipe):
        with pytest.raises(UserError, match=said):
            build_model(config, network)
    else:
        assert build_model(config, network)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_scaled_down(task):
    """Its lengths in pixels, and nothing else of it."""
    own = composed(f"task={task}")["task"]
    usual = plain(configured("train", "name=t", f"task={task}").task)
    assert {k: v for k, v in own.items() if k != "degradation"} == {
        k: v for k, v in usual.items() if k != "degradation"
    }
    changed = {k for k, v in own["degradation"].items() if v != usual["degradation"].get(k)}
    assert changed == {
        "inpaint": {"kinds", "scale"},
        "derain": {"length", "width"},
        "dehaze": {"scene"},
        "lowlight": {"smooth"},
        "deblur": {"extent", "shift", "radius"},
    }.get(task, set())
    image = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    degraded = instantiate(own["degradation"])(image, np.random.default_rng(1))
    assert degraded.shape == image.shape and np.abs(degraded - image).max() > 0.05


def values_of(degradation):
    """Its numbers, whether they were written as lists or as tuples."""
    return np.hstack([np.ravel(value) for value in vars(degradation).values()])


def test_the_tasks_of_one_model_are_scaled_as_they_are_alone():
    config = composed("task=universal")
    choices = {
        choice["_target_"].rpartition(".")[2]: choice
        for choice in config["task"]["degradation"]["choices"]
    }
    assert list(choices) == ["Rain", "LowLight", "Snow", "Haze", "Blur"]
    assert choices["Blur"]["extent"] == [2.0, 7.2]  # camera shake is the one blur among the five
    for task in ("derain", "lowlight", "dehaze"):
        alone = composed(f"task={task}")["task"]["degradation"]
        own = choices[alone["_target_"].rpartition(".")[2]]
        assert np.array_equal(*(values_of(instantiate(part)) for part in (own, alone)))
    assert config["task"]["degradation"]["each_step"]
    trainer = config["trainer"]
    assert trainer["batch_size"] % 5 == 0 == config["evaluate"]["limit"] % 5
    usual = composed("task=derain")["trainer"]  # as many images
    assert trainer["steps"] * trainer["batch_size"] == usual["steps"] * usual["batch_size"]
    check_round(config)


def test_words_of_the_user_come_after_the_scaling():
    config = composed("task=inpaint", "task.degradation.kinds=[thick]")
    assert config["task"]["degradation"]["kinds"] == ["thick"]
    assert config["task"]["degradation"]["scale"] == 0.4
    assert composed("task=sr8")["task"]["degradation"]["scale"] == 8


def test_holes_shrink_with_the_scale():
    from irbridge.data.hole_shapes import IN_PIXELS, KINDS

    def runs(kind, scale):
        means = []
        for seed in range(12):
            mask = KINDS[kind]((256, 256), 0.1, np.random.default_rng(seed), scale=scale)
            edges = np.diff(np.pad(mask, [(0, 0), (1, 1)]).astype(int), axis=1)
            means.append((edges == -1).sum() / mask.sum())
        return 1 / np.mean(means)

    for kind in IN_PIXELS:
        if kind != "scratches":  # whose width is one to three pixels in any case
            assert runs(kind, 0.4) < 0.75 * runs(kind, 1), kind


@pytest.fixture
def faces(tmp_path):
    """Parts as irbridge data faces writes them, of two people each."""
    folder = tmp_path / "set"
    for part, people in {"train": "AB", "validation": "CD", "test": "EF"}.items():
        save_images(folder / part, 4, (64, 64), seed=ord(people[0]))
        for k, path in enumerate(sorted((folder / part).glob("*.png"))):
            path.rename(path.with_name(f"P_{people[k // 2]}_{k % 2 + 1:04d}.png"))
    return folder


def test_each_part_is_used_for_what_it_is(faces):
    config = composed("task=sr", f"data.folder={faces}")
    stream = training_stream(config, 64)
    assert sorted(stream.source.names) == [
        "P_A_0001",
        "P_A_0002",
        "P_B_0001",
        "P_B_0002",
    ]
    assert {name[2] for name in validation_pairs(config, 64).names} == set("CD")
    assert {name[2] for name in held_back(config, 64).names} == set("EF")


def test_a_set_without_people_split_off_is_one_sentence(faces, tmp_path):
    flat = composed("task=sr", f"data.folder={faces / 'train'}")
    for ask in (lambda c: training_stream(c, 64), lambda c: held_back(c, 64)):
        with pytest.raises(UserError, match="no people are split off; `irbridge data faces"):
            ask(flat)
    image = faces / "train/P_A_0001.png"
    image.rename(faces / "test/P_A_0001.png")
    with pytest.raises(UserError, match="P_A is in both .* so no people are held out"):
        training_stream(composed("task=sr", f"data.folder={faces}"), 64)


def test_the_embedded_photographs_stand_in_for_a_try(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = composed("task=deblur", "debug=default")
    assert len(training_stream(config, 32).source) > 300 and len(held_back(config, 64)) == 33
    assert not config["evaluate"]["kid"]
    with pytest.raises(UserError, match=r"data/faces/train is not there"):
        training_stream(composed("task=deblur"), 32)


def test_the_command_refuses_a_kid_of_few_images(faces, command, small, tmp_path):
    words = [w for w in small if not w.startswith(("data.", "evaluate.size"))]
    run = f"run={tmp_path / 'run'}"
    status, _, err = command(
        "train", "experiment=faces", "task=sr", f"data.folder={faces}", run, *words
    )
    assert status == 2 and "The row has 4 images; kid_lpips needs 50 or more" in err
    assert not (tmp_path / "run").exists()


# the prior


def test_the_prior_is_small_and_sees_the_whole_face():
    backbone = load_backbone("data/prior_faces")
    count = sum(p.numel() for p in backbone.network.parameters())
    assert 8e6 < count < 14e6
    assert (PRIOR / "diffusion_pytorch_model.safetensors").stat().st_size <= 17.1e6
    config = backbone.config
    attention = [64 // 2**k for k, kind in enumerate(config.down_block_types) if "Attn" in kind]
    assert attention == [16, 8] and config.sample_size == 64
    assert backbone.scheduler["prediction_type"] == "v_prediction"


def test_the_prior_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_backbone("data/prior_faces", lazy=True).stride == 8


@pytest.mark.parametrize("checkout, said", [(None, "clone the repository"), (ROOT, "git checkout")])
def test_without_the_prior_is_one_sentence(checkout, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pixel, "CHECKOUT", checkout)
    monkeypatch.setattr(pixel, "find", lambda path: tmp_path / path)
    with pytest.raises(UserError, match=f"prior of faces is missing .*{said}"):
        load_backbone("data/prior_faces")


def test_the_prior_knows_what_a_picture_is():
    """One call takes half the noise off a flat picture with soft light, and gives no colour."""
    backbone = load_backbone("data/prior_faces")
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    clean = (0.4 * torch.exp(-2 * (x**2 + y**2)) - 0.2).expand(1, 3, 64, 64)
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tau = backbone.prior.timestep(torch.tensor(0.2, dtype=torch.float64))
    law = backbone.prior.marginal(tau)
    z = (float(law.clean) * clean + float(law.noise) * noise).float()
    with torch.inference_mode():
        error = (backbone.denoise(z, tau) - clean).square().mean().sqrt()
    assert error < 0.1


# the whole command, with a tiny network


@pytest.fixture
def quick(small):
    """Its words without those of the images."""
    return [word for word in small if not word.startswith(("data.", "evaluate."))]


def test_a_fresh_clone_can_try_it(quick, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("experiment=faces", "task=inpaint", "debug=default", "run=mine", *quick)
    status, out, err = command("train", *words)
    assert status == 0, err
    assert "size 64; images 2" in out and "IRBridge" in out and "kid_lpips" not in out
    assert (tmp_path / "mine/table.md").is_file() and (tmp_path / "mine/restored.png").is_file()


def test_a_run_ends_with_a_table_that_has_its_kid(quick, command, tmp_path):
    folder = tmp_path / "set"
    for k, (part, count) in enumerate({"train": 6, "validation": 2, "test": 50}.items()):
        save_images(folder / part, count, (64, 64), seed=k)
        for path in (folder / part).glob("*.png"):
            path.rename(path.with_name(f"{part}{path.stem}_0001.png"))
    tiny = ("trainer.steps=2", "trainer.batch_size=2", "trainer.warmup=1", "evaluate.size=32")
    words = ("experiment=faces", "task=sr8", f"data.folder={folder}", f"run={tmp_path / 'run'}")
    status, out, err = command("train", *words, *tiny, *quick)
    assert status == 0, err
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert "kid_lpips ↓" in rows[0] and len(rows) > 4
    column = rows[0].split("|").index(" kid_lpips ↓ ")
    cells = [line.split("|")[column].strip() for line in rows[2:]]
    assert all(cell and "[" not in cell and cell != "—" for cell in cells)
    # on the validation people, which no training image shows
    where = f"run={tmp_path / 'run'}"
    status, out, err = command("evaluate", where, "split=validation", "size=32", "method=identity")
    assert status == 0 and "images 2" in out, err
