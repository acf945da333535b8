"""Comparisons over settings: the sampler sweep of one adapter, and recipes over budgets."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from irbridge.errors import UserError
from irbridge.evaluation.kid import KidLPIPS
from irbridge.evaluation.metrics import STANDARD
from irbridge.evaluation.records import About, Content, Record, RecordStore, read_records
from irbridge.evaluation.saved_images import png_hash
from irbridge.experiments.task_data import validation_pairs
from irbridge.files import read_json
from irbridge.images.io import write_image
from irbridge.reports.contenders import contender_picture
from irbridge.reports.efficiency import Budget, budget_tables, budgets
from irbridge.reports.plots import budget_plot
from irbridge.reports.sampler_table import sampler_table
from irbridge.reports.table import render
from irbridge.weights import load_weights, save_weights

TINY = ("trainer.device=cpu", "debug=default", "evaluate.limit=1", "evaluate.size=32")


@pytest.fixture
def adapter(command, small, tmp_path):
    assert (
        command(
            "train", *small, "debug=default", "baseline=false", "evaluate.enabled=false", "name=one"
        )[0]
        == 0
    )
    return tmp_path / "runs/derain-one"


def said(folder):
    """The objects of the records' lines."""
    return [record.to_json() for record in read_records(folder)]


def test_sampler_sweep(command, adapter, tmp_path):
    words = [
        f"run={adapter}",
        "bridges=[brownian,residual]",
        "samplers=[reverse,odes3,ddim]",
        "nfe=[1,2]",
        "limit=2",
        "size=32",
        f"results={tmp_path / 'compared'}",
        "device=cpu",
    ]
    status, out, err = command("compare_samplers", *words)
    assert status == 0, err
    records = said(tmp_path / "compared")
    kinds = {(r["bridge"], r["rule"], r["nfe"]) for r in records}
    assert kinds == {
        (b, r, n)
        for b, r in [
            ("brownian", "reverse"),
            ("brownian", "odes3"),
            ("residual", "reverse"),
            ("no bridge", "ddim"),
        ]
        for n in (1, 2)
    }
    assert len(records) == 2 * len(kinds) and "left out: residual, odes3" in out + err
    one_call = {
        r["bridge"]: r["psnr"]
        for r in records
        if r["nfe"] == 1 and r["rule"] == "reverse" and r["name"] == "0"
    }
    # from a pinned end the first estimate does not see the bridge
    assert len(set(one_call.values())) == 1
    again = command("compare_samplers", *words)
    assert again[0] == 0 and [r["seconds"] for r in said(tmp_path / "compared")] == [
        r["seconds"] for r in records
    ]
    assert "| residual | reverse | time |" in again[1]


def test_starts_are_compared_on_what_the_training_held_back(command, adapter, tmp_path):
    """The anchor alone once; the same start as trained gives the same images; test images are not
    looked at."""
    trained = read_json(adapter / "run.json")["timesteps"]["start"]
    words = [
        f"run={adapter}",
        "bridges=[brownian]",
        "samplers=[reverse]",
        "nfe=[0,1]",
        "size=32",
        "limit=2",
        "split=validation",
        f"results={tmp_path / 'compared'}",
        "device=cpu",
    ]
    status, out, err = command("compare_samplers", *words, f"starts=[null,{trained},600]")
    assert status == 0, err
    records = said(tmp_path / "compared")
    scores = {
        (r["bridge"], r["nfe"]): [o["psnr"] for o in records if o["bridge"] == r["bridge"]]
        for r in records
    }
    assert scores.keys() == {
        ("no bridge", 0),
        ("brownian", 1),
        (f"brownian from {trained:g}", 1),
        ("brownian from 600", 1),
    }
    assert (
        scores["brownian", 1]
        == scores[f"brownian from {trained:g}", 1]
        != scores["brownian from 600", 1]
    )
    held = set(validation_pairs(read_json(adapter / "run.json"), 32).names)
    assert {r["name"] for r in records} <= held and "validation images, size 32" in out
    for wrong in (
        "starts=[0]",
        "starts=[5000]",
        "bridges=[rope]",
        "samplers=[rope]",
        "spacings=[rope]",
    ):
        status, _, err = command("compare_samplers", *words, wrong)
        assert status == 2 and wrong.partition("=")[0] in err and err.count("\n") == 1, err


def test_other_weights_are_compared_anew(command, adapter, tmp_path):
    """Also in the same folder: neither their scores nor those of other images are taken or told."""
    words = [
        "bridges=[brownian]",
        "samplers=[reverse]",
        "size=32",
        "limit=1",
        "device=cpu",
        f"results={tmp_path / 'compared'}",
    ]
    first = command("compare_samplers", f"run={adapter}", "nfe=[1,2]", *words)
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    weights = load_weights(other / "model.safetensors")
    save_weights(
        other / "model.safetensors", {k: v + 0.01 for k, v in weights.items()}, torch.float32
    )
    second = command("compare_samplers", f"run={other}", "nfe=[1]", *words)
    rows = [
        [line for line in out.splitlines() if line.startswith("| brownian")]
        for _, out, _ in (first, second)
    ]
    assert first[0] == second[0] == 0 and rows[0] != rows[1] and len(rows[1][0].split("|")) == 6


