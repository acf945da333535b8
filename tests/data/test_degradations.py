"""Every degradation's contract, and what each one imitates."""

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, signal

from irbridge.data import degradations, hole_shapes
from irbridge.data.pairs import SyntheticPairs
from irbridge.errors import UserError

SAMPLES = Path(__file__).resolve().parents[2] / "data/samples/test"
KINDS = set(degradations.Degradation.__subclasses__()) - {degradations.OneOf}
NAMES = sorted(kind.__name__ for kind in KINDS)
# dB over the test photographs, with the defaults
BANDS = {
    "Rain": (13.5, 18.5),
    "Haze": (12, 16),
    "Snow": (16.5, 19.5),
    "Raindrop": (19.5, 23),
    "LowLight": (7, 10),
    "Inpaint": (16, 21),
    "Blur": (20, 25),
    "CameraBlur": (20, 25),
    "Downsample": (22, 27),
    "Noise": (20.1, 21),
}


def build(name, **parameters):
    return getattr(degradations, name)(**parameters)


def rng(seed=0):
    return np.random.default_rng(seed)


def photo(height, width, seed=0):
    return rng(seed).random((height, width, 3), np.float32)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"Measured"}))  # which has a least size
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


@pytest.mark.parametrize("name", BANDS)
def test_psnr_is_that_of_the_imitated_set(name):
    pairs = SyntheticPairs(SAMPLES, build(name), seed=0, size=160)
    psnr = [
        -10 * np.log10(np.mean((pairs[i].clean - pairs[i].degraded) ** 2))
        for i in range(len(pairs))
    ]
    low, high = BANDS[name]
    assert low < np.mean(psnr) < high


