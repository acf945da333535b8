"""Stochastic refinement as a user types it: joint, on a regression, on the frozen prior."""

import shutil

import numpy as np
import pytest
from PIL import Image

import irbridge
from irbridge.experiments.build import from_pretrained
from irbridge.files import read_json
from irbridge.models.irbridge import IRBridge
from irbridge.models.refinement import Refinement
from irbridge.weights import load_weights

FAST = ("task=deblur", "debug=default", "evaluate.limit=1")


def run_of(tmp_path, name):
    return tmp_path / "runs" / name


def test_a_joint_run_stops_goes_on_and_is_scored(command, small, tmp_path):
    words = [*FAST, *small, "recipe=refine", "refine.denoiser.width=4", "refine.samples=2"]
    assert "Stopped and saved" in command("train", *words, "name=parts", "trainer.stop=2")[1]
    status, out, err = command("train", *words, "name=parts")
    assert status == 0, err
    for label in (
        "Degraded input",
        "Predictor g(y) alone",
        "Stochastic refinement (posterior, 2 calls)",
        "Stochastic refinement (posterior, 2 calls), mean of 2 samples, 4 calls",
    ):
        assert label in out
    assert command("train", *words, "name=whole")[0] == 0
    whole, parts = (
        load_weights(run_of(tmp_path, f"deblur-{name}") / "model.safetensors")
        for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys() and all(whole[k].equal(parts[k]) for k in whole)
    assert {key.split(".")[0] for key in whole} == {"denoiser", "predictor"}  # averaged as one
    assert from_pretrained(run_of(tmp_path, "deblur-parts")).samples == 2


@pytest.fixture
def regression(command, small, tmp_path):
    words = [*FAST, *small, "recipe=regression", "name=regression", "adapter.width=8"]
    status, _, err = command("train", *words)
    assert status == 0, err
    return run_of(tmp_path, "deblur-regression")


def test_a_finished_regression_is_refined_and_plotted(command, small, regression, tmp_path):
    words = [*FAST, *small, "recipe=refine_frozen", "name=refine-frozen"]
    status, out, err = command("train", *words)  # its default predictor is the run of that name
    assert status == 0, err
    assert f"The predictor g is that of {regression}, and stays as it is." in out
    run = run_of(tmp_path, "deblur-refine-frozen")
    ours, theirs = (load_weights(folder / "model.safetensors") for folder in (run, regression))
    assert all(ours[f"predictor.{key}"].equal(value) for key, value in theirs.items())
    assert float(ours["residual_std"]) > 0
    saved = read_json(run / "config.json")["refine"]
    assert saved["sizes"]["width"] == 8 and saved["predictor"] == str(regression)
    shutil.rmtree(regression)  # its network is in the run
    model = from_pretrained(run)
    assert isinstance(model, Refinement) and model.scale == float(ours["residual_std"])

    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(
        photo
    )
    status, out, err = command("restore", f"run={run}", f"input={photo}", "samples=2", "device=cpu")
    assert status == 0 and "Restored 1 of 1" in out, err
    record = next(tmp_path.glob("restored-*.json"))
    assert '"samples": 2' in record.read_text()
    words = "restore", f"run={run}", f"input={photo}", "device=cpu", "precision=float32"
    status, out, err = command(*words, "steps=0", "tile=16", "overlap=0", "suffix=g")
    assert status == 0 and "tile=16 is raised to" in out, err
    assert np.array_equal(
        irbridge.read_image(tmp_path / "photo-g.png"),
        np.round(model.restore(irbridge.read_image(photo), nfe=0) * 255).astype(np.float32) / 255,
    )
    status, _, err = command("restore", f"run={run}", f"input={photo}", "samples=0")
    assert status == 2 and "samples" in err and "Traceback" not in err

    output = tmp_path / "exported"
    status, _, err = command("export_adapter", f"run={run}", f"output={output}", "size=32")
    assert status == 0, err
    card = (output / "README.md").read_text()
    assert "| Predictor g(y) | a regression, as it was trained before |" in card
    image = np.random.default_rng(1).random((41, 57, 3), dtype=np.float32)
    gap = np.abs(irbridge.load(output).restore(image) - model.restore(image)).max()
    assert gap < 2 / 255  # weights of 16 bits

    for calls in (2, 3):
        words = [f"run={run}", f"sampler.nfe={calls}", "samples=2", "size=32", "limit=1"]
        status, out, err = command("evaluate", *words, "device=cpu")
        assert status == 0 and f"({calls} calls" not in out, err
        assert f"posterior, {calls} calls), mean of 2 samples, {2 * calls} calls" in out
    status, _, err = command("evaluate", f"run={run}", "samples=0")
    assert status == 2 and "samples=0 must be a whole number from 1 to 1000" in err
    plot = tmp_path / "pd.png"
    status, out, err = command("make_tables", run, "format=pd", f"output={plot}")
    assert status == 0 and Image.open(plot).width > 300, err
    assert "No method here has two numbers of calls" not in out
    alone = next((run / "evaluations").iterdir())
    status, out, err = command("make_tables", alone, "format=pd", f"output={plot}")
    assert status == 0 and "No method here has two numbers of calls" in out, err
    status, _, err = command("make_tables", run / "nothere", "format=pd", f"output={plot}")
    assert status == 2 and "nothere is not there" in err


def test_draws_without_noise_are_refused(command, regression, tmp_path):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (9, 7)).save(photo)
    for words in (["restore", f"input={photo}"], ["evaluate", "limit=1", "size=32"]):
        status, _, err = command(*words, f"run={regression}", "samples=4", "device=cpu")
        assert status == 2 and "samples=4 would all be one image" in err, err
    status, _, err = command("restore", f"input={photo}", f"run={regression}", "steps=4")
    assert status == 2 and "steps=4 is for a model that samples" in err, err
    status, out, err = command("restore", f"input={photo}", f"run={regression}", "steps=1")
    assert status == 0 and "Restored 1 of 1" in out, err
    words = "task=derain", "method=anchor", "samples=3", "limit=1", "size=32"
    status, _, err = command("evaluate", *words)
    assert status == 2 and "samples=3 has no row here, as method=anchor draws no noise" in err, err


