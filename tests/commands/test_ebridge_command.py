"""E-Bridge as a user types it: trained, saved, scored, compared, from scratch, and refused."""

import numpy as np
import pytest

from irbridge.bridges import EBridge
from irbridge.evaluation.records import read_records
from irbridge.experiments.build import from_pretrained
from irbridge.experiments.config import composed
from irbridge.files import read_json


@pytest.fixture
def run(command, small, tmp_path):
    """A run of seconds, trained with consistency, and what it printed."""
    words = ["task=inpaint", "bridge=ebridge", "debug=default", "loss.consistency=0.5"]
    status, out, err = command("train", *words, *small, "baseline=false", "evaluate.limit=1")
    assert status == 0, err
    return tmp_path / "runs/inpaint-debug", out


def test_a_run_is_saved_loaded_and_compared(run, command, tmp_path):
    folder, out = run
    assert "IRBridge (EBridge, end anchor, reverse, 2 calls)" in out
    assert "DDIM, same adapter and start" in out
    saved = read_json(folder / "config.json")["bridge"]
    assert saved == {
        "_target_": "irbridge.bridges.EBridge",
        "T": 1.0,
        "T0": 0.9,
        "start": "marginal",
    }
    model = from_pretrained(folder)
    assert model.bridge == EBridge().on(model.backbone.prior)
    image = np.random.default_rng(0).random((40, 48, 3), dtype=np.float32)
    holes = np.zeros((40, 48), bool)
    holes[8:24, 8:30] = True
    restored = model.restore(image, mask=holes, nfe=4)
    assert np.array_equal(restored[~holes], image[~holes])
    assert np.array_equal(restored, from_pretrained(folder).restore(image, mask=holes, nfe=4))

    words = [f"run={folder}", "size=32", "limit=1", "device=cpu"]
    status, out, err = command("evaluate", *words, "sampler=drawn", "sampler.nfe=3")
    assert status == 0 and "EBridge, end anchor, drawn, 3 calls" in out, err
    status, out, err = command(
        "compare_samplers",
        *words,
        "bridges=[brownian,ebridge]",
        "samplers=[reverse,drawn,odes3,ddim]",
        "starts=[null,50]",
        "nfe=[1,2]",
        f"results={tmp_path / 'compared'}",
    )
    assert status == 0, err
    rows = {record.about.row for record in read_records(tmp_path / "compared")}
    for row in ("ebridge, reverse", "ebridge, drawn", "ebridge, odes3", "no bridge, ddim"):
        assert f"{row}, time, 2 calls" in rows, rows
    # what the network says is x0 on another bridge, and the moving image here
    assert not any(row.startswith("brownian") for row in rows)
    assert "left out: brownian, drawn" in out + err and "means another image" in out + err
    assert "left out: ebridge from 50" in out + err
    assert "bridge.T0, says where it starts" in out + err
    status, out, err = command("compare_samplers", *words, "bridges=[goub,brownian]", "nfe=[1]")
    assert status == 2 and "adapter was trained on; give bridges=[ebridge]" in err


@pytest.mark.parametrize("task, horizon", [("denoise", 0.7), ("sr", 0.8), ("derain", 0.9)])
def test_the_task_chooses_the_horizon(task, horizon):
    config = composed("train", "name=t", "bridge=ebridge", f"task={task}")
    assert config["bridge"]["T0"] == horizon == config["task"]["horizon"]


def test_from_scratch(command, small, tmp_path):
    """A network of its own on the path of a rectified flow, as it was published."""
    words = ["task=derain", "bridge=ebridge", "recipe=bridge", "debug=default", *small]
    status, out, err = command("train", *words, "evaluate.limit=1")
    assert status == 0, err
    assert "Bridge from scratch (EBridge, implicit, 2 calls)" in out
    model = from_pretrained(tmp_path / "runs/derain-debug")
    assert model.bridge == EBridge()
    # where the target is the noise, no call is made at the end, which has nothing clean
    words += ["objective.target=noise", "name=noise"]
    status, out, err = command("train", *words, "evaluate.limit=1")
    assert status == 0, err
    model = from_pretrained(tmp_path / "runs/derain-noise")
    image = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    assert model.skips and np.isfinite(model.restore(image)).all()


@pytest.mark.parametrize(
    "word, said",
    [
        ("bridge.T0=1.2", "at most 1, the prior's last level"),
        ("bridge.T0=0", "above 0"),
        ("bridge.T0=-0.5", "above 0"),
        ("task.horizon=2", "at most 1, the prior's last level"),
        ("bridge.start=y", "no state of the prior"),
        ("sampler.rule=heun", "set sampler.boot"),
        ("sampler.rule=odes3", "set sampler.boot"),
        ("loss.consistency=-1", "0 or more"),
        ("loss.consistency_step=0", "above 0"),
    ],
)
def test_bad_input_is_one_sentence_before_any_work(word, said, command, small, tmp_path):
    words = ["task=derain", "bridge=ebridge", "debug=default", *small]
    status, _, err = command("train", *words, word)
    sentence = err.strip().splitlines()[-1]
    assert status == 2 and sentence.startswith("Error: ") and said in sentence, err
    assert not list((tmp_path / "runs").glob("*/metrics.jsonl"))
