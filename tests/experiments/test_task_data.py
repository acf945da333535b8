"""Training crops and test pairs from a config: public sets as they unpack, resizing, stand-ins."""

import numpy as np
import pytest
import torch
from conftest import configured, save_images
from PIL import Image
from public_trees import BOTH, tree

from irbridge.data.crops import CropStream
from irbridge.data.public_sets import BENCHMARKS
from irbridge.errors import UserError
from irbridge.experiments.config import plain
from irbridge.experiments.task_data import test_pairs as held_back
from irbridge.experiments.task_data import training_stream


def config(task="derain", **data):
    """The plain config of a training command, as a run of any age has it."""
    words = [
        f"task={task}",
        "name=x",
        *(["data.clean=a", "data.degraded=b"] if task == "paired" else []),
    ]
    made = plain(configured("train", *words))
    for key in (
        "benchmark",
        "root",
        "test_benchmark",
        "test_root",
        "resize",
        "stand_in",
        "cache_latents",
    ):
        made["data"].pop(key, None)
    made["data"] |= data
    return made


def shown(stream, count=24):
    """The grey values (of 255) of the clean and the degraded centre in the first draws."""
    centre = [
        [round(float(stream[k][side][0, 8, 8] + 1) * 127.5) for side in ("clean", "degraded")]
        for k in range(count)
    ]
    return {tuple(pair) for pair in centre}


@pytest.mark.parametrize("name, train, test, trained, tested", BOTH)
def test_one_root_holds_both_halves(tmp_path, name, train, test, trained, tested):
    root = tree(tmp_path / "set", *train, *test)
    made = config(BENCHMARKS[name].task, benchmark=name, root=str(root))
    pairs = held_back(made, None)
    assert pairs.names == tested and pairs.title == BENCHMARKS[name].title
    stream = training_stream(made, 16)
    assert len(stream.source) == len(trained)
    greys = {clean for clean, _ in shown(stream)}
    assert greys <= {1, 3} and 1 in greys  # training files are odd, test files even


@pytest.mark.parametrize("name, train, test, trained, tested", BOTH)
def test_two_roots_of_any_name(tmp_path, name, train, test, trained, tested):
    first, second = tree(tmp_path / "a", *train), tree(tmp_path / "b", *test)
    data = {"benchmark": name, "root": str(first), "test_root": str(second)}
    made = config(BENCHMARKS[name].task, **data)
    assert (
        training_stream(made, 16).source.names == trained and held_back(made, None).names == tested
    )
    plainly = config(
        "desnow",
        benchmark="snow100k",
        root=str(tree(tmp_path / "x", "gt/1.jpg", "synthetic/1.jpg")),
        test_root=str(tree(tmp_path / "y", "gt/2.jpg", "synthetic/2.jpg")),
    )
    assert training_stream(plainly, 16).source.names == ["1"] and held_back(
        plainly, None
    ).names == ["2"]


@pytest.mark.parametrize("together", [True, False])
def test_dehazing_trains_on_ots_and_is_tested_on_sots(tmp_path, together):
    ots, sots = (
        ["clear/1.jpg", "haze/part1/1_0.8_0.2.jpg"],
        ["outdoor/gt/2.png", "outdoor/hazy/2_1_0.1.jpg"],
    )
    if together:
        root = test_root = tree(
            tmp_path / "RESIDE", *(f"OTS/{f}" for f in ots), *(f"SOTS/{f}" for f in sots)
        )
    else:
        root, test_root = tree(tmp_path / "one", *ots), tree(tmp_path / "two", *sots)
    data = {"benchmark": "reside_ots", "root": str(root), "test_benchmark": "sots_outdoor"}
    made = config("dehaze", **data, **({} if together else {"test_root": str(test_root)}))
    assert shown(training_stream(made, 16)) == {(1, 1)}
    pairs = held_back(made, 16)
    assert (
        pairs.title == "SOTS outdoor"
        and pairs.names == ["2_1_0.1"]
        and pairs[0].clean.shape == (16, 16, 3)
    )
    with pytest.raises(UserError, match="data.test_benchmark=sots_outdoor"):
        held_back(config("dehaze", benchmark="reside_ots", root=str(root)), 16)


def test_faces_in_one_folder_are_split_and_get_other_holes_at_every_draw(tmp_path):
    root = tree(tmp_path / "faces", *(f"{k:05d}.jpg" for k in range(9)), size=(64, 64))
    made = config("inpaint", benchmark="celebahq", root=str(root))
    stream, pairs = training_stream(made, 64), held_back(made, None)
    assert pairs.names == ["00000", "00003", "00006"] and len(stream.source) == 6
    assert not set(pairs.names) & set(stream.source.names)
    draws = [stream[k] for k in range(30)]
    holes = {draw["degraded"][3].numpy().tobytes() for draw in draws}
    assert len(holes) == 30
    assert np.array_equal(held_back(made, None)[1].degraded, pairs[1].degraded)
    fixed = training_stream(
        config("inpaint", benchmark="celebahq", root=str(root), cache_latents=True), 64
    )
    assert len({fixed[k]["degraded"].numpy().tobytes() for k in range(60)}) <= 12


