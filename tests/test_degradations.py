from pathlib import Path

import numpy as np
import pytest

from irbridge import degradations
from irbridge.data import SyntheticPairs
from irbridge.errors import UserError

SAMPLES = Path(__file__).resolve().parents[1] / "data/samples/test"
NAMES = ["Rain", "Haze", "Snow", "Raindrop", "LowLight", "Inpaint", "Blur", "Downsample", "Noise"]
BANDS = {"Rain": (11, 15), "Haze": (10, 15), "Snow": (14, 19), "Raindrop": (18, 22), "LowLight": (6, 10),
         "Inpaint": (16, 21), "Blur": (20, 25), "Downsample": (22, 27), "Noise": (20.1, 21)}


def build(name, **parameters):
    return getattr(degradations, name)(**parameters)


def rng(seed=0):
    return np.random.default_rng(seed)


def photo(height, width, seed=0):
    return rng(seed).random((height, width, 3), np.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (37, 53), (300, 9)])
def test_keeps_shape_range_and_input(name, shape):
    image = photo(*shape)
    before = image.copy()
    for seed in range(5):
        out = build(name)(image, rng(seed))
        assert out.shape == image.shape and out.dtype == np.float32
        assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_function_of_image_and_seed(name):
    degrade, image = build(name), photo(48, 64)
    assert np.array_equal(degrade(image, rng(1)), degrade(image, rng(1)))
    if name != "Downsample":
        assert not np.array_equal(degrade(image, rng(1)), degrade(image, rng(2)))


@pytest.mark.parametrize("name", NAMES)
def test_psnr_is_that_of_the_imitated_set(name):
    pairs = SyntheticPairs(SAMPLES, build(name), seed=0, size=160)
    psnr = [-10 * np.log10(np.mean((pairs[i].clean - pairs[i].degraded) ** 2)) for i in range(len(pairs))]
    low, high = BANDS[name]
    assert low < np.mean(psnr) < high


def test_haze_obeys_the_scattering_model():
    haze, image = degradations.Haze(), photo(40, 56)
    black, white = (haze(np.full_like(image, value), rng(3)) for value in (0, 1))
    t, airlight = white - black, black / (1 - (white - black))
    assert 0 < t.min() and t.max() < 1 and np.ptp(t, axis=2).max() < 1e-5
    assert np.ptp(airlight, axis=(0, 1)).max() < 1e-4 and airlight.min() > 0.6
    assert np.allclose(haze(image, rng(3)), image * t + airlight * (1 - t), atol=1e-5)
    assert t[:5].mean() < t[-5:].mean()


def test_noise_has_the_stated_std():
    grey = np.full((256, 256, 3), 0.5, np.float32)
    error = 255 * (degradations.Noise(std=25)(grey, rng()) - grey)
    assert abs(error.std() - 25) < 0.2 and abs(error.mean()) < 0.2


@pytest.mark.parametrize("side", [64, 200])
def test_inpaint_fills_its_holes_and_nothing_else(side):
    image = photo(side, side) * 0.4
    for seed in range(20):
        out = degradations.Inpaint(fill=0.5)(image, rng(seed))
        holes = (out == 0.5).all(axis=2)
        assert 0.1 <= holes.mean() < 0.5
        assert np.array_equal(out[~holes], image[~holes])


def test_low_light_darkens_and_is_noisier_with_fewer_photons():
    grey = np.full((128, 128, 3), 0.6, np.float32)
    fixed = {"gamma": (1, 1), "gain": (0.2, 0.2), "read": (0, 0)}
    for photons in (200, 2000):
        out = degradations.LowLight(photons=(photons, photons), **fixed)(grey, rng())
        assert abs(out.mean() - 0.12) < 0.002
        # Poisson: variance over mean is 1 / photons; rounding to 8 bits adds 1/12 of a squared level.
        assert abs(out.var() / (0.12 / photons + 1 / 12 / 255**2) - 1) < 0.05
        assert np.allclose(255 * out, np.round(255 * out), atol=1e-3)


def test_weather_only_brightens_what_it_covers():
    black = np.zeros((96, 96, 3), np.float32)
    for name in ("Rain", "Snow"):
        out = build(name)(black, rng(4))
        assert out.max() > 0.3 and np.median(out) < out.max() / 2
        assert np.ptp(out, axis=2).max() < 1e-6
    image = photo(96, 96)
    assert (degradations.Rain()(image, rng(4)) >= image - 1e-6).all()


def test_density_follows_area():
    snow = degradations.Snow(veil=(0, 0), layers=(5, 5))
    means = [np.mean([snow(np.zeros((side, side, 3), np.float32), rng([side, k])).mean() for k in range(30)])
             for side in (64, 256)]
    assert abs(means[0] / means[1] - 1) < 0.15


def test_blur_conserves_light_and_does_not_shift():
    point = np.zeros((65, 65, 3), np.float32)
    point[32, 32] = 1
    for seed in range(10):
        out = degradations.Blur(noise=0)(point, rng(seed))[..., 0]
        y, x = np.mgrid[:65, :65]
        assert abs(out.sum() - 1) < 1e-3 and out.max() < 0.7
        assert abs((out * y).sum() - 32) < 0.1 and abs((out * x).sum() - 32) < 0.1


def test_raindrops_leave_most_of_the_pane_alone():
    image = photo(128, 128)
    same = (degradations.Raindrop(cover=(0.2, 0.2))(image, rng()) == image).all(axis=2).mean()
    assert 0.5 < same < 0.95


def test_downsample_removes_what_the_small_image_cannot_hold():
    x = np.arange(64)
    stripes = [np.tile(0.5 + 0.4 * np.sin(2 * np.pi * x / period), (64, 1))[..., None].repeat(3, 2).astype(np.float32)
               for period in (4, 32)]
    fine, coarse = (degradations.Downsample(4)(s, rng()) for s in stripes)
    assert fine[8:-8, 8:-8].std() < 0.05 and np.abs(coarse - stripes[1])[8:-8, 8:-8].max() < 0.05


@pytest.mark.parametrize("name, parameters", [
    ("Noise", {"std": -1}), ("Noise", {"std": "much"}), ("Noise", {"std": [1, 2]}), ("Rain", {"cover": 0.2}),
    ("Rain", {"cover": [0.3, 0.1]}), ("Haze", {"beta": [1, 2, 3]}), ("Haze", {"beta": [float("nan"), 1]}),
    ("Snow", {"radius": None})])
def test_refuses_bad_parameters(name, parameters):
    with pytest.raises(UserError, match=f"{name} got {next(iter(parameters))}="):
        build(name, **parameters)


def test_ranges_may_be_lists():
    assert degradations.Rain(cover=[0.1, 0.1])(photo(20, 20), rng()).shape == (20, 20, 3)
