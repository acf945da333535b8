"""Crops that grow as a training goes on: which images are seen, and that it goes on with the same
bits across a change of size."""

import json
import os
import signal

import pytest
import torch
from conftest import trainer_options
from runs_alike import assert_same, regression

from irbridge.data.crops import CropStream, MixedStream, Room
from irbridge.data.degradations import Noise
from irbridge.data.image_source import ImageSource
from irbridge.errors import UserError
from irbridge.training.growth import Phase, phase_at, phases
from irbridge.training.trainer import Trainer

GROW = [{"step": 3, "crop": 24, "batch_size": 4}, {"step": 5, "crop": 32, "batch_size": 2}]


def growing(**changes):
    return trainer_options(**{"steps": 8, "batch_size": 6, "crop": 16, "grow": GROW} | changes)


@pytest.fixture
def stream(images):
    return CropStream(ImageSource(images), 16, 0, Noise())


class Noted(CropStream):
    """A stream that keeps which crops it was asked for, by draw and side."""

    asked: list[tuple[int, int]]

    def __getitem__(self, draw):
        self.asked.append((draw, self.crop))
        return super().__getitem__(draw)


def test_phases_follow_each_other():
    found = phases(16, 6, GROW)
    assert found == [Phase(0, 0, 16, 6), Phase(3, 18, 24, 4), Phase(5, 26, 32, 2)]
    assert [phase_at(step, found).crop for step in range(7)] == [16, 16, 16, 24, 24, 32, 32]
    assert [phase_at(s, found).images_before(s) for s in range(7)] == [0, 6, 12, 18, 22, 26, 28]
    assert phases(16, 6) == phases(16, 6, []) == found[:1]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_image_is_seen_once_and_counted(images, tmp_path, accumulate):
    stream, wanted = Noted(ImageSource(images), 16, 0, Noise()), []
    asked = stream.asked = []
    Trainer(regression(), stream, growing(accumulate=accumulate), 3, tmp_path).run()
    for crop, draws in ((16, range(18)), (24, range(18, 26)), (32, range(26, 32))):
        wanted += [(draw, crop) for draw in draws]
    assert asked == wanted
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [6, 12, 18, 22, 26, 28, 30, 32]


@pytest.mark.parametrize("stop", [2, 3, 4, 5, 6])
def test_a_training_goes_on_across_a_change_of_size(tmp_path, stream, stop):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert Trainer(regression(), stream, growing(), 3, whole).run()
    assert not Trainer(regression(), stream, growing(stop=stop, workers=2), 3, parts).run()
    torch.manual_seed(77)  # what ran before must not matter
    assert Trainer(regression(), stream, growing(workers=1), 3, parts).run()
    assert_same(whole, parts)


def test_a_signal_between_sizes_saves(tmp_path, stream):
    """With the workers of a later size, which were started within the training."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert Trainer(regression(), stream, growing(), 3, whole).run()

    def interrupt(line):
        if line["step"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    assert not Trainer(regression(), stream, growing(workers=2), 3, parts, log=interrupt).run()
    assert Trainer(regression(), stream, growing(), 3, parts).run()
    assert_same(whole, parts)


def test_crops_depend_on_their_size_and_draw_alone(images, stream):
    other = stream.sized(24)
    assert (other.crop, stream.crop) == (24, 16) and other.kept is stream.kept
    fresh = CropStream(ImageSource(images), 24, 0, Noise())
    mixed = MixedStream([stream, stream], None, 0).sized(24)
    assert mixed.crop == 24
    for draw in range(3):
        assert torch.equal(other[draw]["clean"], fresh[draw]["clean"])
        assert torch.equal(mixed[2 * draw]["degraded"], fresh[draw]["degraded"])
    assert stream[0]["clean"].shape == (3, 16, 16)


def test_on_a_device_too(images):
    """Also where images are smaller than the later crops."""
    at, room = torch.device("cpu"), Room(2**30)
    stream = CropStream(ImageSource(images), 16, 0)
    small = stream.on_device(0, at, room)
    assert small["clean"].shape == (3, 16, 16) and stream.moved
    assert stream.sized(24).moved is stream.moved
    for draw in range(3):
        there = stream.sized(600).on_device(draw, at, room)["clean"]
        assert torch.allclose(there, stream.sized(600)[draw]["clean"], atol=1e-6)


@pytest.mark.parametrize(
    "changes,said",
    [
        ({"grow": [5]}, "one of its entries is 5"),
        ({"grow": [{"step": 3, "crop": 24}]}, r"one of its entries is .*\bcrop"),
        ({"grow": [GROW[0] | {"size": 3}]}, "one of its entries is"),
        ({"grow": [GROW[0] | {"crop": None}]}, "has crop=None, which must be a whole number"),
        ({"grow": [GROW[0] | {"crop": 24.5}]}, "has crop=24.5"),
        ({"grow": [GROW[0] | {"batch_size": 0}]}, "has batch_size=0"),
        ({"grow": [GROW[0] | {"step": 0}]}, "has step=0, which must be a whole number, 1 or more"),
        ({"grow": GROW[::-1]}, "step=3 behind step=5"),
        ({"grow": GROW[:1] * 2}, "step=3 behind step=3"),
        ({"grow": "yes"}, "trainer.grow='yes' must be a list or null"),
        ({"minutes": 3.0}, "give trainer.steps instead, or trainer.grow=null"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(changes, said):
    with pytest.raises(UserError, match=said) as refused:
        growing(**changes)
    assert str(refused.value).endswith(".") and ". " not in str(refused.value)


def test_what_does_not_fit_is_refused_before_the_first_step(tmp_path, stream):
    for entry, said in (
        (GROW[0] | {"crop": 25}, "trainer.grow.crop=25 must be a multiple of 2"),
        (GROW[0] | {"batch_size": 3}, "trainer.grow.batch_size=3 does not divide"),
    ):
        with pytest.raises(UserError, match=said):
            Trainer(regression(), stream, growing(grow=[entry], accumulate=2), 0, tmp_path).run()
    assert not list(tmp_path.iterdir())