def two_sides(side=96):
    """Dark red to the left of bright blue, with a little texture."""
    image = 0.03 * photo(side, side)
    image[:, : side // 2] += (0.4, 0.1, 0.1)
    image[:, side // 2 :] += (0.5, 0.6, 0.8)
    return image


def test_haze_obeys_the_scattering_model():
    haze, image = degradations.Haze(), photo(40, 56)
    t = haze.transmission(image, rng(3))[..., None]
    airlight = (haze(image, rng(3)) - image * t) / (1 - t)
    assert 0 < t.min() and t.max() < 1 and np.ptp(t) > 0.02
    assert np.ptp(airlight, axis=(0, 1)).max() < 1e-4 and airlight.min() > 0.6


def test_haze_is_thicker_farther_up():
    haze, image = degradations.Haze(patchy=(0, 0), regions=(0, 0)), photo(200, 200)
    rises = [
        np.diff(
            [
                haze.transmission(image, rng(k))[rows].mean()
                for rows in (slice(20), slice(-20, None))
            ]
        )[0]
        for k in range(40)
    ]
    assert np.mean(np.array(rises) > 0) > 0.8


def test_depth_changes_where_the_picture_does():
    haze, image, jumps = degradations.Haze(regions=(1, 1)), two_sides(), []
    for seed in range(20):
        depth = haze.depth(image, rng(seed))
        near, far = (np.abs(depth[:, k:] - depth[:, :-k]).mean(axis=0) for k in (1, 20))
        jumps.append(
            (near[45:50].max(), np.delete(near, np.s_[43:52]).max(), far[38], far[[8, 68]].mean())
        )
    edge, elsewhere, between_sides, within_a_side = np.mean(jumps, axis=0)
    assert edge > 10 * elsewhere and between_sides > 4 * within_a_side


def test_a_crop_sees_a_part_of_the_scene_s_depth():
    haze, image = degradations.Haze(regions=(0, 0)), np.full((480, 480, 3), 0.5, np.float32)
    spans = [
        np.mean([np.ptp(haze.depth(image[:side, :side], rng(k))) for k in range(20)])
        for side in (60, 480)
    ]
    assert spans[0] < spans[1] / 3


def test_noise_has_the_stated_std():
    grey = np.full((256, 256, 3), 0.5, np.float32)
    error = 255 * (degradations.Noise(std=25)(grey, rng()) - grey)
    assert abs(error.std() - 25) < 0.2 and abs(error.mean()) < 0.2
    assert degradations.Noise(25) == degradations.Noise()
    stds = [255 * (degradations.Noise((5, 15))(grey, rng(k)) - grey).std() for k in range(20)]
    assert 4.9 < min(stds) < 8 and 12 < max(stds) < 15.1


@pytest.mark.parametrize("side", [64, 200])
def test_inpaint_fills_its_holes_and_nothing_else(side):
    image, inpaint = photo(side, side) * 0.4, degradations.Inpaint(fill=0.5)
    for seed in range(40):
        out = inpaint(image, rng(seed))
        holes = (out == 0.5).all(axis=2)
        assert np.array_equal(holes, inpaint.mask((side, side), rng(seed))) and holes.any()
        assert np.array_equal(out[~holes], image[~holes])
        assert np.array_equal(out, inpaint.fill_in(image, holes, rng()))


def test_single_pixels_are_lost_where_they_are_asked_for_alone():
    assert "pixels" not in degradations.Inpaint().kinds
    half = degradations.Inpaint(kinds=("pixels",), masked=(0.5, 0.5))
    holes = half.mask((31, 40), rng())
    assert holes.sum() == 620 and not np.array_equal(holes, half.mask((31, 40), rng(1)))
    assert abs(holes[:, :20].mean() - 0.5) < 0.1


def test_noise_is_on_the_pixels_outside_the_holes():
    image = photo(64, 64) * 0.4 + 0.3
    noisy = degradations.Inpaint(noise=(0.05, 0.05))
    out, plain = noisy(image, rng(3)), degradations.Inpaint()(image, rng(3))
    holes = noisy.mask((64, 64), rng(3))
    assert np.array_equal(out[holes], plain[holes]) and (out[holes] == 0.5).all()
    assert abs((out - image)[~holes].std() - 0.05) < 0.003


@pytest.mark.parametrize("operator", ["sr", "gaussian", "motion"])
def test_a_measurement_is_what_its_operator_gives(operator):
    degrade = degradations.Measured(operator, (0.0, 0.0))
    image = np.full((48, 64, 3), 0.25, np.float32)
    assert np.abs(degrade(image, rng()) - 0.25).max() < 1e-5
    noisy = degradations.Measured(operator, (0.05, 0.05))(image, rng())
    assert 0.02 < (noisy - image).std() < 0.06


def test_a_measurement_that_is_none_is_refused(monkeypatch):
    with pytest.raises(UserError, match="operator=pixels; give one of sr, gaussian, motion"):
        degradations.Measured("pixels")
    monkeypatch.setitem(sys.modules, "deepinv.physics", None)
    with pytest.raises(UserError, match=r"operator=sr needs deepinv; pip install"):
        degradations.Measured("sr")


def test_only_inpaint_has_a_mask():
    assert [name for name in NAMES if hasattr(build(name), "mask")] == ["Inpaint"]


def test_inpaint_draws_every_kind_that_it_is_given_and_no_other(monkeypatch):
    drawn = []
    for kind in hole_shapes.KINDS:
        monkeypatch.setitem(
            hole_shapes.KINDS,
            kind,
            lambda shape, share, rng, width=None, kind=kind: drawn.append(kind),
        )
    for seed in range(300):
        degradations.Inpaint().mask((9, 9), rng(seed))
    often = {kind: drawn.count(kind) for kind in hole_shapes.KINDS}
    assert min(often.values()) > 3 and often["brush"] > often["lattice"]
    drawn.clear()
    for seed in range(30):
        degradations.Inpaint(kinds=["lines", "text"]).mask((9, 9), rng(seed))
    assert set(drawn) == {"lines", "text"}


PLAIN = {"gamma": (1, 1), "cast": (0, 0), "black": (0, 0), "chroma": (1, 1), "smooth": (0, 0)}


def test_low_light_darkens_and_is_noisier_with_fewer_photons():
    grey = np.full((128, 128, 3), 0.6, np.float32)
    for photons in (200, 2000):
        low = degradations.LowLight(
            **PLAIN, gain=(0.2, 0.2), read=(0, 0), photons=(photons, photons)
        )
        out = low(grey, rng())
        assert abs(out.mean() - 0.12) < 0.002
        # Poisson: variance over mean is 1 / photons; rounding to 8 bits adds 1/12 of a squared
        # level.
        assert abs(out.var() / (0.12 / photons + 1 / 12 / 255**2) - 1) < 0.05
        assert np.allclose(255 * out, np.round(255 * out), atol=1e-3)


def test_low_light_changes_the_white_balance():
    grey, options = np.full((64, 64, 3), 0.5, np.float32), PLAIN | {"gain": (0.5, 0.5)}
    plain, cast = (
        np.log(
            [
                degradations.LowLight(**options | {"cast": (c, c)})(grey, rng(k)).mean(axis=(0, 1))
                for k in range(60)
            ]
        )
        for c in (0, 0.3)
    )
    assert np.ptp(plain, axis=1).max() < 0.02
    cast -= cast.mean(axis=1, keepdims=True)
    assert 0.2 < (cast[:, 0] - cast[:, 1]).std() < 0.4 and abs(cast[:, 0].mean()) < 0.1
    assert np.corrcoef(cast[:, 0], cast[:, 2])[0, 1] < -0.8  # warm or cool, rarely green


def test_the_camera_takes_noise_out_of_the_colours_and_smooths_it():
    grey, options = (
        np.full((64, 64, 3), 0.5, np.float32),
        PLAIN | {"gain": (0.5, 0.5), "photons": (100, 100)},
    )

    def noise(**changes):
        out = degradations.LowLight(**options | changes)(grey, rng())
        return (out - out.mean(axis=2, keepdims=True)).std(), np.diff(out, axis=0).std()

    (colour, rough), (less, _), (_, smoother) = (
        noise(),
        noise(chroma=(0.3, 0.3)),
        noise(smooth=(0.6, 0.6)),
    )
    assert 0.25 < less / colour < 0.35 and smoother < rough / 2


def test_a_black_level_takes_dark_pixels_to_zero():
    dark = np.full((32, 32, 3), 0.05, np.float32)
    low = degradations.LowLight(
        **PLAIN | {"black": (0.02, 0.02)}, gain=(0.1, 0.1), read=(0, 0), photons=(1e9, 1e9)
    )
    assert low(dark, rng()).max() == 0 and low(10 * dark, rng()).min() > 0


def test_weather_only_brightens_what_it_covers():
    black = np.zeros((96, 96, 3), np.float32)
    for name in ("Rain", "Snow"):
        out = build(name)(black, rng(4))
        assert out.max() > 0.3 and np.median(out) < out.max() / 2
        assert np.ptp(out, axis=2).max() < 1e-6
    image = photo(96, 96)
    assert (degradations.Rain(hide=(0, 0), grey=(1, 1))(image, rng(4)) >= image - 1e-6).all()


def test_rain_hides_the_scene_or_adds_to_it():
    white = np.ones((96, 96, 3), np.float32)
    heavy = {"cover": (0.4, 0.4), "layers": (4, 4), "veil": (0, 0), "grey": (0.7, 0.7)}
    added, hiding = (degradations.Rain(**heavy, hide=(h, h))(white, rng()) for h in (0, 1))
    assert added.min() == 1 and 0.65 < hiding.min() < 0.9


def coherence(rain):
    """Coherence of the structure tensor: 1 for a single direction, 0 for none."""
    y, x = np.gradient(rain)
    return abs(((x + 1j * y) ** 2).sum()) / (x**2 + y**2).sum()


def test_rain_falls_in_one_direction_or_in_several():
    black = np.zeros((160, 160, 3), np.float32)
    options = {
        "layers": (4, 4),
        "length": (60, 60),
        "width": (1, 1),
        "spread": 0,
        "veil": (0, 0),
        "cover": (0.1, 0.3),
    }
    one, several = (
        [
            coherence(degradations.Rain(**options, winds=(n, n))(black, rng(k))[..., 0])
            for k in range(20)
        ]
        for n in (1, 3)
    )
    assert min(one) > 0.75 and np.mean(several) < np.mean(one) - 0.15


def psnr(clean, degraded):
    return -10 * np.log10(max(np.mean((clean - degraded) ** 2), 1e-9))


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("Rain", {"cover": (0, 0.01), "veil": (0, 0.02)}),
        ("Rain", {"strength": (0, 0.02), "veil": (0, 0)}),
        ("Snow", {"cover": (0, 0.001), "veil": (0, 0.02)}),
        ("Raindrop", {"cover": (0, 0), "radius": (3, 5)}),
        ("Inpaint", {"masked": (0, 0.001), "kinds": ["thin"]}),
        ("Haze", {"beta": (0, 0.1)}),
        (
            "LowLight",
            {"gain": (0.98, 1), "gamma": (1, 1.02), "cast": (0, 0.02), "photons": (6000, 6000)},
        ),
    ],
)
def test_the_light_end_is_nearly_clean(name, parameters):
    image = SyntheticPairs(SAMPLES, build("Noise"), size=128)[3].clean
    assert np.mean([psnr(image, build(name, **parameters)(image, rng(k))) for k in range(10)]) > 30


