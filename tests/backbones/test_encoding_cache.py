"""Cached encodings are the computed ones, whoever wrote them and whatever happened to the files."""

import errno
import multiprocessing
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pipelines import kl, load, save_sd15, tiny_vae

from irbridge.assets import cache_folder
from irbridge.backbones import encoding_cache
from irbridge.backbones.encoding_cache import LatentCache
from irbridge.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*no text encoder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_sd15(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def backbone(folder):
    return load("sd15", folder)


class Counted:
    """A backbone whose encoded images are counted."""

    def __init__(self, backbone):
        self.backbone, self.vae, self.images = backbone, backbone.vae, 0

    def encode(self, images):
        self.images += len(images)
        return self.backbone.encode(images)


def photographs(count=3, seed=0, side=16):
    return (
        torch.rand(count, 3, side, 2 * side, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("vae", [kl, tiny_vae])
def test_cached_equals_computed(tmp_path, vae, dtype):
    backbone = load("sd15", save_sd15(tmp_path / "pipeline", vae=vae()), dtype=dtype)
    counted, images = Counted(backbone), photographs()
    cache, wanted = LatentCache(tmp_path / "cache", counted), backbone.encode(images)
    for _ in range(2):
        found = cache(images.clone().requires_grad_())
        assert (
            torch.equal(found, wanted) and found.dtype == torch.float32 and not found.requires_grad
        )
    assert counted.images == 3
    mixed = torch.cat([photographs(1, seed=5), images[1:2], photographs(1, seed=6)])
    # of which two are computed, in another batch than three: processors may then round otherwise
    rounding = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(cache(mixed), backbone.encode(mixed), **rounding)
    assert counted.images == 5
    assert (
        torch.equal(LatentCache(tmp_path / "cache", counted)(images[:1]), wanted[:1])
        and counted.images == 5
    )


def test_files_are_where_their_key_says(tmp_path, backbone):
    cache, images = LatentCache(tmp_path, backbone), photographs()
    cache(images)
    files = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    assert files == sorted(cache.path(key) for key in cache._keys(images)) and len(files) == 3
    assert all(p.parent.name == p.name[:2] and p.suffix == ".safetensors" for p in files)


def test_the_least_difference_is_another_image(tmp_path, backbone):
    cache, images = LatentCache(tmp_path, backbone), photographs(1)
    close = images.clone()
    # far below the 8-bit grid
    close[0, 0, 0, 0] = torch.nextafter(close[0, 0, 0, 0], torch.tensor(2.0))
    turned = images.reshape(1, 3, 32, 16)  # the same bytes
    assert len({*cache._keys(images), *cache._keys(close), *cache._keys(turned)}) == 3


@pytest.mark.parametrize("change", ["weights", "dtype", "config", "class"])
def test_another_vae_has_other_files(tmp_path, folder, backbone, change):
    cache, other = LatentCache(tmp_path, backbone), load("sd15", folder)
    assert LatentCache(tmp_path, other)._vae == cache._vae
    if change == "weights":
        with torch.no_grad():
            next(other.vae.parameters()).view(-1)[0] += 1e-3
    elif change == "dtype":
        other.vae.to(torch.bfloat16)
    elif change == "config":
        other.vae.register_to_config(scaling_factor=0.3)
    else:
        other.vae = tiny_vae()
    assert LatentCache(tmp_path, other)._vae != cache._vae


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-7],
        lambda data: b"no safetensors at all",
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    ],
    ids=["empty", "short", "other", "bit"],
)
def test_a_damaged_file_is_computed_and_written_again(tmp_path, backbone, damage):
    counted, images = Counted(backbone), photographs(2)
    cache = LatentCache(tmp_path, counted)
    wanted, path = cache(images), cache.path(cache._keys(images)[1])
    path.write_bytes(damage(path.read_bytes()))
    again = cache(images)
    torch.testing.assert_close(again, wanted, rtol=1e-5, atol=1e-5)  # of another batch
    assert counted.images == 3 and torch.equal(again[0], wanted[0])
    assert torch.equal(cache(images), again) and counted.images == 3


def test_a_full_disk_costs_only_time(tmp_path, backbone, monkeypatch):
    counted, images = Counted(backbone), photographs(2)
    cache, wanted = LatentCache(tmp_path, counted), backbone.encode(images)

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(encoding_cache, "save_file", full)
    with pytest.warns(
        UserWarning, match="No space left on device.*make room there, or set IRBRIDGE_CACHE"
    ):
        assert torch.equal(cache(images), wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(cache(images), wanted)
    assert counted.images == 4 and not [p for p in tmp_path.rglob("*") if p.is_file()]


def encode(folder, pipeline, found):
    torch.set_num_threads(1)
    cache, images = LatentCache(folder, load("sd15", pipeline)), photographs(8, side=8)
    found.put([cache(images).numpy(), cache(images).numpy()])


def test_processes_share_a_folder(tmp_path, folder, backbone):
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    workers = [context.Process(target=encode, args=(tmp_path, folder, found)) for _ in range(3)]
    for worker in workers:
        worker.start()
    results = [states for _ in workers for states in found.get(timeout=120)]
    for worker in workers:
        worker.join()
    wanted = backbone.encode(photographs(8, side=8)).numpy()
    # each may find some of them there, and compute the rest in a batch of its own size
    assert all(np.allclose(states, wanted, rtol=1e-5, atol=1e-5) for states in results)
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 8


def test_pixels_have_nothing_to_encode(tmp_path):
    from irbridge.backbones.pixel import load_backbone

    with pytest.raises(UserError, match="data.cache_latents=true needs a backbone with a VAE"):
        LatentCache(tmp_path, load_backbone())


@pytest.mark.parametrize(
    "variables, wanted",
    [
        ({"IRBRIDGE_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a/latents"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/irbridge/latents"),
        ({"IRBRIDGE_CACHE": "", "XDG_CACHE_HOME": ""}, "~/.cache/irbridge/latents"),
        ({"IRBRIDGE_CACHE": "~/own"}, "~/own/latents"),
    ],
)
def test_where_the_cache_is(monkeypatch, backbone, variables, wanted):
    for name in ("IRBRIDGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder("latents") == Path(os.path.expanduser(wanted))
    assert LatentCache(None, backbone).folder == cache_folder("latents")
