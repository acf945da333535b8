"""A stored score stands only for the very pixels, weights and settings that it was made of."""

import json
import socket
from dataclasses import dataclass, replace

import numpy as np
import pytest

from irbridge.data.pair import Pair
from irbridge.errors import UserError
from irbridge.evaluation.evaluate import evaluate
from irbridge.evaluation.fid import fid_of_rows
from irbridge.evaluation.metrics import MAE, STANDARD, Metric, score
from irbridge.evaluation.no_reference import network_closed
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import About, Content, Record, read_records
from irbridge.evaluation.rows import aggregate
from irbridge.evaluation.saved_outputs import output_row
from irbridge.images.io import read_image, write_image
from irbridge.reports.html_page import page
from irbridge.reports.table import Cell, Table, by_comparison, figures, render

ABOUT = About("x", "derain", seed=0, weights="w")


class Images:
    """Pairs in memory, which may be exchanged."""

    def __init__(self, names="abc"):
        self.names = list(names)
        rng = np.random.default_rng(0)
        self.pairs = {n: Pair(n, *rng.random((2, 24, 24, 3), dtype=np.float32)) for n in names}

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return self.pairs[self.names[index]]

    def change(self, name, **fields):
        self.pairs[name] = self.pairs[name]._replace(**fields)


@pytest.fixture
def scored(tmp_path):
    """A function that scores images and tells which ones it restored."""

    def run(pairs, value=0.5, about=ABOUT, **options):
        asked = []

        def restore(image, name):
            asked.append(name)
            return np.full_like(image[..., :3], value)

        found = list(evaluate(restore, pairs, Protocol(), tmp_path / "out", about, **options))
        return asked, {record.name: record.scores for record in found}

    return run


def lines(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


GREY = np.full((24, 24, 3), 0.25, np.float32)


@pytest.mark.parametrize(
    "change",
    [{"clean": GREY}, {"degraded": GREY}, {"mask": np.ones((24, 24), bool)}],
    ids=["clean", "degraded", "mask"],
)
def test_an_image_that_changed_is_scored_anew_and_no_other(scored, tmp_path, capsys, change):
    pairs = Images()
    scored(pairs)
    pairs.change("b", **change)
    asked, scores = scored(pairs)
    assert asked == ["b"] and "1 scores of other images" in capsys.readouterr().out
    fresh = score(np.full_like(GREY, 0.5), pairs[1].clean, Protocol())
    assert scores["b"] == fresh and len(lines(tmp_path / "out")) == 3
    assert scored(pairs) == ([], scores)


def test_what_changed_behind_the_limit_does_not_stay_in_the_table(scored, tmp_path):
    pairs = Images()
    scored(pairs)
    pairs.change("c", clean=GREY)
    assert scored(pairs, limit=1)[0] == []
    assert [line["name"] for line in lines(tmp_path / "out")] == ["a", "b"]
    fewer = Images("ab")  # an image that is not there any more
    scored(fewer)
    assert [line["name"] for line in lines(tmp_path / "out")] == ["a", "b"]


@pytest.mark.parametrize(
    "options", [{"settings": "bfloat16"}, {"about": replace(ABOUT, weights="v")}]
)
def test_other_settings_and_weights_are_scored_anew(scored, options):
    pairs = Images()
    scored(pairs, save_images=True)
    assert scored(pairs, **options)[0] == ["a", "b", "c"]
    assert scored(pairs, **options)[0] == []


def test_records_of_older_versions_make_tables_and_are_not_taken_for_new_scores(scored, tmp_path):
    pairs = Images()
    scored(pairs)
    old = [
        {k: v for k, v in line.items() if k not in ("content", "method", "nfe", "data")}
        for line in lines(tmp_path / "out")
    ]
    text = "".join(json.dumps(line) + "\n" for line in old)
    (tmp_path / "out/records.jsonl").write_text(text)
    (row,) = aggregate(read_records(tmp_path / "out"))
    assert len(row.images) == 3
    assert scored(pairs)[0] == ["a", "b", "c"] and scored(pairs)[0] == []
    with pytest.raises(UserError, match="was scored with size=None, not 8; delete the folder"):
        scored(pairs, about=replace(ABOUT, size=8))


def test_a_saved_image_is_that_of_its_score(scored, tmp_path):
    pairs, png = Images("a"), tmp_path / "out/a.png"
    scored(pairs, 0.5, save_images=True)
    newer = replace(ABOUT, weights="v")
    assert scored(pairs, 0.25, about=newer)[0] == ["a"] and not png.exists()
    assert scored(pairs, 0.25, about=newer, save_images=True)[0] == ["a"]
    assert read_image(png).mean() == pytest.approx(0.25, abs=1 / 255)
    write_image(png, pairs[0].clean)  # not what was scored
    assert scored(pairs, 0.25, about=newer, save_images=True)[0] == ["a"]
    assert scored(pairs, 0.25, about=newer, save_images=True)[0] == []


def test_two_folders_of_outputs_under_one_name_are_refused(scored, tmp_path):
    pairs = Images("a")
    rows = []
    for parent in ("one", "two"):
        write_image(tmp_path / parent / "results/a.png", pairs[0].clean * len(rows))
        rows.append(output_row(tmp_path / parent / "results", None, pairs, None))
    scored(pairs, about=rows[0].about(ABOUT))
    with pytest.raises(UserError, match=r"outputs='.*one/results', not '.*two/results'; give row="):
        scored(pairs, about=rows[1].about(ABOUT))


def test_pictures_that_restore_wrote_beside_its_results_are_no_outputs(tmp_path):
    pairs = Images("a")
    for name in ("a-derain", "a-derain-compare", "a-derain-path"):
        write_image(tmp_path / f"{name}.png", pairs[0].clean)
    row = output_row(tmp_path, None, pairs, None)
    assert row.restore(pairs[0].degraded, "a").shape == (24, 24, 3)


# lines


def line(**changes):
    return {
        "name": "a",
        "row": "ours",
        "psnr": 30.0,
        "ssim": 0.9,
        "lpips": 0.1,
        "task": "derain",
        "protocol": "rgb, 8 bit, crop 0, reference clean",
    } | changes


def test_a_record_is_read_as_it_was_written():
    about = replace(ABOUT, protocol="p", data="d", nfe=3, method="ddim", more={"bridge": "goub"})
    record = Record(
        about,
        "a",
        {"psnr": 1.0, "ssim": 0.5, "lpips": None, "mae": 3.0},
        (*STANDARD, MAE()),
        0.5,
        Content("c", "d", "s"),
        "png",
        "commit",
        "machine",
    )
    read = Record.from_json(json.loads(json.dumps(record.to_json())))
    assert replace(read, metrics=record.metrics) == record
    heads = [metric.heading("rgb, 8 bit") for metric in read.metrics]
    assert heads == ["PSNR ↑", "SSIM ↑", "LPIPS ↓", "MAE ↓"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"row": 5},
        {"name": [1]},
        {"name": "../../secret"},
        {"name": ""},
        {"seconds": "x"},
        {"psnr": 10**400},
        {"size": 1.5},
        {"nfe": True},
        {"task": None},
        {"metrics": [1]},
        {"metrics": {"mae": "x"}},
        {"metrics": {"mae": 1.0}, "headings": {"mae": {"name": "MAE", "digits": "2"}}},
        {"content": "abc"},
        {"content": {"clean": 1}},
    ],
    ids=str,
)
def test_a_line_of_wrong_types_is_named(tmp_path, wrong):
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(line()) + "\n" + json.dumps(line(**wrong)) + "\n")
    with pytest.raises(UserError, match=r"records.jsonl, line 2, is no record"):
        read_records(tmp_path)