@pytest.mark.parametrize(
    "name, lightest, heaviest",
    [
        ("Rain", 27, 11),
        ("Haze", 23, 9),
        ("LowLight", 11, 7),
        ("Snow", 25, 15),
        ("Raindrop", 27, 17),
        ("Inpaint", 27, 13),
    ],
)
def test_strengths_differ_between_images(name, lightest, heaviest):
    image = SyntheticPairs(SAMPLES, build("Noise"), size=128)[3].clean
    strengths = [psnr(image, build(name)(image, rng(k))) for k in range(60)]
    assert max(strengths) > lightest and min(strengths) < heaviest


def test_density_follows_area():
    snow = degradations.Snow(veil=(0, 0), layers=(5, 5), cover=(0.04, 0.04), nearest=(1, 1))
    means = [
        np.mean(
            [snow(np.zeros((side, side, 3), np.float32), rng([side, k])).mean() for k in range(30)]
        )
        for side in (64, 256)
    ]
    assert abs(means[0] / means[1] - 1) < 0.15


def test_near_flakes_are_larger_than_far_ones():
    black, options = (
        np.zeros((256, 256, 3), np.float32),
        {"layers": (1, 1), "veil": (0, 0), "speed": (0, 0)},
    )

    def correlation(radius):
        """The correlation of pixels 4 apart."""
        snow = degradations.Snow(**options, radius=(radius, radius), cover=(0.03, 0.03))(
            black, rng()
        )[..., 0]
        return np.corrcoef(snow[4:].ravel(), snow[:-4].ravel())[0, 1]

    assert correlation(0.6) < 0.1 and correlation(6) > 0.5


