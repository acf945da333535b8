"""Tiles by memory: what is predicted is not exceeded, images are cut evenly, features are computed
once."""

import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, small_unet
from pipelines import load, save_sd15

from irbridge.adapters.static import StaticAdapter
from irbridge.adapters.t2i import T2I
from irbridge.adapters.trunk import NAFTrunk, Trunk
from irbridge.backbones.pixel import PixelBackbone, load_backbone
from irbridge.bridges.brownian import Brownian
from irbridge.errors import UserError
from irbridge.images.photo import Photo
from irbridge.images.tiles import RISE, WHOLE, Tiles, even
from irbridge.models.irbridge import IRBridge
from irbridge.models.regression import Regression
from irbridge.models.timestep_schedule import linear
from irbridge.priors.vp import VP, vp_alphas_cumprod
from irbridge.restoration import memory
from irbridge.restoration.jobs import Job
from irbridge.restoration.memory import Footprint, Plan, footprint, measured
from irbridge.restoration.restore import _write

COST = Footprint(1000.0, 500.0, 200.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def model():
    backbone = load_backbone()
    adapter = speaking(StaticAdapter(backbone, [32, 48, 96, 128]))  # a U-Net's trunk
    return IRBridge(
        backbone, adapter, Brownian(T=100, sigma=0.07), linear(30.0, 1.0), sampler={"nfe": 3}
    ).eval()


def speaking(adapter):
    """The adapter with features that are not nothing."""
    torch.nn.init.constant_(adapter.zero.convs[0].bias, 0.01)
    return adapter


def tiny():
    backbone = PixelBackbone(small_unet(), VP(vp_alphas_cumprod({}), "epsilon"))
    return IRBridge(
        backbone,
        speaking(StaticAdapter(backbone, [8, 16])),
        Brownian(T=100, sigma=0.07),
        linear(30.0, 1.0),
        sampler={"nfe": 2},
    ).eval()


def planned(model, cost=COST, tile=None, gb=None, overlap=64, batch=1):
    return Plan(model, cost, tile, gb, overlap, batch)


@pytest.mark.parametrize(
    "height, width, pixels",
    [
        (1024, 1024, 300_000),
        (2048, 520, 200_000),
        (1000, 3000, 500_000),
        (512, 512, 512 * 512),
        (8, 4096, 5000),
    ],
)
def test_tiles_are_even_and_cover_the_image(height, width, pixels):
    down, across = even(height, width, 8, 64, pixels)
    assert down * across <= pixels and down % 8 == across % 8 == 0
    tiles, x = Tiles((down, across), 64), torch.rand(1, 1, height, width)
    shapes = []
    assert torch.allclose(tiles(lambda y: shapes.append(y.shape[-2:]) or y, x), x, atol=1e-6)
    assert set(shapes) == {(down, across)} and len(shapes) == tiles.count(height, width)
    spare = sum(h * w for h, w in shapes) / (height * width)  # what overlaps cost
    square = Tiles(max(int(pixels**0.5) // 8 * 8, 128), 64)
    assert spare <= square.count(height, width) * square.size**2 / (height * width)


def test_too_few_pixels_make_no_tiles():
    assert even(1024, 1024, 8, 64, 100) is None


def test_the_largest_tiles_that_fit_are_taken(model):
    plans = [
        planned(model, COST._replace(kept=0.0), gb=gb).tiles(2048, 2048)
        for gb in (2, 2.5, 3, 4, 30)
    ]
    areas = [2048**2 if t.size is None else t.sides[0] * t.sides[1] for t in plans]
    assert areas == sorted(areas) and areas[0] < areas[2] < areas[-1] == 2048**2
    assert planned(model, gb=30).tiles(2048, 2048).keep


def test_features_are_kept_where_they_fit(model):
    heavy = COST._replace(kept=600.0)
    assert (
        planned(model, gb=3).tiles(2048, 2048).keep
        and not planned(model, heavy, gb=3).tiles(2048, 2048).keep
    )
    assert planned(model, heavy, gb=6).tiles(2048, 2048).keep
    assert (
        planned(model, tile=512, gb=4).tiles(2048, 2048).keep
        and not planned(model, tile=512, gb=1.6).tiles(2048, 2048).keep
    )


def test_a_given_tile_is_taken(model):
    assert planned(model, tile=512, gb=0.1).tiles(2048, 2048).size == 512


def test_the_default_does_not_follow_every_megabyte(model, monkeypatch):
    """Bytes must be those of the last run while others take and give memory."""
    sizes = []
    for gigabytes in (5.1, 5.9, 8.0, 64.0):
        monkeypatch.setattr(memory, "free", lambda device, g=gigabytes: g * 1e9)
        sizes.append(planned(model).tiles(2048, 2048).size)
    assert len(set(sizes)) == 1 and planned(model).budget(2048**2) == 3e9
    monkeypatch.setattr(memory, "free", lambda device: 3.5e9)
    assert planned(model).budget(1) == 2e9
    monkeypatch.setattr(memory, "free", lambda device: 0.5e9)
    # and it goes on
    assert planned(model).budget(1) == 1e9 and planned(model).tiles(2048, 2048).size


def test_heavy_weights_do_not_make_small_tiles(model, monkeypatch):
    """Stable Diffusion's weights alone are more than 3 GB; they are there before any tile."""
    plan = planned(model)
    before = plan.tiles(2048, 2048)
    heavy = torch.nn.Parameter(torch.empty(10**9, device="meta"), requires_grad=False)
    monkeypatch.setitem(model.adapter._parameters, "heavy", heavy)
    assert planned(model).budget(1) == pytest.approx(plan.budget(1) + 4e9, rel=0.03)
    after = planned(model).tiles(2048, 2048)
    assert abs(after.sides[0] * after.sides[1] / (before.sides[0] * before.sides[1]) - 1) < 0.3
    with pytest.raises(UserError, match="memory=3"):
        planned(model, gb=3).tiles(2048, 2048)


def test_too_little_memory_is_one_sentence(model):
    with pytest.raises(
        UserError,
        match=r"^memory=0.5 is too little .* 2045 x 1023 pixels.* takes [\d.]+ GB; give that",
    ) as error:
        planned(model, gb=0.5).tiles(1023, 2045)
    needed = float(str(error.value).split("takes ")[1].split(" GB")[0])
    assert planned(model, gb=needed).tiles(1024, 2048).size


def test_the_footprint_is_that_of_the_networks(model):
    """Against the sizes of what the layers of a real call give, hooked one by one."""
    found, y = measured(model, 3), torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        condition = model.adapter.condition(y)
    kept = sum(f.numel() * 4 for f in condition.features) / 64**2
    assert kept < found.kept < kept + 40  # and the anchor
    widest = []
    hooks = [
        m.register_forward_hook(lambda m, a, out: widest.append(out.numel() * 4))
        for m in model.backbone.network.modules()
        if isinstance(m, torch.nn.Conv2d)
    ]
    with torch.inference_mode():
        model.denoise(y, torch.tensor(10.0, dtype=torch.float64), condition)
    for hook in hooks:
        hook.remove()
    assert max(widest) / 64**2 < found.call < sum(widest) / 64**2 * 3
    assert measured(model, 0).call < found.call and measured(model, 0).kept == 0
    model.precision = "bf16"
    try:
        assert measured(model, 3).call < 0.7 * found.call
    finally:
        model.precision = "float32"


def test_the_footprint_is_remembered(monkeypatch):
    model, found = tiny(), []
    monkeypatch.setattr(memory, "measured", lambda model, calls: found.append(calls) or COST)
    assert footprint(model) == footprint(model) == COST and footprint(model, nfe=0) == COST
    assert found == [2, 0]


def test_another_frozen_network_device_or_version_is_measured_anew(monkeypatch):
    found = []
    monkeypatch.setattr(memory, "measured", lambda model, calls: found.append(calls) or COST)
    footprint(tiny())
    half, anchored, elsewhere = tiny(), tiny(), tiny().to("meta")
    half.backbone.dtype = torch.bfloat16
    anchored.adapter.pretrained = [SimpleNamespace(digest="abc")]
    for count, model in enumerate((half, anchored, elsewhere), 2):
        footprint(model)
        assert len(found) == count
    monkeypatch.setattr("irbridge.environment.__version__", "0")
    footprint(tiny())
    assert len(found) == 5


@pytest.mark.filterwarnings("ignore:.*has no text encoder")
def test_a_vae_counts(tmp_path):
    """Against the sizes of what its widest layer gives; and where its passes alone do not fit, the
    image is cut."""
    backbone = load("sd15", save_sd15(tmp_path / "sd"))
    model = IRBridge(
        backbone, T2I(backbone), Brownian(T=100, sigma=0.07), linear(30.0, 1.0), "y", {"nfe": 1}
    ).eval()
    widest = []
    for part in backbone.vae.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(lambda module, args, out: widest.append(out.numel() * 4))
    found = measured(model, 1)
    assert (
        max(widest) / (8 * model.stride) ** 2
        < found.vae
        < 40 * max(widest) / (8 * model.stride) ** 2
    )
    cost = Footprint(100.0, 100.0, 0.0, vae=5000.0)
    gb = (planned(model).base + 512**2 * memory.PIXEL) / 1e9 + 0.8
    assert (
        planned(model, cost, gb=gb).tiles(512, 512).size
        and not planned(model, cost._replace(vae=0.0), gb=gb).tiles(512, 512).size
    )
    batched = planned(model, cost, gb=gb, batch=4)
    assert batched._working(1) == memory.SPARE * 5000


def test_bfloat16_without_avx512_is_given_more_for_each_pixel(model, monkeypatch):
    """There its convolutions take memory that is not measured."""

    def bytes_of(capability, precision="bf16"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(model, "precision", precision)
        return planned(model)._working(1)

    assert bytes_of("AVX2") > 2 * bytes_of("AVX512") == 2 * bytes_of("AVX2", "float32")


PEAK = """
import sys, torch
torch.set_num_threads(1)
from irbridge.experiments.build import from_pretrained
from irbridge.restoration.memory import Plan, footprint, keep_pages
keep_pages()
gb, precision, calls, side = float(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model = from_pretrained("data/adapters/derain", precision=precision, nfe=calls)
tiles = Plan(model, footprint(model, nfe=calls), None, gb, 64, 1).tiles(side, side)
import numpy as np
image = np.random.default_rng(0).random((side, side, 3), dtype=np.float32)
model.restore(image, nfe=calls, tiles=tiles)
from pathlib import Path
peak = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
print(tiles.size is None, int(peak.split()[1]) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(
    "gb, precision, calls, side",
    [
        (1.7, "float32", 1, 512),
        (1.4, "bf16", 1, 512),
        (1.5, "float32", 0, 1024),
        (3.0, "float32", 1, 512),
    ],
)
def test_the_peak_stays_below_the_budget(gb, precision, calls, side):
    if precision == "bf16" and "AVX512" not in torch.backends.cpu.get_cpu_capability():
        pytest.skip("bfloat16 takes minutes on this processor")
    words = [str(gb), precision, str(calls), str(side)]
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    whole, peak = ran.stdout.split()
    assert int(peak) < gb * 1e9 and (whole == "True") == (gb == 3.0)


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_written_of_a_photograph_stays_within_its_share(tmp_path, bits):
    """Arrays alone are counted, and the photograph and what was restored were there before."""
    pixels = np.random.default_rng(0).random((1000, 1500, 3), dtype=np.float32)
    photo = Photo(pixels, bits=bits)
    job = Job(tmp_path / "a.png", tmp_path / "b.png", compare=tmp_path / "c.png")
    tracemalloc.start()
    try:
        _write(job, photo, 1 - pixels, [])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / (1000 * 1500) < 60 < memory.PIXEL - 24


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_kept_pages_are_not_taken_anew():
    """Page faults of making a tensor of 64 MB again, by the system's own count, once the heap has
    found its size."""
    code = """
import resource, sys, torch
from irbridge.restoration.memory import keep_pages
if sys.argv[1] == "kept":
    keep_pages()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min([faults() for _ in range(12)][1:]))
"""
    found = {}
    for mode in ("kept", "plain"):
        ran = subprocess.run(
            [sys.executable, "-c", code, mode],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        found[mode] = int(ran.stdout)
    # where pages are huge there is nothing to keep
    assert found["kept"] < 1000 < found["plain"] or found["plain"] < 1000


@pytest.mark.parametrize("keep", [True, False])
def test_features_of_a_tile_are_computed_once(keep, monkeypatch):
    model, seen = tiny(), {"condition": 0, "estimate": 0, "denoise": 0}
    for name, owner in (
        ("condition", model.adapter),
        ("estimate", model.adapter),
        ("denoise", model.backbone),
    ):
        method = getattr(owner, name)
        monkeypatch.setattr(
            owner,
            name,
            lambda *a, n=name, m=method, **k: seen.update({n: seen[n] + 1}) or m(*a, **k),
        )
    y = torch.rand(1, 3, 64, 32) * 2 - 1
    tiles = Tiles(32, 8, keep=keep)
    count = tiles.count(64, 32, model.stride)
    model.restore(y, tiles=tiles)
    trunk = (
        {"condition": count, "estimate": 0} if keep else {"condition": 2 * count, "estimate": count}
    )
    assert seen == trunk | {"denoise": 2 * count} and count == 3


def test_kept_features_change_nothing():
    model, y = tiny(), torch.rand(2, 3, 64, 48) * 2 - 1
    torch.nn.init.normal_(model.adapter.trunk.unet.conv_out.weight, std=0.05)
    for conv in model.adapter.zero.convs:
        torch.nn.init.normal_(conv.weight, std=0.05)
    tiles = Tiles(32, 8)
    assert torch.equal(
        model.restore(y, tiles=tiles), model.restore(y, tiles=replace(tiles, keep=True))
    )
    assert not torch.equal(model.restore(y, tiles=tiles), model.restore(y, tiles=WHOLE))


def restless(trunk):
    """Weights with which every block counts; it starts as the identity."""
    torch.manual_seed(0)
    for name, value in trunk.named_parameters():
        if "scale" in name or "ending.weight" in name:
            torch.nn.init.normal_(value, std=0.3)
    return trunk.eval()


@pytest.mark.parametrize(
    "sizes",
    [{}, {"encoder": [1, 2], "decoder": [2, 1], "middle": 1}, {"encoder": [1], "decoder": [3]}],
)
def test_the_reach_is_that_of_the_network(sizes):
    """What a tile's edge changes: exactly as far as is said."""
    trunk = restless(NAFTrunk(width=8, **sizes))
    side = 2 * (trunk.reach + 40) // trunk.stride * trunk.stride
    # which nothing that sees it survives
    y = torch.full((1, 3, 2 * trunk.stride, 2 * side), torch.nan)
    y[..., :side] = 0.1
    with torch.no_grad():
        reached = trunk(y)[0][0, 0, 0, :side].isnan()
    assert reached[-trunk.reach :].all() and not reached[: -trunk.reach].any()
    assert NAFTrunk(width=8, attention=True).reach is Trunk([8, 16]).reach is None


def test_tiles_of_a_network_without_statistics_are_the_whole_image():
    """Bar: 1/255; it is rounding alone, also where smaller tiles are asked for."""
    model, image = (
        Regression(restless(NAFTrunk(width=8))),
        np.random.default_rng(0).random((96, 800, 3), dtype=np.float32),
    )
    cost = Footprint(5000.0, 0.0, 0.0)
    tiles = planned(model, cost, gb=(memory.BASE + 800 * 96 * memory.PIXEL) / 1e9 + 0.3).tiles(
        96, 800
    )
    assert tiles.count(96, 800, model.stride) > 1 and tiles.overlap >= 2 * model.reach
    assert np.abs(model.restore(image, tiles=tiles) - model.restore(image)).max() < 1e-5
    # too small as asked
    assert np.abs(model.restore(image, tiles=Tiles(128, 32)) - model.restore(image)).max() < 1e-5
    asked = planned(model, cost, tile=128).tiles(800, 800)
    assert (asked.sides, asked.overlap) == ((352, 352), 2 * model.reach + RISE)
    y = torch.as_tensor(image).permute(2, 0, 1)[None]
    with torch.no_grad():
        cut, whole = (
            tiles(lambda part: model.network(part)[0], y) for tiles in (Tiles(96, 32), WHOLE)
        )
    assert (cut - whole).abs().max() > 1e-3  # so it must be
