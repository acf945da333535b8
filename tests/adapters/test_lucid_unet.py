"""The U-Net of DiffUIR and RDBM: its published counts, and numbers of another implementation."""

import pytest
import torch
from golden import assert_close, load

from irbridge.adapters.lucid_unet import LucidUNet, linear_attention
from irbridge.adapters.trunk import bridge_network, make_trunk
from irbridge.bridges import RDBM
from irbridge.errors import UserError
from irbridge.models.bridge_network import BridgeNetwork

PARTS = {
    "inc": "intro",
    "t1": "time.0",
    "t2": "time.2",
    "m1": "middle.0",
    "ma": "middle.1",
    "m2": "middle.2",
    "fr": "last",
    "fc": "ending",
}
LAYERS = {
    "c1": "conv1",
    "c2": "conv2",
    "n1": "norm1",
    "n2": "norm2",
    "mlp": "modulation",
    "pre": "before",
    "post": "after",
    "g": "gain",
    "qkv": "split",
    "out": "join",
}
OF_LEVEL = {"0": "first", "1": "second", "2": "attention", "3": "out"}


def own_name(name, own):
    """A parameter's name here, by its name in the table."""
    first, *rest = name.split(".")
    if first in ("up", "down"):
        level, part, *rest = rest
        head = f"{first}.{level}.{OF_LEVEL[part]}"
    else:
        head = PARTS[first]
    found = ".".join([head, *(LAYERS.get(word, word) for word in rest)])
    return found if found in own else found.replace(".out.", ".out.1.")


def test_the_published_counts():
    """DiffUIR's L, B, S and T: 36.26, 12.41, 3.27 and .89 M."""
    wanted = {
        (64, (1, 2, 4, 8)): 36261187,
        (64, (1, 2, 2, 4)): 12406851,
        (32, (1, 2, 2, 4)): 3268643,
        (32, (1, 1, 1, 1)): 886435,
    }
    counts = load("rdbm")["unet_param_counts"]
    for (width, multiples), count in wanted.items():
        assert counts[f"{width} {multiples}"] == count
    for sizes, count in counts.items():
        width, multiples = sizes.split(" ", 1)
        channels = [int(width) * int(m) for m in multiples.strip("()").split(",")]
        with torch.device("meta"):
            network = bridge_network(trunk="lucid", channels=channels)
        assert sum(p.numel() for p in network.parameters()) == count, sizes


def test_the_numbers_of_another_implementation():
    """Every weight from a formula; the input, 9 x 10, is padded to a multiple of 4."""
    table = load("rdbm")["unet_tiny_derived"]
    network = LucidUNet([8, 16]).double()
    own, named = dict(network.named_parameters()), set()
    with torch.no_grad():
        for k, name, shape, mark in table["params"]:
            parameter = own[own_name(name, own)]
            assert list(parameter.shape) == shape
            values = 0.2 * torch.sin(0.7 * torch.arange(parameter.numel()).double() + k)
            parameter.copy_((values + (mark == "1+")).reshape(shape))
            named.add(own_name(name, own))
    assert named == own.keys() and sum(p.numel() for p in own.values()) == table["n_params"]
    places = 1.3 * torch.arange(270).double()
    x, mu = (0.8 * torch.sin(places + k).reshape(1, 3, 9, 10) for k in (0, 1))
    with torch.no_grad():
        estimate = network(torch.cat([x, mu], 1), torch.tensor([7.0])).sample + mu
    assert_close(estimate.flatten()[:12], table["first12"], 1e-10, 0)
    assert float(estimate.sum()) == pytest.approx(table["sum"], abs=1e-8)


@pytest.mark.parametrize("size", [(9, 13), (1, 1), (2, 40), (16, 16)])
def test_any_size(size):
    network, inputs = LucidUNet([8, 8, 16, 16]), torch.rand(2, 6, *size)
    assert network(inputs, torch.tensor([10.0, 990.0])).sample.shape == (2, 3, *size)


def test_linear_attention_is_a_weighted_sum():
    query, key, value = torch.randn(3, 1, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    keys = key.softmax(3) / 6
    weights = torch.einsum("bhcq,bhck->bhqk", query.softmax(2) / 2, keys)
    wanted = torch.einsum("bhqk,bhck->bhcq", weights, value)
    assert torch.allclose(linear_attention(query, key, value), wanted, atol=1e-6)


@pytest.mark.parametrize("target", ["residual", "product"])
def test_a_bridge_with_this_network_trains_and_samples(target):
    """Their x0 head adds y to the output, which is the target ``residual``."""
    torch.manual_seed(0)
    model = BridgeNetwork(
        RDBM(), bridge_network(trunk="lucid", channels=[8, 8]), target=target, loss="l1"
    )
    y = torch.rand(1, 3, 9, 13) * 2 - 1
    assert model.restore(y, seeds=[0]).shape == y.shape
    if target == "residual":
        time = torch.tensor([50.0], dtype=torch.float64)
        out = model.network(torch.cat([y, y], 1), torch.tensor([500.0])).sample
        assert torch.allclose(model.denoise(y, time, y), y + out, atol=1e-6)


def test_what_is_refused():
    with pytest.raises(UserError, match="lucid is the network of a bridge from scratch"):
        make_trunk(trunk="lucid", channels=[8, 8])
    with pytest.raises(UserError, match=r"channels=\[8, 12\] must be multiples of 8"):
        bridge_network(trunk="lucid", channels=[8, 12])
    said = "'foo' is unknown; choose one of nafnet, unet, residual, lucid"
    with pytest.raises(UserError, match=said):
        bridge_network(trunk="foo", channels=[8, 8])
