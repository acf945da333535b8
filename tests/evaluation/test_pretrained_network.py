"""A released network as a row: ``method=spandrel:FILE``, with spandrel's own classes as the oracle.

The files are written here, of small networks with weights that were drawn.
"""

import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, save_images
from safetensors.torch import save_file

pytest.importorskip("spandrel")

from spandrel.architectures.NAFNet import NAFNet

from irbridge.data.pairs import PairedFolders
from irbridge.evaluation.metrics import psnr
from irbridge.evaluation.pretrained_network import network_row
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import read_records
from irbridge.files import sha256


@pytest.fixture
def network(tmp_path):
    """The file of a small NAFNet and the network itself."""
    torch.manual_seed(0)
    net = NAFNet(width=8, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1])
    for p in net.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors", net.eval()


@torch.no_grad()
def restored(net, image):
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    return net(tensor).clamp(0, 1)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("holes", [False, True])
def test_the_row_is_the_network_at_one_call_an_image(network, holes):
    path, net = network
    image = np.random.default_rng(0).random((19, 26, 3), dtype=np.float32)
    row = network_row(f"spandrel:{path}", None, "cpu")
    seen = np.dstack([image, np.zeros((19, 26, 1), np.float32)]) if holes else image
    assert np.abs(row.restore(seen, "a") - restored(net, image)).max() < 1e-5
    assert (row.label, row.nfe, row.weights) == ("NAFNet net", 1, sha256(path)[:12])
    assert row.more == {
        "architecture": "NAFNet",
        "params": sum(p.numel() for p in net.parameters()),
    }
    assert network_row(f"spandrel:{path}", "Mine", "cpu").label == "Mine"


def test_the_command_scores_it_under_the_same_protocol(command, network, tmp_path):
    path, net = network
    folders = [save_images(tmp_path / k, 2, seed=i) for i, k in enumerate(("clean", "degraded"))]
    words = ["task=paired", f"data.clean={folders[0]}", f"data.degraded={folders[1]}", "size=32"]
    words += [f"results={tmp_path / 'results'}", "device=cpu"]
    for method in (f"spandrel:{path}", "identity"):
        status, out, err = command("evaluate", *words, f"method={method}")
        assert status == 0, err
    assert "NAFNet net" in out and "Degraded input" in out
    found = {r.about.row: r for r in read_records(tmp_path / "results") if r.name == "0"}
    pairs = PairedFolders(*folders, 32)
    (pair,) = (pairs[i] for i, name in enumerate(pairs.names) if name == "0")
    own = found["NAFNet net"]
    assert own.scores["psnr"] == pytest.approx(
        psnr(restored(net, pair.degraded), pair.clean, Protocol()), abs=1e-3
    )
    assert own.about.protocol == found["Degraded input"].about.protocol
    assert (own.about.nfe, own.about.more["architecture"]) == (1, "NAFNet") and own.seconds > 0


def test_networks_of_other_licences_are_known_where_the_user_has_them(network, monkeypatch):
    asked = []
    extra = SimpleNamespace(install=lambda **options: asked.append(options))
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", extra)
    network_row(f"spandrel:{network[0]}", None, "cpu")
    assert asked == [{"ignore_duplicates": True}]


def test_a_pickle_is_refused_and_converted_as_the_page_says(command, network, tmp_path):
    path, net = network
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    path.unlink()
    words = ["task=derain", "limit=1", "size=32", "device=cpu"]
    status, _, err = command("evaluate", *words, f"method=spandrel:{tmp_path / 'net.pth'}")
    assert status == 2 and "a pickle may run code" in err
    page = (ROOT / "docs/peers.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'^python -c "(.*)"$', page, re.MULTILINE)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=200)
    assert network_row(f"spandrel:{path}", None, "cpu").weights == sha256(path)[:12]
