"""A finished run becomes a folder that another machine can use, and its card says what was
measured."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from irbridge import read_image
from irbridge.commands import export
from irbridge.commands.options import ExportOptions
from irbridge.data.pair import Pair
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained
from irbridge.experiments.task_data import validation_pairs
from irbridge.reports import model_card
from irbridge.reports.pictures import cases


def test_an_exported_run_restores_alike_and_its_card_says_what_was_done(
    command, small, tmp_path, images, backbone_folder, monkeypatch
):
    status, _, error = command(
        "train",
        "name=mine",
        "trainer=cpu",
        "trainer.steps=2",
        "trainer.batch_size=2",
        "trainer.crop=16",
        "baseline=false",
        "evaluate.all_rows=false",
        *small,
    )
    assert status == 0, error
    run, out = tmp_path / "runs/derain-mine", tmp_path / "out"
    words = [
        f"run={run}",
        f"output={out}",
        f"results=[{run / 'results'}]",
        "weak='Hail, & \"sleet\".'",
        "machine=a desk",
        "size=32",
    ]
    status, printed, error = command("export_adapter", *words)
    assert status == 0 and str(out) in printed, error
    card, said = (out / "README.md").read_text(), json.loads((out / "run.json").read_text())
    record = json.loads(
        (run / "results").rglob("records.jsonl").__next__().read_text().splitlines()[0]
    )
    for said_so in (
        "2 steps of 2 crops of 16 px: 4 crops",
        'Hail, & "sleet".',
        "a desk",
        "irbridge.data.degradations.Rain",
        record["protocol"],
        "PSNR",
        "4 photographs",
    ):
        assert said_so in card
    assert (
        not said.keys() & {"run", "run_root", "name"}
        and f"| Frozen prior | {backbone_folder.name}, SHA-256" in card
    )
    for name in ("README.md", "config.json", "run.json"):  # data, backbone and run are below it
        assert str(tmp_path.parents[1]) not in (out / name).read_text()
    assert {v.dtype for v in load_file(out / "model.safetensors").values()} == {torch.float16}
    assert 0 <= json.loads((out / "config.json").read_text())["bf16_error"] < 255
    image = read_image(images / "0.png")
    frozen = {"pretrained": str(backbone_folder)}
    ours, theirs = (from_pretrained(folder, frozen=frozen).restore(image) for folder in (out, run))
    assert 0 < np.abs(ours - image).max() and np.allclose(ours, theirs, atol=2e-3)

    # as whole numbers it takes half the room
    whole = tmp_path / "whole-numbers"
    monkeypatch.setattr("irbridge.weights.SMALL", 16)  # the networks of tests are small
    status, _, error = command("export_adapter", *words, f"output={whole}", "weights=int8")
    assert status == 0, error
    assert "stored as int8" in (whole / "README.md").read_text()
    stored = load_file(whole / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.int8, torch.bfloat16, torch.float16}
    assert np.allclose(from_pretrained(whole, frozen=frozen).restore(image), theirs, atol=2e-2)

    # its picture can be drawn anew where its images are, and nothing else changes
    (tmp_path / images.name).symlink_to(images)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "restored.jpg").write_bytes(b"")
    (out / "README.md").write_text(card.replace(model_card.PICTURE, "![old](restored.jpg)"))
    words = [f"run={out}", "redraw=true", "size=32", f"backbone.pretrained={backbone_folder}"]
    status, _, error = command("export_adapter", *words)
    assert status == 0, error
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    status, _, error = command("export_adapter", *words, "weights=int8")
    assert status == 2 and "weights= does not go with redraw=" in error
    for run, more in (run, []), (out, [f"output={tmp_path / 'other'}"]):
        status, _, error = command("export_adapter", f"run={run}", "redraw=true", *more)
        assert status == 2 and "give run=FOLDER of an export alone" in error


def test_the_cases_of_a_picture_are_the_largest_the_median_and_the_smallest_gain():
    clean = np.full((8, 8, 3), 0.5, np.float32)
    left = {0.1: 0.9, 0.3: 0.1, 0.05: 0.8, 0.2: 0.5, 0.4: 1.2}  # error before: what is left of it
    pairs = [Pair(str(error), clean, clean + np.float32(error)) for error in left]

    class Lessens:
        def told(self, clean):
            return {}

        def restore(self, image, seed, mask=None):
            return clean + (image - clean) * left[round(float((image - clean).max()), 2)]

    assert [pair.name for pair in cases(Lessens(), pairs, 0)] == ["0.3", "0.05", "0.4"]
    assert [pair.name for pair in cases(Lessens(), pairs[:1], 0)] == ["0.1"]


def test_a_card_tells_of_the_training_before(command, small, tmp_path):
    """Of the run that another started from, or the name of an exported folder, which has no
    metrics."""
    words = [
        "trainer=cpu",
        "trainer.batch_size=2",
        "trainer.crop=16",
        "baseline=false",
        "evaluate.enabled=false",
        *small,
    ]
    run, out = tmp_path / "runs/derain-one", tmp_path / "out"
    for stop, said in ("1", "1 of 2 steps of 2 crops"), ("null", "2 steps of 2 crops"):
        steps = "trainer.steps=2", f"trainer.stop={stop}"
        assert command("train", "name=one", *steps, *words)[0] == 0
        # over the export before, of the same training
        assert command("export_adapter", f"run={run}", f"output={out}", "size=32")[0] == 0
        assert said in (out / "README.md").read_text()
    for name, start, said in (
        ("two", run, "2 steps of 2 crops of 16 px: 4 crops, then 3 steps"),
        ("three", out, "the weights of out, then 3 steps"),
    ):
        assert command("train", f"name={name}", f"start={start}", "trainer.steps=3", *words)[0] == 0
        assert (
            command(
                "export_adapter",
                f"run={tmp_path / f'runs/derain-{name}'}",
                f"output={tmp_path / name}",
                "size=32",
            )[0]
            == 0
        )
        assert said in (tmp_path / name / "README.md").read_text()


def test_an_export_that_was_changed_and_one_of_another_training_stay(
    command, small, tmp_path, images
):
    words = "trainer=cpu", "trainer.steps=1", "trainer.batch_size=1", "trainer.crop=16"
    words += "baseline=false", "evaluate.enabled=false", *small
    runs, out = [tmp_path / f"runs/derain-{name}" for name in ("one", "two")], tmp_path / "out"
    assert command("train", "name=one", *words)[0] == 0
    assert command("train", "name=two", "seed=1", *words)[0] == 0

    def export(run):
        before = {p: p.read_bytes() for p in out.glob("*")}
        status, _, error = command("export_adapter", f"run={run}", f"output={out}", "size=32")
        same = before == {p: p.read_bytes() for p in out.glob("*")}
        return status, same, error

    assert export(runs[0])[0] == 0
    status, same, error = export(runs[1])
    assert status == 2 and same and "export of another training, whose seed was 0" in error
    card = (out / "README.md").read_text()
    (out / "README.md").write_text(card + "Tried on my street.\n")
    status, same, error = export(runs[0])
    assert status == 2 and same and f"{out / 'README.md'} is there and is not what" in error
    # drawn anew it is still its user's
    (tmp_path / images.name).symlink_to(images)
    words = "redraw=true", "size=32", *(word for word in small if word.startswith("backbone."))
    status, _, error = command("export_adapter", f"run={out}", *words)
    assert status == 0, error
    assert (out / "README.md").read_text().endswith("street.\n") and export(runs[0])[0] == 2
    (out / "README.md").write_text(card)
    assert export(runs[0])[0] == 0


def settled(**changes):
    """(settings, config) of a run, as far as a card tells of it."""
    settings = {
        "seed": 0,
        "task": {"name": "derain"},
        "data": {"train": "nowhere"},
        "timesteps": {},
    }
    return (
        settings,
        {
            "method": "irbridge",
            "endpoint": "anchor",
            "bridge": {"_target_": "x.Brownian"},
            "timesteps": {},
            "backbone": {"pretrained": None},
            "adapter": {},
            "sampler": {"nfe": 0},
            "loss": {},
            "task": {"sampler": {"nfe": 3}},
        }
        | changes,
    )


JOINT = {"joint": True, "predictor": None, "samples": 1}
GIVEN = JOINT | {
    "joint": False,
    "predictor": "spandrel:n.safetensors",
    "digest": "0123456789abcdef",
}


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"loss": {"anchor_first": 1.0}},
            "| none: g(y) alone; `steps=3` asks for three, without trained features |",
        ),
        (
            {"loss": {"anchor_first": 0.6}},
            "| none: the anchor alone, which validation images prefer; `steps=3` asks for three |",
        ),
        ({"sampler": {"nfe": None}}, "| Calls of it | 3 |"),
        (
            {"adapter": {"anchor": "spandrel:n.safetensors", "anchor_digest": "0123456789abcdef"}},
            "| Anchor g(y) | n.safetensors, pretrained, SHA-256 0123456789ab |",
        ),
        ({"method": "refine", "refine": JOINT}, "| Predictor g(y) | trained jointly with"),
        (
            {"method": "refine", "refine": JOINT | {"joint": False}},
            "| Predictor g(y) | a regression, as it was trained before |",
        ),
        (
            {"method": "refine", "refine": GIVEN},
            "| Predictor g(y) | n.safetensors, pretrained, SHA-256 0123456789ab |",
        ),
        (
            {"method": "refine", "refine": JOINT | {"samples": 8}, "sampler": {"nfe": 4}},
            "| Calls of the denoiser | 4 a draw, 8 draws |",
        ),
    ],
)
def test_a_card_says_what_calls_the_prior_and_what_gives_the_anchor(changes, said):
    text = model_card.card(
        *settled(**changes),
        model_card.Done("5 crops", 0.0, 0.0, "bf16"),
        5,
        "",
        {"shipped": False, "output": "/home/me/mine", "machine": "a desk", "weak": "Hail."}
        | {"weights": "float16"},
    )
    assert (
        said in text
        and "run=mine input" in text
        and "| Training | 5 crops; in bf16; seed 0 |" in text
    )
    assert ("Frozen prior" in text) == (changes.get("method") != "refine")


def test_the_card_of_a_regression_names_no_bridge_and_no_prior():
    done = model_card.Done("5 crops", 0.0, 0.0, "bf16")
    options = {"shipped": False, "output": "mine", "machine": "a desk", "weak": "Hail."}
    options |= {"weights": "float16"}
    text = model_card.card(*settled(method="regression"), done, 5, "", options)
    assert text.startswith("# derain: plain regression\n") and "rior |" not in text


def test_what_names_the_machine_is_left_out():
    here = {
        "a": ["/home/me/x", "data/samples/train", 3],
        "b": {"c": "spandrel:/home/me//n.safetensors", "d": "owner/model"},
    }
    assert model_card.without_paths(here) == {
        "a": ["x", "data/samples/train", 3],
        "b": {"c": "spandrel:n.safetensors", "d": "owner/model"},
    }


RUN = {"task": {"name": "derain", "protocol": {}}, "data": {}, "seed": 0}


def test_a_training_is_told_up_to_the_weights(tmp_path):
    """A line of metrics is newer than the weights, which are written with a checkpoint."""
    (tmp_path / "run.json").write_text(json.dumps(RUN | {"trainer": {"batch_size": 2, "crop": 16}}))
    lines = [
        {"step": step, "cpu_seconds": step, "seconds": step, "precision": "bf16"}
        for step in (300, 900)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert model_card.history(tmp_path) == (
        "900 steps of 2 crops of 16 px: 1800 crops",
        15.0,
        15.0,
        "bf16",
    )
    newest = tmp_path / "checkpoints/step-00000600"
    newest.mkdir(parents=True)
    (newest / "state.json").write_text(
        json.dumps({"step": 600, "cpu_seconds": 600, "seconds": 720})
    )
    assert model_card.history(tmp_path) == (
        "600 steps of 2 crops of 16 px: 1200 crops",
        10.0,
        12.0,
        "bf16",
    )


def test_half_precision_is_tried_on_validation_images_of_all_sources(monkeypatch):
    class Pairs(list):
        def __getitem__(self, index):
            return SimpleNamespace(seen=int(index))

    def refused(sentence):
        def pairs(settings, size):
            raise UserError(sentence)

        monkeypatch.setattr(export, "validation_pairs", pairs)

    monkeypatch.setattr(export, "deviation", lambda model, images: images)
    monkeypatch.setattr(export, "validation_pairs", lambda settings, size: Pairs(range(101)))
    monkeypatch.setattr(export, "test_pairs", lambda settings, size: Pairs(range(2)))
    holding = {"data": {"validation": 16}}
    assert export.half_precision(None, holding, most=5) == [0, 25, 50, 75, 100]
    refused("data.mix: clean photos does not exist.")
    # what the run holds back is not there
    with pytest.raises(UserError, match="photos does not exist"):
        export.half_precision(None, holding)
    with pytest.raises(UserError, match="holds back no images") as found:
        validation_pairs({"data": {}}, 16)
    refused(str(found.value))
    assert export.half_precision(None, {"data": {}}) == [0, 1]


def test_an_export_overwrites_no_training_and_no_file(command, tmp_path):
    """Before anything is read: the run here has no weights."""
    for folder, holds in (
        ("run", "run.json"),
        ("other", "metrics.jsonl"),
        ("third", "checkpoints/state.json"),
    ):
        path = tmp_path / folder / holds
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    (tmp_path / "file").write_text("x")
    before = {p: p.is_file() and p.read_text() for p in tmp_path.rglob("*")}
    for output, said in (
        ("run", "run= itself"),
        ("link", "run= itself"),
        ("other", "folder of a training"),
        ("third", "folder of a training"),
        ("file", "file is a file"),
        ("file/new", "file is a file"),
    ):
        status, _, error = command(
            "export_adapter", f"run={tmp_path / 'run'}", f"output={tmp_path / output}"
        )
        assert (
            status == 2
            and said in error
            and f"output={tmp_path / output} " in error
            and error.count("\n") == 1
        )
    assert before == {p: p.is_file() and p.read_text() for p in tmp_path.rglob("*")}


def test_a_run_without_metrics_is_told_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(json.dumps(RUN | {"trainer": {}}))
    monkeypatch.setattr(export, "from_pretrained", lambda run, frozen: None)
    with pytest.raises(UserError, match="metrics.jsonl is missing"):
        export.export_run(ExportOptions(run=str(tmp_path / "run"), output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_not_trained_is_refused(command, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, error = command(
        "export_adapter", f"run={tmp_path / 'empty'}", f"output={tmp_path / 'out'}"
    )
    assert status == 2 and "config.json is missing" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
