"""The page needs nothing but itself, shows the right pixels and says what is absent; the plot draws
what was scored."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from irbridge import cli
from irbridge.errors import UserError
from irbridge.evaluation import rows as averages
from irbridge.evaluation.records import Record, read_records
from irbridge.images.io import read_image, write_image
from irbridge.reports.html_page import CROP, crop_box, page
from irbridge.reports.plots import nfe_lines, nfe_plot
from irbridge.reports.task_table import by_task

RGB = "rgb, 8 bit, crop 0, reference clean"
VOID = {"img", "meta"}


class Reader(HTMLParser):
    """Tags in order, checked to nest; text; the images by what they show."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.images, self.text = [], [], {}, ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            attrs = dict(attrs)
            data = base64.b64decode(attrs["src"].split("base64,")[1], validate=True)
            self.images[attrs["alt"]] = np.asarray(
                Image.open(io.BytesIO(data)).convert("RGB")
            ).astype(int)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def aggregate(lines):
    return averages.aggregate(map(Record.from_json, lines))


def line(name, row, psnr, **more):
    return {
        "name": name,
        "row": row,
        "psnr": psnr,
        "ssim": psnr / 50,
        "lpips": 0.2,
        "task": "derain",
        "protocol": RGB,
        "size": 96,
    } | more


ROWS = {"degraded-input": ("Degraded input", 12.0), "ours": ('ours <b>&"x"', 25.0)}


