"""A finished run becomes a folder that another machine can use, and its card says what was measured."""

import json

import numpy as np
import torch
from safetensors.torch import load_file

from irbridge import read_image
from irbridge.build import from_pretrained


def test_an_exported_run_restores_alike_and_its_card_says_what_was_done(command, small, tmp_path, images):
    status, _, error = command("train", "name=mine", "trainer=cpu", "trainer.steps=2", "trainer.batch_size=2", "trainer.crop=16",
                               "baseline=false", "evaluate.all_rows=false", *small)
    assert status == 0, error
    run, out = tmp_path / "runs/derain-mine", tmp_path / "out"
    words = [f"run={run}", f"output={out}", f"results=[{run / 'results'}]", "weak='Hail, & \"sleet\".'", "machine=a desk",
             "size=32"]
    status, printed, error = command("export_adapter", *words)
    assert status == 0 and str(out) in printed, error
    card, said = (out / "README.md").read_text(), json.loads((out / "run.json").read_text())
    record = json.loads((run / "results").rglob("records.jsonl").__next__().read_text().splitlines()[0])
    for words in ("2 steps of 2 crops of 16 px: 4 crops", 'Hail, & "sleet".', "a desk", "irbridge.degradations.Rain",
                  record["protocol"], "PSNR", "4 photographs"):
        assert words in card
    assert not said.keys() & {"run", "run_root", "name"}
    assert {v.dtype for v in load_file(out / "model.safetensors").values()} == {torch.float16}
    assert 0 <= json.loads((out / "config.json").read_text())["bf16_error"] < 255
    image = read_image(images / "0.png")
    ours, theirs = (from_pretrained(folder).restore(image) for folder in (out, run))
    assert 0 < np.abs(ours - image).max() and np.allclose(ours, theirs, atol=2e-3)


def test_a_card_tells_of_the_training_before(command, small, tmp_path):
    """Of the run that another started from, or the name of an exported folder, which has no metrics."""
    words = ["trainer=cpu", "trainer.batch_size=2", "trainer.crop=16", "baseline=false", "evaluate.enabled=false", *small]
    assert command("train", "name=one", "trainer.steps=2", *words)[0] == 0
    run, out = tmp_path / "runs/derain-one", tmp_path / "out"
    assert command("export_adapter", f"run={run}", f"output={out}", "size=32")[0] == 0
    for name, start, said in (("two", run, "2 steps of 2 crops of 16 px: 4 crops, then 3 steps"),
                              ("three", out, "the weights of out, then 3 steps")):
        assert command("train", f"name={name}", f"start={start}", "trainer.steps=3", *words)[0] == 0
        assert command("export_adapter", f"run={tmp_path / f'runs/derain-{name}'}", f"output={tmp_path / name}", "size=32")[0] == 0
        assert said in (tmp_path / name / "README.md").read_text()


def test_a_folder_that_was_not_trained_is_refused(command, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, error = command("export_adapter", f"run={tmp_path / 'empty'}", f"output={tmp_path / 'out'}")
    assert status == 2 and "config.json is missing" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
