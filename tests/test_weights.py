"""Weights that are stored as int8."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file

import irbridge
from irbridge.errors import UserError
from irbridge.weights import SCALE, load_into, load_weights, rounded, save_weights


def some() -> dict[str, torch.Tensor]:
    """Tensors of every kind that an adapter has, rows of very different sizes among them."""
    draw = torch.Generator().manual_seed(0)
    kernels = torch.randn(6, 20, 3, 3, generator=draw)
    kernels *= torch.tensor([1e-8, 1e-3, 1.0, 30.0, 0.0, 1e4]).view(-1, 1, 1, 1)
    return {
        "conv.weight": kernels,
        "conv.bias": torch.randn(6, generator=draw),
        "gate": torch.randn(6, 1, 1, generator=draw),
        "small": torch.randn(6, 3, 3, 3, generator=draw),
        "scalar": torch.tensor(0.3),
        "count": torch.tensor([3, 400]),
    }


def test_each_row_is_as_close_as_its_own_scale_allows(tmp_path):
    path, tensors = tmp_path / "w.safetensors", some()
    save_weights(path, tensors, torch.int8)
    left, stored = load_weights(path), load_file(path)
    assert left.keys() == tensors.keys() and stored["conv.weight"].dtype == torch.int8
    # by hand: 127 steps up to the largest of a row; its scale, of bfloat16, is 2^-9 off at most
    kernels = tensors["conv.weight"]
    step = kernels.abs().amax((1, 2, 3), keepdim=True) / 127
    error = (left["conv.weight"] - kernels).abs()
    assert (error <= step * (0.5 + 127 / 512)).all()
    assert 0.2 < (error / step.clamp(min=1e-30))[kernels.abs() > 0].mean() < 0.3
    for name in "conv.bias", "gate", "small", "scalar":
        assert stored[name].dtype == torch.float16
        assert torch.equal(left[name], tensors[name].half())
    assert torch.equal(left["count"], tensors["count"])


def test_what_was_stored_once_is_stored_again_without_loss():
    once = rounded(some(), torch.int8)
    twice = rounded(once, torch.int8)
    assert all(torch.equal(once[name], twice[name]) for name in once)


@pytest.mark.parametrize("task", ["inpaint", "lowlight"])  # of float16
def test_restored_images_change_by_less_than_half_a_grey_level(task):
    model = irbridge.load(task)
    photo = irbridge.read_image(ROOT / "data/samples/degraded/lowlight.jpg")[80:240, 80:240]
    hole = np.zeros((160, 160), bool)
    hole[60:90, 70:100] = True
    options = {"steps": 0} | ({"mask": hole} if task == "inpaint" else {})
    before = model.restore(photo, **options)
    adapter = model.trainable()
    adapter.load_state_dict(rounded(adapter.state_dict(), torch.int8))
    after = model.restore(photo, **options)
    error = ((before - after) ** 2).mean()
    assert 0 < error < (0.5 / 255) ** 2


@pytest.mark.parametrize(
    "scale", [None, torch.ones(5), torch.ones(6, 1), torch.tensor(1.0)], ids=str
)
def test_int8_without_a_scale_for_each_row_is_refused(scale, tmp_path):
    path = tmp_path / "w.safetensors"
    stored = {"w": torch.ones(6, 200, dtype=torch.int8)}
    save_file(stored if scale is None else stored | {"w" + SCALE: scale}, path)
    with pytest.raises(UserError, match="w.safetensors is damaged: w is int8 without a scale"):
        load_weights(path)


def test_types_that_are_no_real_numbers_are_refused(tmp_path):
    path, tensors = tmp_path / "w.safetensors", some()
    save_weights(path, tensors, torch.int8)
    stored = load_file(path)
    for dtype in (torch.complex64, torch.int8, torch.bool):
        save_file(stored | {"conv.weight.scale": torch.ones(6, dtype=dtype)}, path)
        with pytest.raises(UserError, match="without a scale"):
            load_weights(path)
    escape = "\x1b[2Jzz"
    save_file({escape: torch.zeros(3, dtype=torch.int8)}, path)
    with pytest.raises(UserError) as caught:
        load_weights(path)
    assert "\x1b" not in str(caught.value) and "zz" in str(caught.value)
    layer = torch.nn.Linear(2, 2)
    for dtype in (torch.float8_e4m3fn, torch.complex64, torch.int16, torch.bool):
        bad = {name: torch.ones_like(t).to(dtype) for name, t in layer.state_dict().items()}
        with pytest.raises(UserError, match="no real numbers"):
            load_into(layer, bad, "w.safetensors")
