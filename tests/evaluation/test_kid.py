"""kid_lpips against its definition, sum by sum; no difference of equal laws; worse is farther."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image, ImageFilter

from irbridge.errors import UserError
from irbridge.evaluation.evaluate import score_rows
from irbridge.evaluation.kid import (
    KidLPIPS,
    features,
    kid,
    kid_of_files,
    kid_of_folders,
    mmd,
)
from irbridge.evaluation.methods import IDENTITY, Method
from irbridge.evaluation.metrics import STANDARD
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import About, read_records
from irbridge.evaluation.rows import aggregate
from irbridge.models.perceptual import TRUNK, lpips_network
from irbridge.reports.table import by_comparison, render


def kernel(x, y):
    return (float(np.dot(x, y)) / len(x) + 1) ** 3


def test_is_its_definition_sum_by_sum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 5)), rng.normal(0.4, 1, (7, 5))
    n = len(x)
    within = [
        sum(kernel(s[i], s[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        for s in (x, y)
    ]
    across = sum(kernel(a, b) for a in x for b in y) / n**2
    assert mmd(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-12)
    apart = sum(kernel(x[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    assert mmd(x, y, paired=True) == pytest.approx(sum(within) - 2 * apart, rel=1e-12)
    fewer = mmd(x, y[:4])
    shares = sum(kernel(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / 12
    shared = sum(kernel(a, b) for a in x for b in y[:4]) / 28
    assert fewer == pytest.approx(within[0] + shares - 2 * shared, rel=1e-12)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(23, 4)), rng.normal(size=(19, 4))
    whole = mmd(x, y)
    monkeypatch.setattr("irbridge.evaluation.kid.BLOCK", 5)
    assert mmd(x, y) == pytest.approx(whole, rel=1e-12)


def test_is_the_closed_form_of_two_means():
    """In one dimension the cubic kernel is 1 + 3 xy + 3 (xy)^2 + (xy)^3, so the discrepancy is
    3 (m1 - n1)^2 + 3 (m2 - n2)^2 + (m3 - n3)^2 of the moments of both laws."""
    rng = np.random.default_rng(2)
    means = []
    for _ in range(400):
        x, y = rng.normal(0, 1, (40, 1)), rng.normal(0.5, 1, (40, 1))
        means.append(mmd(x, y))
    moments = 0.5, 1.25, 0.125 + 3 * 0.5
    wanted = 3 * moments[0] ** 2 + 3 * (moments[1] - 1) ** 2 + moments[2] ** 2
    assert np.mean(means) == pytest.approx(wanted, abs=4 * np.std(means) / 20)


@pytest.mark.parametrize("paired", [False, True])
def test_is_zero_in_the_mean_of_equal_laws(paired):
    """Also of two noisy looks at the same scenes, which are not independent."""
    rng = np.random.default_rng(3)
    values, wrong = [], []
    for _ in range(400):
        scene = rng.normal(size=(30, 6)) if paired else 0
        x, y = (scene + 0.3 * rng.normal(size=(30, 6)) for _ in range(2))
        values.append(mmd(x, y, paired))
        wrong.append(mmd(x, y))
    error = np.std(values) / 20
    assert abs(np.mean(values)) < 4 * error
    if paired:  # as if they were independent, it would be too small
        assert np.mean(wrong) < -10 * error


def test_equal_sets_are_equal_to_rounding_where_they_are_paired():
    x = np.random.default_rng(4).normal(size=(60, 8))
    found = kid(x, x.copy(), paired=True)
    assert abs(found.value) < 1e-12 and found.std < 1e-12


def test_subsets_are_seeded_and_smaller():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(120, 6)), rng.normal(0.2, 1, (90, 6))
    one, again, other = kid(x, y, 0), kid(x, y, 0), kid(x, y, 1)
    assert one == again and one.std != other.std and one.value == other.value
    assert one.images == (120, 90) and one.subset == 45 and one.std > 0
    assert f"{1000 * one.value:.2f}" in one.in_words() and "kid_lpips" in one.in_words()


@pytest.fixture(scope="module")
def photographs():
    """Sixty 64 px crops of the photographs that come with the project."""
    found = []
    for path in sorted((ROOT / "data/samples/train").glob("*.jpg"))[:60]:
        image = Image.open(path).convert("RGB").crop((100, 100, 292, 292))
        found.append(image.resize((64, 64), Image.BICUBIC))
    return found


def test_features_are_what_they_say(photographs):
    images = [np.asarray(image) for image in photographs[:3]]
    found = features(images)
    assert found.shape == (3, 64 + 192 + 384 + 256 + 256) and found.dtype == np.float64
    assert ((found**2).sum(1) <= 1152 + 1e-6).all() and ((found**2).sum(1) > 100).all()
    assert np.allclose(found[1], features(images[1:2])[0], atol=1e-5)
    network = lpips_network(TRUNK)
    x = torch.from_numpy(images[0]).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        first = network.net(network.scaling_layer(x))[0][0].double()
    unit = first / first.square().sum(0).sqrt()
    assert np.allclose(found[0][:64], 8 * unit.mean((1, 2)).numpy(), atol=1e-5)


def test_features_of_many_sizes_keep_their_order(photographs):
    images = [np.asarray(image) for image in photographs[:3]]
    mixed = [images[0], images[1][:48], images[2]]
    found = features(mixed)
    assert np.allclose(found[1], features(mixed[1:2])[0], atol=1e-5)
    assert np.allclose(found[2], features(images[2:])[0], atol=1e-5)


def save(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(images):
        image.save(folder / f"{k:03d}.png")
    return folder


def blurred(images, radius):
    return [image.filter(ImageFilter.GaussianBlur(radius)) for image in images]


def test_worse_images_are_farther(photographs, tmp_path):
    clean = save(tmp_path / "clean", photographs)
    half = save(
        tmp_path / "other", [image.transpose(Image.FLIP_LEFT_RIGHT) for image in photographs]
    )
    mirrored = kid_of_folders(half, clean)
    values = []
    for radius in (0.5, 1, 2, 4):
        folder = save(tmp_path / f"blur-{radius}", blurred(photographs, radius))
        files = sorted(folder.glob("*.png")), sorted(clean.glob("*.png"))
        values.append(kid_of_files(*files, "a", "b", paired=True).value)
    assert values == sorted(values) and values[0] > 0 and values[-1] > 5 * values[0]
    assert abs(mirrored.value) < values[1]
    noisy = []
    rng = np.random.default_rng(0)
    for std in (5, 15, 45):
        pixels = [
            np.asarray(image) + std * rng.standard_normal((64, 64, 3)) for image in photographs
        ]
        images = [Image.fromarray(p.clip(0, 255).astype(np.uint8)) for p in pixels]
        noisy.append(kid_of_folders(save(tmp_path / f"noise-{std}", images), clean).value)
    assert noisy == sorted(noisy)


def test_what_cannot_be_compared_is_one_sentence(photographs, tmp_path):
    clean = save(tmp_path / "clean", photographs)
    few = save(tmp_path / "few", photographs[:49])
    with pytest.raises(UserError, match="few has 49 images; kid_lpips needs 50 or more"):
        kid_of_folders(few, clean)
    with pytest.raises(UserError, match="few has 49 images"):
        kid_of_folders(clean, few)
    large = save(tmp_path / "large", [image.resize((80, 80)) for image in photographs])
    with pytest.raises(UserError, match="images of other sizes, such as 64 x 64 and 80 x 80"):
        kid_of_folders(clean, large)
    tiny = save(tmp_path / "tiny", [image.resize((30, 30)) for image in photographs])
    with pytest.raises(UserError, match="30 pixels a side; kid_lpips needs 31"):
        kid_of_folders(tiny, tiny)


def test_without_the_trunk_there_is_none(photographs, monkeypatch, tmp_path):
    monkeypatch.setattr("irbridge.evaluation.kid.TRUNK", tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="git checkout data/metrics"):
        KidLPIPS().ready()


# of a row


class Pairs:
    def __init__(self, images):
        from irbridge.data.pair import Pair

        self.names = [f"{k:03d}" for k in range(len(images))]
        arrays = [np.asarray(image, np.float32) / 255 for image in images]
        self.pairs = [
            Pair(name, array, array) for name, array in zip(self.names, arrays, strict=True)
        ]

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        return self.pairs[i]


def dimmed(image, name):
    return 0.6 * image[..., :3]


METRICS = (*STANDARD[:2], KidLPIPS())
DIM = Method("Dim", "outputs", dimmed)


def scored(pairs, folder, **options):
    options = {"save_images": True} | options
    about = About("", "derain", seed=0, size=64, data="x")
    score_rows([IDENTITY, DIM], pairs, Protocol(), folder, about, METRICS, **options)
    return {row.row: row for row in aggregate(read_records(folder))}


def test_a_row_has_it_once_and_without_an_interval(photographs, tmp_path):
    pairs = Pairs(photographs)
    rows = scored(pairs, tmp_path)
    assert rows["Degraded input"].scores["kid_lpips"] == 0 < rows["Dim"].scores["kid_lpips"]
    assert rows["Dim"].bounds("kid_lpips") is None and rows["Dim"].bounds("psnr")
    table = render(by_comparison(list(rows.values())), "markdown")
    assert "kid_lpips ↓" in table and f"{rows['Dim'].scores['kid_lpips']:.4f}" in table
    lines = (tmp_path / "dim/records.jsonl").read_text()
    assert "kid_lpips" not in lines and len(lines.splitlines()) == 60  # a number of no image
    assert scored(pairs, tmp_path) == rows  # again, from the records


def test_a_row_of_other_images_has_none_until_it_is_scored_again(photographs, tmp_path):
    scored(Pairs(photographs), tmp_path, limit=55)
    path = tmp_path / "dim/records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    (row,) = (r for r in aggregate(read_records(tmp_path)) if r.row == "Dim")
    assert "kid_lpips" not in row.scores
    rows = scored(Pairs(photographs), tmp_path, limit=55)
    assert rows["Dim"].scores["kid_lpips"] > 0 and len(rows["Dim"].images) == 55


def test_a_damaged_file_of_a_row_is_one_sentence(photographs, tmp_path):
    scored(Pairs(photographs), tmp_path, limit=50)
    path = tmp_path / "dim/whole.json"
    content = json.loads(path.read_text())
    for damage in ({"scores": 3}, {"scores": {"kid_lpips": {"value": "x"}}}, {"images": None}):
        path.write_text(json.dumps(content | damage))
        if "images" in damage:
            assert read_records(tmp_path)
            continue
        with pytest.raises(UserError, match="holds no scores of a row"):
            read_records(tmp_path)


def test_rows_that_are_too_short_are_refused_before_the_first_image(photographs, tmp_path):
    with pytest.raises(UserError, match="The row has 49 images; kid_lpips needs 50"):
        scored(Pairs(photographs), tmp_path, limit=49)
    with pytest.raises(UserError, match="give save_images=true"):
        scored(Pairs(photographs), tmp_path, save_images=False)
    assert not list(tmp_path.rglob("*.jsonl"))
