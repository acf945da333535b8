"""A stored score stands only for the very pixels, weights and settings that it was made of."""

import csv
import html
import io
import json
import re
import socket
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irbridge.data.pair import Pair
from irbridge.errors import UserError
from irbridge.evaluation.evaluate import evaluate
from irbridge.evaluation.fid import fid_of_rows
from irbridge.evaluation.metrics import MAE, PSNR, STANDARD, Metric, release, score
from irbridge.evaluation.no_reference import network_closed
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import About, Content, Record, read_records, slug
from irbridge.evaluation.rows import aggregate
from irbridge.evaluation.saved_images import compared_under, saved_under
from irbridge.evaluation.saved_outputs import output_row
from irbridge.images.io import read_image, write_image
from irbridge.reports.html_page import page
from irbridge.reports.table import (
    FORMULA,
    NUMBER,
    Cell,
    Table,
    by_comparison,
    figures,
    plain,
    render,
)

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


def test_a_record_says_which_of_several_tasks_its_image_had(scored, tmp_path):
    images, folder = Images("ab"), tmp_path / "out"
    scored(images)
    assert not any("subtask" in record.to_json() for record in read_records(folder))
    images.change("a", task="derain")  # what an older version did not write
    images.change("b", task="dehaze")
    asked, _ = scored(images)
    assert not asked  # the scores stand
    found = {record.name: record for record in read_records(folder)}
    assert {name: record.subtask for name, record in found.items()} == {
        "a": "derain",
        "b": "dehaze",
    }
    assert found["a"].to_json()["subtask"] == "derain"
    assert Record.from_json(found["a"].to_json()).subtask == "derain"


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


def test_a_clean_image_that_another_row_replaced_is_saved_again_with_its_score(scored, tmp_path):
    pairs = Images("a")
    scored(pairs, save_images=True)
    write_image(tmp_path / "clean/a.png", GREY)
    assert compared_under(tmp_path / "out", "clean") == set()
    assert scored(pairs, save_images=True)[0] == ["a"]
    assert np.array_equal(
        read_image(tmp_path / "clean/a.png"), np.round(pairs[0].clean * 255) / np.float32(255)
    )
    (tmp_path / "clean/a.png").unlink()  # as a kill between the two files leaves it
    assert scored(pairs, save_images=True)[0] == ["a"]
    assert compared_under(tmp_path / "out", "clean") == {"a.png"}


@pytest.mark.parametrize("place", ["clean/b.png", "out/b.png"])
def test_a_file_that_no_evaluation_made_is_never_replaced(scored, tmp_path, place):
    pairs, mine = Images("ab"), tmp_path / place
    write_image(mine, GREY)
    before = mine.read_bytes()
    with pytest.raises(UserError, match=f"{place} is there already and no score speaks of it"):
        scored(pairs, save_images=True)
    assert mine.read_bytes() == before
    scored(pairs)  # without images nothing is in the way, and nothing of it is removed
    scored(pairs, about=replace(ABOUT, weights="v"))
    assert mine.read_bytes() == before
    assert "b.png" not in saved_under(tmp_path / "out") | compared_under(tmp_path / "out", "clean")
    mine.unlink()
    assert scored(pairs, save_images=True, about=replace(ABOUT, weights="v"))[0] == ["a", "b"]


@pytest.mark.parametrize(
    "options", [{"settings": "bfloat16"}, {"about": replace(ABOUT, weights="v")}]
)
def test_scores_of_another_run_are_kept_under_a_name_of_their_own(scored, tmp_path, options):
    pairs = Images("ab")
    _, first = scored(pairs, save_images=True)
    before = (tmp_path / "out/a.png").read_bytes()
    asked, second = scored(pairs, 0.25, keep_others=True, **options)
    assert asked == ["a", "b"] and first != second
    rows = {row.row: row for row in aggregate(read_records(tmp_path))}
    (earlier,) = rows.keys() - {"x"}
    assert earlier.startswith("Earlier x, ") and len(rows[earlier].images) == 2
    assert rows["x"].psnr == pytest.approx(np.mean([found["psnr"] for found in second.values()]))
    assert rows[earlier].psnr == pytest.approx(np.mean([s["psnr"] for s in first.values()]))
    kept = tmp_path / slug(earlier) / "a.png"
    assert kept.read_bytes() == before and not (tmp_path / "out/a.png").exists()
    assert scored(pairs, 0.25, keep_others=True, **options)[0] == []
    pairs.change("a", clean=GREY)  # scores of other images are no row of their own
    scored(pairs, 0.25, keep_others=True, **options)
    assert len(aggregate(read_records(tmp_path))) == 2