def test_blur_conserves_light_and_does_not_shift():
    point = np.zeros((65, 65, 3), np.float32)
    point[32, 32] = 1
    for seed in range(10):
        out = degradations.Blur(noise=0)(point, rng(seed))[..., 0]
        y, x = np.mgrid[:65, :65]
        assert abs(out.sum() - 1) < 1e-3 and out.max() < 0.7
        assert abs((out * y).sum() - 32) < 0.1 and abs((out * x).sum() - 32) < 0.1


KINDS_OF_BLUR = "shaken", "averaged", "defocused"
BLURRED_ALONE = {"linear": 0, "noise": (0, 0), "compressed": 0}


def one_kind(kind, **parameters):
    """A blur of one kind alone."""
    shares = {name: float(name == kind) for name in KINDS_OF_BLUR}
    return degradations.CameraBlur(**shares | BLURRED_ALONE | parameters)


def test_camera_shake_alone_is_what_it_was():
    """The pixels of runs that were trained on it, by the formula that they had."""
    for seed, shape in ((0, (40, 56)), (1, (31, 45))):
        image, draws = photo(*shape), rng(seed)
        heading = draws.uniform(0, 2 * np.pi)
        heading += np.cumsum(draws.normal(0, draws.uniform(0.02, 0.2), 200))
        moves = np.stack([np.sin(heading), np.cos(heading)]) * draws.uniform(0.2, 1.8, 200)
        way = np.cumsum(moves, axis=1)
        way *= draws.uniform(5, 18) / np.ptp(way, axis=1).max()
        way -= way.mean(axis=1, keepdims=True)
        reach = int(np.ceil(np.abs(way).max())) + 2
        kernel = np.histogram2d(*way, bins=np.arange(-reach - 0.5, reach + 1))[0]
        kernel = ndimage.gaussian_filter(kernel.astype(np.float32), 0.5, mode="constant") / 200
        margin = len(kernel) // 2
        padded = np.pad(image, [(margin,), (margin,), (0,)], mode="reflect")
        expected = signal.fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
        expected = expected + 1 / 255 * draws.standard_normal(image.shape, np.float32)
        out = degradations.Blur(extent=(5, 18), noise=1)(image, rng(seed))
        assert np.array_equal(out, np.clip(expected, 0, 1).astype(np.float32))