def test_sampler_sweep_needs_an_adapter(command, small, tmp_path):
    command(
        "train",
        *small,
        "recipe=regression",
        "debug=default",
        "evaluate.enabled=false",
        "name=plain",
    )
    status, _, err = command("compare_samplers", f"run={tmp_path / 'runs/derain-plain'}")
    assert status == 2 and "method=irbridge" in err


def test_sampler_table_averages_and_marks_missing():
    record = {
        "task": "t",
        "protocol": "p",
        "size": 8,
        "data": "d",
        "seed": 0,
        "machine": "m",
        "rule": "mean",
        "spacing": "time",
    }
    records = [
        record
        | {
            "bridge": b,
            "nfe": n,
            "row": f"{b}, {n} calls",
            "name": name,
            "psnr": p,
            "ssim": 0.5,
            "lpips": 0.25,
            "seconds": n,
        }
        for b, n, name, p in [
            ("b", 1, "x", 20.0),
            ("b", 1, "y", 22.0),
            ("b", 2, "x", 30.0),
            ("c", 2, "x", 10.0),
        ]
    ]
    table = sampler_table(list(map(Record.from_json, records))).render("markdown")
    assert "| b | mean | time | 21.00 / 0.500 / 0.250 | 30.00 / 0.500 / 0.250 |" in table
    assert "| c | mean | time | — | 10.00 / 0.500 / 0.250 |" in table and "images 2" in table


@pytest.mark.slow
def test_efficiency_runs_to_table_and_plot(command, small, tmp_path):
    words = [w for w in small if "sampler" not in w]
    status, _, err = command(
        "train",
        "experiment=efficiency",
        *words,
        *TINY,
        'hydra.sweeper.params={trainer.steps:"1,2",recipe:"irbridge,rdbm,regression"}',
    )
    assert status == 0, err
    rows = budgets(tmp_path / "runs")
    assert {(r.recipe, r.images) for r in rows} == {
        (c, n) for c in ("irbridge", "rdbm", "regression") for n in (2, 4)
    }
    assert all(r.seconds > 0 and r.parameters > 100 for r in rows)
    table = render(budget_tables(rows), "markdown")
    assert (
        all(f"| {c} | 0.0" in table for c in ("irbridge", "rdbm", "regression"))
        and "2 images | 4 images" in table
    )
    budget_plot(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def budget(recipe, metrics=STANDARD, **scores):
    return Budget(
        task="t",
        recipe=recipe,
        seed=0,
        images=8,
        seconds=1.0,
        parameters=10**6,
        calls=3,
        protocol="p",
        scored=1,
        size=8,
        machine="m",
        scores={"ssim": 0.5} | scores,
        metrics=metrics,
        records=(),
        folder=Path("runs"),
    )


def test_a_score_of_a_row_as_a_whole_is_shown_with_its_own_decimals():
    """Also beside a recipe that lacks it."""
    kid = KidLPIPS()
    rows = [
        budget("a", (*STANDARD, kid), psnr=9.9, lpips=0.1, kid_lpips=0.00412),
        budget("b", psnr=10.1, lpips=0.2),
    ]
    table = render(budget_tables(rows), "markdown")
    assert "PSNR / SSIM / LPIPS / kid_lpips" in table and " / **0.0041** |" in table


def test_other_ways_to_use_a_run_s_adapter_are_rows_beside_it(tmp_path):
    """What ``results=RUN/baselines`` keeps has the run's budget and its own calls and scores."""
    runs = tmp_path / "runs"
    run = runs / "t-anchored-2-0"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"seed": 0}))
    (run / "metrics.jsonl").write_text(
        json.dumps({"step": 2, "images": 32, "seconds": 3.0, "cpu_seconds": 5.0}) + "\n"
    )
    save_weights(run / "model.safetensors", {"w": torch.zeros(7)})
    for place, method, nfe, psnr in (
        ("results", "irbridge", 3, 20.0),
        ("baselines", "ddim", 3, 21.0),
        ("baselines", "ddim_noise", 5, 22.0),
    ):
        about = About(method, "t", "rgb", method, nfe, data="d", size=8, seed=0)
        record = Record(about, "a", {"psnr": psnr, "ssim": 0.5, "lpips": 0.1})
        with RecordStore(run / place / method) as store:
            store.append(record)
    rows = budgets(runs)
    assert [(r.recipe, r.calls, r.scores["psnr"], r.images, r.parameters) for r in rows] == [
        ("anchored", 3, 20.0, 32, 7),
        ("anchored, ddim", 3, 21.0, 32, 7),
        ("anchored, ddim_noise", 5, 22.0, 32, 7),
    ]
    assert "| anchored, ddim_noise | 0.00 M | 5 |" in render(budget_tables(rows), "markdown")


