"""Records are read robustly, averaged as they say and ranked only against their like."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from irbridge.errors import UserError
from irbridge.tables import aggregate, read_records, to_csv, to_latex, to_markdown

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "make_tables.py"
RGB, Y = "rgb, 8 bit, crop 0, reference clean", "y, 8 bit, crop 0, reference clean"


def record(name="a", row="ours", psnr=30.0, ssim=0.9, lpips=0.1, task="derain", protocol=RGB, **more):
    return {"name": name, "row": row, "psnr": psnr, "ssim": ssim, "lpips": lpips, "task": task,
            "protocol": protocol, "seconds": 0.5} | more


def three():
    """Best and second differ per column; LPIPS ranks the other way round; the third has none."""
    return [r for name in "ab" for r in (record(name, "low_1 & co", 20.0, 0.95, 0.05),
                                         record(name, "mid|50%", 25.0, 0.80, 0.20),
                                         record(name, "high", 28.0, 0.90, None))]


def cells(markdown):
    lines = [line.replace("\\|", "/") for line in markdown.splitlines() if line.startswith("|")]
    head, _, *body = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return {line[0]: dict(zip(head[1:], line[1:], strict=True)) for line in body}


def write(path, records, tail=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records) + tail)
    return path


def test_means_count_and_interval():
    psnr = [20.0, 24.0, 31.0]
    row, = aggregate([record(n, psnr=p, ssim=p / 100, lpips=p / 1000, seconds=p)
                      for n, p in zip("abc", psnr, strict=True)])
    assert (row.psnr, row.ssim, row.lpips, row.seconds) == pytest.approx((25.0, 0.25, 0.025, 25.0))
    assert row.images == {"a", "b", "c"}
    assert 20 <= row.interval[0] < 25 < row.interval[1] <= 31


def test_one_missing_score_leaves_no_mean_of_the_others():
    row, = aggregate([record("a"), record("b", lpips=None)])
    assert row.lpips is None and row.psnr == 30


def test_draws_of_one_image_are_averaged_before_images():
    row, = aggregate([record("a", psnr=20.0, seed=0), record("a", psnr=22.0, seed=1),
                      record("b", psnr=31.0, seed=0)])
    assert row.psnr == pytest.approx(26.0) and len(row.images) == 2


def test_a_record_read_twice_counts_once_and_a_contradiction_is_refused():
    row, = aggregate([record("a"), record("a"), record("b", psnr=20.0)])
    assert row.psnr == 25
    with pytest.raises(UserError, match="two different scores of a"):
        aggregate([record("a"), record("a", psnr=31.0)])


def test_markdown_marks_best_and_second():
    found = cells(to_markdown(aggregate(three())))
    psnr, ssim, lpips = "PSNR ↑", "SSIM ↑", "LPIPS ↓"
    assert list(found) == ["low_1 & co", "mid/50%", "high"]
    assert [found[r][psnr] for r in found] == ["20.00", "<u>25.00</u>", "**28.00**"]
    assert [found[r][ssim] for r in found] == ["**0.9500**", "0.8000", "<u>0.9000</u>"]
    assert [found[r][lpips] for r in found] == ["**0.0500**", "<u>0.2000</u>", "—"]
    assert f"derain: {RGB}; images 2." in to_markdown(aggregate(three()))


def test_equal_as_shown_is_marked_alike():
    found = cells(to_markdown(aggregate([record(row="x", psnr=30.001), record(row="y", psnr=30.002),
                                         record(row="z", psnr=9.5)])))
    assert [found[r]["PSNR ↑"] for r in "xyz"] == ["**30.00**", "**30.00**", "<u>9.50</u>"]


def test_latex_marks_and_escapes():
    text = to_latex(aggregate(three()))
    body = text.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    found = [[c.strip() for c in line.removesuffix("\\\\").replace("\\&", "and").split("&")] for line in body]
    assert [line[0] for line in found] == ["low\\_1 and co", "mid|50\\%", "high"]
    assert [line[1] for line in found] == ["20.00", "\\underline{25.00}", "\\textbf{28.00}"]
    assert [line[4] for line in found] == ["\\textbf{0.0500}", "\\underline{0.2000}", "---"]
    assert text.count("{") == text.count("}") and "\\begin{tabular}{lrrrrr}" in text
    assert f"\\caption{{derain: {RGB}; images 2.}}" in text
    assert "a\\textbackslash{}b\\textasciicircum{}\\{" in to_latex(aggregate([record(row="a\\b^{")]))


def test_csv_parses_back():
    rows = aggregate(three())
    found = list(csv.DictReader(to_csv(rows).splitlines()))
    assert [f["method"] for f in found] == [r.row for r in rows]
    assert [float(f["psnr"]) for f in found] == [r.psnr for r in rows]
    assert [f["lpips"] for f in found][2] == "" and {f["protocol"] for f in found} == {RGB}
    assert float(found[0]["psnr_low"]) == rows[0].interval[0] and found[0]["images"] == "2"


@pytest.mark.parametrize("other", [{"protocol": Y}, {"size": 96}, {"task": "dehaze"}, {"name": "b"},
                                   {"data": "mine"}])
def test_only_like_is_ranked_with_like(other):
    records = [record(row="x"), record(row="y", psnr=20.0), record(row="w", psnr=35.0) | other]
    text = to_markdown(aggregate(records))
    assert text.count("| Method") == 2
    assert "| x | **30.00**" in text and "| w | 35.00" in text
    assert ("PSNR (Y) ↑" in text) == ("protocol" in other)


def test_a_kills_half_line_is_dropped_and_others_are_named(tmp_path):
    path = write(tmp_path / "records.jsonl", [record("a"), record("b")], json.dumps(record("c"))[:-5])
    assert [r["name"] for r in read_records(path)] == ["a", "b"]
    write(path, [record("a")], '{"name": "b", "ro\n' + json.dumps(record("c")) + "\n")
    with pytest.raises(UserError, match="records.jsonl, line 2"):
        read_records(path)
    for bad in ("[]", "7", '{"name": "b"}', json.dumps(record(psnr=None))):
        write(path, [record("a")], bad + "\n")
        with pytest.raises(UserError, match="line 2"):
            read_records(path)
    path.write_bytes(json.dumps(record("a")).encode() + b"\n\xff\xfe\n\n")
    with pytest.raises(UserError, match="line 2"):
        read_records(path)


def test_folders_are_read_recursively_and_runs_kept_apart(tmp_path):
    for run, psnr in (("one", 30.0), ("two", 31.0)):
        write(tmp_path / run / "results" / "ours" / "records.jsonl", [record(psnr=psnr)])
    write(tmp_path / "two" / "evaluations" / "s" / "base" / "records.jsonl", [record(row="base", psnr=20.0)])
    assert [(r.label, r.psnr) for r in aggregate(read_records(tmp_path))] == [
        ("base [two]", 20.0), ("ours [one]", 30.0), ("ours [two]", 31.0)]
    assert {r.label for r in aggregate(read_records(tmp_path / "two"))} == {"ours", "base"}
    assert [r.label for r in aggregate(read_records(tmp_path / "two" / "results"))] == ["ours"]
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        with pytest.raises(UserError, match=f"no records below .*{folder}"):
            read_records(tmp_path / folder)


def command(*words, **env):
    return subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True,
                          check=False, env=os.environ | {"PYTHONIOENCODING": "utf-8"} | env)


def test_the_command(tmp_path):
    write(tmp_path / "results" / "x" / "records.jsonl", three())
    rows = aggregate(read_records(tmp_path))
    assert command(tmp_path).stdout == to_markdown(rows) + "\n"
    done = command(tmp_path, "format=csv", f"output={tmp_path / 'table.csv'}")
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "table.csv").read_text() == to_csv(rows) + "\n"


@pytest.mark.parametrize("words, named", [
    (["FOLDER", "form=csv"], "the keys are format and output"), (["FOLDER", "format=word"], "md, latex, csv"),
    ([], "Give one folder"), (["nowhere"], "nowhere"), (["FOLDER", "output=/nowhere/t.md"], "/nowhere/t.md")])
def test_the_commands_mistakes(tmp_path, words, named):
    write(tmp_path / "records.jsonl", three())
    done = command(*[str(tmp_path) if w == "FOLDER" else w for w in words])
    assert done.returncode == 2 and named in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_commands_traceback_on_request():
    assert "Traceback" in command("nowhere", IRBRIDGE_DEBUG="1").stderr


def test_interval_is_over_images_not_draws():
    draws = [record(n, psnr=p, seed=s) for n, p in (("a", 20.0), ("b", 30.0)) for s in range(50)]
    assert np.ptp(aggregate(draws)[0].interval) == pytest.approx(10.0)
