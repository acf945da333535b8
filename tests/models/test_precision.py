"""Half precision: chosen by a trial, remembered, and never visible."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT, small_unet
from pipelines import kl
from torch import nn

from irbridge.adapters.nafnet import NAFNet
from irbridge.adapters.trunk import Trunk
from irbridge.assets import shipped
from irbridge.backbones.half_precision import FirstConv2d, FullConv2d, working
from irbridge.backbones.pixel import PixelBackbone
from irbridge.data.pair import with_mask
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained
from irbridge.gaussian import transition
from irbridge.images.io import read_image
from irbridge.models import precision, prior_denoiser
from irbridge.models.precision import chosen, deviation, faster, picture, remembered, trial
from irbridge.models.regression import Regression

PHOTOS = sorted((ROOT / "data/samples/test").glob("*.jpg"))[::9]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "precision"


@pytest.fixture(scope="module")
def derain():
    model = from_pretrained(ROOT / "data/adapters/derain")
    model.sampler = model.sampler.changed(nfe=3)  # whatever its own default is
    # and whether its features are nothing
    nn.init.constant_(model.adapter.zero.convs[0].bias, 1e-4)
    return model


def small_model():
    torch.manual_seed(0)
    model = Regression(Trunk([8, 16])).eval()
    nn.init.normal_(model.network.unet.conv_out.weight, std=0.05)  # it starts at 0
    return model


def answers(monkeypatch, bf16=True, off=0.1):
    """What a trial would find."""
    monkeypatch.setattr(
        precision, "_measured", lambda model, options: {"bf16": bf16, "deviation": off}
    )


@pytest.mark.parametrize("task", shipped())
def test_what_auto_chooses_is_not_visible(task, monkeypatch):
    """Bar: 1.5 of 255 at every pixel of photographs, dark ones too, where the trial finds bfloat16
    faster."""
    monkeypatch.setattr(precision, "faster", lambda functions: len([f() for f in functions]) - 1)
    model = from_pretrained(shipped()[task], precision="auto")
    images = [read_image(p)[40:168, 40:168] for p in PHOTOS[:3]]
    images += [images[0] * 0.2]
    images = [
        with_mask(image, np.indices(image.shape[:2]).sum(0) % 40 < 8 if model.masked else None)
        for image in images
    ]
    assert model.precision == "float32" or deviation(model, images) <= 1.5


def test_deviation_is_that_of_bfloat16(derain):
    image = read_image(PHOTOS[0])[:64, :64]
    found = deviation(derain, [image, image])
    full = derain.restore(image)
    with precision.changed(derain, "bf16"):
        half = derain.restore(image)
    assert found == pytest.approx(np.abs(full - half).max() * 255) and 0 < found < 1.5
    assert derain.precision == "float32" and (derain.restore(image) == full).all()


def test_only_networks_are_in_half_precision(derain, monkeypatch):
    """Noise, states and the sampler's steps stay float32; the networks see autocast, and nothing
    else does."""
    seen, frozen, adapter, step = (
        [],
        derain.backbone.predict,
        derain.adapter.condition,
        transition.step,
    )
    monkeypatch.setattr(
        derain.backbone,
        "predict",
        lambda *a: seen.append(torch.is_autocast_enabled("cpu")) or frozen(*a),
    )
    monkeypatch.setattr(
        derain.adapter,
        "condition",
        lambda *a: seen.append(torch.is_autocast_enabled("cpu")) or adapter(*a),
    )
    monkeypatch.setattr(
        prior_denoiser, "step", lambda *a: seen.append(torch.is_autocast_enabled("cpu")) or step(*a)
    )
    monkeypatch.setattr(derain, "precision", "bf16")
    for state in derain.trajectory(torch.rand(1, 3, 16, 16)):
        assert {v.dtype for v in state[1:]} == {torch.float32} and not torch.is_autocast_enabled(
            "cpu"
        )
    assert seen == [True] + [False, True] * 3


def test_float32_leaves_a_trainings_autocast_alone():
    layer = nn.Conv2d(3, 4, 1)
    with torch.autocast("cpu", torch.bfloat16), working("float32", torch.device("cpu")):
        assert layer(torch.rand(1, 3, 2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "network", [Trunk([8, 16]).unet, PixelBackbone(small_unet(), None).network]
)
def test_the_first_and_last_convolution_see_all_bits(network):
    first, last = network.conv_in, network.conv_out
    image, features = torch.rand(1, 3, 16, 16), torch.rand(1, 8, 16, 16)
    full = first(image), last(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(first(image), full[0].bfloat16()) and torch.equal(
            last(features), full[1]
        )
        assert network(image, 0).sample.dtype == torch.float32
    assert (type(first), type(last)) == (FirstConv2d, FullConv2d)


def test_a_nafnet_sees_all_bits():
    network, image = NAFNet(width=8, encoder=[1], decoder=[1], middle=1), torch.rand(1, 3, 16, 16)
    full = network.intro(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            torch.equal(network.intro(image), full) and network(image).sample.dtype == torch.float32
        )


def test_the_fastest_is_found_by_its_best_run(spend):
    turns = []
    slow_once = iter([0.05, 0.0, 0.0])

    def first():
        turns.append(0)
        spend(0.02)

    def second():
        turns.append(1)
        spend(next(slow_once))

    assert faster([first, second], rounds=3) == 1 and turns == [0, 1] * 3


def test_a_trial_is_remembered_by_its_key(cache, spend):
    runs = []

    def run(half):
        runs.append(half)
        spend(0.0 if half else 0.01)

    assert trial(run, {"what": 1}) and sorted(set(runs)) == [False, True]
    before = len(runs)
    assert trial(run, {"what": 1}) and len(runs) == before  # from the disk
    assert trial(run, {"what": 2}) and len(runs) == 2 * before
    assert trial(run) and trial(run) and len(runs) == 4 * before  # without a key never
    assert not trial(lambda half: spend(0.01 * half), {"what": 3})
    written = [json.loads(p.read_text()) for p in cache.glob("*.json")]
    assert {entry["key"]["what"] for entry in written} == {1, 2, 3}
    assert all(
        entry["key"]["threads"] == torch.get_num_threads() and entry["key"]["cpu"]
        for entry in written
    )


def test_what_is_remembered_is_this_machines(cache, monkeypatch):
    values = iter(range(9))

    def measure():
        return {"value": next(values)}

    assert remembered({"a": 1}, measure) == remembered({"a": 1}, measure) == {"value": 0}
    for name, value in (("_processor", lambda: "another"), ("torch.__version__", "0")):
        with monkeypatch.context() as patch:
            patch.setattr(f"irbridge.environment.{name}", value)
            assert remembered({"a": 1}, measure)["value"] > 0
    (path,) = (
        p for p in cache.glob("*.json") if json.loads(p.read_text())["result"] == {"value": 0}
    )
    # damaged: measured and written again
    path.write_text("{")
    assert remembered({"a": 1}, measure) == remembered({"a": 1}, measure) == {"value": 3}


def test_where_nothing_can_be_written_it_is_measured_every_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "file"))
    values = iter(range(9))
    assert [remembered({}, lambda: {"value": next(values)})["value"] for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    "found, limit, wanted",
    [
        ({}, None, "bf16"),
        ({"bf16": False}, None, "float32"),
        ({"off": 1.01}, None, "float32"),
        ({}, 1.4, "bf16"),
        ({}, 1.6, "float32"),
    ],
)
def test_auto_is_bf16_where_it_is_faster_and_as_good(found, limit, wanted, monkeypatch):
    answers(monkeypatch, **found)
    assert chosen("auto", small_model(), {}, limit) == wanted


def test_the_trial_runs_the_networks_themselves():
    model, seen = small_model(), []
    model.network.register_forward_hook(lambda *call: seen.append(torch.is_autocast_enabled("cpu")))
    assert chosen("auto", model, {"weights": "x"}) in ("float32", "bf16")
    assert set(seen) == {False, True} and seen.count(True) >= 2  # minima of several
    count = len(seen)
    chosen("auto", model, {"weights": "x"})
    assert len(seen) == count
    chosen("auto", model, {"weights": "y"})
    assert len(seen) == 2 * count


def test_another_frozen_network_is_tried_anew(monkeypatch):
    tried, model = [], small_model()
    monkeypatch.setattr(
        precision,
        "_measured",
        lambda model, options: tried.append(1) or {"bf16": True, "deviation": 0.1},
    )
    model.backbone = PixelBackbone(small_unet(), None)
    for dtype in (torch.float32, torch.float32, torch.bfloat16):
        model.backbone.dtype = dtype
        chosen("auto", model, {"weights": "x"})
    model.backbone.vae = kl()
    chosen("auto", model, {"weights": "x"})
    assert len(tried) == 3


def test_a_precision_that_is_asked_for_needs_no_trial(monkeypatch):
    monkeypatch.setattr(precision, "_measured", None)
    assert [chosen(p, small_model(), {}) for p in ("float32", "bf16")] == ["float32", "bf16"]
    with pytest.raises(UserError, match="precision='half'.*bf16"):
        chosen("half", small_model(), {})


def test_the_folders_own_measurement_counts(tmp_path, monkeypatch):
    answers(monkeypatch)
    source = ROOT / "data/adapters/derain"
    config = json.loads((source / "config.json").read_text())
    for error, wanted in ((0.7, "bf16"), (1.7, "float32")):
        (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
        (tmp_path / "config.json").write_text(json.dumps(config | {"bf16_error": error}))
        assert from_pretrained(tmp_path, precision="auto", nfe=0).precision == wanted
        assert from_pretrained(tmp_path, nfe=0).precision == "float32"  # scores are float32


def test_the_picture_is_like_a_photograph():
    image = picture(128)
    assert (
        image.shape == (128, 128, 3) and image.dtype == np.float32 and (image == picture(128)).all()
    )
    assert not (image == picture(128, seed=1)).all() and 0 <= image.min() and image.max() <= 1
    assert (image < 0.1).mean() > 0.1 and (image > 0.9).mean() > 0.1  # dark and bright
    steps = np.abs(np.diff(image, axis=1))
    # edges, and smooth parts
    assert (steps > 0.3).any() and np.median(steps[:, :50]) < 0.03
    assert set(np.unique(picture(32, masked=True)[..., 3])) == {0, 1}
