"""Killed at any change of a file, a run loses at most what was in progress, and never a finished
file."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, trainer_options
from kill_commands import killed
from runs_alike import assert_same, regression
from safetensors.torch import load_file

from irbridge import files, weights
from irbridge.data.crops import CropStream
from irbridge.data.degradations import Noise
from irbridge.data.image_source import ImageSource
from irbridge.data.pair import Pair
from irbridge.evaluation.evaluate import evaluate
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import About
from irbridge.files import read_json, write_json
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.trainer import Trainer
from irbridge.weights import save_weights

# audit events of files
CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def killed_at(count, work, under):
    """Run ``work`` in a child that is killed just before its count-th change of a file below a
    folder, or in the middle of writing tensors; whether it was."""
    if not (child := os.fork()):
        try:
            changes, folder, save_file = itertools.count(1), str(under), weights.save_file

            def die_in_time(*_):
                if next(changes) == count:
                    os.kill(os.getpid(), signal.SIGKILL)

            def halting(tensors, path):
                path.write_bytes(b"half")
                die_in_time()
                save_file(tensors, path)

            weights.save_file = halting
            sys.addaudithook(
                lambda event, args: (
                    die_in_time() if event in CHANGES and folder in str(args[0]) else None
                )
            )
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def every_kill(work, under):
    """Kill ``work`` at its first change, at its second, ..., each time in the folder as it was;
    yields after each."""
    start = under.with_name("start")
    shutil.copytree(under, start)
    for count in itertools.count(1):
        shutil.rmtree(under)
        shutil.copytree(start, under)
        if not killed_at(count, work, under):
            assert count > 3
            return
        yield count


def test_a_file_is_the_old_or_the_new_one(tmp_path):
    path = tmp_path / "run/a.json"
    write_json(path, {"a": "old" * 1000})
    seen = set()
    for _ in every_kill(lambda: write_json(path, {"a": "new" * 1000}), path.parent):
        seen.add(read_json(path)["a"][:3])
        files.remove_leftovers(path.parent)
        assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    assert seen == {"old", "new"}


def test_a_checkpoint_is_the_old_or_the_new_one(tmp_path):
    """At every change of a file, and in the middle of every tensor file."""
    module, old, new = (torch.nn.Linear(2, 2) for _ in range(3))
    ema, optimizer = torch.optim.swa_utils.AveragedModel(new), torch.optim.AdamW(new.parameters())
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(1, old, ema, optimizer)
    seen = set()
    for count in every_kill(
        lambda: checkpoints.save(2, new, ema, optimizer), checkpoints.folder.parent
    ):
        step = checkpoints.restore(module, ema, optimizer)["step"]
        assert torch.equal(module.weight, {1: old, 2: new}[step].weight)
        seen.add(step)
        if count % 4 == 0:
            checkpoints.save(3, new, ema, optimizer)
            assert [p.name for p in checkpoints.folder.iterdir()] == ["step-00000003"]
    assert seen == {1, 2}


def test_training_killed_at_seeded_changes_is_uninterrupted(tmp_path, images):
    """In an interpreter of its own: where a network's cost was counted, torch refuses a backward
    pass in a fork."""
    done = subprocess.run(
        [sys.executable, __file__, tmp_path, images],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def killed_training(folder, images):
    """Every round gets a little further before it is killed: in saving, logging, sampling, or while
    it starts."""
    stream = CropStream(ImageSource(images), 16, 0, Noise())

    def train(run):
        Trainer(
            regression(),
            stream,
            trainer_options(steps=6, save_every=2, sample_every=3),
            3,
            run,
            lambda model, step: write_json(run / f"samples/{step}.png", {}),
            lambda weights: save_weights(run / "model.safetensors", weights),
        ).run()

    run, draw, kills = folder / "run", random.Random(0), 0
    run.mkdir()
    while killed_at(draw.randint(20, 90), lambda: train(run), run):
        kills += 1
        assert len(lines := (run / "metrics.jsonl").read_text().splitlines()) <= 6 and all(
            map(json.loads, lines)
        )
    assert kills >= 3
    train(folder / "whole")
    assert_same(run, folder / "whole")
    assert torch.equal(
        *(
            load_file(r / "model.safetensors")["unet.conv_out.weight"]
            for r in (run, folder / "whole")
        )
    )


class Pairs:
    def __init__(self):
        self.names = ["a", "b", "c"]

    def __getitem__(self, index):
        import numpy as np

        image = np.random.default_rng(index).random((16, 16, 3), dtype=np.float32)
        return Pair(self.names[index], image, image)


def test_evaluation_loses_at_most_the_image_in_progress(tmp_path):
    folder, calls = tmp_path / "results", []
    folder.mkdir()

    def score():
        return list(
            evaluate(
                lambda image, name: (calls.append(name), image)[1],
                Pairs(),
                Protocol(),
                folder,
                About("r", "t", seed=0),
                save_images=True,
            )
        )

    for _ in every_kill(score, folder):
        lines = folder / "records.jsonl"
        kept = lines.read_text().count("\n") if lines.exists() else 0
        with open(lines, "a") as handle:
            handle.write('{"name": "ha')
        calls.clear()
        assert [r.name for r in score()] == Pairs().names
        # of the last record that was kept, the image may still have been missing
        assert len(calls) <= 3 - kept + (kept > 0)
        assert [
            json.loads(line)["name"] for line in lines.read_text().splitlines()
        ] == Pairs().names


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate", "restore", "table"])
def test_commands_killed_at_random_moments_are_uninterrupted(tmp_path, command):
    assert killed(tmp_path, command, kills=4, seed=0) >= 1


if __name__ == "__main__":
    killed_training(*map(Path, sys.argv[1:]))