def test_one_method_at_several_calls_is_several_rows_and_an_oracle_is_no_best(tmp_path):
    for run, kept in {
        "t-refine_joint-2-0": [
            ("refine", "R (1 calls)", 1, {}),
            ("refine", "R (4 calls), mean of 2 samples", 8, {}),
        ],
        "t-stage1-2-0": [("hidiff_oracle", "O", None, {"oracle": "sees the clean image"})],
    }.items():
        folder = tmp_path / run
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"seed": 0}))
        (folder / "metrics.jsonl").write_text(
            json.dumps({"step": 2, "images": 32, "seconds": 3.0, "cpu_seconds": 5.0}) + "\n"
        )
        save_weights(folder / "model.safetensors", {"w": torch.zeros(7)})
        for method, label, nfe, more in kept:
            about = About(label, "t", "rgb", method, nfe, data="d", size=8, seed=0, more=more)
            psnr = 30.0 if more else 20.0 + nfe
            scores = {"psnr": psnr, "ssim": 0.5, "lpips": 0.1}
            with RecordStore(folder / "results" / label) as store:
                store.append(Record(about, "a", scores, seconds=0.25))
    rows = budgets(tmp_path)
    assert [(row.recipe, row.calls, row.each) for row in rows] == [
        ("refine_joint: R (1 calls)", 1, 0.25),
        ("refine_joint: R (4 calls), mean of 2 samples", 8, 0.25),
        ("stage1, hidiff_oracle", None, 0.25),
    ]
    table = render(budget_tables(rows), "markdown")
    assert "core s at 32 | s/image |" in table and "| 5 | 0.250 |" in table
    assert "| 2 x 4 |" in table and "| 1 |" in table
    assert "**28.00**" in table and "| 30.00 / 0.500 / 0.100 |" in table


def restored(tmp_path, recipe, value, names=("a", "b"), images=8, seed=0):
    """A row whose saved images are of one grey, and clean white ones beside it."""
    folder = tmp_path / f"{recipe}-{images}-{seed}" / "row"
    records = []
    for name in names:
        for place, level in ((folder, value), (folder.parent / "clean", 1.0)):
            place.mkdir(parents=True, exist_ok=True)
            write_image(place / f"{name}.png", np.full((8, 10, 3), level))
        about, scores = About(recipe, "t", "rgb", recipe), {"psnr": 1.0, "ssim": 0.5}
        hashed = png_hash(folder / f"{name}.png")
        records.append(Record(about, name, scores, content=Content("", ""), png=hashed))
    row = budget(recipe, psnr=1.0)
    changes = {"images": images, "seed": seed, "records": tuple(records), "folder": folder}
    return replace(row, **changes)


def tones(picture):
    """The grey of each tile of the first column of images, line by line."""
    pixels = np.asarray(picture)
    lines = np.array_split(pixels[:, -15], round(pixels.shape[0] / 20))
    return [int(np.median(line)) for line in lines]


def test_the_picture_has_what_the_largest_budget_restored(tmp_path):
    """Degraded first and clean last, and only images that all recipes saved."""
    rows = [
        restored(tmp_path, "one", 0.2),
        restored(tmp_path, "one", 0.9, images=4),  # a smaller budget
        restored(tmp_path, "one", 0.8, seed=1),  # a later seed
        restored(tmp_path, "two", 0.4, names=("a", "b", "c")),
        replace(restored(tmp_path, "degraded", 0.6, images=4), calls=None),
    ]
    picture = contender_picture(rows)
    assert tones(picture) == [153, 51, 102, 255]
    assert contender_picture(rows, count=1).width == picture.width - 22


def test_a_picture_that_was_touched_is_not_shown(tmp_path):
    row = restored(tmp_path, "one", 0.2, names=("a",))
    write_image(row.folder / "a.png", np.zeros((8, 10, 3)))
    with pytest.raises(UserError, match=r"No image of t was saved by all recipes.*save_images"):
        contender_picture([row])


def test_best_of_a_budget_is_bold_by_value():
    rows = [budget("a", psnr=9.9, lpips=0.1), budget("b", psnr=10.1, lpips=0.2)]
    table = render(budget_tables(rows), "markdown")
    assert "9.90 / **0.500** / **0.100**" in table and "**10.10** / **0.500** / 0.200" in table


def test_nothing_scored(tmp_path):
    with pytest.raises(UserError, match="no scored run"):
        budgets(tmp_path)