def test_camera_blur_draws_every_kind_by_its_share():
    blur, image = degradations.CameraBlur(**BLURRED_ALONE), photo(40, 56)
    kinds = [blur.drawn(rng(seed)) for seed in range(400)]
    for name in KINDS_OF_BLUR:
        assert abs(kinds.count(name) / 400 - getattr(blur, name)) < 0.08
        seed = kinds.index(name)
        assert np.array_equal(blur(image, rng(seed)), one_kind(name)(image, rng(seed)))


@pytest.mark.parametrize("shape", [(40, 56), (37, 53)])
def test_frames_are_shifted_images(shape):
    image, blur = photo(*shape), one_kind("averaged", turn=(0, 0), shift=(6, 6), frames=(7, 13))
    counts = set()
    for seed in range(12):
        draws = rng(seed)
        blur.drawn(draws), draws.random()
        shifts, angles = blur.motion(draws)
        counts.add(len(shifts))
        assert np.abs(shifts.mean(axis=0)).max() < 1e-9 and not angles.any()
        assert 3 < np.ptp(shifts, axis=0).max() <= 6 + 1e-9
        frames = [
            np.stack([ndimage.shift(c, by, order=1, mode="mirror") for c in image.T], axis=2)
            for by in shifts[:, ::-1]
        ]
        expected = np.mean(frames, axis=0).transpose(1, 0, 2)
        assert np.abs(blur(image, rng(seed)) - expected).max() < 1e-5
    assert counts <= set(range(7, 14)) and len(counts) > 3


def test_frames_that_turn_blur_more_away_from_a_point():
    blur = one_kind("averaged", shift=(0, 0), turn=(10, 10), frames=(9, 9))
    image, turned = photo(96, 96), 0
    for seed in range(5):
        out = blur(image, rng(seed))
        change = ndimage.uniform_filter(np.abs(out - image).mean(axis=2), 9)
        turned += change.max() / change.min()
        shifts, angles = blur.motion(rng(seed))
        assert np.degrees(np.ptp(angles)) == pytest.approx(10) and not shifts.any()
    assert turned / 5 > 2


def test_means_of_one_image_are_that_image():
    image = photo(33, 21)
    still = one_kind("averaged", shift=(0, 0), turn=(0, 0), linear=1)
    assert np.abs(still(image, rng()) - image).max() < 1e-5


def test_linear_light_is_averaged_before_the_gamma():
    image = np.zeros((41, 41, 3), np.float32)
    image[:, 20:] = 1
    stored, light = (one_kind("defocused", linear=share)(image, rng()) for share in (0, 1))
    assert np.abs(light - np.maximum(stored, 0) ** (1 / 2.2)).max() < 0.01
    shares = [
        np.array_equal(one_kind("defocused", linear=0.5)(image, rng(k)) > 0.5, image > 0.5)
        for k in range(40)
    ]
    assert 8 < sum(shares) < 32


@pytest.mark.parametrize("radius", [0.5, 2.0, 3.7])
def test_defocus_spreads_points_over_a_disk(radius):
    fine = (np.arange(-6 * 20, 6 * 20 + 20) + 0.5) / 20 - 0.5
    inside = np.hypot(*np.meshgrid(fine, fine)) <= radius
    disk = inside.reshape(13, 20, 13, 20).mean(axis=(1, 3))
    disk /= disk.sum()
    image = photo(40, 56)
    expected = np.stack([ndimage.convolve(c, disk, mode="mirror") for c in image.T], axis=2)
    out = one_kind("defocused", radius=(radius, radius))(image, rng(2))
    assert np.abs(out - expected.transpose(1, 0, 2)).max() < 0.04


