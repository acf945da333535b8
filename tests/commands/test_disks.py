"""Full, read-only and damaged disks, failing pictures, clocks that jump: one sentence, and nothing
computed is lost."""

import errno
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, trainer_options
from runs_alike import QUICK, assert_same, regression

from irbridge.errors import UserError
from irbridge.experiments import run_folder
from irbridge.experiments.config import one_sentence
from irbridge.files import locked, read_json, write_atomically, write_json
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.trainer import Trainer
from irbridge.weights import save_weights


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MiB; skips where none can be mounted."""
    at = tmp_path / "disk"
    at.mkdir()
    made = (
        shutil.which("mount")
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(at)],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )
    if not made:
        pytest.skip("mounting needs root")
    yield at
    subprocess.run(["umount", "-l", str(at)], check=True)


def fill(disk):
    with open(disk / "filler", "ab", buffering=0) as handle:
        try:
            while handle.write(b"x" * 4096):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


@pytest.mark.parametrize(
    "at, file",
    [
        ("log", "metrics.jsonl"),
        ("sample", "samples/2.png"),
        ("save", "model.safetensors"),
        ("log", "checkpoint of step 2"),
    ],
)
def test_a_disk_that_is_really_full(disk, tmp_path, stream, at, file):
    def train(run, full=""):
        def at_point(name, step):
            if full == name and step == 2:
                fill(disk)

        def sample(model, step):
            at_point("sample", step)
            write_atomically(run / f"samples/{step}.png", lambda p: p.write_bytes(b"x" * 50_000))

        saves = itertools.count(1)

        def save(weights):
            at_point("save", next(saves))
            save_weights(run / "model.safetensors", weights)

        return Trainer(
            regression(),
            stream,
            trainer_options(steps=4, save_every=1, sample_every=1),
            3,
            run,
            None if "checkpoint" in file else sample,
            save,
            lambda line: at_point("log", line["step"]),
        ).run()

    run, whole = disk / "run", tmp_path / "whole"
    if file == "metrics.jsonl":
        Trainer(regression(), stream, trainer_options(steps=4, stop=2), 3, run).run()
        fill(disk)
    with pytest.raises((OSError, RuntimeError)) as caught:
        train(run, at)
    said = one_sentence(caught.value)
    assert re.search(rf"{file}\b.*No space left on device.*make room", said), said
    assert (
        Checkpoints(run).latest() and not list(run.rglob(".*.tmp")) and len(said.splitlines()) == 1
    )
    (disk / "filler").unlink()
    assert train(run)
    train(whole)
    assert_same(run, whole)


def test_a_read_only_disk(disk, command, small):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    status, _, err = command("train", *small, *QUICK, f"run={disk / 'run'}")
    assert status == 2 and f"{disk / 'run'} cannot be written" in err and "writable folder" in err


@pytest.mark.parametrize(
    "number, remedy",
    [(errno.ENOSPC, "make room"), (errno.EFBIG, "make room"), (errno.EACCES, "permissions")],
)
def test_a_refused_write_names_the_file(tmp_path, number, remedy):
    def refused(path):
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError) as caught:
        write_atomically(tmp_path / "run.json", refused)
    said = one_sentence(caught.value)
    assert str(tmp_path / "run.json") in said and os.strerror(number) in said and remedy in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["state.json", "model.safetensors", "optimizer.safetensors"])
def test_a_checkpoint_that_lacks_a_file(tmp_path, stream, file):
    Trainer(regression(), stream, trainer_options(stop=2), 0, tmp_path).run()
    folder = Checkpoints(tmp_path).latest()
    (folder / file).unlink()
    with pytest.raises(
        UserError, match=f"{file} is missing; delete the damaged checkpoint {folder} and run"
    ):
        Trainer(regression(), stream, trainer_options(), 0, tmp_path).run()
    shutil.rmtree(folder)
    assert Trainer(regression(), stream, trainer_options(), 0, tmp_path).run()
    Trainer(regression(), stream, trainer_options(), 0, tmp_path / "whole").run()
    assert_same(tmp_path, tmp_path / "whole")


def test_a_state_of_another_step_is_refused(tmp_path, stream):
    Trainer(regression(), stream, trainer_options(stop=2), 0, tmp_path).run()
    write_json(Checkpoints(tmp_path).latest() / "state.json", {"step": 5})
    with pytest.raises(
        UserError, match="state.json is not readable as the state of that step; delete"
    ):
        Trainer(regression(), stream, trainer_options(), 0, tmp_path).run()


@pytest.mark.parametrize("text", ["", "{", "[1]", "\0" * 40])
def test_a_damaged_run_json(tmp_path, text):
    write_json(tmp_path / "run.json", {})
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="run.json"):
        run_folder.claim(tmp_path, {"seed": 0})


def test_what_is_no_checkpoint_is_passed_over(tmp_path, stream):
    Trainer(regression(), stream, trainer_options(stop=2), 0, tmp_path).run()
    (tmp_path / "checkpoints/step-old").mkdir()
    assert Checkpoints(tmp_path).latest().name == "step-00000002"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_files_mode_follows_the_umask_of_the_moment(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "run.json", {})
        save_weights(tmp_path / "model.safetensors", {"x": torch.zeros(1)})
        assert os.umask(umask) == umask  # which writing leaves alone
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("run.json", "model.safetensors"), 0o666 & ~umask)


def test_importing_leaves_the_umask_alone():
    code = (
        "import os; before = os.umask; calls = []\n"
        "os.umask = lambda mask: calls.append(mask) or before(mask)\n"
        "import irbridge.files; assert not calls"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, cwd=ROOT)


@pytest.mark.parametrize("length", [200, 250])
def test_a_long_name_has_room_for_what_is_written_aside(tmp_path, length):
    path = tmp_path / ("x" * (length - 5) + ".json")
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_the_system_does_not_open_costs_nothing(tmp_path, monkeypatch):
    opened = os.open

    def refuses(path, *flags, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *flags, **options)

    monkeypatch.setattr(os, "open", refuses)
    write_json(tmp_path / "run.json", {"a": 1})
    assert read_json(tmp_path / "run.json") == {"a": 1}


def test_brackets_without_end_are_no_json(tmp_path):
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="run.json is not readable as JSON"):
        read_json(tmp_path / "run.json")


# what else may fail


@pytest.mark.parametrize("what", ["log", "sample"])
def test_a_failing_picture_or_logger_does_not_cost_the_training(tmp_path, stream, what):
    def fails(*arguments):
        raise ValueError("a picture")

    hooks = {"log": {"log": fails}, "sample": {"on_sample": fails}}[what]
    with pytest.raises(ValueError, match="a picture"):
        Trainer(regression(), stream, trainer_options(sample_every=1), 0, tmp_path, **hooks).run()
    assert Checkpoints(tmp_path).latest().name == "step-00000001"
    Trainer(regression(), stream, trainer_options(), 0, tmp_path).run()
    Trainer(regression(), stream, trainer_options(), 0, tmp_path / "whole").run()
    assert_same(tmp_path, tmp_path / "whole")


def test_clocks_that_jump_change_nothing(tmp_path, stream, monkeypatch):
    jumps = random.Random(0)
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: jumps.uniform(-1e9, 4e9))
        for stop in (2, 4, None):
            Trainer(
                regression(),
                stream,
                trainer_options(stop=stop, save_every=1),
                0,
                tmp_path,
                log=lambda line: [
                    os.utime(p, (0, jumps.uniform(0, 4e9))) for p in tmp_path.rglob("*")
                ],
            ).run()
    Trainer(regression(), stream, trainer_options(), 0, tmp_path / "whole").run()
    assert_same(tmp_path, tmp_path / "whole")


def test_a_gradient_scaler_goes_on(tmp_path, stream, monkeypatch):
    from irbridge.training import trainer

    class Scaled(trainer.Accelerator):
        def __init__(self, **options):
            super().__init__(**options)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)

    monkeypatch.setattr(trainer, "Accelerator", Scaled)
    Trainer(regression(), stream, trainer_options(steps=8), 0, tmp_path / "whole").run()
    for stop in (2, None):
        Trainer(regression(), stream, trainer_options(steps=8, stop=stop), 0, tmp_path).run()
    scalers = [
        read_json(Checkpoints(r).latest() / "state.json")["scaler"]
        for r in (tmp_path, tmp_path / "whole")
    ]
    assert (
        scalers[0] == scalers[1]
        and scalers[0]["scale"] == 16
        and scalers[0]["_growth_tracker"] == 2
    )
    assert_same(tmp_path, tmp_path / "whole")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no such file system")
def test_a_place_where_no_file_can_be_made_is_not_called_in_use():
    with pytest.raises(UserError, match="cannot be written"), locked(Path("/proc")):
        pass
