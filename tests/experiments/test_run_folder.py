"""A run's folder: what belongs to it, what is finished, what may not be trained over."""

import json
import os

import pytest

from irbridge.errors import UserError
from irbridge.experiments.run_folder import (
    OWN_FOLDERS,
    check_finished,
    claim,
    finished,
    saved_alone,
)
from irbridge.files import write_json

CONFIG = {"run": "r", "seed": 0, "trainer": {"steps": 6, "minutes": None}, "overwrite": False}


def with_trainer(**changes):
    return CONFIG | {"trainer": CONFIG["trainer"] | changes}


def a_run(folder, step=6, checkpoint=True, **changes):
    """A run as a training of 6 steps leaves it at a step."""
    claim(folder, CONFIG | changes)
    write_json(folder / "config.json", {})
    (folder / "model.safetensors").write_text(f"weights of {step}")
    lines = [json.dumps({"step": n + 1}) + "\n" for n in range(step)]
    (folder / "metrics.jsonl").write_text("".join(lines) + '{"step": 9')
    if checkpoint:
        write_json(folder / f"checkpoints/step-{step:08d}/state.json", {"step": step})
    return folder


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_finished_weights_without_checkpoints_are_finished(tmp_path):
    run = a_run(tmp_path / "r", checkpoint=False)
    claim(run, CONFIG)
    assert finished(run) and saved_alone(run)
    assert (run / "model.safetensors").read_text() == "weights of 6"


@pytest.mark.parametrize("trainer", [[], {"steps": "6"}, {"steps": None}])
def test_a_run_file_that_holds_something_else_is_named(tmp_path, trainer):
    """Also where a training goes on, and where another begins from it."""
    run = a_run(tmp_path / "r")
    (run / "run.json").write_text(json.dumps(CONFIG | {"trainer": trainer}))
    for read in (
        finished,
        lambda run: check_finished(run, "start=r"),
        lambda run: claim(run, CONFIG),
    ):
        with pytest.raises(UserError, match=r"run.json: trainer.* must be .*; copy the file again"):
            read(run)


def test_a_step_that_is_no_number_is_passed_over(tmp_path):
    run = a_run(tmp_path / "r", checkpoint=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": Infinity}\n{"step": NaN}\n{"step": null}\n')
    assert finished(run)


def test_weights_half_way_without_checkpoints_are_refused(tmp_path):
    run = a_run(tmp_path / "r", step=4, checkpoint=False)
    before = files_of(run)
    assert not finished(run)
    with pytest.raises(UserError, match=r"holds the weights of step 4.*checkpoints.*gone.*name="):
        claim(run, CONFIG)
    assert files_of(run) == before


@pytest.mark.parametrize("step", [3, 6])
@pytest.mark.parametrize("changes", [{"steps": 3}, {"steps": 9}, {"minutes": 1.0}])
def test_another_budget_is_another_run(tmp_path, step, changes):
    run = a_run(tmp_path / "r", step)
    before = files_of(run)
    with pytest.raises(UserError, match=r"trainer\.(steps|minutes) was .* and is now"):
        claim(run, with_trainer(**changes))
    assert files_of(run) == before
    claim(run, with_trainer(stop=3))  # a training is ended early by this alone


def test_other_minutes_of_a_run_that_goes_on(tmp_path):
    minutes = {"trainer": {"steps": 6, "minutes": 1.0}}
    run = a_run(tmp_path / "r", 3, **minutes)
    claim(run, with_trainer(minutes=2.0))  # its pace says how many steps fill them
    write_json(run / "pace.json", {"steps": 3, "minutes": 2.0, "seconds_per_step": 1})
    with pytest.raises(UserError, match="trainer.minutes was 2.0, which are over"):
        claim(run, with_trainer(minutes=5.0))


def test_what_is_taken_over_has_no_budget(tmp_path):
    taken = CONFIG | {"reuse": "x"}
    claim(tmp_path / "r", taken)
    (tmp_path / "r/model.safetensors").write_text("")
    claim(tmp_path / "r", taken | {"trainer": {"steps": 99}})


def test_overwriting_removes_what_irbridge_wrote_and_nothing_else(tmp_path):
    run = a_run(tmp_path / "r", overwrite=True)
    (run / "results/row").mkdir(parents=True)
    (run / "results/row/records.jsonl").write_text("")
    mine = ["notes.txt", "results/notes.txt", "results/row/remark.md", "samples/x.psd", "own/a.png"]
    mine += ["samples/x.png", "results/plot.png", "checkpoints/keep/model.safetensors"]
    mine += ["checkpoints/best.safetensors"]
    theirs = ["samples/step-000001.png", "samples/.step-000001.png.pc-1.tmp"]
    theirs += ["checkpoints/.tmp-123/ema.safetensors", "results/row/a.png", "real/scores.md"]
    for name in (*mine, *theirs):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("mine")
    os.symlink(tmp_path, run / "results/link")
    claim(run, with_trainer(steps=3) | {"overwrite": True})
    assert sorted(files_of(run)) == sorted([*mine, "run.json"])
    assert tmp_path.exists() and (run / "results/link").is_symlink()


def test_a_folder_is_a_runs_while_it_is_emptied(tmp_path, monkeypatch):
    """Killed in the middle, the same command goes on."""
    run, killed = a_run(tmp_path / "r", overwrite=True), []

    def kill(*_):
        killed.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr("irbridge.experiments.run_folder._remove_files", kill)
    other = with_trainer(steps=3) | {"overwrite": True}
    (run / "samples").mkdir()
    with pytest.raises(KeyboardInterrupt):
        claim(run, other)
    monkeypatch.undo()
    claim(run, other)
    assert killed and json.loads((run / "run.json").read_text())["trainer"]["steps"] == 3


def test_a_training_into_an_exported_adapter_is_refused(tmp_path):
    for name in ("run.json", "README.md", "restored.jpg", "model.safetensors", "config.json"):
        (tmp_path / "e" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "e" / name).write_text("{}")
    with pytest.raises(UserError, match="exported adapter"):
        claim(tmp_path / "e", CONFIG)


@pytest.mark.parametrize("name", [*OWN_FOLDERS, "model.safetensors", "thesis/"])
def test_a_folder_that_no_run_has_made_is_refused(tmp_path, name):
    (tmp_path / "r").mkdir()
    place = tmp_path / "r" / name
    place.mkdir() if name.endswith("/") or name in OWN_FOLDERS else place.write_text("")
    with pytest.raises(UserError, match="is no run of irbridge"):
        claim(tmp_path / "r", CONFIG)