def test_what_cannot_be_a_predictor(command, small, regression, tmp_path):
    words = [*FAST, *small, "recipe=refine", "evaluate.enabled=false"]
    begun = ["recipe=regression", "adapter.width=8", "name=begun", "trainer.stop=1"]
    assert "Stopped and saved" in command("train", *FAST, *small, *begun)[1]
    stopped = f"refine.predictor={run_of(tmp_path, 'deblur-begun')}"
    for more, said in (
        ([stopped], f"{stopped} is not trained to its end; run its own command again"),
        (["refine.predictor=nowhere"], "nowhere"),
        (["refine.joint=false"], "give refine.predictor=RUN"),
        (["refine.samples=0"], "refine.samples=0 must be a whole number from 1 to 1000"),
        (["refine.predictor=spandrel:none.pth", "refine.joint=false"], "none.pth"),
        ([f"refine.predictor={regression}", "task=dehaze"], "give task=deblur to refine it"),
        (["loss.lpips=0.1"], "loss.lpips=0"),
        (["bridge=goub"], "use bridge=refine"),
    ):
        status, _, err = command("train", *words, *more, "name=bad")
        assert status == 2 and said in err and "Traceback" not in err, (more, err)
    weights = regression / "model.safetensors"
    config = regression / "config.json"
    config.write_text(config.read_text().replace('"width": 8', '"width": 12'))
    status, _, err = command("train", *words, f"refine.predictor={regression}", "name=bad")
    assert status == 2 and str(regression) in err and len(err.strip().splitlines()) == 1, err
    assert weights.exists()


@pytest.mark.parametrize(
    ("bridge", "kind"),
    [(["bridge=refine"], "refinement process"), (["bridge=ou", "bridge.lam=1.0"], "IRSDE")],
)
def test_the_same_bridge_on_the_frozen_prior(command, small, tmp_path, bridge, kind):
    """End g(y), condition y: beside a residual network from scratch."""
    words = [*bridge, "timesteps=critical", "sampler=posterior", "sampler.nfe=3"]
    status, out, err = command("train", *FAST, *small, *words, "name=prior", "baseline=false")
    assert status == 0 and f"IRBridge ({kind}, end anchor, posterior, 3 calls)" in out, err
    model = from_pretrained(run_of(tmp_path, "deblur-prior"))
    assert isinstance(model, IRBridge) and model.endpoint == "anchor"
    restored = model.restore(np.full((40, 56, 3), 0.5, dtype=np.float32), samples=2)
    assert restored.shape == (40, 56, 3) and np.isfinite(restored).all()
