"""The pictures that ``irbridge data`` draws."""

import numpy as np
import pytest
from PIL import Image

from irbridge.assets import find
from irbridge.commands.data import data_run
from irbridge.commands.options import DataOptions
from irbridge.reports.task_pictures import FRONT, SAMPLES, draw_front


def test_the_front_page_s_picture_is_degraded_restored_and_clean(tmp_path):
    asked = []

    def grey(task, image):
        asked.append((task, image.shape[-1]))
        return np.full_like(image, 0.5)

    (path,) = draw_front(tmp_path, grey)
    assert asked == [(task, 3) for task in FRONT]
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    height, width = picture.shape[:2]
    rows = [picture[height - k * 202 + 20 : height - k * 202 + 180, :width] for k in (3, 2, 1)]
    middle = rows[1][:, 20:280]
    assert abs(middle - 128).max() < 6  # what was restored stands in the middle row alone
    assert all(abs(row[:, 20:280] - 128).max() > 60 for row in (rows[0], rows[2]))


def test_the_shipped_adapters_draw_it(tmp_path, capsys, monkeypatch):
    loaded = []

    class Same:
        def restore(self, image):
            return image

    monkeypatch.setattr("irbridge.hub.load", lambda task: loaded.append(task) or Same())
    data_run(DataOptions(words=("front",), output=str(tmp_path)))
    assert loaded == list(FRONT) and "front.jpg" in capsys.readouterr().out
    assert (tmp_path / "front.jpg").is_file()


def test_the_degraded_samples_are_their_photographs_and_that_of_sr_a_quarter_of_it():
    for task, name in SAMPLES.items():
        ending = "png" if task == "inpaint" else "jpg"
        with Image.open(find("data/samples/degraded") / f"{task}.{ending}") as sample:
            degraded = sample.convert("RGB")
        with Image.open(find("data/samples/test") / f"{name}.jpg") as clean:
            size = [side // 4 for side in clean.size] if task == "sr" else clean.size
            whole = np.asarray(clean.resize((40, 40)).convert("L")).ravel()
        assert degraded.size == tuple(size)
        seen = np.asarray(degraded.resize((40, 40)).convert("L")).ravel()
        assert np.corrcoef(whole, seen)[0, 1] > 0.5


@pytest.mark.parametrize("task", FRONT)
def test_they_are_shipped(task):
    assert (find("data/adapters") / task / "model.safetensors").is_file()
