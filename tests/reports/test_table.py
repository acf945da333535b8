"""Records are read robustly, averaged as they say and ranked only against their like."""

import csv
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from forked import Forked

from irbridge import cli
from irbridge.errors import UserError
from irbridge.evaluation import rows
from irbridge.evaluation.records import Record, read_records
from irbridge.reports.table import by_comparison, figures, render
from irbridge.reports.task_table import by_task

main = partial(cli.run, "table")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_tables.py"
RGB, Y = "rgb, 8 bit, crop 0, reference clean", "y, 8 bit, crop 0, reference clean"
VAE = f"{Y} and VAE round trip 1a2b"


def record(
    name="a", row="ours", psnr=30.0, ssim=0.9, lpips=0.1, task="derain", protocol=RGB, **more
):
    return {
        "name": name,
        "row": row,
        "psnr": psnr,
        "ssim": ssim,
        "lpips": lpips,
        "task": task,
        "protocol": protocol,
        "seconds": 0.5,
    } | more


def aggregate(records):
    """Rows of records, or of the objects of their lines."""
    return rows.aggregate(r if isinstance(r, Record) else Record.from_json(r) for r in records)


def to_markdown(rows):
    return render(by_comparison(rows), "markdown")


def to_latex(rows):
    return render(by_comparison(rows), "latex")


def to_csv(rows):
    return render(figures(rows), "csv")


def three():
    """Best and second differ per column; LPIPS ranks the other way round; the third has none."""
    return [
        r
        for name in "ab"
        for r in (
            record(name, "low_1 & co", 20.0, 0.95, 0.05),
            record(name, "mid|50%", 25.0, 0.80, 0.20),
            record(name, "high", 28.0, 0.90, None),
        )
    ]


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
    (row,) = aggregate(
        [
            record(n, psnr=p, ssim=p / 100, lpips=p / 1000, seconds=p)
            for n, p in zip("abc", psnr, strict=True)
        ]
    )
    means = [row.scores[key] for key in ("psnr", "ssim", "lpips")]
    assert [*means, row.seconds] == pytest.approx([25.0, 0.25, 0.025, 25.0])
    assert row.images == {"a", "b", "c"}
    assert 20 <= row.intervals["psnr"][0] < 25 < row.intervals["psnr"][1] <= 31


def test_one_missing_score_leaves_no_mean_of_the_others():
    (row,) = aggregate([record("a"), record("b", lpips=None)])
    assert row.scores["lpips"] is None and row.psnr == 30


def test_draws_of_one_image_are_averaged_before_images():
    (row,) = aggregate(
        [
            record("a", psnr=20.0, seed=0),
            record("a", psnr=22.0, seed=1),
            record("b", psnr=31.0, seed=0),
        ]
    )
    assert row.psnr == pytest.approx(26.0) and len(row.images) == 2


def test_a_record_read_twice_counts_once_and_a_contradiction_is_refused():
    (row,) = aggregate([record("a"), record("a"), record("b", psnr=20.0)])
    assert row.psnr == 25
    with pytest.raises(UserError, match="two different scores of a"):
        aggregate([record("a"), record("a", psnr=31.0)])


def test_markdown_marks_best_and_second():
    found = cells(to_markdown(aggregate(three())))
    psnr, ssim, lpips = "PSNR ↑", "SSIM ↑", "LPIPS ↓"
    assert list(found) == ["low_1 & co", "mid/50%", "high"]
    assert [found[r][psnr].split(" ")[0] for r in found] == ["20.00", "<u>25.00</u>", "**28.00**"]
    assert [found[r][ssim].split(" ")[0] for r in found] == [
        "**0.9500**",
        "0.8000",
        "<u>0.9000</u>",
    ]
    assert [found[r][lpips].split(" ")[0] for r in found] == ["**0.0500**", "<u>0.2000</u>", "—"]
    assert f"derain: {RGB}; images 2. Brackets: 95 % bootstrap" in to_markdown(aggregate(three()))


