"""One table of many tasks: what lines up, what is ranked with what, what is missing."""

import csv

import pytest

from irbridge.evaluation import rows as averages
from irbridge.evaluation.records import Record
from irbridge.reports.table import render
from irbridge.reports.task_table import by_task, task_figures

RGB, Y = "rgb, 8 bit, crop 0, reference clean", "y, 8 bit, crop 0, reference clean"


def records(task, row, psnr, names="ab", **more):
    """Two images whose mean PSNR is ``psnr``, half the interval's width being 1 dB (each mean is
    -1, 0 or +1 off)."""
    return [
        {
            "name": n,
            "row": row,
            "psnr": psnr + (-1) ** i,
            "ssim": psnr / 100,
            "lpips": 1 - psnr / 100,
            "task": task,
            "protocol": RGB,
            "seconds": 0.5,
            "size": 160,
            "data": "held-back images",
        }
        | more
        for i, n in enumerate(names)
    ]


def aggregate(lines):
    return averages.aggregate(map(Record.from_json, lines))


def to_markdown(rows):
    return render(by_task(rows), "markdown")


def to_task_csv(rows):
    return render(task_figures(rows), "csv")


def parsed(text):
    """(caption, {method: {column: cell}}) of each Markdown table."""
    found = []
    for block in text.split("\n\n| "):
        lines = [
            line
            for line in ("| " + block).splitlines()
            if line.startswith("| ") and line.endswith(" |")
        ]
        if lines:
            head, _, *body = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
            found.append({line[0]: dict(zip(head[1:], line[1:], strict=True)) for line in body})
    return found


SIX = ["derain", "dehaze", "desnow", "raindrop", "lowlight", "inpaint"]
ALL = [*SIX, "deblur", "denoise", "sr", "aging", "zoom"]


def tasks_of(table):
    return [head.split(":")[0] for head in next(iter(table.values()))]


def test_tasks_and_methods_come_in_the_stated_order():
    methods = ["irbridge", "irbridge_y", "ddim", "bridge", "regression", "classical", "identity"]
    rows = [
        r
        for task in reversed(ALL)
        for k, m in enumerate(methods)
        for r in records(task, f"{m}, {task}", 30.0 - k, method=m)
    ]
    (table,) = parsed(to_markdown(aggregate(rows)))
    assert tasks_of(table) == ALL
    assert list(table) == [
        "Degraded input",
        "Classical",
        "Plain regression",
        "Bridge from scratch",
        "DDIM",
        "IRBridge, end y",
        "IRBridge",
    ]


def test_labels_line_up_without_a_method_too_and_are_ordered():
    rows = [
        r
        for t in ("derain", "dehaze")
        for label, psnr in (
            ("IRBridge (Brownian, 3 calls)", 25.0),
            ("DDIM from noise, 3 calls", 12.0),
            ("Degraded input", 13.0),
            ("Plain regression", 24.0),
        )
        for r in records(t, label, psnr)
    ]
    (table,) = parsed(to_markdown(aggregate(rows)))
    assert list(table) == [
        "Degraded input",
        "Plain regression",
        "DDIM from noise, 3 calls",
        "IRBridge (Brownian, 3 calls)",
    ]
    assert all(len(cells) == 2 and "—" not in cells.values() for cells in table.values())


def test_best_second_missing_and_half_widths():
    rows = (
        records("derain", "x", 20.0)
        + records("derain", "y", 30.0)
        + records("derain", "z", 25.0)
        + records("sr", "x", 40.0, lpips=None)
        + records("sr", "y", 35.0)
    )
    text = to_markdown(aggregate(rows))
    (table,) = parsed(text)
    head = "derain: PSNR ↑ / SSIM ↑ / LPIPS ↓"
    assert table["y"][head] == "**30.00** ±1.0 / **0.3000** ±0.000 / **0.7000** ±0.000"
    assert table["z"][head].startswith("<u>25.00</u> ±1.0") and table["x"][head].startswith(
        "20.00 ±1.0"
    )
    assert table["z"]["sr: PSNR ↑ / SSIM ↑ / LPIPS ↓"] == "—"
    assert table["x"]["sr: PSNR ↑ / SSIM ↑ / LPIPS ↓"].startswith("**40.00**") and table["x"][
        "sr: PSNR ↑ / SSIM ↑ / LPIPS ↓"
    ].endswith("/ —")
    assert f"{RGB}; data held-back images; size 160; images derain 2, sr 2." in text


def test_rows_of_other_images_are_in_another_table():
    rows = [
        *records("derain", "x", 20.0),
        *records("derain", "y", 30.0),
        *records("derain", "lucky", 50.0, "a"),
        *records("sr", "lucky", 33.0),
        *records("sr", "x", 30.0),
    ]
    first, other = parsed(to_markdown(aggregate(rows)))
    derain, sr = (f"{t}: PSNR ↑ / SSIM ↑ / LPIPS ↓" for t in ("derain", "sr"))
    assert first["lucky"][derain] == "—" and first["y"][derain].startswith("**30.00**")
    assert first["lucky"][sr].startswith("**33.00**")
    assert list(other) == ["lucky"] and other["lucky"][derain].startswith("51.00 /")


