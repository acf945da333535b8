"""FID against the closed form of two Gaussians; what is missing is one sentence; nothing is
fetched."""

import hashlib
import json
import pickle
import socket
import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from irbridge.errors import UserError
from irbridge.evaluation.fid import fid, fid_of_rows
from irbridge.evaluation.no_reference import judge, quality_of_rows
from irbridge.images.arrays import to_bytes
from irbridge.images.io import read_image, write_image
from irbridge.reports.image_tables import fid_table, quality_table


@pytest.fixture(scope="module")
def inception():
    """torch-fidelity's network with random weights: what it computes is compared, not what the
    values mean."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with (
        torch.random.fork_rng(),
        mock.patch.object(module, "load_state_dict_from_url", return_value={}),
        mock.patch.object(nn.Module, "load_state_dict"),
    ):
        torch.manual_seed(0)
        return module.FeatureExtractorInceptionV3("random", ["64"])


@pytest.fixture(scope="module")
def weights(inception, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(inception.state_dict(), path)
    return path


@pytest.fixture
def folders(tmp_path):
    """results/{clean,ours}: five images of different sizes each, and the records of ours."""
    rng = np.random.default_rng(0)
    for i in range(5):
        for folder, scale in (("clean", 1.0), ("ours", 0.6)):
            write_image(
                tmp_path / "results" / folder / f"{i}.png", scale * rng.random((24 + 3 * i, 32, 3))
            )
    record = {
        "task": "derain",
        "row": "ours|x",
        "protocol": "rgb",
        "psnr": 20.0,
        "ssim": 0.5,
        "lpips": None,
    }
    (tmp_path / "results" / "ours" / "records.jsonl").write_text(
        "".join(json.dumps(record | {"name": str(i)}) + "\n" for i in range(5))
    )
    return tmp_path / "results"


def features(network, folder):
    images = (
        torch.from_numpy(to_bytes(read_image(p))).permute(2, 0, 1)[None]
        for p in sorted(folder.glob("*.png"))
    )
    with torch.inference_mode():
        return np.concatenate([network(image)[0].numpy() for image in images]).astype(np.float64)


def test_fid_is_the_distance_of_two_gaussians(inception, weights, folders, monkeypatch):
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); of S = A^T A and B^T B the last trace is A B^T's
    nuclear norm."""
    monkeypatch.setattr(socket.socket, "connect", None)
    a, b = (features(inception, folders / name) for name in ("ours", "clean"))
    # n - 1 is 4
    means, centred = [x.mean(0) for x in (a, b)], [(x - x.mean(0)) / 2 for x in (a, b)]
    expected = (
        ((means[0] - means[1]) ** 2).sum()
        + sum((c**2).sum() for c in centred)
        - 2 * np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    )
    assert expected > 1e-3
    assert fid(folders / "ours", folders / "clean", weights, 64) == pytest.approx(
        expected, rel=1e-3
    )
    assert fid(folders / "clean", folders / "clean", weights, 64) == pytest.approx(
        0, abs=1e-4 * expected
    )


def test_the_table_of_fid_names_weights_and_leaves_out_other_images(weights, folders, monkeypatch):
    monkeypatch.setattr("irbridge.evaluation.fid.fid", lambda restored, clean, path: 12.3456)
    text = fid_table(fid_of_rows(folders, weights), weights).render("markdown")
    assert "| derain | ours\\|x | 12.35 | 5 |" in text
    assert (
        hashlib.sha256(weights.read_bytes()).hexdigest()[:8] in text and "not the published" in text
    )
    (folders / "clean" / "0.png").unlink()
    with pytest.raises(UserError, match="save_images=true"):
        fid_of_rows(folders, weights)


def test_what_fid_lacks_is_named(folders, tmp_path, monkeypatch):
    pytest.importorskip("torch_fidelity")
    ours, clean = folders / "ours", folders / "clean"
    for missing in (None, "", tmp_path / "none.pth", tmp_path):
        with pytest.raises(UserError, match="weights.*missing and nothing is downloaded"):
            fid(ours, clean, missing)
    other = tmp_path / "other.pth"
    torch.save({"layer": torch.zeros(2)}, other)
    with pytest.raises(UserError, match="does not hold the weights of torch-fidelity's Inception"):
        fid(ours, clean, other)
    for path in (p for p in sorted(ours.glob("*.png"))[1:]):
        path.unlink()
    with pytest.raises(UserError, match="ours holds 1 image; FID needs 2"):
        fid(ours, clean, other)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UserError, match=r'pip install -e ".\[fid\]"'):
        fid(clean, clean, other)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_weights_that_are_a_program_are_not_run(folders, tmp_path):
    pytest.importorskip("torch_fidelity")
    path, ran = tmp_path / "bad.pth", tmp_path / "ran"
    for write in (
        lambda: torch.save(Bomb(ran), path),
        lambda: path.write_bytes(pickle.dumps(Bomb(ran), 2)),
        lambda: path.write_bytes(b"\x00text"),
    ):
        write()
        with pytest.raises(UserError, match="not a file of plain PyTorch weights"):
            fid(folders / "ours", folders / "clean", path)
    assert not ran.exists()


def fake_pyiqa(create):
    return SimpleNamespace(list_models=lambda metric_mode: ["mean", "fid"], create_metric=create)


def test_scores_without_a_reference_get_the_images(monkeypatch):
    monkeypatch.setitem(
        sys.modules, "pyiqa", fake_pyiqa(lambda name, device: lambda batch: batch[0, 2].mean())
    )
    images, score = [np.full((4, 5, 3), 0.1 * i) * [0, 0, 1] for i in (1, 20)], judge(["mean"])
    # the third channel, clipped
    assert [score(i) for i in images] == [pytest.approx({"mean": v}) for v in (0.1, 1.0)]
    for wrong in ("fid", "nope"):
        with pytest.raises(UserError, match=f"{wrong}.*use one of mean[.]"):
            judge([wrong])


def test_missing_weights_of_a_metric_are_no_download(monkeypatch):
    def fetching(name, device):
        print("Downloading: niqe.mat")
        socket.create_connection(("127.0.0.1", 9))

    def broken(name, device):
        raise ZeroDivisionError

    monkeypatch.setitem(sys.modules, "pyiqa", fake_pyiqa(fetching))
    with pytest.raises(UserError, match=r"weights of mean are not here .*niqe.mat.*pyiqa, or run"):
        judge(["mean"])
    monkeypatch.setitem(sys.modules, "pyiqa", fake_pyiqa(broken))
    with pytest.raises(ZeroDivisionError):  # another fault is not called missing weights
        judge(["mean"])
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(UserError, match=r'pip install -e ".\[iqa\]"'):
        judge(["mean"])


def test_pyiqa_itself():
    pytest.importorskip("pyiqa")
    noise = np.random.default_rng(0).random((96, 96, 3))
    flat = np.full((96, 96, 3), 0.5) + 0.01 * noise
    score = judge(["piqe"])  # needs no weights; lower is better
    assert all(0 <= score(image)["piqe"] <= 100 for image in (noise, flat))


def test_the_table_of_metrics(folders, monkeypatch):
    monkeypatch.setitem(
        sys.modules, "pyiqa", fake_pyiqa(lambda name, device: lambda batch: batch.shape[2])
    )
    # heights 24 to 36
    text = quality_table(quality_of_rows(folders, ["mean"])).render("markdown")
    assert "| derain | ours\\|x | 30.0000 | 5 |" in text
