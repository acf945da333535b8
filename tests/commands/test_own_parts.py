"""Classes of the user's own, named by a folder of configs alone: no program around the command."""

import os
import shutil

import pytest
from conftest import ROOT, save_images
from forked import Forked

from irbridge.commands.export import check_output
from irbridge.errors import UserError

PARTS = """
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irbridge.bridges import Brownian
from irbridge.data.degradations import Degradation
from irbridge.evaluation.metrics import Metric
from irbridge.samplers.single_step import Implicit


@dataclass(frozen=True)
class Own(Brownian):
    pass


@dataclass(frozen=True)
class Halved(Degradation):
    def apply(self, image, rng):
        return (image / 2).astype(np.float32)


@dataclass(frozen=True)
class Mine(Implicit):
    keep: float = 0.5
    name: ClassVar = "mine"


@dataclass(frozen=True)
class Bias(Metric):
    name: str = "Bias"
    digits: int = 2
    higher_is_better: bool = False

    def measure(self, restored, reference):
        return float(abs(restored.mean() - reference.mean()))
"""
FILES = {
    "bridge/MyOwn.yaml": "_target_: parts.Own\nT: 100\nsigma: 0.1\n",
    "sampler/mine.yaml": "defaults: [default]\n_target_: parts.Mine\nkeep: 0.7\n",
    "metric/bias.yaml": "_target_: parts.Bias\n",
    # nothing of its own but the degradation
    "task/Halve.yaml": "# @package _global_\ndefaults: [/base/synthetic]\n"
    "task: {name: Halve, degradation: {_target_: parts.Halved}}\n",
}


@pytest.mark.slow
def test_a_folder_of_configs_is_all_that_own_parts_need(tmp_path):
    """They are trained with, and the run is restored, scored, compared and exported again."""
    (tmp_path / "parts.py").write_text(PARTS)
    for name, text in FILES.items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    photos = save_images(tmp_path / "photos")
    shutil.copy(photos / "0.png", tmp_path / "photo.png")

    def irbridge(*words):
        path = os.pathsep.join([str(ROOT), str(tmp_path)])
        environment = os.environ | {"PYTHONPATH": path}
        done = Forked("-m", "irbridge", *words, cwd=tmp_path, env=environment)
        out, err = done.communicate()
        return done.returncode, out + err

    own, run, few = "--config-dir=own", "run=runs/Halve-debug", ("size=32", "limit=1")
    parts = "bridge=MyOwn", "sampler=mine"
    tiny = f"data.train={photos}", f"data.test={photos}", "adapter.width=4"
    tiny += "adapter.encoder=[1,1]", "adapter.decoder=[1,1]"
    alone = "restore", own, "task=derain", "sampler=mine", "steps=1", "input=photo.png"
    for words, shown in (
        (("train", own, "task=Halve", *parts, *tiny, "debug=default"), "(Own"),
        (("restore", own, run, "input=photo.png"), "Restored 1 of 1"),
        ((*alone, "sampler.keep=0.2"), "Restored 1 of 1"),
        (("evaluate", own, run, "metrics=[bias]", "method=identity", *few), "Bias"),
        (("compare", own, run, "bridges=[MyOwn]", "samplers=[mine]", "nfe=[1]", *few), "mine"),
        (("export", own, run, "output=handed", "size=32"), "Wrote: handed"),
    ):
        status, out = irbridge(*words)
        assert status == 0 and shown in out, f"{words}\n{out}"
    assert '"keep": 0.2' in (tmp_path / "restored-derain.json").read_text()
    for word, said in (
        ("sampler.kep=1", "'sampler.kep' is not a key"),
        ("sampler.keep=[1", "no value"),
    ):
        status, out = irbridge(*alone, word)
        assert status == 2 and said in out and out.count("\n") == 1
    status, out = irbridge("restore", run, "input=photo.png")
    assert status == 2 and "parts.Own" in out and "--config-dir" in out


def test_an_export_leaves_a_users_own_files_alone(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    # what claims to be an export's is none
    (tmp_path / "run.json").write_text('{"exported": true}')
    with pytest.raises(UserError, match="README.md is there and is not what irbridge wrote"):
        check_output(tmp_path / "run", tmp_path)
