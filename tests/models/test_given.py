"""What ``restore`` and ``trajectory`` take, of every method: any floating type, and no more."""

import numpy as np
import pytest
import torch
from hidiff_parts import tiny

import irbridge
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
    yield "hidiff", tiny()


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


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "image, said",
    {
        "bytes as floats": (torch.full(SHAPE, 200.0), "127.5"),
        "no images": (torch.zeros(0, 3, 8, 8), "empty"),
        "no values": (torch.zeros(SHAPE, device="meta"), "values of its pixels"),
        "sparse": (torch.zeros(SHAPE).to_sparse(), "values of its pixels"),
    }.values(),
    ids=str,
)
def test_floats_that_are_no_image_are_refused(name, image, said):
    for call in (MODELS[name].restore, lambda y: next(iter(MODELS[name].trajectory(y)))):
        with pytest.raises(UserError, match=said):
            call(image)


@pytest.mark.parametrize("options", [{"seed": None}, {"seed": 1.5}, {"tiles": 3}], ids=str)
def test_options_of_another_kind_are_refused(options):
    with pytest.raises(UserError, match=f"{next(iter(options))}=.* must be"):
        MODELS["rdbm"].restore(torch.zeros(SHAPE), **options)


@pytest.mark.parametrize("name", [None, 5, b"derain", "", ["derain"], "x" * 5000], ids=repr)
def test_what_names_no_model_is_refused(name):
    for call in (irbridge.load, irbridge.from_pretrained):
        with pytest.raises(UserError):
            call(name)


def test_an_image_in_the_place_of_its_path_is_refused():
    with pytest.raises(UserError, match="a path first"):
        irbridge.write_image(np.zeros((4, 4, 3), np.float32), "a.png")


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


def test_a_sampler_is_no_word():
    model = irbridge.load("derain", nfe=0)
    with pytest.raises(UserError, match="rule='heun'"):
        model.restore(torch.zeros(1, 3, 16, 16), sampler="heun")
