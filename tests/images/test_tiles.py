"""Tiles give the untiled result: of functions whose reach is known, and of every kind of model."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT

from irbridge.adapters.trunk import Trunk, bridge_network
from irbridge.assets import find
from irbridge.assets import shipped as find_shipped
from irbridge.bridges.brownian import Brownian
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained
from irbridge.images.io import read_image
from irbridge.images.tiles import Tiles
from irbridge.models.bridge_network import BridgeNetwork
from irbridge.models.regression import Regression

SHIPPED = find_shipped()
PHOTO = min((ROOT / "data/samples/test").glob("*.jpg"))


@pytest.fixture(scope="module")
def shipped():
    model = from_pretrained(find("data/adapters/derain"))
    model.sampler = model.sampler.changed(nfe=3)  # whatever its own default is
    return model


def photograph(height, width, seed=0):
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("height, width", [(64, 64), (72, 200), (8, 176), (136, 104)])
@pytest.mark.parametrize("size, overlap", [(64, 32), (64, 0), (48, 24), (61, 17), (None, 64)])
def test_pointwise_functions_are_exact_and_every_pixel_is_covered_once(
    height, width, size, overlap
):
    tiles, x = Tiles(size, overlap), photograph(height, width)
    assert torch.allclose(tiles(lambda a, b: a * b + 1, x, 2 * x), 2 * x * x + 1, atol=1e-6)
    calls = []
    Tiles(size, overlap, progress=calls.append)(lambda a: a, x)
    assert sum(calls) == tiles.count(height, width)


@pytest.mark.parametrize("reach", [1, 4, 8])
def test_functions_of_short_reach_are_exact(reach):
    """A box blur of radius ``reach`` sees nothing beyond a quarter of an overlap of 32."""

    def blur(x):
        return F.avg_pool2d(F.pad(x, [reach] * 4), 2 * reach + 1, 1)

    x = photograph(136, 200)
    assert torch.allclose(Tiles(64, 32)(blur, x), blur(x), atol=1e-6)
    # without an overlap it is wrong
    assert not torch.allclose(Tiles(64, 0)(blur, x), blur(x), atol=1e-3)


def test_strided_functions_stay_on_their_grid():
    def coarse(x):
        return F.interpolate(F.avg_pool2d(x, 8), scale_factor=8)

    x = photograph(128, 200)
    assert torch.allclose(Tiles(61, 17)(coarse, x), coarse(x), atol=1e-6)


@pytest.mark.parametrize("kind", ["shipped", "y", "bridge", "regression"])
def test_tiles_of_the_whole_size_change_nothing_and_batches_give_the_same_bytes(kind, shipped):
    torch.manual_seed(0)
    model = {
        "shipped": shipped,
        "y": shipped,
        "bridge": BridgeNetwork(Brownian(sigma=0.07), bridge_network(channels=[8, 16]), "x0", "l1"),
        "regression": Regression(Trunk([8, 16], 1)),
    }[kind].eval()
    for parameter in model.trainable().parameters():
        if kind in ("bridge", "regression") and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)  # the last layer starts at 0
    (height, width), ends = (96, 104 if model.reach is None else 384), {"y": "y"}
    y = photograph(height, width)
    before, shipped.endpoint = shipped.endpoint, ends.get(kind, "anchor")
    try:
        whole = model.restore(y, seed=3)
        assert torch.equal(model.restore(y, seed=3, tiles=Tiles(width, 0)), whole)
        tiled = [model.restore(y, seed=3, tiles=Tiles(64, 32, batch)) for batch in (1, 3)]
        seen = []
        model.restore(y, seed=3, tiles=Tiles(64, 32, progress=seen.append))
        expected = model.passes() * Tiles(64, 32).reaching(model.reach).count(
            height, width, model.stride
        )
    finally:
        shipped.endpoint = before
    assert torch.equal(*tiled) and not torch.equal(tiled[0], whole)
    assert (tiled[0] - whole).abs().mean() < 0.02
    assert sum(seen) == expected


@pytest.mark.parametrize("task", SHIPPED)
def test_no_seams(task):
    """Small tiles differ by less than 1/255 at every pixel, with every adapter's own calls."""
    model = from_pretrained(SHIPPED[task])
    image = read_image(PHOTO)[:96, :400]
    hole = {"mask": np.indices(image.shape[:2]).sum(0) % 90 < 20} if model.masked else {}
    tiles = Tiles(64, 16)
    assert tiles.reaching(model.reach).count(96, 400, model.stride) > 1
    assert (
        np.abs(model.restore(image, tiles=tiles, **hole) - model.restore(image, **hole)).max()
        < 1 / 255
    )


def test_a_numpy_image_of_odd_size_comes_back_whole(shipped):
    image = np.random.default_rng(0).random((70, 91, 3)).astype(np.float32)
    assert shipped.restore(image, tiles=Tiles(64, 16)).shape == image.shape


@pytest.mark.parametrize(
    "options, words",
    [
        ({"size": 64, "overlap": 40}, "twice the overlap"),
        ({"size": 0}, "tile=0"),
        ({"batch": 0}, "batch=0"),
        ({"overlap": -1}, "overlap=-1"),
    ],
)
def test_mistakes_are_one_sentence(options, words):
    with pytest.raises(UserError, match=words):
        Tiles(**options)