@pytest.fixture
def results(tmp_path):
    """Two rows and clean of three images; degraded differs from clean at rows 40 to 60, columns 60
    to 80."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        clean = np.repeat(rng.random((90, 120, 1)) * 0.5, 3, axis=2)  # grey, which a JPEG keeps
        degraded = clean.copy()
        degraded[40:60, 60:80] += 0.5
        write_image(tmp_path / "results" / "clean" / f"{name}.png", clean)
        write_image(tmp_path / "results" / "degraded-input" / f"{name}.png", degraded)
        write_image(tmp_path / "results" / "ours" / f"{name}.png", (clean + degraded) / 2)
    for slug, (row, psnr) in ROWS.items():
        (tmp_path / "results" / slug / "records.jsonl").write_text(
            "".join(json.dumps(line(name, row, psnr)) + "\n" for name in "abc")
        )
    return tmp_path / "results"


def test_the_page_is_whole_escaped_and_asks_for_nothing(results):
    text = page(results)
    found = Reader(text)
    assert text.startswith("<!DOCTYPE html>") and found.tags[0] == "html"
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert not re.search(r"https?:|//", re.sub('base64,[^"]*', "", text))
    assert 'ours <b>&"x"' in found.text and "<b>&" not in text.replace("<b>2", "")
    assert "<table>" in text and text.index("<table>") < text.index("<img")
    assert "<b>25.00</b>" in text and "<u>12.00</u>" in text


def test_every_picture_is_shown_whole_and_the_same_crop_of_it(results):
    found = Reader(page(results, count=1)).images
    degraded, ours, clean = "Degraded input, 12.00 dB", 'ours <b>&"x", 25.00 dB', "Clean"
    assert list(found) == [
        x for label in (degraded, ours, clean) for x in (label, f"Crop of {label}")
    ]
    images = {degraded: "degraded-input", ours: "ours", clean: "clean"}
    left, top, right, bottom = crop_box(
        *(read_image(results / d / "a.png") for d in ("degraded-input", "clean")), CROP
    )
    assert left <= 60 and top <= 40 and right >= 80 and bottom >= 60  # all that differs is inside
    for label, folder in images.items():
        expected = np.asarray(Image.open(results / folder / "a.png")).astype(int)
        assert (found[f"Crop of {label}"] == expected[top:bottom, left:right]).all()
        # a JPEG
        assert (
            found[label].shape == expected.shape
            and np.abs(found[label] - expected)[: top - 8].mean() < 16
        )


def test_the_crop_is_the_window_that_differs_most_by_looking_at_all():
    rng = np.random.default_rng(1)
    first, second = rng.random((2, 13, 17, 3))
    found = crop_box(first, second, 5)
    bytes_ = [np.round(x * 255).astype(int) for x in (first, second)]
    difference = np.abs(bytes_[0] - bytes_[1])
    sums = {
        (x, y, x + 5, y + 5): difference[y : y + 5, x : x + 5].sum()
        for y in range(9)
        for x in range(13)
    }
    assert found == max(sums, key=sums.get)
    assert crop_box(first, first, 5) == (0, 0, 5, 5) and crop_box(first, second, 99) == (
        0,
        0,
        17,
        13,
    )


@pytest.mark.parametrize("count, shown", [(1, ["a"]), (2, ["a", "b"]), (9, ["a", "b", "c"])])
def test_the_first_images_by_name_are_shown(results, count, shown):
    text = page(results, count=count)
    assert (
        re.findall("<h3>(.*?)</h3>", text) == shown
        and f"The first {len(shown)} of 3 images" in text
    )
    assert text.count("<img") == 6 * len(shown)


def test_what_is_absent_is_said(results):
    (results / "clean" / "a.png").unlink()
    (results / "ours" / "b.png").unlink()
    (results / "degraded-input" / "c.png").unlink()
    write_image(results / "ours" / "a.png", np.zeros((20, 20, 3)))
    text = Reader(page(results)).text
    assert "Absent: the clean image, ours" in text and "(of another size)" in text
    assert 'Absent: ours <b>&"x".' in text and "Absent: the degraded image, Degraded input." in text
    for image in results.glob("*/*.png"):
        image.unlink()
    assert "No pictures were saved; score with save_images=true." in Reader(page(results)).text


def test_large_images_are_shown_small(tmp_path):
    write_image(
        tmp_path / "results" / "x" / "a.png", np.random.default_rng(2).random((300, 1200, 3))
    )
    (tmp_path / "results" / "x" / "records.jsonl").write_text(
        json.dumps(line("a", "x", 20.0)) + "\n"
    )
    images = Reader(page(tmp_path)).images
    assert images["x, 20.00 dB"].shape == (64, 256, 3) and images["Crop of x, 20.00 dB"].shape == (
        CROP,
        CROP,
        3,
    )


def test_the_command_writes_the_page_with_the_table_of_tasks(results, tmp_path):
    cli.run(
        "table",
        [
            str(results),
            "format=html",
            "images=1",
            "layout=tasks",
            f"output={tmp_path / 'page.html'}",
        ],
    )
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text == page(results, by_task, 1) + "\n" and '<th colspan="3">derain</th>' in text


def scored(task="derain", **more):
    return [
        line(n, f"{m}, {calls} calls", base - calls + k, task=task, nfe=calls, **more)
        for calls in (1, 2, 10)
        for m, base in (("IRBridge (x)", 30.0), ("DDIM $_{", 28.0))
        for k, n in enumerate("ab")
    ]


def test_lines_of_the_plot_are_the_scores():
    found = nfe_lines(aggregate(scored()))
    assert {label: [(r.nfe, r.psnr) for r in rows] for label, rows in found.items()} == {
        "IRBridge (x)": [(1, 29.5), (2, 28.5), (10, 20.5)],
        "DDIM $_{": [(1, 27.5), (2, 26.5), (10, 18.5)],
    }
    named = [r | {"method": "irbridge" if "IRB" in r["row"] else "ddim"} for r in scored()]
    assert set(nfe_lines(aggregate(named))) == {"IRBridge", "DDIM"}
    # two settings of one method keep their labels
    both = [r | {"method": "irbridge"} for r in scored()]
    assert set(nfe_lines(aggregate(both))) == {"IRBridge (x)", "DDIM $_{"}


@pytest.mark.parametrize("lpips", [0.2, None])
def test_the_plot_has_a_column_of_panels_per_task(tmp_path, lpips):
    sizes = []
    for tasks in (["derain"], ["derain", "sr"]):
        nfe_plot(
            aggregate([r for task in tasks for r in scored(task, lpips=lpips)]),
            tmp_path / "plot.png",
        )
        sizes.append(Image.open(tmp_path / "plot.png").size)
    assert sizes[1][0] > 1.4 * sizes[0][0] and sizes[0][1] == sizes[1][1]


def test_the_plot_needs_call_counts(results, tmp_path):
    with pytest.raises(UserError, match="network calls"):
        nfe_plot(averages.aggregate(read_records(results)), tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()
