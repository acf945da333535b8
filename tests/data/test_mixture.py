"""Several tasks as one: which task a crop and a held-back image have, and a step's shares."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from irbridge.data.crops import CropStream, MixedStream, stream_loader
from irbridge.data.degradations import Blur, Downsample, Haze, Inpaint, LowLight, Noise, OneOf, Rain
from irbridge.data.degradations.mixture import in_rounds
from irbridge.data.image_source import ImageSource
from irbridge.data.pairs import SyntheticPairs, in_turns
from irbridge.errors import UserError
from irbridge.gaussian.noise import name_rng

SHADES = 0.2, 0.5, 0.8


class Shade:
    """Turns an image into one shade of grey, by which the task of a crop is seen."""

    def __init__(self, value):
        self.value = value

    def __call__(self, image, rng):
        rng.random()
        return np.full_like(image, self.value)

    def task_of(self, rng):
        return str(self.value)


def shades(each_step=True):
    return OneOf([Shade(value) for value in SHADES], each_step)


@pytest.fixture
def images(tmp_path):
    for k in range(12):
        pixels = np.random.default_rng(k).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photo_{k}.png")
    return ImageSource(tmp_path)


def tasks_of(degraded):
    """The task of each crop (B, 3, H, W)."""
    means = (degraded.mean((1, 2, 3)) + 1) / 2
    return [int(np.abs(np.array(SHADES) - float(mean)).argmin()) for mean in means]


@pytest.mark.parametrize("workers", [0, 2])
def test_crop_k_of_every_step_has_task_k_modulo_their_number(images, workers):
    stream = CropStream(images, 16, 0, shades())
    assert stream.round == 3
    for batch in islice(stream_loader(stream, 0, 6, workers), 4):
        assert tasks_of(batch["degraded"]) == [0, 1, 2, 0, 1, 2]


def test_a_resumed_step_and_several_processes_see_the_same_crops(images):
    stream, batch = CropStream(images, 16, 0, shades()), 6
    whole = list(islice(stream_loader(stream, 0, batch), 3))
    resumed = next(iter(stream_loader(CropStream(images, 16, 0, shades()), 2 * batch, batch)))
    assert all(torch.equal(resumed[key], whole[2][key]) for key in resumed)
    parts = [next(iter(stream_loader(stream, batch, 3, rank=rank, world=2))) for rank in (0, 1)]
    together = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    assert all(torch.equal(together[key], whole[1][key]) for key in together)


def test_without_each_step_crops_are_as_they_were(images):
    stream = CropStream(images, 16, 0, shades(each_step=False))
    drawn = [tasks_of(stream[k]["degraded"][None])[0] for k in range(60)]
    assert stream.round == 1 and len(set(drawn)) == 3 and drawn != [k % 3 for k in range(60)]


def test_a_fixed_stream_takes_turns_among_the_images_of_each_task(images):
    stream = CropStream(images, 16, 0, shades(), fixed=True)
    drawn = [stream[k] for k in range(90)]
    assert tasks_of(torch.stack([crop["degraded"] for crop in drawn])) == [0, 1, 2] * 30
    versions = {}  # of an image and its mirror, by the sum of its pixels: one task, by its name
    for crop in drawn:
        key = round(float(crop["clean"].double().sum()), 6)
        versions.setdefault(key, set()).add(tasks_of(crop["degraded"][None])[0])
    assert len(versions) == len(images) and all(len(found) == 1 for found in versions.values())


def test_a_fixed_stream_without_an_image_of_a_task_is_refused(images):
    images.names = images.names[:1]
    with pytest.raises(UserError, match="none of these 1 has degradation . of task.degradation"):
        CropStream(images, 16, 0, shades(), fixed=True)


def test_a_held_back_image_has_its_task_by_name_as_ever(images):
    before, after = (in_turns(SyntheticPairs(images, shades(each), 0)) for each in (False, True))
    old = {pair.name: pair for pair in map(before.__getitem__, range(12))}
    new = {pair.name: pair for pair in map(after.__getitem__, range(12))}
    assert old.keys() == new.keys() and after.names != before.names
    for name, pair in new.items():
        assert np.array_equal(pair.degraded, old[name].degraded)
        assert pair.task == old[name].task == str(SHADES[shades().drawn(name_rng(0, name))])
        assert abs(float(pair.degraded.mean()) - float(pair.task)) < 1e-6


def test_the_first_images_have_equally_many_of_each_task(images):
    pairs = in_turns(SyntheticPairs(images, shades(), 0))
    tasks = [pairs[i].task for i in range(12)]
    least = min(Counter(tasks).values())
    assert set(Counter(tasks[: 3 * least]).values()) == {least}


def test_rounds():
    assert in_rounds([1, 1, 0, 1, 2, 0]) == [2, 0, 4, 5, 1, 3]
    assert in_rounds([]) == []


def test_every_degradation_names_its_task():
    choices = [Rain(), LowLight(), Haze(), Blur(), Noise(), Inpaint(), Downsample(), Downsample(8)]
    wanted = ["derain", "lowlight", "dehaze", "deblur", "denoise", "inpaint", "sr", "sr8"]
    assert [choice.task_of(np.random.default_rng(0)) for choice in choices] == wanted
    seen = {OneOf(choices).task_of(np.random.default_rng(seed)) for seed in range(60)}
    assert seen == set(wanted)


def test_a_choice_with_holes_hands_on_no_mask(images):
    stream = CropStream(images, 16, 0, OneOf([Inpaint(), Noise()], each_step=True))
    assert all(stream[k]["degraded"].shape == (3, 16, 16) for k in range(4))


def test_sources_that_take_turns(images):
    streams = [CropStream(images, 16, seed) for seed in (1, 2)]
    mixed = MixedStream(streams, None, 0)
    assert mixed.round == 2
    for draw in range(8):
        own = streams[draw % 2][draw // 2]
        assert torch.equal(mixed[draw]["clean"], own["clean"]) and mixed[draw]["draw"] == draw


def test_sources_that_take_turns_leave_every_task_its_share(images):
    """Of each of two sources each of three tasks, whatever their numbers have in common."""
    for count in (2, 3):
        streams = [CropStream(images, 16, seed, shades()) for seed in range(count)]
        mixed = MixedStream(streams, None, 0)
        assert mixed.round == 3 * count
        tasks = tasks_of(torch.stack([mixed[k]["degraded"] for k in range(mixed.round)]))
        assert Counter(zip([k % count for k in range(mixed.round)], tasks, strict=True)) == {
            (source, task): 1 for source in range(count) for task in range(3)
        }