def test_noise_and_jpeg_come_after_the_blur():
    image = np.full((64, 64, 3), 0.5, np.float32)
    noisy = one_kind("shaken", noise=(2, 6))
    stds = [255 * (noisy(image, rng(k)) - 0.5).std() for k in range(20)]
    assert 1.9 < min(stds) < 3.5 < 4.5 < max(stds) < 6.1
    image = photo(40, 56)
    saved = one_kind("shaken", compressed=1, quality=(40, 40))(image, rng())
    assert np.array_equal(saved, one_kind("shaken", compressed=1, quality=(40, 40))(image, rng()))
    plain = one_kind("shaken")(image, rng())
    file = BytesIO()
    Image.fromarray(np.round(plain * 255).astype(np.uint8)).save(file, "JPEG", quality=40)
    assert np.array_equal(np.round(saved * 255), np.asarray(Image.open(file)))
    some = one_kind("shaken", compressed=0.5)
    whole = [(np.abs(255 * some(image, rng(k)) % 1 - 0.5) > 0.49).all() for k in range(40)]
    assert 8 < sum(whole) < 32


def test_raindrops_leave_most_of_the_pane_alone():
    image = photo(128, 128)
    same = (
        (degradations.Raindrop(cover=(0.2, 0.2), defocus=(0, 0))(image, rng()) == image)
        .all(axis=2)
        .mean()
    )
    assert 0.5 < same < 0.95


def test_the_pane_has_as_many_drops_as_cover_it():
    raindrop = degradations.Raindrop(cover=(0.3, 0.3))
    counts, areas = zip(
        *[
            (len(radii), np.pi * (radii**2).sum())
            for _, radii in (raindrop.drops(np.array([480, 720]), 12, rng(k)) for k in range(40))
        ]
    )
    assert 180 < np.mean(counts) < 280 and 0.25 < np.mean(areas) / 480 / 720 < 0.35
    sizes = raindrop.drops(np.array([480, 720]), 12, rng())[1]
    assert sizes.max() > 2 * sizes.min()
    centres, sizes = raindrop.drops(np.array([480, 720]), 12, rng(1))
    gaps = np.hypot(*(centres[1:] - centres[:-1]).T) / sizes[:-1]
    assert 0.15 < np.isclose(gaps, 1).mean() < 0.35  # at the edge of the one before
    assert len(degradations.Raindrop(cover=(0, 0)).drops(np.array([64, 64]), 12, rng())[1]) == 1


def test_a_drop_shows_the_scene_upside_down():
    """The picture is bright above, so in each sharp drop the brighter side is below."""
    image = np.repeat(np.linspace(1, 0, 200, dtype=np.float32), 200 * 3).reshape(200, 200, 3)
    plain = {
        "gain": (1, 1),
        "sky": (0, 0),
        "shade": (0, 0),
        "rim": (0, 0),
        "glint": (0, 0),
        "defocus": (0, 0),
    }
    out = degradations.Raindrop(**plain, cover=(0.2, 0.2), radius=(12, 12))(image, rng())[..., 0]
    inside = np.abs(out - image[..., 0]) > 0.02
    steps = np.diff(out, axis=0)[inside[1:] & inside[:-1]]
    assert np.diff(image[..., 0], axis=0).max() < 0 and np.median(steps) > 0.01


def test_drops_out_of_focus_are_soft_and_faint():
    image = np.zeros((160, 160, 3), np.float32)
    options = {
        "sky": (1, 1),
        "rim": (0, 0),
        "shade": (0, 0),
        "glint": (0, 0),
        "gain": (1, 1),
        "cover": (0.05, 0.05),
        "radius": (8, 8),
    }
    sharp, soft = (
        degradations.Raindrop(**options, defocus=(d, d))(image, rng(3)) for d in (0, 1.5)
    )
    assert sharp.max() > 0.85 and soft.max() < 0.75
    assert np.abs(np.diff(soft, axis=0)).max() < 0.3 < np.abs(np.diff(sharp, axis=0)).max()
    assert (soft > 0.02).mean() > 1.5 * (sharp > 0.02).mean()


