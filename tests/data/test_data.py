"""Images, pairs and training crops: what is read, what is refused, what a seed decides."""

import os
import tarfile
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from irbridge.data.crops import CropStream, Room, stream_loader
from irbridge.data.degradations import Noise
from irbridge.data.image_source import ImageSource
from irbridge.data.pairs import PairedFolders, SyntheticPairs
from irbridge.errors import UserError
from irbridge.images.arrays import to_image, to_tensor
from irbridge.images.io import list_images, read_image
from irbridge.images.resize import centre_crop, scaled


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(folder, names, size=(20, 24)):
    folder.mkdir(exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(pixels(*size, seed=k)).save(folder / name)
    return folder


def pack(path, folder, mode="w"):
    with tarfile.open(path, mode) as tar:
        tar.add(folder, arcname="photos")
    return path


@pytest.fixture
def clean(tmp_path):
    return save(tmp_path / "clean", ["b.png", "a.png", "c.PNG"])


def test_lists_images_sorted_and_only_images(clean):
    (clean / "notes.txt").write_text("x")
    (clean / ".hidden.png").write_text("x")
    (clean / "folder.png").mkdir()
    assert [p.name for p in list_images(clean)] == ["a.png", "b.png", "c.PNG"]


def test_tar_gives_the_same_images_as_its_folder(tmp_path, clean):
    folder, tar = ImageSource(clean), ImageSource(pack(tmp_path / "set.tar", clean))
    assert folder.names == ["a", "b", "c"] and tar.names == ["photos_a", "photos_b", "photos_c"]
    assert all(np.array_equal(folder[i], tar[i]) for i in range(3)) and len(list(tar)) == 3


@pytest.mark.parametrize("keep", [512, 100])
def test_a_tar_damaged_in_the_middle_is_refused(tmp_path, clean, keep):
    """tarfile takes a damaged header for the end. Of 100 bytes, the archive ends within it."""
    path = pack(tmp_path / "set.tar", clean)
    with tarfile.open(path) as tar:
        at = tar.getmembers()[2].offset
    content = path.read_bytes()
    path.write_bytes(content[:at] + b"\7" * keep + content[at + 512 :] * (keep == 512))
    with pytest.raises(UserError, match=rf"set.tar cannot be read .*damaged at byte {at}"):
        ImageSource(path)
    path.write_bytes(content[:at])  # an archive without its closing zeros is whole
    assert len(ImageSource(path)) == 1


def test_refuses_sources_without_images(tmp_path, clean):
    (tmp_path / "none").mkdir()
    (tmp_path / "text.tar").write_text("no tar")
    cases = [
        tmp_path / "none",
        tmp_path / "absent",
        tmp_path / "absent.tar",
        tmp_path / "text.tar",
        pack(tmp_path / "none.tar", tmp_path / "none"),
        pack(tmp_path / "zip.tar", clean, "w:gz"),
        save(tmp_path / "twice", ["x.png", "x.bmp"]),
    ]
    for path in cases:
        with pytest.raises(UserError, match=path.name):
            ImageSource(path)


def test_centre_crop_keeps_short_sides():
    image = np.arange(30).reshape(5, 6, 1)
    assert centre_crop(image, 3)[..., 0].tolist() == [[7, 8, 9], [13, 14, 15], [19, 20, 21]]
    assert (
        centre_crop(image, 5).shape == (5, 5, 1)
        and centre_crop(image, 9).shape == centre_crop(image, None).shape
    )


@pytest.mark.parametrize(
    "size, shorter, expected",
    [
        ((321, 481), 512, (512, 767)),
        ((481, 321), 512, (767, 512)),
        ((40, 40), 16, (16, 16)),
        ((1, 9), 2, (2, 18)),
        ((400, 1), 1, (400, 1)),
        ((20, 24), None, (20, 24)),
        ((20, 24), 20, (20, 24)),
    ],
)
def test_the_shorter_side_is_scaled(size, shorter, expected):
    image = pixels(*size).astype(np.float32) / 255
    made = scaled(image, shorter)
    assert (
        made.shape == (*expected, 3)
        and made.dtype == np.float32
        and 0 <= made.min() <= made.max() <= 1
    )
    assert (made is image) == (size == expected)


def test_scaling_is_the_antialiased_bicubic_of_pillow():
    fine = np.zeros((64, 64, 3), np.float32)
    # finer than the small image can show: it must become grey
    fine[:, ::2] = 1
    assert np.abs(scaled(fine, 16)[:, 2:-2] - 0.5).max() < 0.01
    ramp = np.repeat(np.linspace(0.2, 0.8, 16, dtype=np.float32)[None, :, None], 16, axis=0).repeat(
        3, axis=2
    )
    at = (np.arange(32) + 0.5) / 2 - 0.5  # pixel centres; a cubic keeps a line
    expected = np.interp(at, range(16), ramp[0, :, 0])
    assert np.abs(scaled(ramp, 32)[5, 4:-4, 1] - expected[4:-4]).max() < 1.1 / 255


def test_both_sides_of_a_pair_and_all_sources_are_scaled_before_the_crop(tmp_path):
    clean, degraded = (
        save(tmp_path / name, ["a.png", "b.png"], (321, 481)) for name in ("clean", "degraded")
    )
    pair = PairedFolders(clean, degraded, size=500, resize=512)[0]
    whole = Image.open(clean / "a.png").resize((767, 512), Image.Resampling.BICUBIC)
    assert np.array_equal(pair.clean, pair.degraded) and pair.clean.shape == (500, 500, 3)
    assert np.array_equal(pair.clean, np.float32(np.asarray(whole)[6:506, 133:633]) / 255)
    made = SyntheticPairs(pack(tmp_path / "set.tar", clean), lambda image, rng: image, resize=64)[0]
    assert made.clean.shape == made.degraded.shape == (64, 96, 3)
    draw = CropStream(ImageSource(clean, resize=16), 16, 0)[0]
    assert draw["clean"].shape == (3, 16, 16) and ImageSource(clean, resize=16)[0].shape == (
        16,
        24,
        3,
    )


def test_synthetic_pairs_depend_on_seed_and_name_only(tmp_path, clean):
    pairs = SyntheticPairs(clean, Noise(), seed=3, size=16)
    last = pairs[2]
    (clean / "a.png").unlink()
    again = SyntheticPairs(clean, Noise(), seed=3, size=16)
    assert (
        pairs.names == ["a", "b", "c"]
        and again.names == ["b", "c"]
        and again[1].name == last.name == "c"
    )
    assert np.array_equal(again[1].degraded, last.degraded) and last.clean.shape == (16, 16, 3)
    assert not np.array_equal(
        SyntheticPairs(clean, Noise(), seed=4, size=16)[1].degraded, last.degraded
    )
    assert 0.05 < np.std(last.degraded - last.clean) < 0.15


@pytest.mark.parametrize(
    "cleans, degradeds, partners",
    [
        (["2.png", "1.png"], ["1.jpg", "2.jpg"], ["1", "2"]),
        (
            ["0001.png", "0001_5.png"],
            ["0001_0.8_0.2.png", "0001_1_0.1.png", "0001_5_1.png"],
            ["0001", "0001", "0001_5"],
        ),
        (["0_clean.png", "10_clean.png"], ["0_rain.png", "10_rain.png"], ["0_clean", "10_clean"]),
        (
            ["norain-001.png", "norain-2.png"],
            ["rain-001.png", "rain-2.png"],
            ["norain-001", "norain-2"],
        ),
    ],
)
def test_pairs_are_found_by_name(tmp_path, cleans, degradeds, partners):
    pairs = PairedFolders(save(tmp_path / "clean", cleans), save(tmp_path / "degraded", degradeds))
    pairs.check()
    assert [clean.stem for clean, _ in pairs.paths] == partners
    assert pairs[0].name == pairs.names[0] and len(pairs) == len(degradeds)
    assert np.array_equal(pairs[1].clean, read_image(pairs.paths[1][0]))


@pytest.mark.parametrize(
    "degradeds, fault",
    [
        (["a.png", "b.png"], "c.PNG"),
        (["a.png", "b.png", "c.png", "d.png"], "d.png"),
        (["x.png", "y.png", "z.png"], r"x.png .* \(and 5 more\)"),
        (["a.png", "a.jpg", "b.png"], "several images named a"),
        ([], "no images"),
    ],
)
def test_refuses_folders_that_do_not_pair(tmp_path, clean, degradeds, fault):
    with pytest.raises(UserError, match=fault):
        PairedFolders(clean, save(tmp_path / "degraded", degradeds))


def test_refuses_pairs_of_two_sizes_modes_or_a_broken_file(tmp_path, clean):
    degraded = save(tmp_path / "degraded", ["a.png", "b.png", "c.png"])
    pairs = PairedFolders(clean, degraded)
    pairs.check()
    Image.fromarray(pixels(24, 20)).save(degraded / "b.png")
    with pytest.raises(UserError, match="b.png .*differ in size"):
        pairs[1]
    Image.open(degraded / "c.png").convert("L").save(degraded / "c.png")
    with pytest.raises(UserError, match=r"b.png .*\(and 1 more\)\.$"):
        pairs.check()
    (degraded / "a.png").write_text("broken")
    with pytest.raises(UserError, match=r"a.png .*\(and 2 more\)\.$"):
        pairs.check()
    with pytest.raises(UserError, match="absent"):
        PairedFolders(tmp_path / "absent", degraded)


def test_a_split_never_divides_the_versions_of_a_scene(tmp_path, clean):
    degraded = save(tmp_path / "degraded", [f"{s}_{k}.png" for s in "abc" for k in range(4)])
    held, kept = PairedFolders(clean, degraded), PairedFolders(clean, degraded)
    held.keep(lambda index: index % 3 == 0)
    kept.keep(lambda index: index % 3 != 0)
    assert held.names == [f"a_{k}" for k in range(4)] and len(kept) == 8 and kept[0].name == "b_0"
    with pytest.raises(UserError, match="too few"):
        held.keep(lambda index: index > 9)


NOISE = Noise()


def stream(folder, seed=0, degradation=NOISE, **options):
    return CropStream(ImageSource(folder), 16, seed, degradation, **options)


def test_draws_are_crops_of_the_images_in_both_mirrorings(clean):
    images = [np.asarray(Image.open(p)) for p in list_images(clean)]
    views = {
        im[y : y + 16, x : x + 16][:, ::step].tobytes(): (k, step)
        for k, im in enumerate(images)
        for y in range(5)
        for x in range(9)
        for step in (1, -1)
    }
    draws = stream(clean, degradation=None)
    found = set()
    for k in range(40):
        draw = draws[k]
        assert torch.equal(draw["clean"], draw["degraded"]) and draw["clean"].shape == (3, 16, 16)
        found.add(views[np.round(to_image(draw["clean"]) * 255).astype(np.uint8).tobytes()])
    assert len(found) == 6


def test_draws_are_a_pure_function_of_seed_and_number(clean):
    forward, backward = stream(clean), stream(clean)
    a = [forward[k] for k in range(6)]
    b = [backward[k] for k in reversed(range(6))][::-1]
    assert all(torch.equal(x[key], y[key]) for x, y in zip(a, b) for key in ("clean", "degraded"))
    assert not torch.equal(stream(clean, seed=1)[0]["degraded"], a[0]["degraded"])
    assert len({x["degraded"].numpy().tobytes() for x in a}) == 6


@pytest.mark.parametrize("degradation", [NOISE, None])
def test_a_fixed_stream_has_one_crop_of_an_image_and_its_mirror(tmp_path, clean, degradation):
    draws = CropStream(ImageSource(clean), 16, 0, degradation, fixed=True)
    versions = {}
    for k in range(60):
        draw = draws[k]
        for pair in (
            (draw["clean"], draw["degraded"]),
            (draw["clean"].flip(-1), draw["degraded"].flip(-1)),
        ):
            versions.setdefault(pair[0].numpy().tobytes(), set()).add(pair[1].numpy().tobytes())
    assert len(versions) == 6 and all(len(v) == 1 for v in versions.values())
    seen = {draws[k]["clean"].numpy().tobytes() for k in range(60)}
    middle = {
        np.ascontiguousarray(to_tensor(centre_crop(read_image(p), 16))).tobytes()
        for p in list_images(clean)
    }
    assert middle < seen == set(versions)
    # By name, not by place in the set; and another seed makes other noise.
    alone = CropStream(
        ImageSource(save(tmp_path / "alone", ["c.png"])), 16, 0, degradation, fixed=True
    )
    Image.open(clean / "c.PNG").save(tmp_path / "alone" / "c.png")
    draw = alone[0]
    assert draw["degraded"].numpy().tobytes() in versions[draw["clean"].numpy().tobytes()]
    other = CropStream(ImageSource(clean), 16, 1, degradation, fixed=True)[0]
    assert (other["degraded"].numpy().tobytes() in versions[other["clean"].numpy().tobytes()]) == (
        degradation is None
    )


def test_fixed_pairs_are_their_centres(tmp_path, clean):
    degraded = tmp_path / "degraded"
    degraded.mkdir()
    for path in list_images(clean):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(degraded / f"{path.stem}.png")
    draws = CropStream(PairedFolders(clean, degraded), 16, 0, fixed=True)
    assert all(
        torch.allclose(draws[k]["clean"], -draws[k]["degraded"], atol=1e-6) for k in range(9)
    )
    assert len({draws[k]["clean"].numpy().tobytes() for k in range(60)}) == 6


def test_pairs_stay_aligned(tmp_path, clean):
    degraded = tmp_path / "degraded"
    degraded.mkdir()
    for path in list_images(clean):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(degraded / f"{path.stem}.png")
    draws = CropStream(PairedFolders(clean, degraded), 16, 0)
    for k in range(20):
        assert torch.allclose(draws[k]["clean"], -draws[k]["degraded"], atol=1e-6)


def test_small_images_are_padded_by_reflection(tmp_path):
    draw = stream(save(tmp_path / "small", ["s.png"], size=(5, 40)), degradation=None)[0]["clean"]
    assert draw.shape == (3, 16, 16)
    assert torch.equal(draw[:, 5], draw[:, 5 + 8]) and torch.equal(draw[:, 4], draw[:, 6])


def batches(source, start, workers, count=4, **options):
    return list(islice(stream_loader(source, start, 3, workers, **options), count))


def same(a, b):
    return len(a) == len(b) and all(
        torch.equal(x[k], y[k]) for x, y in zip(a, b) for k in ("clean", "degraded")
    )


def test_batches_do_not_depend_on_workers_nor_on_where_they_start(tmp_path, clean):
    source = stream(pack(tmp_path / "set.tar", clean))
    state = torch.get_rng_state()
    whole = batches(source, 0, 0)
    assert whole[0]["clean"].shape == (3, 3, 16, 16) and torch.equal(
        whole[2]["degraded"][1], source[7]["degraded"]
    )
    assert same(batches(source, 0, 2), whole)
    assert same(batches(source, 6, 0, 2), whole[2:])
    loader = stream_loader(source, 0, 3)
    assert same(list(islice(loader, 2)), list(islice(loader, 2)))
    assert torch.equal(torch.get_rng_state(), state)


def test_processes_share_the_batches_of_one(clean):
    source = stream(clean)
    parts = [batches(source, 0, 0, 2, rank=rank, world=2) for rank in range(2)]
    assert same([parts[0][0], parts[1][0], parts[0][1], parts[1][1]], batches(source, 0, 0))


def test_images_are_decoded_once_while_they_fit(clean, monkeypatch):
    reads = []
    monkeypatch.setattr(
        "irbridge.data.image_source.read_image", lambda path: reads.append(path) or read_image(path)
    )
    kept = stream(clean)
    first = [kept[k]["clean"] for k in range(30)]
    assert len(reads) == 3
    scarce = stream(clean, room=Room(20 * 24 * 3))
    assert (
        all(torch.equal(scarce[k]["clean"], first[k]) for k in range(30))
        and 3 + 3 < len(reads) < 3 + 30
    )


def test_a_clean_image_with_a_degraded_one_of_its_name_has_no_other(tmp_path):
    clean, degraded = tmp_path / "clean", tmp_path / "degraded"
    for folder, names in ((clean, ["beach"]), (degraded, ["beach_2", "beach_3"])):
        folder.mkdir()
        for name in names:
            Image.new("RGB", (16, 16)).save(folder / f"{name}.png")
    assert [path.name for path, _ in PairedFolders(clean, degraded).paths] == ["beach.png"] * 2
    Image.new("RGB", (16, 16)).save(degraded / "beach.png")
    with pytest.raises(UserError, match="beach_2.png has no partner of its name in .*clean, and"):
        PairedFolders(clean, degraded)
    for name in ("beach_2", "beach_3"):
        Image.new("RGB", (16, 16)).save(clean / f"{name}.png")
    pairs = PairedFolders(clean, degraded)
    assert [path.stem for path, _ in pairs.paths] == pairs.names


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_a_link_or_a_device_in_a_tar_is_told_and_never_followed(tmp_path, kind):
    save(tmp_path / "images", ["a.png"])
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "images/a.png", "a.png")
        member = tarfile.TarInfo("b.png")
        member.type, member.linkname = kind, str(tmp_path / "images/a.png")
        tar.addfile(member)
    with pytest.raises(UserError, match="x.tar holds b.png as a link or a device"):
        ImageSource(tmp_path / "x.tar")


def test_a_pipe_in_place_of_a_tar_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(UserError, match="x.tar cannot be read .*a pipe"):
        ImageSource(tmp_path / "x.tar")