def test_every_score_has_its_interval_over_images():
    ssim, lpips = {"a": 0.5, "b": 0.7, "c": 0.9}, {"a": 0.25, "b": 0.15, "c": 0.35}
    (row,) = aggregate([record(n, psnr=100 * ssim[n], ssim=ssim[n], lpips=lpips[n]) for n in "abc"])
    low, high = row.intervals["psnr"]  # affine in each other, so the intervals are too
    assert row.intervals["ssim"] == pytest.approx((low / 100, high / 100))
    assert 0.5 <= low / 100 < 0.7 < high / 100 <= 0.9
    assert (
        0.15 <= row.intervals["lpips"][0] < row.scores["lpips"] < row.intervals["lpips"][1] <= 0.35
    )
    found = cells(to_markdown([row]))["ours"]
    assert found["PSNR ↑"] == f"70.00 [{low:.1f}, {high:.1f}]"
    assert found["SSIM ↑"] == f"0.7000 [{low / 100:.3f}, {high / 100:.3f}]"
    assert found["LPIPS ↓"] == "0.2500 [{:.3f}, {:.3f}]".format(*row.intervals["lpips"])
    (line,) = csv.DictReader(to_csv([row]).splitlines())
    for score in ("psnr", "ssim", "lpips"):
        assert (float(line[f"{score}_low"]), float(line[f"{score}_high"])) == row.intervals[score]


def both(name="a", row="ours", psnr=30.0, **more):
    """A record of the protocol with two references."""
    extra = {"psnr_vae": psnr + 3, "ssim_vae": 0.95, "lpips_vae": 0.05, "protocol": VAE}
    return record(name, row, psnr, **extra | more)


def test_scores_against_the_round_trip_are_in_the_next_columns():
    rows = aggregate(
        [
            both(n, row, p)
            for row, psnr in (("x", (20.0, 24.0)), ("y", (30.0, 31.0)))
            for n, p in zip("ab", psnr)
        ]
    )
    found = cells(to_markdown(rows))
    assert list(found["x"])[:6] == [
        "PSNR (Y) ↑",
        "SSIM (Y) ↑",
        "LPIPS ↓",
        "PSNR to VAE (Y) ↑",
        "SSIM to VAE (Y) ↑",
        "LPIPS to VAE ↓",
    ]
    assert found["y"]["PSNR (Y) ↑"].startswith("**30.50**") and found["y"][
        "PSNR to VAE (Y) ↑"
    ].startswith("**33.50**")
    assert rows[0].intervals["psnr_vae"] == pytest.approx(
        [edge + 3 for edge in rows[0].intervals["psnr"]]
    )
    assert to_latex(rows).count("to VAE") == 3 and "\\begin{tabular}{lrrrrrrr}" in to_latex(rows)
    (line,) = csv.DictReader(to_csv(rows[1:]).splitlines())
    assert (float(line["psnr"]), float(line["psnr_vae"]), float(line["lpips_vae_high"])) == (
        30.5,
        33.5,
        0.05,
    )
    plain = to_csv(aggregate(three()))
    assert "vae" not in plain and "VAE" not in to_markdown(aggregate(three()))


@pytest.mark.parametrize("protocol", [Y, VAE.replace("1a2b", "3c4d")])
def test_other_references_are_not_ranked_together(protocol):
    text = to_markdown(
        aggregate(
            [both(row="x"), both(row="y", psnr=20.0), both(row="w", psnr=35.0, protocol=protocol)]
        )
    )
    assert text.count("| Method") == 2 and "| x | **30.00**" in text and "| w | 35.00" in text


def test_one_image_leaves_no_interval_to_show_and_no_score_has_none():
    (row,) = aggregate([record("a", lpips=None)])
    assert row.intervals["lpips"] is None
    assert cells(to_markdown([row]))["ours"]["PSNR ↑"] == "30.00"
    assert next(csv.DictReader(to_csv([row]).splitlines()))["lpips_low"] == ""


