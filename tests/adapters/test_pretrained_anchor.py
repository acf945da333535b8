"""A pretrained restoration network as the anchor: spandrel's loader is the oracle."""

import sys

import pytest
import torch
from safetensors.torch import save_file

spandrel = pytest.importorskip("spandrel")

from losses import given
from spandrel.architectures.NAFNet import NAFNet as Published

from irbridge.adapters.control import ControlAdapter
from irbridge.adapters.pretrained_anchor import INSIST, PretrainedAnchor, load_anchor
from irbridge.adapters.static import StaticAdapter
from irbridge.bridges.brownian import Brownian
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained
from irbridge.files import read_json
from irbridge.models.irbridge import IRBridge
from irbridge.models.loss_options import LossOptions
from irbridge.models.timestep_schedule import critical
from irbridge.restoration.memory import Footprint, Plan


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    network = Published(width=8, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1])
    for p in network.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    path = tmp_path_factory.mktemp("anchor") / "net.safetensors"
    save_file(network.state_dict(), path)
    return path, network.eval()


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (19, 26)])
def test_is_the_network_of_the_file(weights, size):
    path, network = weights
    y = noise(2, 3, *size).clamp(-1, 1)
    wanted = network(y / 2 + 0.5).clamp(0, 1) * 2 - 1  # which pads by itself
    got = load_anchor(f"spandrel:{path}")(y)
    assert torch.allclose(got, wanted, atol=1e-5) and (got - y).abs().max() > 1e-3
    assert (
        len(PretrainedAnchor(path).digest) == 64 and PretrainedAnchor(path).architecture == "NAFNet"
    )


@pytest.mark.parametrize("kind", [StaticAdapter, ControlAdapter])
def test_only_the_features_train_and_only_they_are_stored(backbone, weights, kind):
    torch.manual_seed(0)
    adapter = kind(backbone, [8, 8], anchor=f"spandrel:{weights[0]}")
    for p in adapter.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    y, clean = noise(2, 3, 16, 16).clamp(-1, 1), noise(2, 3, 16, 16, seed=1).clamp(-1, 1)
    g = load_anchor(f"spandrel:{weights[0]}")(y)
    assert torch.allclose(adapter.condition(y).anchor, g) and torch.allclose(adapter.estimate(y), g)
    count = sum(
        p.numel()
        for p in Published(
            width=8, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1]
        ).parameters()
    )
    own = sum(p.numel() for p in kind(backbone, [8, 8], anchor=False).parameters())
    assert sum(v.numel() for v in adapter.state_dict().values()) < own + count
    model = IRBridge(
        backbone,
        adapter,
        Brownian(),
        critical(),
        "anchor",
        {"nfe": 2},
        LossOptions(states="visited"),
    )
    losses = model.loss(*given(clean, y, noise(2, 3, 16, 16, seed=2), torch.tensor([0.1, 0.7])))
    assert losses.keys() == {"prior"}  # there is nothing to learn of g(y)
    sum(v.mean() for v in losses.values()).backward()
    assert all(p.grad is None for p in adapter.pretrained[0].parameters())
    assert any(p.grad is not None and p.grad.any() for p in adapter.parameters())
    assert torch.allclose(next(iter(model.trajectory(y, nfe=0))).x0, g)
    first = next(iter(model.trajectory(y, nfe=2)))
    assert torch.isfinite(first.x0).all() and (first.x - g).abs().max() < 4 * 0.07 * 1.5


@torch.no_grad()
def test_the_features_see_both_y_and_the_anchor(backbone, weights):
    torch.manual_seed(0)
    adapter = StaticAdapter(
        backbone,
        trunk="nafnet",
        width=4,
        encoder=[1, 1],
        middle=1,
        decoder=[1, 1],
        anchor=f"spandrel:{weights[0]}",
    )
    for p in adapter.parameters():
        p.add_(0.2 * torch.randn_like(p))
    y = noise(1, 3, 16, 16).clamp(-1, 1)
    before = adapter.condition(y).features
    adapter.pretrained[0].forward = lambda y: -y
    after = adapter.condition(y).features
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(before, after))
    assert adapter.trunk.net.intro.in_channels == 6


