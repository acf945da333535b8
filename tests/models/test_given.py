"""What ``restore`` and ``trajectory`` take, of every method: any floating type, and no more."""

import numpy as np
import pytest
import torch

from irbridge.adapters.trunk import bridge_network, make_trunk
from irbridge.bridges import GOUB, RDBM, ResShift
from irbridge.errors import UserError
from irbridge.gaussian.marginal import draw, marginal
from irbridge.models.bridge_network import BridgeNetwork
from irbridge.models.regression import Regression
from irbridge.samplers.heun import velocity


def methods():
    torch.manual_seed(0)
    network = bridge_network(channels=[8, 8])
    yield "rdbm", BridgeNetwork(RDBM(), network)
    yield "resshift", BridgeNetwork(ResShift(), network)
    yield "regression", Regression(make_trunk(trunk="unet", channels=[8, 8]))


MODELS = dict(methods())
SHAPE = 1, 3, 8, 8


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_any_floating_type_is_taken_as_float32(name, kind):
    image = torch.linspace(-1, 1, 3 * 9 * 10).reshape(1, 3, 9, 10).to(kind)
    model = MODELS[name].eval()
    restored = model.restore(image)
    assert restored.dtype == torch.float32
    assert torch.equal(restored, model.restore(image.float()))
    y = image[..., :8, :8]
    states, wanted = list(model.trajectory(y)), list(model.trajectory(y.float()))
    assert all(torch.equal(a.x0, b.x0) for a, b in zip(states, wanted, strict=True))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "kind", [torch.uint8, torch.int64, torch.bool, torch.int16, torch.complex64]
)
def test_other_types_are_refused_in_one_sentence(name, kind):
    image = torch.zeros(SHAPE).to(kind)
    for call in (MODELS[name].restore, lambda y: next(iter(MODELS[name].trajectory(y)))):
        with pytest.raises(UserError, match="floats in .-1, 1., not of") as refused:
            call(image)
        sentence = str(refused.value)
        assert sentence.endswith(".") and ". " not in sentence and "127.5" in sentence


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "thing",
    [
        None,
        "photo.png",
        [[0.0]],
        torch.zeros(3, 8, 8),
        torch.zeros(1, 1, 8, 8),
        torch.zeros(1, 5, 8, 8),
        torch.zeros(1, 3, 0, 8),
    ],
    ids=str,
)
def test_what_is_no_image_is_refused(name, thing):
    with pytest.raises(UserError, match="trajectory takes a tensor"):
        next(iter(MODELS[name].trajectory(thing)))
    if getattr(thing, "shape", ())[1:] != (3, 0, 8)[0:]:
        with pytest.raises(UserError, match="restore takes"):
            MODELS[name].restore(thing)


def test_coefficients_take_no_whole_numbers():
    """bfloat16 stays as it is; bytes would be multiplied by 0."""
    y = torch.zeros(SHAPE, dtype=torch.uint8)
    t = torch.tensor(50.0)
    with pytest.raises(ValueError, match=r"floats, not torch.uint8; give state.float"):
        velocity(GOUB(), t, y, y, y)
    with pytest.raises(ValueError, match="uint8"):
        draw(marginal(0.5, 0.5, 0.1), y, y, y)
    x = torch.rand(SHAPE)
    slope, _ = velocity(GOUB(), t, x, x, x)
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        low, _ = velocity(GOUB(), t, *[x.to(kind)] * 3)
        assert low.dtype == kind
        np.testing.assert_allclose(low.float(), slope, atol=2e-2)
    exact, _ = velocity(GOUB(), 50, x, x, x)  # a number, or any tensor, of time
    assert torch.equal(exact, slope)