def test_equal_as_shown_is_marked_alike():
    found = cells(
        to_markdown(
            aggregate(
                [
                    record(row="x", psnr=30.001),
                    record(row="y", psnr=30.002),
                    record(row="z", psnr=9.5),
                ]
            )
        )
    )
    assert [found[r]["PSNR ↑"] for r in "xyz"] == ["**30.00**", "**30.00**", "<u>9.50</u>"]


def test_latex_marks_and_escapes():
    text = to_latex(aggregate(three()))
    body = text.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    found = [
        [c.strip() for c in line.removesuffix("\\\\").replace("\\&", "and").split("&")]
        for line in body
    ]
    assert [line[0] for line in found] == ["low\\_1 and co", "mid|50\\%", "high"]
    assert [line[1] for line in found] == [
        "20.00 [20.0, 20.0]",
        "\\underline{25.00} [25.0, 25.0]",
        "\\textbf{28.00} [28.0, 28.0]",
    ]
    assert [line[3].split(" ")[0] for line in found] == [
        "\\textbf{0.0500}",
        "\\underline{0.2000}",
        "---",
    ]
    assert text.count("{") == text.count("}") and "\\begin{tabular}{lrrrr}" in text
    assert f"\\caption{{derain: {RGB}; images 2. Brackets: 95 \\% bootstrap" in text
    assert "a\\textbackslash{}b\\textasciicircum{}\\{" in to_latex(
        aggregate([record(row="a\\b^{")])
    )


def test_csv_parses_back():
    rows = aggregate(three())
    found = list(csv.DictReader(to_csv(rows).splitlines()))
    assert [f["method"] for f in found] == [r.row for r in rows]
    assert [float(f["psnr"]) for f in found] == [r.psnr for r in rows]
    assert [f["lpips"] for f in found][2] == "" and {f["protocol"] for f in found} == {RGB}
    assert float(found[0]["psnr_low"]) == rows[0].intervals["psnr"][0] and found[0]["images"] == "2"


@pytest.mark.parametrize(
    "other", [{"protocol": Y}, {"size": 96}, {"task": "dehaze"}, {"name": "b"}, {"data": "mine"}]
)
def test_only_like_is_ranked_with_like(other):
    records = [record(row="x"), record(row="y", psnr=20.0), record(row="w", psnr=35.0) | other]
    text = to_markdown(aggregate(records))
    assert text.count("| Method") == 2
    assert "| x | **30.00**" in text and "| w | 35.00" in text
    assert ("PSNR (Y) ↑" in text) == ("protocol" in other)


def test_a_kills_half_line_is_dropped_and_others_are_named(tmp_path):
    path = write(
        tmp_path / "records.jsonl", [record("a"), record("b")], json.dumps(record("c"))[:-5]
    )
    assert [r.name for r in read_records(path)] == ["a", "b"]
    write(path, [record("a")], '{"name": "b", "ro\n' + json.dumps(record("c")) + "\n")
    with pytest.raises(UserError, match="records.jsonl, line 2"):
        read_records(path)
    for bad in (
        "[]",
        "7",
        '{"name": "b"}',
        json.dumps(record(psnr=None)),
        json.dumps(record(ssim="high")),
        json.dumps(record(lpips=float("nan"))),
    ):
        write(path, [record("a")], bad + "\n")
        with pytest.raises(UserError, match="line 2"):
            read_records(path)
    path.write_bytes(json.dumps(record("a")).encode() + b"\n\xff\xfe\n\n")
    with pytest.raises(UserError, match="line 2"):
        read_records(path)