def test_mistakes(tmp_path, weights, backbone, monkeypatch):
    with pytest.raises(UserError, match="must be true, false or spandrel:FILE"):
        StaticAdapter(backbone, [8, 8], anchor="nafnet.pth")
    with pytest.raises(UserError, match="nowhere.safetensors does not exist"):
        load_anchor("spandrel:nowhere.safetensors")
    torch.save(weights[1].state_dict(), tmp_path / "net.pth")
    with pytest.raises(UserError, match=f"pickle may run code.*{INSIST}=1"):
        load_anchor(f"spandrel:{tmp_path / 'net.pth'}")
    monkeypatch.setenv(INSIST, "1")
    assert load_anchor(f"spandrel:{tmp_path / 'net.pth'}").architecture == "NAFNet"
    save_file({"x": torch.zeros(3)}, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match="not the weights of a network that spandrel knows"):
        load_anchor(f"spandrel:{tmp_path / 'odd.safetensors'}")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[spandrel\]"'):
        load_anchor(f"spandrel:{weights[0]}")


def test_tiles_and_memory_know_of_a_pretrained_anchor(backbone, weights):
    """It may see the whole image, so that no overlap makes tiles exact; its weights are in memory
    as others are."""
    sizes = {"trunk": "nafnet", "width": 4, "encoder": [1, 1], "middle": 1, "decoder": [1, 1]}
    own, other = (
        IRBridge(backbone, StaticAdapter(backbone, anchor=anchor, **sizes), Brownian(), critical())
        for anchor in (True, f"spandrel:{weights[0]}")
    )
    assert own.reach and other.reach is None
    plan = Plan(other, Footprint(1000.0, 500.0, 200.0), None, 3, 64, 1)
    assert plan.still is None and plan.overlap == 64
    count = sum(
        p.numel()
        for p in Published(
            width=8, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1]
        ).parameters()
    )
    assert plan.weights == 4 * (count + sum(p.numel() for p in other.parameters()))


@pytest.mark.parametrize("states", ["visited", "bridge"])
def test_a_pretrained_anchor_alone_has_nothing_to_train(weights, small, command, states):
    status, _, err = command(
        "train",
        *small,
        f"adapter.anchor='spandrel:{weights[0]}'",
        "baseline=false",
        "trainer.steps=2",
        "sampler.steps=0",
        f"loss.states={states}",
        "name=n",
        "evaluate.enabled=false",
    )
    assert (
        status == 2
        and "a pretrained one does not train; give 1 or more calls" in err
        and err.count("\n") == 1
    )


def test_a_trained_adapter_knows_its_anchor_by_its_hash(tmp_path, weights, small, command):
    words = [
        *small,
        f"adapter.anchor='spandrel:{weights[0]}'",
        "adapter.trunk=unet",
        "baseline=false",
        "trainer.steps=2",
        "trainer.batch_size=2",
        "trainer.crop=16",
        "name=a",
        "evaluate.limit=1",
        "evaluate.size=32",
    ]
    status, out, err = command("train", *words)
    assert status == 0 and "Anchor g(y) alone" in out, err
    run = tmp_path / "runs/derain-a"
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(weights[0].read_bytes())
    model = from_pretrained(run, frozen={"anchor": f"spandrel:{moved}"})
    assert (
        model.adapter.pretrained[0].digest
        == read_json(run / "config.json")["adapter"]["anchor_digest"]
    )
    torch.manual_seed(1)
    other = Published(width=8, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1])
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(
        UserError, match="other weights than the anchor that the adapter was trained with"
    ):
        from_pretrained(run, frozen={"anchor": f"spandrel:{tmp_path / 'other.safetensors'}"})
