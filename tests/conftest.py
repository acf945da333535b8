"""Tiny backbones, images, configs and commands that the tests share. Everything is offline."""

import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ["HF_HUB_OFFLINE"] = "1"
# Processes share the cores, also those of the tests. Another number may be given, which is kept
# where the tests run one after the other: threads that wait for each other's cores take minutes.
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)) > 1:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import atexit
import gc
import random
import shutil
import tempfile
import zlib

# what is tried or kept here is not the user's
os.environ["IRBRIDGE_CACHE"] = tempfile.mkdtemp(prefix="irbridge-tests-")
atexit.register(shutil.rmtree, os.environ["IRBRIDGE_CACHE"], ignore_errors=True)

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDPMScheduler, UNet2DModel
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from irbridge.training.options import TrainerOptions

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
RNG = np.random.default_rng(0)  # begins anew for every test


def pytest_collection_modifyitems(items):
    """The longest tests come first, so that no process works on one when all others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish():
    """What is there for good is not searched for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def small_unet(channels=(8, 16), down=None, up=None, **changes):
    """An untrained UNet2DModel of a few thousand weights, the same at every call."""
    n = len(channels)
    options = {
        "sample_size": 32,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "block_out_channels": channels,
        "down_block_types": down or ("DownBlock2D",) * n,
        "up_block_types": up or ("UpBlock2D",) * n,
        "add_attention": False,
        "attention_head_dim": 4,
        **changes,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(**options)


def save_backbone(folder, unet=None, scheduler=None, pipeline=False):
    """Write a diffusers folder, as a pipeline or bare; returns it."""
    (unet or small_unet()).save_pretrained(folder / "unet" if pipeline else folder)
    (scheduler or DDPMScheduler()).save_pretrained(folder / "scheduler" if pipeline else folder)
    return folder


def save_images(folder, count=4, size=(40, 48), seed=0, suffix=".png"):
    """Write smooth random photographs named 0, 1, ...; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for k in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize(size[::-1], Image.BICUBIC).save(folder / f"{k}{suffix}")
    return folder


def configured(config_name, *overrides):
    """The config that a command would get, with its interpolations unresolved."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(config_name, list(overrides))


def trainer_options(**changes):
    """The options of the CPU trainer, shrunk to an instant."""
    small = {
        "steps": 6,
        "batch_size": 2,
        "crop": 16,
        "warmup": 2,
        "precision": "no",
        "save_every": 100,
        "device": "cpu",
        "sample_every": 100,
        "save_seconds": 1e9,
        "log_every": 1,
        "workers": 0,
    }
    return TrainerOptions(**small | changes)


@pytest.fixture
def spend(monkeypatch):
    """A function that lets time pass, on the clock of the trials, which nothing else moves."""
    from irbridge.models import precision

    now = [0.0]
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def pass_by(seconds):
        now[0] += seconds

    return pass_by


@pytest.fixture(autouse=True)
def own_random_numbers(request):
    """Every test draws numbers of its own, whichever tests its process ran before."""
    seed = zlib.crc32(request.node.nodeid.encode())
    RNG.bit_generator.state = np.random.default_rng(seed).bit_generator.state
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """accelerate keeps the precision of the first training in a process; each test is a process of
    its own."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory):
    return save_backbone(
        tmp_path_factory.mktemp("backbone"), None, DDPMScheduler(prediction_type="v_prediction")
    )


@pytest.fixture
def backbone(backbone_folder):
    from irbridge.backbones.pixel import load_backbone

    return load_backbone(str(backbone_folder))


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return save_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def stream(images):
    from irbridge.data.crops import CropStream
    from irbridge.data.degradations import Noise
    from irbridge.data.image_source import ImageSource

    return CropStream(ImageSource(images), 16, 0, Noise())


@pytest.fixture
def small(backbone_folder, images):
    """Overrides that make any train command tiny."""
    return [
        f"backbone.pretrained={backbone_folder}",
        "adapter.channels=[8,8]",
        f"data.train={images}",
        f"data.test={images}",
        "sampler.steps=2",
        "evaluate.size=32",
        "trainer.device=cpu",
        "trainer.workers=0",
        "adapter.width=4",
        "adapter.encoder=[1,1]",
        "adapter.decoder=[1,1]",
    ]


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run a script in this process: ``command("train", *words)`` -> (status, stdout, stderr)."""

    def run(script, *words):
        words = [str(w) for w in words]
        if script in ("train", "pretrain"):
            words.append(f"run_root={tmp_path / 'runs'}")
        GlobalHydra.instance().clear()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
        status = 0
        try:
            runpy.run_path(str(ROOT / f"scripts/{script}.py"), run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
        return (status, *capfd.readouterr())

    return run