def test_folders_are_read_recursively_and_runs_kept_apart(tmp_path):
    for run, psnr in (("one", 30.0), ("two", 31.0)):
        write(tmp_path / run / "results" / "ours" / "records.jsonl", [record(psnr=psnr)])
    write(
        tmp_path / "two" / "evaluations" / "s" / "base" / "records.jsonl",
        [record(row="base", psnr=20.0)],
    )
    assert [(r.label, r.psnr) for r in aggregate(read_records(tmp_path))] == [
        ("base [two]", 20.0),
        ("ours [one]", 30.0),
        ("ours [two]", 31.0),
    ]
    assert {r.label for r in aggregate(read_records(tmp_path / "two"))} == {"ours", "base"}
    assert [r.label for r in aggregate(read_records(tmp_path / "two" / "results"))] == ["ours"]
    (tmp_path / "empty").mkdir()
    for folder, said in ("empty", "no records below .*empty"), ("nowhere", "nowhere is not there"):
        with pytest.raises(UserError, match=said):
            read_records(tmp_path / folder)


def test_files_of_many_processes_are_one_and_each_record_counts_once(tmp_path):
    folder = tmp_path / "results" / "ours"
    write(folder / "records.jsonl", [record("a"), record("b", psnr=20.0)])
    write(folder / "records-1.jsonl", [record("c", psnr=40.0), record("a") | {"seconds": 9.0}])
    write(folder / "records-11.jsonl", [record("d", psnr=10.0)])
    found = read_records(tmp_path)
    assert sorted(r.name for r in found) == list("abcd")
    (row,) = aggregate(found)
    assert row.psnr == 25 and row.images == set("abcd")
    write(folder / "records-2.jsonl", [record("b", psnr=21.0)])
    with pytest.raises(UserError, match="two different scores of b"):
        aggregate(read_records(tmp_path))


def test_call_counts_under_one_label_are_rows_of_their_own():
    rows = aggregate(
        [record(psnr=20.0 + n, nfe=n) for n in (1, 5)] + [record(row="x, 3 calls", nfe=3)]
    )
    assert [r.label for r in rows] == ["ours, 1 calls", "ours, 5 calls", "x, 3 calls"]


def command(*words, **env):
    done = Forked(SCRIPT, *words, env=os.environ | env)
    return done, *done.communicate()


def test_the_command(tmp_path):
    write(tmp_path / "results" / "x" / "records.jsonl", three())
    rows = aggregate(read_records(tmp_path))
    assert command(tmp_path)[1] == to_markdown(rows) + "\n"
    main([str(tmp_path), "format=csv", f"output={tmp_path / 'table.csv'}"])
    assert (tmp_path / "table.csv").read_text() == to_csv(rows) + "\n"


@pytest.mark.parametrize(
    "words, named",
    [
        (["FOLDER", "form=csv"], "The keys are format, output"),
        (["FOLDER", "format=word"], "md, latex, csv"),
        (["FOLDER", "layout=wide"], "methods or tasks"),
        (["FOLDER", "weights=w.pth"], "goes with format=fid"),
        (["FOLDER", "format=html", "images=0"], "1 or more"),
        (["FOLDER", "format=nfe"], "output=FILE.png"),
        (["FOLDER", "format=nfe", "output=x.png"], "nfe"),
        (["FOLDER", "format=iqa"], "metrics=niqe"),
        (["FOLDER", "format=fid"], "save_images=true"),
        ([], "Give one folder"),
        (["nowhere"], "nowhere"),
        (["FOLDER", "output=FOLDER/records.jsonl/t.md"], "records.jsonl/t.md"),
    ],
)
def test_the_commands_mistakes(tmp_path, words, named):
    write(tmp_path / "records.jsonl", three())
    with pytest.raises(UserError, match=named.replace(".", "[.]")):
        main([w.replace("FOLDER", str(tmp_path)) for w in words])


@pytest.mark.parametrize("debug", ["0", "1"])
def test_a_mistake_ends_the_command_with_one_line_or_on_request_a_traceback(debug):
    done, _, err = command("nowhere", IRBRIDGE_DEBUG=debug)
    assert "nowhere" in err and ("Traceback" in err) == (debug == "1")
    assert debug == "1" or (done.returncode == 2 and len(err.splitlines()) == 1)


