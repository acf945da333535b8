"""Scores against hand computation, published constants and formulas written out here."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d

from irbridge.data.pair import Pair
from irbridge.errors import UserError
from irbridge.evaluation.metrics import (
    LPIPS,
    MAX_PSNR,
    bootstrap_interval,
    check_scorable,
    psnr,
    score,
    ssim,
)
from irbridge.evaluation.protocol import Protocol
from irbridge.images.arrays import to_bytes
from irbridge.images.grid import grid
from irbridge.models.perceptual import TRUNK

FLOAT = Protocol(quantise=False)


def images(seed=0, height=40, width=48):
    clean = np.random.default_rng([seed]).random((height, width, 3))
    noise = np.random.default_rng([seed, 1]).normal(0, 0.1, clean.shape)
    return (clean + noise).clip(0, 1).astype(np.float32), clean.astype(np.float32)


def flat(value, side=12):
    return np.full((side, side, 3), value, np.float64)


def test_psnr_by_hand():
    assert psnr(flat(0.6), flat(0.5), FLOAT) == pytest.approx(20.0)
    one_off = flat(100 / 255)
    one_off[3, 4, 1] += 5 / 255
    expected = 10 * math.log10(255**2 / (25 / (12 * 12 * 3)))
    assert psnr(one_off, flat(100 / 255), Protocol()) == pytest.approx(expected)


def test_identical_images_score_finite_json():
    found = score(flat(0.3), flat(0.3), Protocol())  # too small for LPIPS
    assert found == {"psnr": MAX_PSNR, "ssim": 1.0, "lpips": None}
    json.dumps(found, allow_nan=False)


def test_luma_is_matlabs_rgb2ycbcr():
    y = Protocol(space="y", quantise=False)

    def luma(*colour):  # the luma's distance from black's 16, out of the PSNR
        image = np.broadcast_to(np.array(colour, np.float64), (12, 12, 3))
        return 255 / 10 ** (psnr(image, flat(0.0), y) / 20)

    assert luma(1, 1, 1) == pytest.approx(235 - 16)
    for colour, coefficient in (((1, 0, 0), 65.481), ((0, 1, 0), 128.553), ((0, 0, 1), 24.966)):
        assert luma(*colour) == pytest.approx(coefficient)


def test_luma_of_black_is_16():
    # SSIM of flat images is its luminance term alone, which sees the offset.
    c1 = (0.01 * 255) ** 2
    assert ssim(flat(1.0), flat(0.0), Protocol(space="y")) == pytest.approx(
        (2 * 16 * 235 + c1) / (16**2 + 235**2 + c1), abs=1e-9
    )


def test_quantisation_and_clipping():
    near = flat(100.4 / 255)
    assert psnr(near, flat(100 / 255), Protocol()) == MAX_PSNR
    assert psnr(near, flat(100 / 255), FLOAT) == pytest.approx(20 * math.log10(255 / 0.4))
    assert psnr(flat(1.3), flat(1.0), FLOAT) == MAX_PSNR


def test_crop_drops_the_border_only():
    clean = flat(0.5, 20)
    restored = clean.copy()
    restored[:2], restored[-2:], restored[:, :2], restored[:, -2:] = 0, 0, 0, 0
    assert psnr(restored, clean, Protocol(crop=2)) == MAX_PSNR
    assert psnr(restored, clean, Protocol(crop=1)) < 20
    restored[2, 9] = 0
    assert psnr(restored, clean, Protocol(crop=2)) < MAX_PSNR


@pytest.mark.parametrize("space", ["rgb", "y"])
def test_ssim_is_the_published_formula(space):
    restored, clean = images()
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(taps, taps) / taps.sum() ** 2

    def one(a, b):
        def mean(u):
            return convolve2d(u, window, mode="valid")

        ma, mb, c1, c2 = mean(a), mean(b), (0.01 * 255) ** 2, (0.03 * 255) ** 2
        va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
        return np.mean(
            (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
        )

    a, b = np.round(restored.astype(float) * 255), np.round(clean.astype(float) * 255)
    if space == "rgb":
        expected = np.mean([one(a[..., k], b[..., k]) for k in range(3)])
    else:
        rows = [np.moveaxis(u, -1, 0) / 255 for u in (a, b)]
        expected = one(
            *(16 + 65.481 * red + 128.553 * green + 24.966 * blue for red, green, blue in rows)
        )
    assert 0.2 < expected < 0.99
    assert ssim(restored, clean, Protocol(space=space)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"space": "ycbcr"},
        {"crop": -1},
        {"crop": 1.5},
        {"crop": True},
        {"quantise": "no"},
        {"reference": "JPEG"},
    ],
)
def test_protocol_refuses(wrong):
    with pytest.raises(UserError, match=f"protocol.{next(iter(wrong))}="):
        Protocol(**wrong)


def test_protocol_describes_itself():
    assert Protocol().describe() == "rgb, 8 bit, crop 0, reference clean"
    assert Protocol("y", 4, False).describe() == "y, float, crop 4, reference clean"
    assert (
        Protocol("y", reference="vae").describe()
        == "y, 8 bit, crop 0, reference clean and VAE round trip"
    )
    assert (
        Protocol(reference="vae")
        .describe("1a2b")
        .endswith("reference clean and VAE round trip 1a2b")
    )


def test_bad_images_are_refused():
    good, nan = flat(0.5), flat(0.5)
    nan[0, 0, 0] = np.nan
    for metric in (psnr, ssim, score):
        for bad, words in ((flat(0.5, 13), "differ in shape"), (nan, "NaN")):
            with pytest.raises(UserError, match=words):
                metric(bad, good, Protocol())
    with pytest.raises(UserError, match="float"):
        psnr((good * 255).astype(np.uint8), (good * 255).astype(np.uint8), Protocol())
    with pytest.raises(UserError, match="crop 1 leaves less than the 11 x 11"):
        ssim(good, good, Protocol(crop=1))
    with pytest.raises(UserError, match="crop 9"):
        psnr(good, good, Protocol(crop=9))


@pytest.fixture(scope="module")
def lpips():
    return LPIPS()


def test_lpips_is_the_published_formula(lpips):
    """Evaluated here from the two weight files alone."""
    import importlib.util
    from pathlib import Path

    from safetensors.torch import load_file

    trunk = load_file(TRUNK)
    package = Path(importlib.util.find_spec("lpips").origin).parent
    linear = torch.load(package / "weights/v0.1/alex.pth", map_location="cpu", weights_only=True)

    def features(image):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = ((torch.tensor(image) * 2 - 1 - shift) / scale).permute(2, 0, 1)[None]
        for i, (index, stride, padding, pooled) in enumerate(
            [
                (0, 4, 2, False),
                (3, 1, 2, True),
                (6, 1, 1, True),
                (8, 1, 1, False),
                (10, 1, 1, False),
            ]
        ):
            x = F.max_pool2d(x, 3, 2) if pooled else x
            weight, bias = (trunk[f"features.{index}.{kind}"] for kind in ("weight", "bias"))
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            yield linear[f"lin{i}.model.1.weight"], x / (x.norm(dim=1, keepdim=True) + 1e-10)

    # so dark that rounding tells
    restored, clean = (x * np.float32(0.05) for x in images(3, 64, 80))
    rounded = [np.round(x * 255) / np.float32(255) for x in (restored, clean)]
    layers = zip(*(features(x) for x in rounded), strict=True)
    expected = sum(((a - b) ** 2 * w).sum(1).mean() for (w, a), (_, b) in layers).item()
    assert 0.001 < expected < 1
    for protocol in (Protocol(), Protocol(space="y", quantise=False)):  # always 8-bit RGB
        assert lpips(restored, clean, protocol) == pytest.approx(expected, rel=1e-4)
    inner = lpips(restored, clean, Protocol(crop=8))
    cut = lpips(*(x[8:-8, 8:-8] for x in rounded), Protocol())
    assert inner == pytest.approx(cut, rel=1e-4)


def test_lpips_of_identical_and_of_small_images(lpips):
    image = images(1, 31, 31)[1]
    assert lpips(image, image, Protocol()) == 0
    assert lpips(image[1:], image[1:], Protocol()) is None
    found = score(image[1:], image[1:], Protocol())  # the other scores do not go with it
    assert found == {"psnr": MAX_PSNR, "ssim": 1.0, "lpips": None}


def test_lpips_needs_the_known_weights(tmp_path):
    other = tmp_path / "trunk.safetensors"
    image = images(1, 31, 31)[1]
    missing = LPIPS(path=other)
    missing.ready()
    assert missing(image, image, Protocol()) is None
    content = bytearray(TRUNK.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    with pytest.raises(UserError, match="SHA-256"):
        LPIPS(path=other).ready()


def test_lpips_is_silent_offline_and_leaves_random_numbers_alone(tmp_path):
    code = (
        "import socket; socket.socket.connect = None; import torch; torch.manual_seed(5)\n"
        "from irbridge.evaluation.metrics import LPIPS; LPIPS().ready()\n"
        "drawn = torch.rand(1); torch.manual_seed(5); assert drawn == torch.rand(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"TORCH_HOME": str(tmp_path)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_bootstrap_interval_is_the_normal_one():
    values = np.random.default_rng([2]).normal(30, 2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.1 * half
    )
    assert bootstrap_interval(values) == (low, high) != bootstrap_interval(values, seed=1)
    assert bootstrap_interval([7.0]) == (7.0, 7.0)


def test_bootstrap_interval_is_that_of_draw_after_draw():
    values = np.random.default_rng([4]).random(600)
    rng = np.random.default_rng([0])
    means = [np.mean([values[i] for i in rng.integers(0, 600, 600)]) for _ in range(2000)]
    assert bootstrap_interval(values) == pytest.approx(np.percentile(means, (2.5, 97.5)), rel=1e-12)


def test_grid_places_tiles():
    red, small = np.zeros((20, 30, 3)), np.zeros((10, 30, 3))
    red[..., 0] = 1
    picture = grid([[red, small], [small]], pad=2)
    assert picture.shape == (2 + 2 * 22, 2 + 2 * 32, 3) and picture.dtype == np.float32
    assert (picture[2:22, 2:32] == red).all()
    assert (picture[7:17, 34:64] == 0).all()
    assert (picture[2:7, 34:64] == 1).all() and (picture[17:22, 34:64] == 1).all()
    assert (picture[:, :2] == 1).all() and (picture[24:44, 34:64] == 1).all()
    inner = np.random.default_rng(0).random((10, 30, 3))
    for labels in None, ["one", "two"]:  # of bytes the same
        floats = grid([[red, inner], [inner]], labels)
        given = [[to_bytes(red), to_bytes(inner)], [to_bytes(inner)]]
        in_bytes = grid(given, labels)
        assert in_bytes.dtype == np.uint8 and (in_bytes == to_bytes(floats)).all()


def test_captions_fit_above_their_columns():
    tiles = [np.ones((16, 16, 3))] * 5
    picture = grid([tiles], ["degraded", "call 1", "call 2", "restored", "clean"])
    column = (picture.shape[1] - 2) // 5
    ink = [(picture[:, 2 + i * column : 2 + (i + 1) * column] < 0.5).any(axis=-1) for i in range(5)]
    assert all(mask.any() for mask in ink) and not any(mask[-20:].any() for mask in ink)
    assert not any(mask[:, [0, -1]].any() for mask in ink)  # no caption reaches its column's edge
    assert (ink[1] != ink[2]).any()  # "call 1", "call 2"
    assert 0 <= picture.min() and picture.max() <= 1


class Pairs:
    """Test images in memory, of one size each."""

    def __init__(self, *sides):
        self.names = [str(index) for index in range(len(sides))]
        self.images = [np.zeros((side, side, 3), np.float32) for side in sides]

    def __getitem__(self, index):
        return Pair(self.names[index], self.images[index], self.images[index])


def test_what_scoring_would_refuse_is_refused_before_the_training():
    check_scorable(Pairs(11, 24, 8), Protocol(), limit=2)
    for side in (1, 10):
        with pytest.raises(
            UserError, match="test image 1 cannot be scored: .* less than the 11 x 11"
        ):
            check_scorable(Pairs(11, side), Protocol())
    with pytest.raises(UserError, match="crop 7 leaves less"):
        check_scorable(Pairs(24), Protocol(crop=7))
    check_scorable(Pairs(25), Protocol(crop=7))
    pairs = Pairs(24)
    pairs.images[0][3, 4] = np.nan
    with pytest.raises(UserError, match="test image 0 cannot be scored: .*finite"):
        check_scorable(pairs, Protocol())
    # small for LPIPS alone: the others are scored
    black = np.zeros((24, 24, 3))
    check_scorable(Pairs(24), Protocol(crop=6))
    assert score(black, black, Protocol(crop=6)) == {"psnr": MAX_PSNR, "ssim": 1.0, "lpips": None}