def test_what_is_no_file_of_records_is_named(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/records.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(UserError, match="line 1, is no record"):
        read_records(tmp_path / "deep")
    (tmp_path / "folder/records.jsonl").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be read"):
        read_records(tmp_path / "folder")


# metrics of one's own


@dataclass(frozen=True)
class Worst(Metric):
    name: str = "Worst error"
    digits: int = 1
    higher_is_better: bool = False
    luma: bool = False

    def measure(self, restored, reference):
        return float(np.abs(restored - reference).max())


def test_a_metric_of_ones_own_is_in_every_output(scored, tmp_path):
    pairs = Images("ab")
    metrics = *STANDARD, Worst()
    _, scores = scored(pairs, metrics=metrics)
    expected = max(abs(128 - np.round(pairs[0].clean * 255).astype(int)).max(), 0)
    assert scores["a"]["worst_error"] == pytest.approx(expected)
    assert scored(pairs, metrics=metrics)[0] == [] and scored(pairs)[0] == []
    rows = aggregate(read_records(tmp_path / "out"))
    table = render(by_comparison(rows), "markdown")
    assert "| LPIPS ↓ | Worst error ↓ | s/image |" in table
    mean = np.mean([found["worst_error"] for found in scores.values()])
    assert f"| {mean:.1f} [" in table and "Worst error ↓" in page(tmp_path / "out")
    assert "lpips_high,worst_error,worst_error_low," in render(figures(rows), "csv")


def test_a_metric_is_a_class_and_a_file(command):
    words = "task=derain", "method=identity", "limit=2", "size=48", "metrics=[mae]"
    status, out, err = command("evaluate", *words)
    assert status == 0 and "| MAE ↓ |" in out, err
    status, _, err = command("evaluate", *words[:-1], "metrics=[rope]")
    assert status == 2 and "metrics=rope is unknown; choose of kid_lpips, mae" in err


def test_a_luma_metric_says_so():
    assert MAE().heading("y, 8 bit, crop 0") == "MAE (Y) ↓"
    assert Worst().heading("y, 8 bit, crop 0") == "Worst error ↓"
    assert Worst().against_vae().key == "worst_error_vae"


# what others wrote, in tables


def test_text_is_written_as_text_in_every_language():
    table = Table("a\nb", ["Method"], [["=cmd|' /C calc'!A0"], ["x\n\ny"], [Cell("-1", -1)]])
    assert table.render("csv").splitlines()[1] == "'=cmd|' /C calc'!A0"
    assert table.render("csv").endswith("-1")
    assert "\n\n" not in table.render("latex") and "\\caption{a b}" in table.render("latex")
    assert "<td>x\n\ny</td>" in table.render("html")


def test_a_row_without_images_has_no_fid(tmp_path):
    (tmp_path / "records.jsonl").write_text(json.dumps(line()) + "\n")
    with pytest.raises(UserError, match="save_images=true"):
        fid_of_rows(tmp_path, None)


def test_the_network_is_closed_within_the_block_alone():
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()
        with network_closed() as refused:
            for ask in (socket.create_connection, lambda at: socket.getaddrinfo(*at)):
                with pytest.raises(ConnectionRefusedError, match="downloads nothing"):
                    ask(place)
        assert len(refused) == 2
        socket.create_connection(place).close()
