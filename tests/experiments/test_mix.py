"""Several sources in one training, and the images that are held back for choices."""

import json
import tarfile
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import save_images
from PIL import Image

from irbridge.data import crops as cropping
from irbridge.data.crops import CropStream, MixedStream, Room, device_batches, stream_loader
from irbridge.data.degradations import Noise
from irbridge.data.image_source import CACHE_SHARE, ImageSource
from irbridge.data.jpeg import as_jpeg
from irbridge.data.pair import Pair
from irbridge.data.pairs import PackedPairs
from irbridge.data.selection import Subset, distinct, split_scenes
from irbridge.errors import UserError
from irbridge.experiments.task_data import (
    check_round,
    training_sources,
    training_stream,
    validation_pairs,
)
from irbridge.experiments.task_data import test_pairs as held_back
from irbridge.images.arrays import to_image
from irbridge.reports import model_card

NOISE = {"_target_": "irbridge.data.degradations.Noise", "std": 25.0}
HOLES = {"_target_": "irbridge.data.degradations.Inpaint"}


def flat(folder, names, value, size=(20, 24)):
    """Images of one colour, which tells where a crop comes from."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", size[::-1], (value,) * 3).save(folder / name)
    return folder


def packed(path, names, values=(200, 50), size=(20, 24)):
    root = path.with_suffix("")
    for half, value in zip(("clean", "degraded"), values):
        flat(root / half, names, value, size)
    with tarfile.open(path, "w") as tar:
        tar.add(root, arcname="set")
    return path


def config(mix=None, degradation=NOISE, masked=False, validation=None, **data):
    return {
        "seed": 0,
        "task": {"name": "t", "degradation": degradation, "masked": masked},
        "data": {
            "mix": mix,
            "validation": validation,
            "benchmark": None,
            "root": None,
            "resize": None,
            "test_clean": None,
            "hold_out": 10,
            **data,
        },
    }


def test_a_tar_and_its_folder_hold_the_same_pairs(tmp_path):
    tar = packed(tmp_path / "set.tar", ["b.png", "a.png"])
    for pairs in (PackedPairs(tar), PackedPairs(tmp_path / "set")):
        assert len(pairs) == 2 and sorted(pairs.names) == ["a", "b"]
        pair = pairs[0]
        assert np.allclose(pair.clean, 200 / 255) and np.allclose(pair.degraded, 50 / 255)
    assert PackedPairs(tar, size=8)[1].clean.shape == (8, 8, 3) and PackedPairs(tar, resize=40)[
        0
    ].clean.shape == (40, 48, 3)


def test_what_holds_no_pairs_is_refused(tmp_path):
    for name, halves in (("one", ["clean"]), ("none", ["x"])):
        for half in halves:
            flat(tmp_path / name / half, ["a.png"], 9)
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            tar.add(tmp_path / name, arcname="s")
        with pytest.raises(UserError, match=rf"{name}.tar holds no pairs.*clean and degraded"):
            PackedPairs(tmp_path / f"{name}.tar")
    tar = packed(tmp_path / "odd.tar", ["a.png"])
    flat(tmp_path / "odd" / "degraded", ["a.png"], 9, size=(24, 20))
    with tarfile.open(tar, "w") as handle:
        handle.add(tmp_path / "odd", arcname="s")
    with pytest.raises(UserError, match="odd.tar: clean a .*differ in size"):
        PackedPairs(tar)[0]
    for path in (tar, tmp_path / "odd"):  # by the headers, before a training
        with pytest.raises(UserError, match="clean/a.png and .*degraded/a.png differ in size"):
            training_sources(config([{"pairs": str(path), "weight": 1.0}], None))
    with tarfile.open(tmp_path / "two.tar", "w") as handle:
        for root in ("s", "t"):
            handle.add(tmp_path / "odd", arcname=root)
    with pytest.raises(
        UserError, match="two.tar holds two pairs named a, s/clean/a.png and t/clean/a.png"
    ):
        PackedPairs(tmp_path / "two.tar")


def test_a_mix_draws_each_source_with_its_share(tmp_path):
    dark, light = (flat(tmp_path / str(v), ["a.png", "b.png"], v) for v in (10, 240))
    mixed = MixedStream(
        [CropStream(ImageSource(dark), 16, 1), CropStream(ImageSource(light), 16, 2)],
        [0.25, 0.75],
        0,
    )
    shares = np.mean([to_image(mixed[k]["clean"]).mean() > 0.5 for k in range(800)])
    assert abs(shares - 0.75) < 0.05
    again = MixedStream(
        [CropStream(ImageSource(dark), 16, 1), CropStream(ImageSource(light), 16, 2)],
        [0.25, 0.75],
        0,
    )
    assert all(torch.equal(mixed[k]["degraded"], again[k]["degraded"]) for k in (7, 3, 700))


def test_the_choice_of_a_source_says_nothing_about_the_image(tmp_path):
    folder = save_images(tmp_path / "many", 16)
    streams = [CropStream(ImageSource(folder), 16, seed) for seed in (1, 2)]
    chosen = {0: set(), 1: set()}
    for k, stream in enumerate(streams):
        stream._read = lambda i, k=k, inner=stream._read: chosen[k].add(i) or inner(i)
    mixed = MixedStream(streams, [0.5, 0.5], 0)
    for draw in range(300):
        mixed[draw]
    assert len(chosen[0]) == len(chosen[1]) == 16


def test_workers_change_nothing(tmp_path):
    stream = MixedStream(
        [
            CropStream(ImageSource(save_images(tmp_path / "a")), 16, 1, Noise()),
            CropStream(PackedPairs(packed(tmp_path / "p.tar", ["a.png"])), 16, 2),
        ],
        [0.5, 0.5],
        0,
    )
    stream.preload()
    batches = [
        [next(it) for _ in range(3)]
        for it in (iter(stream_loader(stream, 0, 4, workers)) for workers in (0, 2))
    ]
    for a, b in zip(*batches):
        assert torch.equal(a["clean"], b["clean"]) and torch.equal(a["degraded"], b["degraded"])


def test_decoded_images_take_no_more_than_their_room(tmp_path):
    source = ImageSource(save_images(tmp_path / "a", 4, (32, 32)))
    reads = []
    source.__class__ = type(
        "Counted",
        (ImageSource,),
        {"__getitem__": lambda s, i: reads.append(i) or ImageSource.__getitem__(s, i)},
    )
    stream = CropStream(source, 16, 0, room=Room(2 * 32 * 32 * 3))
    stream.preload()
    assert len(stream.kept) == 2 and all(v.dtype == np.uint8 for v in stream.kept.values())
    reads.clear()
    for i in (0, 1, 0, 1):
        stream._read(i)
    assert reads == []
    stream._read(3)
    assert reads == [3]


def test_processes_and_workers_share_the_room(monkeypatch):
    monkeypatch.setattr(cropping.psutil, "virtual_memory", lambda: SimpleNamespace(available=16000))
    rooms = Room(), Room()
    assert rooms[0].take(4000) and not rooms[0].take(1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    # before the workers start, which see it together
    assert rooms[1].take(500)
    monkeypatch.setattr(cropping, "get_worker_info", lambda: SimpleNamespace(num_workers=3))
    # of 1500, for each of three
    assert [rooms[1].take(250) for _ in range(3)] == [True, True, False]


def test_some_draws_are_lighter_and_some_are_clean(tmp_path):
    pairs = PackedPairs(packed(tmp_path / "p.tar", ["a.png"]))
    stream = CropStream(pairs, 16, 0, lighter=0.5, same=0.2)
    levels = np.array([to_image(stream[k]["degraded"]).mean() * 255 for k in range(400)])
    clean, heavy = np.mean(levels > 199.5), np.mean(levels < 50.5)
    assert abs(clean - 0.2) < 0.06 and abs(heavy - 0.3) < 0.07
    between = levels[(levels > 50.5) & (levels < 199.5)]
    assert abs(between.mean() - 125) < 10 and between.std() > 30
    assert all(abs(to_image(stream[k]["clean"]).mean() * 255 - 200) < 0.01 for k in range(20))


def test_some_draws_are_saved_as_jpeg_and_nothing_else_changes():
    photographs = ImageSource("data/samples/test")
    plain, mixed, every = (
        CropStream(photographs, 64, 0, Noise(), lighter=0.2, jpeg=share) for share in (0, 0.4, 1.0)
    )
    changed = []
    for k in range(150):
        a, b, c = plain[k], mixed[k], every[k]
        assert torch.equal(a["clean"], b["clean"]) and torch.equal(a["clean"], c["clean"])
        changed.append(not torch.equal(a["degraded"], b["degraded"]))
        assert torch.equal(b["degraded"], mixed[k]["degraded"])
        error = to_image(c["degraded"]) - to_image(a["degraded"])
        assert c["degraded"].shape == (3, 64, 64) and 0.001 < error.std() < 0.2
    assert abs(np.mean(changed) - 0.4) < 0.12
    with pytest.raises(UserError, match="saves them as JPEG"):
        next(device_batches(CropStream(photographs, 16, 0, jpeg=0.1), 0, 2, torch.device("cpu")))


def test_a_crop_of_a_jpeg_begins_anywhere_in_its_blocks():
    # a step of quality 40 shows where its 8 x 8 blocks meet
    image = np.random.default_rng(0).random((64, 64, 1)).astype(np.float32).repeat(3, 2)
    places = set()
    for seed in range(60):
        left = as_jpeg(image, np.random.default_rng(seed))
        steps = np.abs(np.diff(left - image, axis=0)).mean((1, 2))
        places.add(int(np.argmax([steps[k::8].mean() for k in range(8)])))
        assert left.shape == image.shape and left.dtype == np.float32
    assert len(places) > 4


def test_holes_come_with_their_mask(tmp_path):
    settings = config(
        [{"clean": str(save_images(tmp_path / "a", 4, (40, 40))), "weight": 1.0, "same": 0.3}],
        HOLES,
        True,
    )
    stream = training_stream(settings, 32)
    shares = []
    for k in range(30):
        draw = stream[k]
        assert draw["degraded"].shape == (4, 32, 32)
        hole = draw["degraded"][3] > 0
        assert set(draw["degraded"][3].unique().tolist()) <= {-1.0, 1.0}
        assert torch.equal(draw["clean"][:, ~hole], draw["degraded"][:3, ~hole])
        shares.append(hole.float().mean().item())
    assert 0.1 < np.mean([s == 0 for s in shares]) < 0.6 and max(shares) > 0.05


def test_quarter_turns_only_where_asked(tmp_path):
    rows = np.repeat(np.arange(32, dtype=np.uint8)[:, None], 32, 1) * 8
    (tmp_path / "a").mkdir()
    Image.fromarray(rows).convert("RGB").save(tmp_path / "a" / "a.png")

    def kinds(turn):
        stream = CropStream(ImageSource(tmp_path / "a"), 16, 0, turn=turn)
        crops = [stream[k]["clean"][0] for k in range(40)]
        return {
            (
                bool((c[1:] > c[:-1]).all()),
                bool((c[1:] < c[:-1]).all()),
                bool((c[:, 1:] > c[:, :-1]).all()),
            )
            for c in crops
        }

    assert len(kinds(False)) == 1 and len(kinds(True)) == 4


@pytest.mark.parametrize("every", [2, 3, 16])
def test_no_scene_is_on_both_sides_of_the_split(every):
    names = [f"room_{s}_{k}" for s in range(20) for k in range(3)]
    scenes = [name.rsplit("_", 1)[0] for name in names]
    train, held = split_scenes(scenes, every)
    assert sorted(train + held) == list(range(60)) and held
    assert not {names[i].rsplit("_", 1)[0] for i in train} & {
        names[i].rsplit("_", 1)[0] for i in held
    }
    assert split_scenes(scenes, None) == (list(range(60)), [])


@pytest.mark.parametrize("named", ["clean", "pairs", "benchmark", "task"])
def test_versions_of_one_clean_image_are_one_scene(tmp_path, named):
    root, halves = (
        tmp_path / "OTS",
        ("clear", "haze") if named == "benchmark" else ("clean", "degraded"),
    )
    clean = flat(root / halves[0], [f"{s:02}.png" for s in range(6)], 200)
    hazy = flat(
        root / halves[1],
        [f"{s:02}_{haze}.png" for s in range(6) for haze in ("0.8_0.2", "1.0_0.1")],
        100,
    )
    folders = {"clean": str(clean), "degraded": str(hazy)}
    entry = {
        "clean": folders,
        "pairs": {"pairs": str(root)},
        "benchmark": {"benchmark": "reside_ots", "root": str(root)},
    }.get(named)
    settings = config(
        entry and [entry | {"weight": 1.0}],
        None,
        validation=2,
        **({} if entry else folders | {"test_clean": "x"}),
    )
    trained, held = (
        set(names)
        for names in (
            training_stream(settings, 16).source.names,
            validation_pairs(settings, 16).names,
        )
    )
    assert not {n[:2] for n in trained} & {n[:2] for n in held} and len(trained) == len(held) == 6


def test_a_pattern_of_scenes_must_fit(tmp_path):
    entry = {
        "pairs": str(packed(tmp_path / "p.tar", ["a_1.png", "a_2.png", "b_1.png"])),
        "weight": 1.0,
    }
    for scene, fault in (
        ("(a", r"mix\[0\].scene=\(a is no regular expression"),
        ("a_", "is no regular expression with a group"),
        ("(room_[0-9]+)_", r"matches no name of p.tar, such as a_1; give"),
    ):
        with pytest.raises(UserError, match=fault):
            training_stream(config([entry | {"scene": scene}], None, validation=2), 16)
    for scene in ("(a)_", "(a)?.*"):  # where the group found nothing, the image's own scene counts
        assert training_sources(config([entry | {"scene": scene}], None))[0].scenes() == [
            "a",
            "a",
            "b_1",
        ]


def test_training_validation_and_test_share_no_image(tmp_path):
    photos, tests = (
        save_images(tmp_path / "photos", 12, (24, 24)),
        save_images(tmp_path / "tests", 3, (24, 24), seed=0),
    )
    # 0, 1, 7 are test images, also among the photographs
    (tests / "2.png").rename(tests / "7.png")
    pairs = packed(tmp_path / "rain.tar", [f"s{s}_{k}.png" for s in range(6) for k in range(2)])
    mix = [
        {"clean": [str(photos)], "weight": 0.5},
        {"pairs": str(pairs), "weight": 0.5, "scene": r"(s\d)_"},
    ]
    settings = config(mix, validation=4, exclude=str(tests), test=str(tests))
    stream, chosen, tested = (
        training_stream(settings, 16),
        validation_pairs(settings, 16),
        held_back(settings, 16),
    )
    trained = {name for part in stream.streams for name in part.source.names}
    assert not trained & set(chosen.names) and not set(tested.names) & (trained | set(chosen.names))
    assert not {n[:2] for n in trained if n[0] == "s"} & {
        n[:2] for n in chosen.names if n[0] == "s"
    }
    assert (
        len(trained) + len(chosen) == 9 + 12
        and isinstance(chosen[0], Pair)
        and chosen[0].clean.shape == (16, 16, 3)
    )
    assert all(
        np.array_equal(a.degraded, b.degraded)
        for a, b in zip([chosen[0], chosen[3]], [validation_pairs(settings, 16)[i] for i in (0, 3)])
    )


def test_an_image_of_two_sources_is_held_back_in_both(tmp_path):
    photos, more = save_images(tmp_path / "photos", 12), save_images(tmp_path / "more", 9, seed=1)
    pairs = packed(tmp_path / "rain.tar", [f"{k:02}.png" for k in range(10)])
    (tmp_path / "link").symlink_to(photos)
    mix = [
        {"clean": str(tmp_path / "link"), "weight": 0.2},
        {"clean": [str(photos), str(more)], "weight": 0.3},
        {"pairs": str(pairs), "weight": 0.3},
        {"clean": str(pairs), "weight": 0.2},
    ]
    settings = config(mix, validation=4)
    stream, chosen = training_stream(settings, 16), validation_pairs(settings, 16)
    trained = {file for part in stream.streams for files in part.source.files for file in files}
    held = {
        file
        for images in chosen.source.sources
        for files in (images if isinstance(images, Subset) else images.source).files
        for file in files
    }
    everything = {
        f for source in training_sources(settings) for files in source.images.files for f in files
    }
    assert (
        not trained & held
        and trained | held == everything
        and min(len(p.source) for p in stream.streams) > 1
    )
    assert (
        len(set(chosen.names)) == len(chosen)
        and [chosen[i].name for i in range(len(chosen))] == chosen.names
    )
    assert {name.split("_")[0] for name in chosen.names} >= {"link", "photos, more"}


def test_names_that_repeat_are_told_apart():
    assert distinct(["a", "b", "c"], ["x", "x", "y"]) == ["a", "b", "c"]
    assert distinct(["a", "b", "a", "a"], ["x", "x", "y/z", "x"]) == ["x_a", "b", "y_z_a", "x_a_2"]
    assert distinct(["a", "a", "x_a"], ["x", "y", "z"]) == ["x_a_2", "y_a", "x_a"]


def test_one_source_holds_back_validation_images_too(tmp_path):
    settings = config(train=str(save_images(tmp_path / "a", 8)), validation=4)
    stream, chosen = training_stream(settings, 16), validation_pairs(settings, None)
    assert set(stream.source.names) | set(chosen.names) == set("01234567") and len(chosen) == 2
    with pytest.raises(UserError, match="holds back no images.*data.validation=16"):
        validation_pairs(config(train=str(tmp_path / "a")), None)
    with pytest.raises(UserError, match="too few to hold some back"):
        training_stream(config(train=str(save_images(tmp_path / "one", 1)), validation=2), 16)


def sources_of_one_size_and_four(tmp_path):
    """A mix of a small and a larger set of pairs, each of a task of its own."""
    few = packed(tmp_path / "few.tar", ["a.png", "b.png"], values=(10, 10))
    names = [f"c{k}.png" for k in range(8)]
    many = packed(tmp_path / "many.tar", names, values=(240, 240))
    return [{"pairs": str(few), "name": "derain"}, {"pairs": str(many), "name": "dehaze"}]


def test_sources_of_different_sizes_have_equally_many_crops_of_each_step(tmp_path):
    mix = sources_of_one_size_and_four(tmp_path)
    stream = training_stream(config(mix, None, each_step=True), 16)
    for batch in islice(stream_loader(stream, 0, 4), 5):
        bright = batch["clean"].mean((1, 2, 3)) > 0
        assert bright.tolist() == [False, True] * 2
    with pytest.raises(UserError, match=r"mix\[1\].weight does not go with data.each_step=true"):
        training_stream(config([mix[0], mix[1] | {"weight": 0.5}], None, each_step=True), 16)


def test_validation_pairs_of_such_sources_say_their_task(tmp_path):
    mix = sources_of_one_size_and_four(tmp_path)
    pairs = validation_pairs(config(mix, None, validation=2, each_step=True), 16)
    tasks = {pairs[i].name: pairs[i].task for i in range(len(pairs))}
    assert tasks == {"a": "derain", **{f"c{k}": "dehaze" for k in range(0, 8, 2)}}


def test_a_step_that_cannot_be_shared_is_refused(tmp_path):
    one = {"_target_": "irbridge.data.degradations.Noise"}
    several = {"_target_": "irbridge.data.degradations.OneOf", "choices": [one] * 3}
    turns = several | {"each_step": True}
    mix = [{"clean": "A"}, {"clean": "B"}, {"pairs": "P"}, {"pairs": "Q"}]
    shares = [{"clean": "A", "weight": 0.5}, {"pairs": "P", "weight": 0.5}]
    for settings, wanted in (
        (config(None, several), 1),
        (config(None, turns), 3),
        (config(shares, turns), 3),
        (config(shares[1:] * 2, turns), 1),
        (config(mix, several, each_step=True), 4),
        (config(mix, turns, each_step=True), 12),
    ):
        check_round(settings | {"trainer": {"batch_size": 24, "crop": 16}})
        if wanted > 1:
            with pytest.raises(UserError, match=f"shared equally by {wanted} tasks.*size={wanted}"):
                check_round(settings | {"trainer": {"batch_size": 1, "crop": 16}})


@pytest.mark.parametrize(
    "mix, fault",
    [
        ("rain.tar", r"must be a list of sources"),
        (
            [{"clean": "C", "weight": 0.5}, {"clean": "C", "weight": 0.4}],
            r"add up to 0.9; make them shares that add up to 1",
        ),
        ([{"clean": "C", "weight": 0}], r"mix\[0\].weight=0 must be"),
        ([{"clean": "C"}], r"mix\[0\].weight=None must be"),
        ([{"weight": 1.0}], r"mix\[0\] names no images"),
        ([{"clean": "C", "pairs": "P", "weight": 1.0}], r"mix\[0\] names pairs and clean"),
        ([{"clean": "C", "wieght": 1.0}], r"mix\[0\].wieght is unknown"),
        ([{"clean": "C", "weight": 1.0, "lighter": 0.7, "same": 0.5}], r"add up to at most 1"),
        ([{"clean": "C", "weight": 1.0, "jpeg": 1.5}], r"mix\[0\].jpeg=1.5 must be a share"),
        ([{"clean": "C", "weight": 1.0, "jpeg": "half"}], r"mix\[0\].jpeg=half must be a share"),
        ([{"pairs": "absent.tar", "weight": 1.0}], r"absent.tar does not exist"),
        ([{"benchmark": "rain100h", "weight": 1.0}], r"names benchmark; give"),
        ([], "must be a list of sources"),
        ({}, "must be a list of sources"),
        ([{"clean": 5, "weight": 1.0}], r"mix\[0\].clean=5 must be text, or a list"),
        ([{"clean": [5], "weight": 1.0}], r"mix\[0\].clean=\[5\] must be text, or a list"),
        ([{"pairs": ["C"], "weight": 1.0}], r"mix\[0\].pairs=\[.*must be text\.$"),
        ([{"clean": "C", "weight": 1.0, "name": 5}], r"mix\[0\].name=5 must be text\.$"),
        ([{"clean": "C", "weight": 1.0, "scene": 5}], r"mix\[0\].scene=5 is no regular expression"),
        (
            [{"clean": "C", "weight": 1.0, "turn": "false"}],
            r"mix\[0\].turn='false' must be true or false",
        ),
        (
            [{"clean": "C", "weight": 1.0, "degradation": "rain"}],
            r"mix\[0\].degradation=rain must name a class",
        ),
        (
            [{"clean": "C", "weight": 1.0, "degradation": {"a": 1}}],
            r"mix\[0\].degradation={'a': 1} must name a class",
        ),
        (
            [{"pairs": "C", "weight": 1.0, "degradation": NOISE}],
            r"mix\[0\].degradation is for clean= alone, but this source has pairs;",
        ),
    ],
)
def test_mistakes_in_a_mix_are_told(tmp_path, mix, fault):
    folder = str(save_images(tmp_path / "C"))
    mix = json.loads(json.dumps(mix).replace('"C"', json.dumps(folder)))
    with pytest.raises(UserError, match=fault):
        training_sources(config(mix))


def test_a_task_with_holes_takes_no_pairs_and_a_paired_one_no_clean_images(tmp_path):
    pairs = str(packed(tmp_path / "p.tar", ["a.png"]))
    with pytest.raises(UserError, match="must know its holes"):
        training_sources(config([{"pairs": pairs, "weight": 1.0}], HOLES, True))
    clean = str(save_images(tmp_path / "h"))
    with pytest.raises(UserError, match=r"has jpeg=0.5, but .* makes holes"):
        training_sources(config([{"clean": clean, "weight": 1.0, "jpeg": 0.5}], HOLES, True))
    with pytest.raises(UserError, match="does not degrade them"):
        training_sources(config([{"clean": str(save_images(tmp_path / "c")), "weight": 1.0}], None))


def test_cards_name_every_source_and_no_path():
    settings = config(
        [
            {"pairs": "/home/me/derain.tar", "name": "Rain800", "weight": 0.4, "lighter": 0.3},
            {"clean": ["/home/me/a.tar", "data/samples/train"], "same": 0.05}
            | {"weight": 0.6, "jpeg": 0.5},
        ],
        folder="/home/me",
    )
    settings |= {"run": "/home/me/run"}
    text = model_card.data_in_words(settings)
    assert (
        text
        == "40% Rain800 (pairs, 30% mixed back towards the clean image); 60% a.tar, train (degraded"
        " on the fly by `irbridge.data.degradations.Noise`, 5% left clean, 50%"
        " then saved as JPEG)"
    )
    assert "/home/me" not in json.dumps(model_card.private(settings))


@pytest.mark.parametrize("turn, lighter", [(False, 0.0), (True, 0.5)])
def test_crops_made_on_the_device_are_the_same(tmp_path, turn, lighter):
    root = tmp_path / "pairs"
    save_images(root / "clean", 3, (40, 44))
    save_images(root / "degraded", 3, (40, 44), seed=1)
    save_images(tmp_path / "small", 2, (12, 40))  # smaller than the crop
    streams = [
        CropStream(PackedPairs(root), 16, 1, lighter=lighter, same=lighter / 2, turn=turn),
        CropStream(ImageSource(tmp_path / "small"), 16, 2, turn=turn),
    ]
    stream = MixedStream(streams, [0.6, 0.4], 0)
    wanted = iter(stream_loader(stream, 8, 4, rank=1, world=2))
    got = device_batches(stream, 8, 4, torch.device("cpu"), rank=1, world=2)
    for _ in range(6):
        a, b = next(wanted), next(got)
        assert a.keys() == b.keys() and torch.equal(a["draw"], b["draw"])
        assert torch.allclose(a["clean"], b["clean"], atol=1e-6) and torch.allclose(
            a["degraded"], b["degraded"], atol=1e-6
        )
    assert all(v.dtype == torch.uint8 for part in streams for v in part.moved.values())


def test_an_image_is_decoded_once_and_kept_either_on_the_device_or_here(tmp_path, monkeypatch):
    size = 32 * 32 * 3
    stream = CropStream(
        ImageSource(save_images(tmp_path / "a", 4, (32, 32))), 16, 0, room=Room(size)
    )
    reads, decoded = [], stream._decoded
    stream._decoded = lambda i: reads.append(i) or decoded(i)
    monkeypatch.setattr(
        cropping.psutil,
        "virtual_memory",
        lambda: SimpleNamespace(available=2 * size / CACHE_SHARE),
    )
    batches = device_batches(stream, 0, 16, torch.device("cpu"))
    next(batches)
    assert (
        len(stream.moved) == 2
        and len(stream.kept) == 1
        and not stream.moved.keys() & stream.kept.keys()
    )
    reads.clear()
    next(batches)
    # what has room nowhere
    assert set(reads) == set(range(4)) - stream.moved.keys() - stream.kept.keys()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (800, 1000))
    card = Room(device=torch.device("cuda", 0))
    assert card.take(200) and not card.take(1)


def test_degradations_are_not_made_on_the_device(tmp_path):
    stream = CropStream(ImageSource(save_images(tmp_path / "a")), 16, 0, Noise())
    with pytest.raises(UserError, match="data.on_device=true is for pairs"):
        next(device_batches(stream, 0, 2, torch.device("cpu")))