class Scaled(Metric):
    """A metric whose measure depends on more than its fields."""

    factor = 1.0

    def identity(self):
        return f"{super().identity()} {self.factor}"

    def measure(self, restored, reference):
        return self.factor * float(np.abs(restored - reference).mean())


def test_scores_of_another_metric_of_that_name_are_made_anew(scored, monkeypatch):
    pairs, metrics = Images("ab"), (*STANDARD, Scaled("Scaled", 1, False))
    scored(pairs, metrics=metrics)
    assert scored(pairs, metrics=metrics)[0] == []
    monkeypatch.setattr(Scaled, "factor", 2.0)
    assert scored(pairs, metrics=metrics)[0] == ["a", "b"]
    assert Scaled("Scaled", 1, True).identity() != metrics[-1].identity()  # other fields
    assert MAE().identity() == MAE().identity() != replace(MAE(), digits=1).identity()
    # other code behind the same fields, and another release of what computes it
    other = type("Other", (Metric,), {"measure": lambda self, a, b: 1.0})("Scaled", 1, False)
    same = type("Same", (Metric,), {"measure": lambda self, a, b: 1.0})("Scaled", 1, False)
    plain_one = Metric("Scaled", 1, False)
    assert len({other.identity(), plain_one.identity(), same.identity()}) == 3
    before = PSNR().identity()
    release.cache_clear()
    monkeypatch.setattr("irbridge.evaluation.metrics.version", lambda name: "99.0")
    assert PSNR().identity() != before
    release.cache_clear()


