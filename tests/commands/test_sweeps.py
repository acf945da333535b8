"""Stop signals, locks and failing jobs: of one command, of two on one folder, of a sweep."""

import gc
import json
import os
import signal
import sys
import time
import weakref
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from forked import Forked
from runs_alike import QUICK

from irbridge import cli
from irbridge.commands import train
from irbridge.errors import UserError
from irbridge.evaluation import share
from irbridge.files import locked
from irbridge.training.checkpoint import Checkpoints
from irbridge.weights import load_weights


def test_a_stop_of_the_whole_group_saves(tmp_path, small):
    """As a terminal and a cluster do it: the workers of the loader get the signal as well."""
    words = [
        *small,
        *QUICK,
        "name=r",
        "trainer.steps=100000",
        "trainer.save_every=100000",
        "trainer.workers=2",
        "trainer.save_seconds=1e9",
        "trainer.schedule=constant",
    ]
    for number in (signal.SIGTERM, signal.SIGINT):
        process = Forked(ROOT / "scripts/train.py", *words, f"run_root={tmp_path}")
        run = tmp_path / "derain-r"
        before = Checkpoints(run).latest()
        start = int(before.name[5:]) if before else 0
        log, deadline = run / "metrics.jsonl", time.monotonic() + 300
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if log.exists() and log.read_text().count("\n") > start + 2:
                    process.send_signal(number, group=True)
                    break
                time.sleep(0.05)
            out, err = process.communicate()
        finally:
            process.send_signal(signal.SIGKILL)
        assert process.returncode == 0 and "Stopped and saved" in out and "Error" not in err, err
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        assert int(Checkpoints(run).latest().name[5:]) == steps[-1] == len(steps) > start + 2


def test_two_commands_on_one_run(command, small, tmp_path):
    words = [*small, *QUICK, "name=r", "trainer.steps=1"]
    run = tmp_path / "runs/derain-r"
    with locked(run):
        status, out, err = command("train", *words)
        assert (
            status == 2
            and out == ""
            and f"{run} is in use by another process" in err
            and len(err.splitlines()) == 1
        )
        assert [p.name for p in run.iterdir()] == [".lock"]
    status, _, err = command("train", *words)
    assert status == 0 and not (run / ".lock").exists(), err


def test_a_lock_dies_with_its_process_though_children_live_on(tmp_path):
    """As the workers of a loader do for a few seconds."""

    def hold():
        with locked(tmp_path):
            if not os.fork():
                os.read(stay, 1)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)

    stay, end = os.pipe()
    child = os.fork()
    if not child:
        os.close(end)
        hold()
    os.waitpid(child, 0)
    try:
        with locked(tmp_path), pytest.raises(UserError, match="in use"), locked(tmp_path):
            pass
    finally:
        os.write(end, b"x")
        os.close(end)
        os.close(stay)


def test_every_process_of_a_refused_command_leaves(tmp_path, monkeypatch):
    state = type("State", (), {"is_main_process": False, "num_processes": 2, "process_index": 1})
    monkeypatch.setattr(train, "processes", lambda **_: state)
    monkeypatch.setattr(
        share,
        "broadcast_object_list",
        lambda objects: objects.__setitem__(0, UserError("in use")),
    )
    with pytest.raises(UserError, match="in use"), train.alone(tmp_path / "run", cpu=True):
        raise AssertionError("went on")
    assert not (tmp_path / "run").exists()


def sweep_words(small, *words):
    return ["-m", *small, *QUICK, "trainer.steps=2", "name=r${seed}", *words]


def test_a_stop_signal_ends_the_sweep(command, small, tmp_path, monkeypatch):
    def stops(config, run):
        return lambda line: os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train, "mirror", stops)
    status, out, err = command("train", *sweep_words(small, "seed=0,1"))
    assert status == 130 and "Stopped and saved" in out, err
    assert err.endswith("Interrupted; what was finished is saved, and the same command goes on.\n")
    assert [p.name for p in (tmp_path / "runs").iterdir() if p.is_dir()] == ["derain-r0"]


def test_a_failing_job_of_a_sweep(command, small, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/derain-r0").write_text("")
    status, _, err = command("train", *sweep_words(small, "seed=0,1"))
    told = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert (
        status == 2
        and len(told) == 1
        and told[0].startswith("Error: Job 0 (")
        and "seed=0" in told[0]
    )
    assert "derain-r0 is a file" in told[0] and load_weights(
        tmp_path / "runs/derain-r1/model.safetensors"
    )


@pytest.mark.parametrize("swept", ["trainer.steps=1,2", "seed=0,1"])
def test_jobs_of_a_sweep_that_share_a_place(command, small, tmp_path, swept):
    """The last one alone is done, wherever -m stands, and its run is as if it were asked alone."""
    words = [*small, *QUICK, "trainer.steps=2", "name=s", "-m", swept]
    status, _, err = command("train", *words)
    told = [line for line in err.splitlines() if line.startswith("Error: ")]
    key, values = swept.split("=")
    first, last = values.split(",")
    assert status == 2 and len(told) == 1, err
    assert f"{key}={first}" in told[0] and f"is also that of the job {key}={last}" in told[0]
    run = tmp_path / "runs/derain-s"
    settings = json.loads((run / "run.json").read_text())
    assert (settings["seed"] if key == "seed" else settings["trainer"]["steps"]) == int(last)
    assert command("train", *small, *QUICK, "trainer.steps=2", "name=t", f"{key}={last}")[0] == 0
    weights = [load_weights(tmp_path / f"runs/derain-{n}/model.safetensors") for n in "st"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_a_failing_job_in_a_worker_process(small, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "derain-r0").write_text("")
    words = sweep_words(
        small,
        "seed=0,1",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        f"run_root={tmp_path}",
    )
    done = Forked(ROOT / "scripts/train.py", *words, cwd=tmp_path)
    _, err = done.communicate()
    told = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert (
        done.returncode == 2
        and len(told) == 1
        and "Job 0 (" in told[0]
        and "derain-r0 is a file" in told[0]
    )
    assert load_weights(tmp_path / "derain-r1/model.safetensors")


@pytest.mark.parametrize(
    "script, module, words",
    [
        ("profile_speed", "profile", []),
        ("compare_samplers", "compare", ["run=data/adapters/derain"]),
        ("export_adapter", "export", ["run=data/adapters/derain", "output=out"]),
    ],
)
def test_commands_that_compute_take_threads(command, monkeypatch, script, module, words):
    def taken(requested):
        raise UserError(f"so many: {requested}")

    monkeypatch.setattr(f"irbridge.commands.{module}.set_threads", taken, raising=False)
    status, _, err = command(script, *words, "threads=7")
    assert status == 2 and "so many: 7" in err


def test_what_a_job_leaves_behind_is_collected_in_the_next(monkeypatch):
    """Also in cycles, such as a model whose parts know it."""
    left, alive = [], []

    def job(cfg):
        gc.collect()
        alive.append([found() is not None for found in left])
        cycle = type("Model", (), {})()
        cycle.itself = cycle
        left.append(weakref.ref(cycle))

    monkeypatch.setattr(
        "irbridge.experiments.config.run_cli", lambda task, config: [task(None) for _ in range(3)]
    )
    monkeypatch.setattr(cli, "import_module", lambda name: SimpleNamespace(train_run=job))
    monkeypatch.setattr(sys, "argv", [])
    gc.unfreeze()
    cli._under_hydra(cli.COMMANDS["train"], "train", [])
    assert alive == [[], [False], [False, False]] and gc.get_freeze_count() and gc.isenabled()
    gc.unfreeze()
