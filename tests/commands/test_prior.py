"""The command that says what a prior is worth: as a generator, by the distance of its draws."""

import json

import numpy as np
import pytest
from conftest import save_images

from irbridge.evaluation.draws import draws
from irbridge.evaluation.kid import kid_of_files
from irbridge.images.io import list_images, read_image


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    return save_images(folder / "one", 52, (32, 32)), save_images(folder / "two", 51, (32, 32), 1)


@pytest.fixture
def words(real, backbone_folder, tmp_path):
    return [
        f"images={real[0]}",
        f"backbone.pretrained={backbone_folder}",
        "kid.size=32",
        "kid.calls=2",
        f"kid.output={tmp_path / 'draws'}",
    ]


def test_tells_the_distance_of_draws_and_of_real_images(words, real, command, tmp_path):
    status, out, err = command("evaluate_prior", *words, "kid.samples=50", f"kid.against={real[1]}")
    assert status == 0, err
    files = sorted((tmp_path / "draws").glob("*.png"))
    assert [file.stem for file in files] == [f"{k:05d}" for k in range(50)]
    found = kid_of_files(files, list_images(real[0]), "", "")
    floor = kid_of_files(list_images(real[1]), list_images(real[0]), "", "")
    assert found.in_words() in out and floor.in_words() in out and floor.value < found.value
    # again it goes on, with more of them
    before = {file.name: file.stat().st_mtime_ns for file in files}
    files[7].unlink()
    status, again, _ = command("evaluate_prior", *words, "kid.samples=50")
    assert status == 0 and found.in_words() in again
    after = {file.name: file.stat().st_mtime_ns for file in files}
    assert [name for name in before if before[name] != after[name]] == ["00007.png"]


def test_a_draw_is_its_seeds_alone(backbone):
    together = draws(backbone, [0, 1, 2], 32, 2)
    alone = draws(backbone, [1], 32, 2)
    assert np.abs(together[1] - alone[0]).max() < 1e-4
    assert np.abs(together[1] - together[2]).max() > 0.1
    half = draws(backbone, [1], 32, 2, half=True)[0]
    assert 0 < np.abs(half - alone[0]).mean() < 0.05


def test_what_does_not_go_is_one_sentence(words, real, command, tmp_path):
    status, _, err = command("evaluate_prior", *words, "kid.samples=49")
    assert status == 2 and "kid.samples has 49 images; kid_lpips needs 50 or more" in err
    few = save_images(tmp_path / "few", 3, (32, 32))
    status, _, err = command("evaluate_prior", *words, f"images={few}", "kid.samples=50")
    assert status == 2 and "few has 3 images; kid_lpips needs 50" in err
    status, _, err = command("evaluate_prior", *words, "kid.samples=50", "kid.size=33")
    assert status == 2 and "kid.size=33 does not fit the prior" in err
    (tmp_path / "draws").mkdir(exist_ok=True)
    (tmp_path / "draws/draws.json").write_text(json.dumps({"seed": 5}))
    status, _, err = command("evaluate_prior", *words, "kid.samples=50")
    assert status == 2 and "holds other draws" in err
    assert not list((tmp_path / "draws").glob("*.png"))


def test_a_draw_is_an_image(backbone):
    (image,) = draws(backbone, [3], 32, 3)
    assert image.shape == (32, 32, 3) and 0 <= image.min() <= image.max() <= 1


def test_files_are_what_was_drawn(words, command, tmp_path, backbone):
    assert command("evaluate_prior", *words, "kid.samples=50", "seed=2")[0] == 0
    drawn = draws(backbone, [2_000_004], 32, 2)[0]
    assert np.abs(read_image(tmp_path / "draws/00004.png") - drawn).max() < 1 / 255