def test_downsample_removes_what_the_small_image_cannot_hold():
    x = np.arange(64)
    stripes = [
        np.tile(0.5 + 0.4 * np.sin(2 * np.pi * x / period), (64, 1))[..., None]
        .repeat(3, 2)
        .astype(np.float32)
        for period in (4, 32)
    ]
    fine, coarse = (degradations.Downsample(4)(s, rng()) for s in stripes)
    assert fine[8:-8, 8:-8].std() < 0.05 and np.abs(coarse - stripes[1])[8:-8, 8:-8].max() < 0.05


def test_the_small_image_is_saved_as_jpeg_as_often_as_asked():
    image = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    plain, some = degradations.Downsample(4)(image, rng()), degradations.Downsample(4, 0.4)
    changed = [
        not np.array_equal(some(image, np.random.default_rng(seed)), plain) for seed in range(200)
    ]
    assert abs(np.mean(changed) - 0.4) < 0.1
    # what JPEG adds is as coarse as the small image's pixels
    added = degradations.Downsample(4, 1.0)(image, rng()) - plain
    power = np.abs(np.fft.fft2(added.mean(2))) ** 2
    assert power[:16, :16].mean() > 20 * power[16:48, 16:48].mean()


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("Downsample", {"compressed": 1.5}),
        ("CameraBlur", {"shaken": 0, "averaged": 0, "defocused": 0}),
        ("CameraBlur", {"compressed": 1.5}),
        ("Downsample", {"compressed": -1}),
        ("Downsample", {"compressed": float("nan")}),
        ("CameraBlur", {"linear": 2}),
        ("CameraBlur", {"quality": (0, 50)}),
        ("CameraBlur", {"quality": (50, 101)}),
        ("CameraBlur", {"frames": 7}),
        ("Noise", {"std": -1}),
        ("Noise", {"std": "much"}),
        ("Noise", {"std": [2, 1]}),
        ("Rain", {"cover": 0.2}),
        ("Rain", {"cover": [0.3, 0.1]}),
        ("Haze", {"beta": [1, 2, 3]}),
        ("Haze", {"beta": [float("nan"), 1]}),
        ("Snow", {"radius": None}),
        ("Inpaint", {"kinds": ["holes"]}),
        ("Inpaint", {"kinds": []}),
        ("Inpaint", {"kinds": 1}),
        ("Inpaint", {"kinds": "brush"}),
    ],
)
def test_refuses_bad_parameters(name, parameters):
    with pytest.raises(UserError, match=f"{name} got {next(iter(parameters))}="):
        build(name, **parameters)


RELEASED = {  # as the configs of the first adapters have them
    "Rain": {
        "layers": [2.0, 5.0],
        "cover": [0.04, 0.24],
        "length": [12.0, 60.0],
        "width": [0.5, 1.1],
        "strength": [0.4, 0.95],
        "angle": 30.0,
        "spread": 8.0,
    },
    "Haze": {"beta": [0.5, 1.5], "airlight": [0.7, 1.0], "tint": 0.03},
    "Snow": {
        "layers": [4.0, 7.0],
        "cover": [0.005, 0.06],
        "radius": [0.6, 5.0],
        "speed": [0.0, 2.5],
        "veil": [0.0, 0.2],
    },
    "Raindrop": {
        "cover": [0.1, 0.55],
        "radius": [5.0, 22.0],
        "shrink": [3.0, 6.0],
        "gain": [0.9, 1.4],
    },
    "LowLight": {
        "gamma": [1.0, 1.6],
        "gain": [0.08, 0.3],
        "photons": [200.0, 2000.0],
        "read": [0.5, 2.0],
    },
    "Inpaint": {"masked": [0.1, 0.4], "width": [3.0, 24.0], "fill": 0.5},
    "Noise": {"std": 25.0},
}


@pytest.mark.parametrize("name", RELEASED)
def test_takes_the_parameters_of_released_adapters(name):
    image = photo(32, 32)
    assert not np.array_equal(build(name, **RELEASED[name])(image, rng()), image)


def test_ranges_may_be_lists():
    assert degradations.Rain(cover=[0.1, 0.1])(photo(20, 20), rng()).shape == (20, 20, 3)