def test_a_link_to_another_picture_is_no_saved_image(scored, tmp_path):
    write_image(tmp_path / "secret/pic.png", GREY)
    old = {key: value for key, value in line(name="a").items()}  # says no hash
    (tmp_path / "out").mkdir()
    (tmp_path / "out/records.jsonl").write_text(json.dumps(old) + "\n")
    for place in ("out/a.png", "clean/a.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).symlink_to(tmp_path / "secret/pic.png")
    assert saved_under(tmp_path / "out") == set() and "<img" not in page(tmp_path / "out")
    (tmp_path / "out/a.png").unlink()
    write_image(tmp_path / "out/a.png", GREY)
    assert saved_under(tmp_path / "out") == {"a.png"} and page(tmp_path).count("<img") == 2
    assert compared_under(tmp_path / "out", "clean") == set()


def test_one_score_that_is_written_twice_counts_once_whatever_else_is_said(tmp_path):
    lines = [line(), line(method="irbridge"), line(outputs="folder"), line(name="b", psnr=20.0)]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert [record.name for record in read_records(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e200, None])
def test_a_score_that_is_no_number_is_missing_and_can_be_read_again(scored, tmp_path, value):
    metric = type("Odd", (Metric,), {"measure": lambda self, restored, reference: value})
    _, scores = scored(Images("a"), metrics=(*STANDARD, metric("Odd", 1, True)))
    assert scores["a"]["odd"] is None
    assert "Odd ↑" in render(by_comparison(aggregate(read_records(tmp_path))), "markdown")


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
        {"clean": "hash"},
        {"psnr": "hash"},
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


@pytest.mark.parametrize(
    "text, markdown, latex, table_of_numbers",
    [
        ("=cmd|' /C calc'!A0", "=cmd\\|' /C calc'!A0", "=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("\t@SUM(1)", "\\@SUM(1)", "@SUM(1)", "'@SUM(1)"),
        ("\uff1d1+1", "\uff1d1+1", "\uff1d1+1", "'\uff1d1+1"),
        ("-1.5", "-1.5", "-1.5", "-1.5"),
        ("-1+2", "-1+2", "-1+2", "'-1+2"),
        ("x\n\ny", "x y", "x y", "x y"),
        ("[10pt]", "[10pt]", "{}[10pt]", "[10pt]"),
        ("*a*", "\\*a\\*", "{}*a*", "*a*"),
        ("a_b _c_", "a_b \\_c\\_", "a\\_b \\_c\\_", "a_b _c_"),
        ("![x](http://y)", "![x\\](http\\://y)", "![x](http://y)", "![x](http://y)"),
        ("www.x.org", "www\\.x.org", "www.x.org", "www.x.org"),
        ("<b>&#60;", "\\<b\\>\\&#60;", "<b>\\&\\#60;", "<b>&#60;"),
        ("\x1b[2J", "\ufffd[2J", "\ufffd[2J", "\ufffd[2J"),
        ("\udce9t", "\ufffdt", "\ufffdt", "\ufffdt"),
        ("a\u202eb", "a\ufffdb", "a\ufffdb", "a\ufffdb"),
        ("\\input{x}", "\\\\input{x}", "\\textbackslash{}input\\{x\\}", "\\input{x}"),
    ],
)
def test_text_is_written_as_text_in_every_language(text, markdown, latex, table_of_numbers):
    table = Table(text, [text], [[text], [Cell(text)], ["plain"]])
    written = table.render("markdown").splitlines()
    assert written[-3:] == [f"| {markdown} |", f"| {markdown} |", "| plain |"]
    assert table.render("latex").splitlines()[-6:-3] == [
        f"{latex} \\\\",
        f"{latex} \\\\",
        "plain \\\\",
    ]
    assert f"\\caption{{{latex}}}" in table.render("latex")
    rows = list(csv.reader(io.StringIO(table.render("csv"))))
    assert rows == [[table_of_numbers]] * 3 + [["plain"]]
    page = table.render("html")
    assert page.count(f"<td>{html.escape(plain(text))}</td>") == 2
    assert "<b>" not in page and "\x1b" not in page and "\udce9" not in page


SIGNS = "=+-@[]<>|*_`#&%$\\{}~^\"'!.:/\n\r\t ab1\x00\x1b\u202e\udce9\uff1d"


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text(SIGNS, max_size=12), st.text(SIGNS, max_size=12))
def test_any_name_stays_inert_in_every_language(name, title):
    table = Table(title, ["Method", title], [[name, Cell(name)], ["x", (Cell(name), None)]])
    written = {form: table.render(form) for form in ("markdown", "latex", "csv", "html")}
    for text in written.values():
        text.encode()  # no halves of characters
        assert not any(c in text for c in "\x00\x1b\r\t\u202e")
    for row in csv.reader(io.StringIO(written["csv"])):
        assert not [c for c in row if c.startswith(FORMULA) and not NUMBER.fullmatch(c)]
    lines = written["markdown"].splitlines()
    assert len(lines) == 6 and {len(re.findall(r"(?<!\\)(?:\\\\)*\|", s)) for s in lines[2:]} == {3}
    bare = re.sub(r"\\[^\w\s]", "", written["markdown"].replace("---", ""))
    assert not re.search(r"[<>`*]|\][(\[:]|https?://", bare)
    latex = written["latex"]
    assert "\n\n" not in latex and len(latex.splitlines()) == 12
    unescaped = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]", "", latex
    )
    assert unescaped.count("{") == unescaped.count("}") and not re.search(r"[%#_~^]", unescaped)
    assert not re.search(r"\\\\\n *[\[*]", latex)
    tags = re.findall(r"<[^>]*>", written["html"])
    assert {re.sub(r"[</>]", "", tag) for tag in tags} <= {
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }


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
