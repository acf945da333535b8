"""What a restoring command imports and reads before its first network call, each in a process of
its own."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from irbridge.backbones import pretrained_files
from irbridge.files import read_json, write_json

HEAVY = (
    "torchvision",
    "lpips",
    "transformers",
    "peft",
    "scipy",
    "matplotlib",
    "accelerate",
    "skimage",
    "sympy",
    "wandb",
    "torch._dynamo",
)
FIRST_CALL = """
import json, subprocess, sys
from irbridge import cli
git = []
run = subprocess.Popen.__init__
def noted(self, words, *a, **k):
    git.append(words[0])
    return run(self, words, *a, **k)

subprocess.Popen.__init__ = noted

def seen(*call):
    print("MODULES " + json.dumps([sorted(sys.modules), git]), flush=True)
    raise SystemExit(0)

import torch
torch.nn.Conv2d.forward = seen
sys.argv = ["irbridge", "restore", *sys.argv[1:]]
cli.main()
"""


def ran(code, *words, **environment):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "IRBRIDGE_DEBUG": "1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.full((24, 24, 3), 90, np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("words", [["precision=float32"], ["precision=auto"], ["steps=0"]])
def test_nothing_heavy_is_imported_before_the_first_call(photo, tmp_path, words):
    out = ran(
        FIRST_CALL, "task=derain", f"input={photo}", *words, IRBRIDGE_CACHE=str(tmp_path / "cache")
    )
    modules, commands = json.loads(out.split("MODULES ")[1].splitlines()[0])
    assert (
        not {name for name in modules if name in HEAVY or name.split(".")[0] in HEAVY}
        and "git" not in commands
    )
    assert "torch" in modules and "diffusers" not in modules


def test_irbridge_alone_imports_next_to_nothing():
    assert (
        ran("import sys, irbridge; print('torch' in sys.modules, 'numpy' in sys.modules)").split()
        == ["False"] * 2
    )


def test_the_lean_network_is_the_ordinary_one():
    """Same output, bit by bit, same config; and all of diffusers is there afterwards, with its
    optional packages."""
    out = ran("""
import logging, sys, torch
from irbridge.backbones.pixel import load_backbone
net = load_backbone().network
assert "diffusers" not in sys.modules and "peft" not in sys.modules and "scipy" not in sys.modules
import diffusers, importlib.util
ordinary = diffusers.UNet2DModel.from_pretrained("data/prior").eval()
assert type(net) is not diffusers.UNet2DModel
x = torch.rand(1, 3, 32, 32)
assert torch.equal(net(x, 10).sample, ordinary(x, 10).sample)
known = {k: v for k, v in ordinary.config.items() if not k.startswith("_")}
assert {k: net.config[k] for k in known} == known
there = importlib.util.find_spec("transformers") is not None
assert diffusers.utils.is_transformers_available() == there
assert diffusers.utils.is_peft_available() == (importlib.util.find_spec("peft") is not None)
assert len(logging.getLogger("diffusers").handlers) == 1
assert load_backbone().network.config.in_channels == 3
from diffusers import AutoencoderKL, UNet2DConditionModel
import scipy, importlib.metadata
assert "scipy" in importlib.metadata.packages_distributions()
print("done")
""")
    assert out.split() == ["done"]


@pytest.mark.parametrize(
    "fault", ["lean.BARE = {'diffusers.models.unets.unet_2d'}", "import diffusers"]
)
def test_any_failure_falls_back_to_the_ordinary_import(fault):
    out = ran(f"""
from irbridge.backbones import lean
{fault}
from irbridge.backbones.lean import unet_class
found = unet_class()
import diffusers, sys
print(found is diffusers.UNet2DModel, type(sys.meta_path[0]).__name__ == "_Finder")
""")
    assert out.split() == ["True", "False"]


@pytest.fixture
def of_a_prior(tmp_path):
    """An adapter as one that was trained with the embedded prior: it calls it, and knows its
    hash."""
    folder = tmp_path / "adapter"
    shutil.copytree(ROOT / "data/adapters/derain", folder)
    config = read_json(folder / "config.json")
    config["backbone"]["digest"], config["sampler"]["nfe"] = (
        pretrained_files.digest(ROOT / "data/prior"),
        3,
    )
    write_json(folder / "config.json", config)
    return folder


def test_an_anchor_alone_leaves_the_frozen_network_on_the_disk(of_a_prior):
    out = ran(f"""
import sys, torch
from irbridge.backbones import pretrained_files
from irbridge.experiments.build import from_pretrained
read = []
load, digest = pretrained_files.load, pretrained_files.digest
pretrained_files.load = lambda *a: read.append("load") or load(*a)
pretrained_files.digest = lambda *a: read.append("digest") or digest(*a)
model = from_pretrained({str(of_a_prior)!r}, nfe=0)
y = torch.rand(1, 3, 24, 24)
model.restore(y, nfe=0)
assert read == [], read
calls = model.restore(y, nfe=2)                     # asked for after all
assert read == ["load", "digest"], read
eager = from_pretrained({str(of_a_prior)!r})
assert read == ["load", "digest"] * 2 and torch.equal(eager.restore(y, nfe=2), calls)
assert not any(p.is_inference() for p in model.parameters()) and not model.backbone.network.training
print("done")
""")
    assert out.split() == ["done"]


def test_other_weights_are_told_where_they_are_loaded(tmp_path, of_a_prior):
    out = ran(f"""
import shutil, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from irbridge.experiments.build import from_pretrained
from irbridge.errors import UserError
other = Path({str(tmp_path)!r}) / "other"
shutil.copytree("data/prior", other)
file = other / "diffusion_pytorch_model.safetensors"
save_file({{k: v + 1 for k, v in load_file(file).items()}}, file)
given = {{"frozen": {{"pretrained": str(other)}}}}
for options in ({{}}, {{"nfe": 0}}):
    try:
        model = from_pretrained({str(of_a_prior)!r}, **given, **options)
        print("loaded", options)
        model.restore(torch.rand(1, 3, 16, 16), nfe=1)
    except UserError as error:
        print("told", "has other weights" in str(error))
""")
    assert out.splitlines() == ["told True", "loaded {'nfe': 0}", "told True"]


def test_what_is_imported_is_not_looked_through_again(photo):
    """The garbage collector rests during imports and leaves alone what they made, which made the
    exit slow."""
    out = ran(
        """
import gc, sys
from irbridge import cli
sys.argv = ["irbridge", "restore", "task=derain", "steps=0", "precision=float32", *sys.argv[1:]]
passes = []
gc.callbacks.append(lambda phase, info: passes.append("torch.nn" in sys.modules))
load = cli.import_module
cli.import_module = lambda name: (passes.clear(), load(name), passes and sys.exit("collected"))[1]
cli.main()
print("FROZEN", gc.get_freeze_count() > 50_000, gc.isenabled())
""",
        f"input={photo}",
    )
    assert out.splitlines()[-1] == "FROZEN True True"