def test_protocols_sizes_and_real_pairs_are_apart():
    rows = [
        *records("derain", "x", 20.0),
        *records("derain", "x", 21.0, protocol=Y),
        *records("derain", "x", 22.0, size=96),
        *records("derain", "x", 23.0, data="/data/rain100h/degraded", size=None),
        *records("dehaze", "x", 24.0, data="/data/sots/degraded", size=None),
    ]
    text = to_markdown(aggregate(rows))
    tables = parsed(text)
    assert len(tables) == 4 and "PSNR (Y) ↑" in text
    assert tasks_of(tables[-1]) == ["derain (rain100h/degraded)", "dehaze (sots/degraded)"]
    assert (
        "data derain on /data/rain100h/degraded, dehaze on /data/sots/degraded; images derain"
        " (rain100h" in text
    )


def test_data_whose_short_names_agree_are_named_whole():
    rows = [
        *records("derain", "x", 20.0, data="/a/test/rain"),
        *records("derain", "x", 30.0, data="/b/test/rain"),
    ]
    (table,) = parsed(to_markdown(aggregate(rows)))
    assert tasks_of(table) == ["derain (/a/test/rain)", "derain (/b/test/rain)"]


@pytest.mark.parametrize(
    "second, labels",
    [
        # two settings: their labels
        ({"row": "IRBridge (GOUB)"}, ["IRBridge (GOUB)", "IRBridge (Brownian)"]),
        # two runs: the runs' names
        ({"run": "derain-again"}, ["IRBridge [again]", "IRBridge [first]"]),
        # anyone's images: their label
        ({"row": "Theirs", "method": "outputs"}, ["Theirs", "IRBridge"]),
    ],
)
def test_several_rows_of_one_method_keep_labels_of_their_own(second, labels):
    mine = {"row": "IRBridge (Brownian)", "method": "irbridge", "run": "derain-first"}
    rows = [r | mine for r in records("derain", "", 20.0)] + [
        r | mine | second for r in records("derain", "", 19.0)
    ]
    rows += [r | mine | {"run": "sr-first"} for r in records("sr", "", 30.0)]
    (table,) = parsed(to_markdown(aggregate(rows)))
    assert list(table) == labels  # by PSNR


def test_the_degraded_input_of_many_runs_is_one_row():
    rows = [
        r | {"run": run}
        for run in ("derain-a", "derain-b")
        for r in records("derain", "Degraded input", 12.0)
    ]
    (table,) = parsed(to_markdown(aggregate(rows)))
    assert list(table) == ["Degraded input"]


def test_latex_groups_the_columns():
    rows = [
        *records("derain", "x_1 & co", 20.0),
        *records("sr", "x_1 & co", 30.0),
        *records("sr", "y", 31.0),
    ]
    text = render(by_task(aggregate(rows)), "latex")
    assert " & \\multicolumn{3}{c}{derain} & \\multicolumn{3}{c}{sr} \\\\\n" in text
    assert "\n\\cmidrule(lr){2-4} \\cmidrule(lr){5-7}\nMethod & PSNR" in text
    assert "\\begin{tabular}{lrrrrrr}" in text and "x\\_1 \\& co & 20.00 $\\pm$ 1.0" in text
    assert "\ny & --- & --- & --- & \\textbf{31.00}" in text
    assert text.count("{") == text.count("}") and "95 %" not in text
    body = text.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    assert {line.replace("\\&", "").count("&") for line in body} == {6}


def test_both_references_are_in_the_group_of_a_task():
    more = {
        "psnr_vae": 33.0,
        "ssim_vae": 0.5,
        "lpips_vae": 0.1,
        "protocol": Y + " and VAE round trip 1a2b",
    }
    rows = aggregate([*records("derain", "x", 20.0, **more), *records("sr", "x", 30.0, **more)])
    (table,) = parsed(to_markdown(rows))
    head = (
        "PSNR (Y) ↑ / SSIM (Y) ↑ / LPIPS ↓ / PSNR to VAE (Y) ↑ / SSIM to VAE (Y) ↑ / LPIPS to VAE ↓"
    )
    assert (
        list(table["x"]) == [f"derain: {head}", f"sr: {head}"]
        and " / 33.00 ±0.0 / " in table["x"][f"sr: {head}"]
    )
    (line,) = csv.DictReader(to_task_csv(rows).splitlines())
    assert (line["sr psnr"], line["sr psnr_vae"]) == ("30.0", "33.0")


def test_csv_is_wide_and_parses_back():
    rows = aggregate(
        [
            *records("derain", "x", 20.0),
            *records("sr", "x", 30.0),
            *records("sr", "y", 31.0, lpips=None),
        ]
    )
    found = {line["method"]: line for line in csv.DictReader(to_task_csv(rows).splitlines())}
    assert found["y"]["derain psnr"] == found["y"]["derain images"] == found["y"]["sr lpips"] == ""
    assert [float(found["x"][f"sr psnr{end}"]) for end in ("", "_low", "_high")] == [
        30.0,
        29.0,
        31.0,
    ]
    assert found["x"]["sr images"] == "2" and {line["protocol"] for line in found.values()} == {RGB}


def test_a_universal_model_has_a_column_for_each_of_its_tasks():
    lines = [
        {"name": name, "row": "ours", "psnr": psnr, "ssim": 0.9, "lpips": 0.1, "task": "universal"}
        | {"protocol": "rgb", "subtask": subtask}
        for name, subtask, psnr in (("a", "deblur", 20.0), ("b", "derain", 30.0))
    ]
    (table,) = by_task(aggregate(lines))
    assert [title for title, _ in table.groups] == [
        "universal: derain",
        "universal: deblur",
        "universal: mean of tasks",
    ]
    assert [table.body[0][k].text for k in (1, 4, 7)] == ["30.00", "20.00", "25.00"]