def test_interval_is_over_images_not_draws():
    draws = [record(n, psnr=p, seed=s) for n, p in (("a", 20.0), ("b", 30.0)) for s in range(50)]
    assert np.ptp(aggregate(draws)[0].intervals["psnr"]) == pytest.approx(10.0)


def universal(row="ours", shift=0.0):
    """Three images of rain and one of haze, which in a pooled mean would hardly count."""
    scores = {"a": ("derain", 30.0), "b": ("derain", 31.0), "c": ("derain", 32.0)}
    scores["d"] = "dehaze", 11.0
    return [
        record(name, row, psnr + shift, task="universal", subtask=subtask)
        for name, (subtask, psnr) in scores.items()
    ]


def test_the_tasks_of_a_universal_model_have_a_score_each_and_count_alike_in_their_mean():
    (row,) = aggregate(universal())
    found = {part.task: (part.psnr, len(part.images)) for part in row.parts}
    assert found == {
        "universal: derain": (31.0, 3),
        "universal: dehaze": (11.0, 1),
        "universal: mean of tasks": (21.0, 4),
    }
    assert list(found)[-1] == "universal: mean of tasks" and row.psnr == 26.0
    assert row.parts[-1].intervals["psnr"] is None


def test_the_table_by_task():
    text = to_markdown(aggregate([*universal(), *universal("other", 1.0)]))
    first, second = text.split("\n\n")[0], text.split("\n\n")[2]
    assert first.startswith("universal: rgb") and "images 4." in first
    assert second.startswith("universal by task: rgb") and "images derain 3, dehaze 1." in second
    lines = text.split("\n\n")[3].splitlines()
    assert lines[0].count("mean of tasks: PSNR") == 1
    (ours,) = [line for line in lines if line.startswith("| ours")]
    cells = [cell.strip() for cell in ours.split("|")[2:-1]]
    assert [cell.split(" / ")[0].strip("<u>/") for cell in cells] == ["31.00", "11.00", "21.00"]
    for form in ("latex", "html", "csv"):
        assert "mean of tasks" in render(
            (figures if form == "csv" else by_comparison)(aggregate(universal())), form
        )
    lines = list(csv.DictReader(to_csv(aggregate(universal())).splitlines()))
    assert [(line["task"], float(line["psnr"])) for line in lines] == [
        ("universal", 26.0),
        ("universal: derain", 31.0),
        ("universal: dehaze", 11.0),
        ("universal: mean of tasks", 21.0),
    ]


def test_records_that_do_not_all_say_their_task_have_no_parts():
    records = universal()
    del records[0]["subtask"]
    assert not aggregate(records)[0].parts
    assert not aggregate(universal()[:3])[0].parts  # of one task, there is nothing to compare
    assert "by task" not in to_markdown(aggregate(records))


def test_a_score_of_all_images_together_is_none_of_a_task():
    described = {"name": "kid_lpips", "digits": 4, "higher_is_better": False, "whole": True}
    records = [
        r | {"metrics": {"kid_lpips": 0.5}, "headings": {"kid_lpips": described}}
        for r in universal()
    ]
    (row,) = aggregate(records)
    assert row.scores["kid_lpips"] == 0.5
    assert all("kid_lpips" not in part.scores for part in row.parts)


def test_an_oracle_is_shown_and_not_ranked():
    """What sees the clean image is a bound: the best of the others is the best, also by tasks."""
    scored = [record(row="ours"), record(row="theirs", psnr=29.0, ssim=0.8, lpips=0.2)]
    scored.append(record(row="bound", psnr=40.0, ssim=0.99, lpips=0.01, oracle="sees it"))
    for arrange in (by_comparison, by_task):
        table = render(arrange(aggregate(scored)), "markdown")
        assert "**30.00**" in table and "<u>29.00</u>" in table and "| 40.00" in table
        assert "**40.00**" not in table
