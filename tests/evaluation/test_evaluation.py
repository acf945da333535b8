"""The evaluate command: methods, sweeps, shared and interrupted evaluations, classical
baselines."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, save_images
from forked import Forked
from PIL import Image
from scipy.ndimage import gaussian_filter

from irbridge.commands.evaluate import METHODS, TRAINED
from irbridge.data.pairs import PairedFolders
from irbridge.errors import UserError
from irbridge.evaluation.classical import CLASSICAL, classical, holes, noise_std
from irbridge.evaluation.evaluate import evaluate
from irbridge.evaluation.metrics import psnr
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import About
from irbridge.experiments.config import composed
from irbridge.experiments.task_data import test_pairs as held_back
from irbridge.files import locked

QUICK = ["task=derain", "limit=2", "size=48", "sampler.nfe=1", "device=cpu"]
HELD = {
    "data": "held-back images",
    "size": 48,
    "seed": 0,
    "task": "derain",
    "protocol": Protocol().describe(),
}


def records(folder):
    return [
        json.loads(line)
        for path in sorted(Path(folder).rglob("records*.jsonl"))
        for line in path.read_text().splitlines()
    ]


@pytest.fixture
def score(command):
    def run(*words, status=0):
        code, out, err = command("evaluate", *words)
        assert code == status, err
        return err if status else out

    return run


# what the command scores

OWN = {
    "irbridge": "IRBridge (Brownian, end anchor, reverse, 1 calls)",
    "ddim": "DDIM, same adapter and start, 1 calls",
    "ddim_noise": "DDIM from noise, same adapter, 1 calls",
    "anchor": "Anchor g(y) alone",
    "dpmpp": "DPM-Solver++(2M), same adapter and start, 1 calls",
    "identity": "Degraded input",
    "classical": "Classical (median 1 x 11)",
}


def test_a_sweep_gives_the_rows_of_all_at_once(score, tmp_path):
    keys = "irbridge", "ddim_noise", "anchor", "identity"
    out = score("-m", *QUICK, f"method={','.join(keys)}")
    swept = {(r["method"], r["name"]): r for r in records(tmp_path / "results")}
    assert {(k, r["row"]) for (k, _), r in swept.items()} == {(k, OWN[k]) for k in keys} and len(
        swept
    ) == 8
    assert all(OWN[k] in out for k in keys)
    (folder,) = (tmp_path / "results/derain").iterdir()
    assert len(list(folder.iterdir())) == len(keys)
    score("run=data/adapters/derain", *QUICK[1:], f"results={tmp_path / 'once'}", "method=all")
    once = {(r["method"], r["name"]): r for r in records(tmp_path / "once")}
    assert {k: once[k]["row"] for k in once} == {(k, n): OWN[k] for k, n in once} and len(
        once
    ) == 2 * len(OWN)
    assert all(
        (once[k]["psnr"], once[k]["lpips"]) == (r["psnr"], r["lpips"]) for k, r in swept.items()
    )
    for (key, _), record in once.items():
        assert {k: record[k] for k in HELD} == HELD and record["machine"] and record["commit"]
        assert record["nfe"] == (1 if key in ("irbridge", "ddim", "ddim_noise", "dpmpp") else None)
        assert bool(record["weights"]) == (key not in ("identity", "classical"))


def test_results_of_a_shipped_adapter_stay_out_of_its_folder(score, tmp_path):
    before = sorted((ROOT / "data/adapters/derain").iterdir())
    out = score("run=data/adapters/derain", "method=anchor", *QUICK[1:])
    assert out.strip().splitlines()[-1].startswith("Wrote: results/derain/") and records(
        tmp_path / "results"
    )
    assert sorted((ROOT / "data/adapters/derain").iterdir()) == before


def test_other_images_are_told_apart(score, tmp_path):
    words = ["task=derain", "method=identity", "limit=1", "size=48"]
    score(*words, "task.degradation.cover=[0.5,0.6]")
    score(*words)
    score(*words, f"data.test={save_images(tmp_path / 'own', 2, (60, 60))}")
    assert {r["data"] for r in records(tmp_path / "results")} == {
        "held-back images, cover=[0.5, 0.6]",
        "held-back images",
        str(tmp_path / "own"),
    }
    assert len(list((tmp_path / "results/derain").iterdir())) == 3


def test_degraded_images_can_be_jpeg_files(score, tmp_path):
    clean, dark = tmp_path / "clean", tmp_path / "dark"
    save_images(clean, 2, (60, 60))
    save_images(dark, 2, (60, 60), seed=3)
    words = ["task=derain", "method=identity", "size=48", f"data.clean={clean}"]
    score(*words, f"data.degraded={dark}", "jpeg=30")
    found = records(tmp_path / "results")
    assert {r["data"] for r in found} == {f"{dark}, JPEG of quality 30"}
    for record in found:
        images = [
            np.asarray(Image.open(folder / f"{record['name']}.png"))[6:54, 6:54]
            for folder in (clean, dark)
        ]
        file = BytesIO()
        Image.fromarray(images[1]).save(file, "JPEG", quality=30)
        error = np.asarray(Image.open(file)).astype(float) - images[0]
        assert abs(record["psnr"] - 10 * np.log10(255**2 / (error**2).mean())) < 1e-3
    err = score("task=inpaint", "method=identity", "limit=1", "size=48", "jpeg=90", status=2)
    assert "jpeg=90 does not go with images that have holes" in err
    assert not (tmp_path / "results/inpaint").exists()


def test_trained_recipes(score, command, small, tmp_path):
    """Missing ones name the command that makes them; that command does."""
    words = ["task=derain", f"data.test={tmp_path / 'photos'}", "limit=1", "size=32"]
    save_images(tmp_path / "photos", 2)
    rows = {
        "regression": "Plain regression",
        "bridge": "Bridge from scratch (GOUB",
        "irbridge_y": "IRBridge (GOUB, end y",
    }
    for method, label in rows.items():
        err = score(*words, f"method={method}", status=2)
        told = err.split("scripts/train.py ")[1].split(",")[0].split()
        status, _, fault = command(
            "train", *small, *told, "debug=default", "evaluate.enabled=false"
        )
        assert status == 0, fault
        assert label in score(*words, f"method={method}")
        assert label in score(*words, f"run=runs/derain-{TRAINED[method]}", f"method={method}")
    assert {r["method"] for r in records(tmp_path / "results")} == set(rows)
    run = tmp_path / "runs/derain-irbridge_y"
    # a run's evaluations are in the run
    assert {r["method"] for r in records(run)} == {"irbridge_y"}
    assert rows["bridge"] in score(*words, f"run={run}", "method=bridge")  # that beside it
    (run.parent / "derain-goub_residual").rename(run.parent / "aside")
    (run.parent / "derain-regression").rename(run.parent / "derain-goub_residual")
    err = score(*words, f"run={run}", "method=bridge", status=2)
    assert "is method=regression, not method=bridge" in err
    (run.parent / "derain-goub_residual").rename(run.parent / "derain-regression")
    assert "has no row method=anchor; it has ddim_noise, ddim" in score(
        *words, f"run={run}", "method=anchor", status=2
    )
    assert "IRBridge (GOUB, end y" in score(*words, f"run={run}", "method=irbridge")
    # of runs/derain-regression
    assert "Plain regression" in score(*words, f"run={run}", "method=regression")
    assert "not task=dehaze" in score("task=dehaze", f"run={run}", status=2)


WRONG = {
    "method=foo task=derain": ["method=foo", *METHODS],
    "": ["task=NAME", "run=FOLDER"],
    "task=foo": ["foo", "derain"],
    "task=sr8 method=irbridge": ["data/adapters/sr8", "scripts/train.py task=sr8"],
    "task=universal method=classical": ["universal", "derain"],
    "task=paired method=identity": ["data.clean=DIR"],
    "benchmark=lol": ["data.root"],
    "data.root=x task=derain": ["benchmark="],
    "benchmark=foo data.root=x": ["foo", "lol"],
    "benchmark=lol data.root=nowhere": ["nowhere"],
    "benchmark=lol data.root=. data.split=val": ["data.split=val"],
    "task=derain method=outputs": ["outputs=DIR"],
    "task=derain outputs=nowhere": ["nowhere"],
    "task=derain outputs=. method=ddim": ["method=ddim"],
    "task=derain method=spandrel": ["spandrel:FILE"],
    "task=derain outputs=. method=spandrel:net.safetensors": ["outputs=."],
    "task=derain outputs=. jpeg=90": ["jpeg=90", "outputs=."],
    "task=derain jpeg=101": ["jpeg=101"],
    "task=derain data.clean=x": ["data.degraded"],
    "benchmark=lol data.root=x data.clean=x data.degraded=x": ["data.clean", "benchmark"],
    "benchmark=lol data.root=x data.masks=x": ["data.masks", "celebahq"],
    "task=derain method=identity results=FILE": ["file.txt", "cannot be written"],
}


@pytest.mark.parametrize("words", WRONG)
def test_mistakes(score, tmp_path, words):
    (tmp_path / "file.txt").write_text("")
    err = score(*words.replace("FILE", str(tmp_path / "file.txt")).split(), status=2)
    last = err.strip().splitlines()[-1]
    assert last.startswith("Error: ") and all(word in last for word in WRONG[words]), last


def test_a_wrong_job_of_a_sweep_is_not_passed_over(score, tmp_path):
    err = score("-m", *QUICK, "method=foo,identity", status=2)
    assert "method=foo" in err
    assert {r["method"] for r in records(tmp_path / "results")} == {"identity"}


def test_a_benchmark(score, tmp_path):
    for side, seed in (("high", 0), ("low", 1)):
        save_images(tmp_path / f"LOL/eval15/{side}", 3, (48, 64), seed)
    out = score("benchmark=lol", f"data.root={tmp_path / 'LOL'}", "method=identity", "size=null")
    assert "LOL v1" in out
    assert {(r["data"], r["task"], r["name"]) for r in records(tmp_path / "results")} == {
        ("LOL v1", "lowlight", n) for n in "012"
    }
    score(
        "benchmark=celebahq",
        f"data.root={tmp_path / 'LOL/eval15/high'}",
        "method=classical",
        "size=40",
    )
    assert {r["row"] for r in records(tmp_path / "results/inpaint")} == {"Classical (biharmonic)"}


def test_outputs_of_another_method(score, tmp_path):
    folders = [
        save_images(tmp_path / k, 3, seed=i) for i, k in enumerate(("clean", "degraded", "Other"))
    ]
    words = ["task=paired", f"data.clean={folders[0]}", f"data.degraded={folders[1]}", "size=32"]
    out = score(*words, f"outputs={folders[2]}", "row=MPRNet")
    assert "MPRNet" in out and "Degraded" not in out
    scores = {r["name"]: r["psnr"] for r in records(tmp_path / "results")}
    pairs = PairedFolders(folders[0], folders[2], 32)
    assert scores == {
        p.name: pytest.approx(psnr(p.degraded, p.clean, Protocol()))
        for p in (pairs[i] for i in range(3))
    }


# interrupted and shared evaluations


@pytest.fixture
def pairs(tmp_path):
    return PairedFolders(
        save_images(tmp_path / "clean", 5), save_images(tmp_path / "degraded", 5, seed=1)
    )


ABOUT = About("x", "derain", seed=0, weights="w")


def test_interrupted_and_gone_on_with(tmp_path, pairs):
    asked = []

    def method(image, name):
        asked.append(name)
        return image

    def start(**changes):
        return evaluate(method, pairs, Protocol(), tmp_path / "out", replace(ABOUT, **changes))

    whole, path = (
        list(evaluate(method, pairs, Protocol(), tmp_path / "whole", ABOUT)),
        tmp_path / "out/records.jsonl",
    )
    running = start()
    first = [next(running), next(running)]
    written = path.read_bytes()
    with pytest.raises(UserError, match="in use by another process"):
        next(start())
    running.close()  # as a kill would: the lock goes, the file stays, perhaps with half a line
    path.write_bytes(written + b'{"name": "2", "task": "der')
    asked.clear()
    resumed = list(start())
    assert (
        asked == ["2", "3", "4"] and resumed[:2] == first and path.read_bytes().startswith(written)
    )
    assert [(r.name, r.scores) for r in resumed] == [(r.name, r.scores) for r in whole]
    assert len(records(path.parent)) == 5
    assert asked == ["2", "3", "4"] and [*start()] == resumed and len(asked) == 3
    with pytest.raises(UserError, match="was scored with seed=0, not 1"):
        next(start(seed=1))
    list(start(weights="other"))
    assert len(asked) == 8 and {r["weights"] for r in records(path.parent)} == {"other"}


def test_records_of_other_processes_are_taken_over(tmp_path, pairs):
    """Two processes were killed; one goes on."""
    whole = list(evaluate(lambda image, name: image, pairs, Protocol(), tmp_path, ABOUT))
    lines = [json.dumps(r.to_json()) + "\n" for r in whole]
    (tmp_path / "records.jsonl").write_text(lines[0] + lines[2])
    (tmp_path / "records-1.jsonl").write_text(lines[1] + lines[3][:30])
    asked = []
    again = list(
        evaluate(
            lambda image, name: asked.append(name) or image, pairs, Protocol(), tmp_path, ABOUT
        )
    )
    assert asked == ["3", "4"] and [r.scores for r in again] == [r.scores for r in whole]
    assert [p.name for p in tmp_path.glob("records*")] == ["records.jsonl"]


def test_a_locked_folder_is_refused(score, tmp_path):
    with locked(tmp_path / "out/degraded-input"):
        assert "in use" in score(
            "task=derain", "method=identity", "limit=1", f"results={tmp_path / 'out'}", status=2
        )


@pytest.mark.parametrize("script", ["evaluate", "compare_samplers"])
def test_an_exported_adapter_has_no_validation_images(command, script):
    run = ROOT / "data/adapters/derain"
    status, _, err = command(script, f"run={run}", "split=validation")
    assert (
        status == 2
        and err.startswith(f"Error: {run} was exported without its training images")
        and "data.mix" not in err
    )


def stripped(folder):
    return sorted((r["method"], r["name"], r["psnr"], r["lpips"]) for r in records(folder))


@pytest.mark.slow
def test_two_processes_share_the_images(score, tmp_path):
    words = [*QUICK, "limit=3", "method=ddim"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, ROOT / "scripts/evaluate.py", *words, "results=two"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| DDIM, same adapter") == 1  # one table
    score(*words, "results=one")
    assert (
        stripped(tmp_path / "two") == stripped(tmp_path / "one")
        and len(records(tmp_path / "two")) == 3
    )
    assert [p.name for p in (tmp_path / "two").rglob("records*")] == ["records.jsonl"]


@pytest.mark.slow
def test_jobs_in_parallel(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *QUICK]
    words += ["method=foo,identity,classical"]
    done = Forked(ROOT / "scripts/evaluate.py", "-m", *words, cwd=tmp_path)
    _, err = done.communicate()
    assert done.returncode == 2 and "method=foo" in err, err
    assert {r["method"] for r in records(tmp_path / "results")} == {"identity", "classical"}


# classical methods


def photographs(task, count, size):
    config = composed("train", f"task={task}", "name=x")
    found = held_back(config | {"seed": 0}, size)
    return [found[i] for i in range(count)]


@pytest.mark.parametrize(
    "task, gain",
    [
        ("derain", 0.2),
        ("dehaze", 4),
        ("desnow", 0.3),
        ("lowlight", 3),
        ("inpaint", 1.5),
        ("denoise", 3),
        ("sr", 0.1),
        ("deblur", -0.5),
        ("raindrop", -0.5),
    ],
)
def test_classical_methods_earn_their_name(task, gain):
    assert set(CLASSICAL) == {
        "derain",
        "dehaze",
        "desnow",
        "lowlight",
        "inpaint",
        "denoise",
        "sr",
        "deblur",
        "raindrop",
    }
    label, method = classical(task)
    gains = []
    worst = sorted(
        photographs(task, 12, 96), key=lambda pair: psnr(pair.degraded, pair.clean, Protocol())
    )[:4]
    for pair in worst:  # a fixed filter is for heavy degradations
        kept = pair.degraded.copy()
        restored = method(pair.seen)
        assert (
            restored.shape == pair.clean.shape
            and restored.dtype == np.float32
            and 0 <= restored.min() <= restored.max() <= 1
        )
        assert np.array_equal(pair.degraded, kept)
        gains.append(
            psnr(restored, pair.clean, Protocol()) - psnr(pair.degraded, pair.clean, Protocol())
        )
    assert label.startswith("Classical (") and np.mean(gains) > gain, gains


def test_inpainting_is_bounded_and_touches_holes_alone():
    pair = photographs("inpaint", 1, 160)[0]
    started = time.process_time()
    restored = classical("inpaint")[1](pair.degraded)
    assert time.process_time() - started < 3
    known = ~holes(pair.degraded)
    assert np.array_equal(restored[known], pair.degraded[known]) and not holes(restored).any()


def test_a_smooth_image_is_inpainted_exactly():
    """A plane is biharmonic; holes are found as filled in float, and as saved in 8 bits."""
    v, u = np.mgrid[:80, :100] / 100
    plane = np.stack([0.2 + 0.3 * u, 0.3 + 0.2 * v, 0.6 - 0.3 * u], axis=2).astype(np.float32)
    mask = gaussian_filter(np.random.default_rng(0).random((80, 100)), 3) > 0.53
    # at the border nothing holds the plane
    mask[:6] = mask[-6:] = mask[:, :6] = mask[:, -6:] = False
    for fill in (0.5, 128 / 255):
        degraded = np.where(mask[..., None], np.float32(fill), plane)
        assert np.array_equal(holes(degraded), mask) and 0.05 < mask.mean()
        assert np.abs(classical("inpaint")[1](degraded) - plane).max() < 1e-4
    for whole in (np.full((40, 40, 3), 0.5, np.float32), plane):
        assert np.array_equal(classical("inpaint")[1](whole), whole)


def test_the_noise_is_estimated():
    rng = np.random.default_rng(0)
    for std in (0.02, 0.1):
        assert noise_std(0.5 + std * rng.standard_normal((200, 200, 3))) == pytest.approx(
            std, rel=0.02
        )


def test_there_is_none_for_other_tasks():
    with pytest.raises(UserError, match="task=universal has no classical method; .* derain"):
        classical("universal")
