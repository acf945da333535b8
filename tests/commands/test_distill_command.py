"""Distillation as a user types it: a teacher, its pupil, and what cannot be a teacher."""

import pytest

from irbridge.experiments.build import from_pretrained
from irbridge.files import read_json, write_json
from irbridge.models.distilled import Distilled
from irbridge.weights import load_weights

FAST = ("task=derain", "debug=default", "baseline=false", "evaluate.limit=1")


@pytest.fixture
def teacher(command, small, tmp_path):
    status, _, err = command("train", *FAST, *small, "bridge=ebridge", "name=teacher")
    assert status == 0, err
    return tmp_path / "runs/derain-teacher"


def test_a_pupil_of_a_trained_bridge(command, small, teacher, tmp_path):
    words = [*FAST, *small, "recipe=distill", f"teacher={teacher}", "sampler.steps=1"]
    assert "Stopped and saved" in command("train", *words, "name=pupil", "trainer.stop=2")[1]
    status, out, err = command("train", *words, "name=pupil")
    assert status == 0 and "Distilled (EBridge, end anchor, posterior, 1 calls)" in out, err
    pupil = tmp_path / "runs/derain-pupil"
    saved, taught = (read_json(folder / "config.json") for folder in (pupil, teacher))
    assert saved["method"] == "distill"
    for key in ("bridge", "endpoint", "timesteps"):  # its teacher's, whatever else was said
        assert saved[key] == taught[key]
    model = from_pretrained(pupil)
    assert isinstance(model, Distilled) and model.sampler.nfe == 1 and model.teacher is None
    # a file that names itself as its teacher is not followed
    write_json(pupil / "config.json", saved | {"teacher": str(pupil)})
    assert from_pretrained(pupil).teacher is None
    write_json(pupil / "config.json", saved)
    assert command("train", *words, "name=whole")[0] == 0
    whole, parts = (
        load_weights(tmp_path / f"runs/derain-{n}/model.safetensors") for n in ("whole", "pupil")
    )
    assert whole.keys() == parts.keys() and all(whole[k].equal(parts[k]) for k in whole)

    status, _, err = command("train", *words[:-2], f"teacher={pupil}", "name=again")
    assert status == 2 and f"teacher={pupil} is itself distilled" in err
    status, _, err = command("train", "task=dehaze", *words[1:], "name=other")
    assert status == 2 and "give task=derain to distill it" in err


def test_what_is_no_teacher(command, small, tmp_path):
    words = [*FAST, *small, "recipe=distill"]
    status, _, err = command("train", *words)
    assert status == 2 and "give teacher=RUN" in err
    status, _, err = command("train", *words, "teacher=nowhere")
    assert status == 2 and "nowhere" in err and "Error: " in err
    begun = ["bridge=ebridge", "name=begun", "trainer.stop=1"]
    assert "Stopped and saved" in command("train", *FAST, *small, *begun)[1]
    stopped = f"teacher={tmp_path / 'runs/derain-begun'}"
    status, _, err = command("train", *words, stopped)
    assert status == 2 and f"{stopped} is not trained to its end; run its own" in err
    scratch = ["recipe=bridge", "bridge=goub", "name=scratch"]
    assert command("train", *FAST, *small, *scratch)[0] == 0
    status, _, err = command("train", *words, f"teacher={tmp_path / 'runs/derain-scratch'}")
    assert status == 2 and "method=bridge; give a run through the frozen prior" in err