def test_faces_take_masks(tmp_path):
    root = tree(tmp_path / "faces", "train/101.png", "test/102.png", size=(32, 32))
    masks = tree(tmp_path / "masks", "0.png", size=(32, 32))
    known = np.zeros((32, 32), np.uint8)
    known[0, 0] = 255  # all else is a hole
    Image.fromarray(known).save(masks / "0.png")
    made = config("inpaint", benchmark="celebahq", root=str(root), masks=str(masks))
    assert (
        shown(training_stream(made, 16)) == {(101, 128)}
        and (held_back(made, None)[0].degraded[1:, 1:] == 0.5).all()
    )


@pytest.mark.parametrize(
    "data, shape",
    [
        ({}, (40, 48)),
        ({"resize": None}, (40, 48)),
        ({"resize": 20}, (20, 24)),
        ({"resize": 80}, (80, 96)),
    ],
)
@pytest.mark.parametrize("task", ["derain", "paired", "lowlight"])
def test_every_image_is_resized(tmp_path, task, data, shape):
    for folder in ("our485/high", "our485/low", "eval15/high", "eval15/low"):
        save_images(tmp_path / folder, 2)
    where = {
        "derain": {"train": str(tmp_path / "our485/high"), "test": str(tmp_path / "our485/high")},
        "paired": {
            "clean": str(tmp_path / "our485/high"),
            "degraded": str(tmp_path / "our485/low"),
        },
        "lowlight": {"benchmark": "lol", "root": str(tmp_path)},
    }[task]
    made = config(task, **where, **data)
    if task == "paired":
        made["data"]["hold_out"] = 2
    pair, stream = held_back(made, None)[0], training_stream(made, 16)
    assert (
        pair.clean.shape == pair.degraded.shape == (*shape, 3)
        and stream._read(0).shape[1:3] == shape
    )
    assert stream[0]["clean"].shape == stream[0]["degraded"].shape == (3, 16, 16)


def test_cached_latents_need_one_crop_of_an_image(images):
    plainly, fixed = (
        training_stream(config(train=str(images), cache_latents=flag), 16) for flag in (False, True)
    )
    assert isinstance(plainly, CropStream) and not plainly.fixed and fixed.fixed
    # one of four is held back
    assert len({fixed[k]["degraded"].numpy().tobytes() for k in range(80)}) == 6
    assert len({plainly[k]["degraded"].numpy().tobytes() for k in range(80)}) == 80


def test_a_stand_in_is_the_synthetic_set(images):
    given = {"train": str(images), "test": str(images)}
    plainly = config(**given)
    stand_in = config(**given, benchmark="rain100h", root=None, stand_in=True)
    for k in range(3):
        assert torch.equal(
            training_stream(plainly, 16)[k]["degraded"],
            training_stream(stand_in, 16)[k]["degraded"],
        )
    assert np.array_equal(held_back(plainly, 16)[0].degraded, held_back(stand_in, 16)[0].degraded)


def test_a_root_comes_before_the_stand_in(tmp_path):
    root = tree(
        tmp_path / "set",
        "our485/high/1.png",
        "our485/low/1.png",
        "eval15/high/2.png",
        "eval15/low/2.png",
    )
    made = config("lowlight", benchmark="lol", root=str(root), stand_in=True)
    assert held_back(made, None).names == ["2"] and training_stream(made, 16).source.names == ["1"]


@pytest.mark.parametrize(
    "data, words",
    [
        (
            {"benchmark": "rain100h", "root": None, "stand_in": False},
            [
                "Rain100H",
                "norain-1.png and rain-1.png",
                "data.root=DIR",
                "scripts/prepare_data.py list",
            ],
        ),
        ({"benchmark": "rain100k"}, ["rain100k", "rain100h", "celebahq"]),
        ({"benchmark": ["lol"], "root": "x"}, ["unknown"]),
        ({"root": "somewhere"}, ["data.root=somewhere", "data.benchmark=NAME"]),
        (
            {"benchmark": "lol", "root": "absent"},
            ["absent is not a folder", "data.root=DIR", "data.test_root=DIR"],
        ),
        ({"benchmark": "lol", "root": 7}, ["7 is not a folder"]),
        ({"benchmark": "lol", "root": "tests", "test_benchmark": "lo"}, ["'lo'", "unknown"]),
        ({"resize": 0}, ["data.resize=0", "512"]),
        ({"resize": 51.2}, ["data.resize=51.2"]),
        ({"resize": True}, ["data.resize=True"]),
        ({"resize": "big"}, ["data.resize='big'"]),
    ],
)
def test_mistakes_are_told_in_one_sentence(data, words):
    with pytest.raises(UserError) as fault:
        held_back(config(**data), 16)
    assert all(word in str(fault.value) for word in words) and str(fault.value).endswith(".")
    if "test_benchmark" not in data:
        with pytest.raises(UserError):
            training_stream(config(**data), 16)


def test_a_half_that_is_not_there_is_told_before_training(tmp_path):
    root = tree(tmp_path / "set", "our485/high/1.png", "our485/low/1.png")
    with pytest.raises(UserError, match=r"LOL v1 \(test\).*data.test_root=DIR"):
        held_back(config("lowlight", benchmark="lol", root=str(root)), 16)
    with pytest.raises(UserError, match="differ in size"):
        tree(root, "our485/low/1.png", size=(9, 9))
        training_stream(config("lowlight", benchmark="lol", root=str(root)), 16)
    faces = tree(tmp_path / "faces", "1.png", "2.png", "3.png")
    with pytest.raises(UserError, match="task=inpaint"):
        training_stream(config("paired", benchmark="celebahq", root=str(faces)), 16)
