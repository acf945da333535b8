"""Models by name, to and from a stand-in of the hub: a local folder that keeps what is uploaded."""

import json
import shutil
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import ROOT
from huggingface_hub import ModelCard, hub_mixin
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file

import irbridge
from irbridge import hub
from irbridge.assets import shipped
from irbridge.errors import UserError
from irbridge.models.restorer import Restorer
from irbridge.weights import rounded

IMAGE = np.random.default_rng(0).random((40, 48, 3), dtype=np.float32)


@pytest.fixture
def repositories(tmp_path, monkeypatch):
    """The folder of the stand-in: user/model -> its files."""
    root = tmp_path / "hub"
    root.mkdir()

    class Api:
        def __init__(self, token=None):
            self.token = token

        def create_repo(self, repo_id, private=None, exist_ok=False):
            (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, repo_id, folder_path, **rest):
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)
            return f"https://huggingface.co/{repo_id}/commit/1"

    def snapshot_download(name, *, revision=None, token=None, allow_patterns=None):
        if not (root / name).is_dir():
            raise LocalEntryNotFoundError("It is not in the cache.\nAnd more.")
        there = {path.name for path in (root / name).iterdir()}
        assert there <= set(allow_patterns)
        return str(root / name)

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return root


@pytest.mark.parametrize("task", ["derain", "lowlight"])
def test_pushed_and_loaded_back_a_model_restores_the_same_bits(task, repositories):
    model = irbridge.load(task)
    assert model.push_to_hub("user/model").endswith("/user/model/commit/1")
    files = {path.name for path in (repositories / "user/model").iterdir()}
    assert files == {"model.safetensors", "config.json", "run.json", "README.md", "restored.jpg"}
    again = irbridge.load("user/model")
    assert np.array_equal(again.restore(IMAGE, seed=3), model.restore(IMAGE, seed=3))
    assert again.sampler == model.sampler
    pushed = load_file(repositories / "user/model/model.safetensors")
    stored = load_file(ROOT / f"data/adapters/{task}/model.safetensors")
    assert {tensor.dtype for tensor in pushed.values()} == {t.dtype for t in stored.values()}


def test_an_adapter_of_int8_is_pushed_as_int8(repositories):
    model = irbridge.load("lowlight")
    adapter = model.trainable()
    adapter.load_state_dict(rounded(adapter.state_dict(), torch.int8))
    model.push_to_hub("user/small")
    size = (repositories / "user/small/model.safetensors").stat().st_size
    assert size < 0.55 * (ROOT / "data/adapters/lowlight/model.safetensors").stat().st_size
    again = irbridge.load("user/small")
    assert np.array_equal(again.restore(IMAGE), model.restore(IMAGE))


def test_trained_on_weights_are_pushed_as_they_are_now(repositories):
    model = irbridge.load("derain")
    with torch.no_grad():
        for parameter in model.trainable().parameters():
            parameter *= 1.0001
    model.push_to_hub("user/more")
    again = irbridge.load("user/more")
    for a, b in zip(model.trainable().parameters(), again.trainable().parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("task", shipped())
def test_the_card_says_the_scores_as_data(task, repositories):
    model = irbridge.load(task)
    hub.HubModel(model, "user/model").save_pretrained(repositories / "saved")
    card = ModelCard.load(repositories / "saved/README.md")
    assert card.data.library_name == "irbridge" and card.data.pipeline_tag == "image-to-image"
    assert {"image-restoration", task} <= set(card.data.tags)
    text = (ROOT / "data/adapters" / task / "README.md").read_text()
    assert text.strip() in card.text
    assert 'irbridge.load("user/model")' in card.text
    # as many results as the card's tables say of what the model does by default
    row = "Anchor g(y) alone" if not model.calls() else "IRBridge ("
    rows = [line for line in text.splitlines() if line.startswith(f"| {row}")]
    values = [result.metric_value for result in card.data.eval_results]
    printed = [
        float(cell.replace("*", "").replace("<u>", "").split("[")[0].replace("</u>", ""))
        for line in rows
        for cell in line.split("|")[2:5]
    ]
    assert sorted(values) == sorted(printed) and values
    names = {(r.metric_type, r.dataset_name) for r in card.data.eval_results}
    assert ("psnr", f"{task}, held-back images") in names


def test_a_card_that_comes_from_the_hub_is_not_doubled(repositories):
    irbridge.load("derain").push_to_hub("user/model")
    first = (repositories / "user/model/README.md").read_text()
    irbridge.load("user/model").push_to_hub("user/model")
    assert (repositories / "user/model/README.md").read_text() == first


def test_a_run_without_a_card_gets_a_short_one(repositories, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(ROOT / "data/adapters/lowlight" / name, run / name)
    (run / "table.md").write_text(
        "lowlight: rgb, 8 bit; data held-back images; size 64; images 2.\n\n"
        "| Method | PSNR ↑ | s/image |\n| --- | ---: | ---: |\n"
        "| Anchor g(y) alone | 1.00 [0.5, 2] | 0.1 |\n"
        "| IRBridge (Brownian, end anchor, reverse, 3 calls) | <u>19.03</u> [18, 20] | 0.1 |\n"
    )
    config = json.loads((run / "config.json").read_text())
    config["backbone"]["pretrained"] = str(ROOT / "data/prior")
    (run / "config.json").write_text(json.dumps(config))
    irbridge.load(run).push_to_hub("user/mine")
    card = ModelCard.load(repositories / "user/mine/README.md")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("psnr", 19.03)
    assert str(ROOT) not in (repositories / "user/mine/config.json").read_text()


@pytest.mark.parametrize("name", ["derian", "nowhere/at/all", "user/absent", "/no/such/folder"])
def test_an_unknown_name_is_one_sentence(name, repositories):
    with pytest.raises(UserError) as caught:
        irbridge.load(name)
    text = str(caught.value)
    assert repr(name) in text and "derain" in text and "\n" not in text and text.endswith(".")


def test_the_hub_out_of_reach_is_one_sentence():
    with pytest.raises(UserError, match="'user/model' is neither .* the hub does not give it"):
        irbridge.load("user/model")
    with pytest.raises(UserError, match="could not be uploaded"):
        irbridge.load("derain").push_to_hub("user/model")
    with pytest.raises(UserError, match="user/model"):
        irbridge.load("derain").push_to_hub("model")


def test_what_was_built_in_memory_cannot_be_pushed():
    with pytest.raises(UserError, match="in memory"):
        Restorer().push_to_hub("user/model")


def test_a_damaged_download_is_one_sentence(repositories):
    folder = repositories / "user/bad"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('["restorer"]')
    with pytest.raises(UserError):
        irbridge.load("user/bad")
    (folder / "config.json").write_text('{"restorer": 1, "method": "irbridge"}')
    with pytest.raises(UserError, match="lacks"):
        irbridge.load("user/bad")


def test_a_folder_of_ones_own_goes_before_a_shipped_adapter(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "data/adapters/dehaze", tmp_path / "derain")
    monkeypatch.chdir(tmp_path)
    assert irbridge.load("derain").folder.resolve() == tmp_path / "derain"
    monkeypatch.chdir(ROOT)
    assert irbridge.load("derain").folder == shipped()["derain"]


def test_the_public_face_is_lazy_and_complete():
    assert set(irbridge.__all__) <= set(dir(irbridge))
    for name in irbridge.__all__:
        assert getattr(irbridge, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        irbridge.nothing  # noqa: B018
    code = "import sys, irbridge; dir(irbridge); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
