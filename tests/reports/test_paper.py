"""The published experiments: what the files say, what they configure, that they run; published
beside reproduced."""

import csv
import json
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, configured, save_images
from omegaconf import OmegaConf
from pipelines import load, save_sd15
from safetensors.torch import load_file

from irbridge import cli
from irbridge.data.public_sets import BENCHMARKS
from irbridge.errors import UserError
from irbridge.evaluation import fid
from irbridge.evaluation.metrics import psnr, ssim
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import read_lines, slug
from irbridge.evaluation.vae_reference import RoundTrip
from irbridge.experiments.build import build_model, from_pretrained
from irbridge.experiments.config import plain
from irbridge.experiments.instantiate import instantiate
from irbridge.files import write_json
from irbridge.images.arrays import to_bytes
from irbridge.images.io import read_image
from irbridge.reports import paper_table as tables
from irbridge.reports import published

FOLDER = ROOT / "configs/experiment/paper"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
TASKS = "derain", "dehaze", "desnow", "raindrop", "lowlight", "inpaint"
LINES = {table: [line for line in published.lines(table) if line.run] for table in published.SCORES}
NAMES = sorted({line.experiment for lines in LINES.values() for line in lines})


@cache
def config_of(name, *words):
    return plain(configured("train", *published.words_of(name), *words))


def head(name):
    return "".join(
        line
        for line in (FOLDER / f"{name}.yaml").read_text().splitlines(True)
        if line.startswith("#")
    )


@pytest.fixture(scope="module")
def sd15(tmp_path_factory):
    return save_sd15(tmp_path_factory.mktemp("sd15"))


@pytest.fixture(scope="module")
def latent(sd15):
    return load("sd15", sd15)


@pytest.fixture
def train(command, sd15):
    """The train command on the small pipeline; returns stdout, or where it fails the last line of
    stderr."""

    def run(*words, status=0):
        code, out, err = command(
            "train", f"backbone.pretrained={sd15}", "trainer.device=cpu", *words
        )
        assert code == status, err
        return err.strip().splitlines()[-1] if status else out

    return run


# the figures


def test_the_figures_are_those_of_the_paper():
    """A few digits of each table, and the counts; the last is the lowest of Fig. 11."""
    assert [len(LINES[t]) for t in ("table1", "table3", "table4", "fig11")] == [12, 3, 3, 96]
    assert len(published.lines("table1")) == 12 + 30 and len(published.lines("table4")) == 18
    found = {line.run: line.figures for lines in LINES.values() for line in lines}
    assert found["table1_derain_goub"] == ("30.39", ".9639", ".027", "8.64")
    assert found["table1_desnow_irsde"] == ("25.78", ".7832", ".1574", "13.17")
    assert found["table3_25"] == ("29.24", ".858", ".178", "3.4")
    assert found["table4_rtts"] == ("52.076", "41.315", "5.003")
    assert found["fig11_lowlight_irsde_S6"] == ("13.85", ".7655")
    assert all(
        len(line.figures) == len(published.SCORES[t])
        for t in published.SCORES
        for line in published.lines(t)
    )


def test_every_published_row_of_the_method_has_its_file():
    assert (
        sorted({published.words_of(name)[0] for name in NAMES})
        == [f"experiment=paper/{file}" for file in FILES]
        and len(NAMES) == 30
    )


@pytest.mark.parametrize("name", FILES)
def test_the_files_say_command_hardware_and_hours(name):
    text = head(name)
    assert f"python scripts/train.py experiment=paper/{name} " in text
    assert "evaluate.real=DIR" in text or "data.root=DIR" in text
    assert all(said in text for said in ("RTX 3090 (24 GB)", "about a day", "ot measured here"))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_a_run_of_its_own(name):
    schedule = ["timesteps.name=S3"] if name.startswith("fig11") else []
    wanted = f"{name}_S3" if schedule else name
    assert config_of(name, *schedule)["name"] == wanted
    assert published.words_of(wanted)[: len(published.words_of(name))] == published.words_of(name)


# the settings


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_are_the_published_ones(name, latent):
    config = config_of(name)
    table, kind = name.split("_")[0], name.split("_")[-1]
    model = build_model(config, latent)
    bridge = {"irsde": "IRSDE"}.get(kind, "GOUB")
    assert (type(model.bridge).__name__, model.bridge.T) == (bridge, 100)
    assert model.bridge.lam == pytest.approx(2 / 255, rel=1e-3) and model.endpoint == "y"
    assert (model.sampler.rule, model.sampler.nfe) == (
        "reverse",
        int(kind) if table == "table3" else 100,
    )
    assert config["backbone"]["pretrained"].endswith("stable-diffusion-v1-5")
    assert config["backbone"]["prompt"] == "" and config["backbone"]["guidance"] == 1
    assert config["adapter"]["_target_"] == "irbridge.adapters.controlnet.ControlNet"
    assert (config["loss"]["states"], config["loss"]["weight"], config["loss"]["norm"]) == (
        "prior",
        "eps",
        "l2",
    )
    trainer = config["trainer"]
    assert (trainer["steps"], trainer["batch_size"], trainer["crop"], trainer["lr"]) == (
        10_000,
        12,
        512,
        5e-5,
    )
    assert (trainer["betas"], trainer["weight_decay"], trainer["warmup"]) == (
        [0.9, 0.999],
        0.01,
        500,
    )
    assert (trainer["schedule"], config["baseline"]) == ("constant", False)
    assert (config["evaluate"]["size"], config["data"]["resize"]) == (512, 512)
    assert instantiate(config["task"]["protocol"]) == Protocol("y", reference="vae")
    assert config["run"] == f"runs/paper/{config['name']}" and not config["overwrite"]
    trains = table == "table1" and kind == "goub"
    assert config["reuse"] == (
        None if trains else f"runs/paper/table1_{config['task']['name']}_goub"
    )
    if table == "table4":
        assert (
            config["evaluate"]["metrics"] == ["musiq", "brisque", "niqe"]
            and not config["evaluate"]["enabled"]
        )
        return
    test = config["data"]["test_benchmark"] or config["data"]["benchmark"]
    assert BENCHMARKS[test].title == published.TEST_SETS[config["task"]["name"]][0]
    assert {BENCHMARKS[test].task, BENCHMARKS[config["data"]["benchmark"]].task} == {
        config["task"]["name"]
    }
    if table == "fig11":
        assert (
            config["timesteps"]["_target_"] == "irbridge.models.timestep_schedule.paper"
            and config["evaluate"]["limit"] == 4
        )
        file = OmegaConf.to_container(OmegaConf.load(FOLDER / "fig11.yaml"))
        assert file["hydra"]["mode"] == "MULTIRUN" and config["name"] == f"{name}_S8"
        assert file["hydra"]["sweeper"]["params"]["timesteps.name"].split(",") == list(
            published.SCHEDULES
        )


def test_the_command_line_wins():
    config = config_of(
        "table1_derain_goub",
        "bridge=ou",
        "adapter=controlnet_latent",
        "timesteps=critical",
        "trainer.steps=7",
        "sampler.nfe=9",
        "task.protocol.reference=clean",
        "reuse=x",
        "data.resize=null",
    )
    assert config["bridge"]["_target_"].endswith(".IRSDE") and config["timesteps"][
        "_target_"
    ].endswith("critical")
    assert config["adapter"] != config_of("table1_derain_goub")["adapter"]
    assert (config["trainer"]["steps"], config["sampler"]["nfe"], config["reuse"]) == (7, 9, "x")
    assert config["task"]["protocol"]["reference"] == "clean" and config["data"]["resize"] is None


@pytest.mark.parametrize("name", NAMES)
def test_debug_needs_neither_data_nor_runs_nor_pyiqa(name):
    # a number of steps on the command line would win
    words = [word for word in published.words_of(name) if not word.startswith("sampler.")]
    config = plain(configured("train", *words, "debug=default"))
    assert (
        config["reuse"] is None
        and config["evaluate"]["real"] is None
        and not config["evaluate"]["metrics"]
    )
    assert config["data"]["stand_in"] and config["overwrite"] and config["name"] == "debug"
    assert (
        config["sampler"]["nfe"] == 2
        and config["trainer"]["steps"] <= 3
        and config["evaluate"]["size"] <= 64
    )


# runs


def test_dry_run_of_a_sweep(train, tmp_path):
    """Its first job's folder gives way to the next, as all are named debug."""
    out = train(
        *published.words_of("fig11_inpaint_irsde"),
        "debug=default",
        "trainer.steps=1",
        "evaluate.enabled=false",
        "trainer.sample_every=9",
        "hydra.sweeper.params={timesteps.name:'S1,S6'}",
    )
    assert out.count("Wrote: ") == 2 and "Stopped" not in out
    assert json.loads((tmp_path / "runs/debug/run.json").read_text())["timesteps"]["name"] == "S6"


@pytest.fixture
def trained(train, tmp_path):
    """The adapter that other rows take over, trained for an instant."""
    train(
        *published.words_of("table1_derain_goub"),
        "debug=default",
        "name=table1_derain_goub",
        "evaluate.enabled=false",
    )
    return tmp_path / "runs/table1_derain_goub"


def test_reuse(train, trained, tmp_path):
    """A run that takes an adapter over has its weights and its own sampler, and scores; what does
    not fit is named."""
    words = [
        *published.words_of("table3_25"),
        "name=table3_25",
        "data.stand_in=true",
        "evaluate.size=48",
        "evaluate.limit=1",
        "sampler.steps=3",
        "data.resize=64",
        "overwrite=true",
    ]
    out, run = train(*words), tmp_path / "runs/table3_25"
    assert "3 calls" in out and "training" not in out and not (run / "checkpoints").exists()
    mine, theirs = (load_file(r / "model.safetensors") for r in (run, trained))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
    model = from_pretrained(run)
    assert model.sampler.nfe == 3 and from_pretrained(trained).sampler.nfe == 2
    before = records(run)
    assert train(*words) and records(run) == before
    err = train(*words, "adapter=controlnet_latent", "name=other", status=2)
    assert "is of another model: adapter." in err and not (tmp_path / "runs/other").exists()
    err = train(*words, "sampler.steps=4", "overwrite=false", status=2)
    assert "sampler.nfe was 3 and is now 4" in err and "delete the folder" in err
    assert "4 calls" in train(*words, "sampler.steps=4")  # both say overwrite
    assert {r["nfe"] for r in records(run)} == {4}  # the older ones went
    (run / "kept").touch()
    train(*words, "sampler.steps=4", "overwrite=false", "evaluate.enabled=false")
    assert (run / "kept").exists()
    # the folder no longer says so
    assert "sampler.nfe was 4" in train(*words, "sampler.steps=3", status=2)
    other = save_sd15(tmp_path / "other", layers_per_block=2)
    assert "backbone.digest was" in train(
        *words, f"backbone.pretrained={other}", "name=other", status=2
    )


def test_reuse_of_what_is_not_there_or_not_finished(train, tmp_path):
    words = [*published.words_of("table1_derain_irsde"), "data.stand_in=true"]
    for _ in range(2):
        err = train(*words, status=2)
        assert (
            "scripts/train.py experiment=paper/table1 task=derain bridge=goub," in err
            and "table1_derain_goub holds no finished" in err
        )
        if not (tmp_path / "runs/table1_derain_goub").exists():
            train(
                *published.words_of("table1_derain_goub"),
                "debug=default",
                "name=table1_derain_goub",
                "trainer.stop=1",
            )
    assert "train it first or give" in train(*words, f"reuse={tmp_path}/x", status=2)


def records(run):
    return [
        json.loads(line)
        for p in (run / "results").rglob("records.jsonl")
        for line in p.read_text().splitlines()
    ]


# the two references


def test_both_references_of_every_row(train, command, latent, tmp_path):
    """Against diffusers' own VAE: every row, the degraded input too, has one round trip, and the
    true clean image. The evaluate command has both as well."""
    train(
        *published.words_of("table1_raindrop_goub"),
        "debug=default",
        "evaluate.all_rows=true",
        "evaluate.save_images=true",
        "evaluate.limit=1",
        "evaluate.size=52",
    )
    results, protocol = tmp_path / "runs/debug/results", Protocol("y")
    found = records(tmp_path / "runs/debug")
    assert {"identity", "ddim", "irbridge_y"} <= {r["method"] for r in found}
    clean = read_image(next((results / "clean").glob("*.png")))
    padded = np.pad(
        to_bytes(clean).astype(np.float32) / 255,
        [(0, -52 % latent.stride)] * 2 + [(0, 0)],
        mode="reflect",
    )
    image = torch.from_numpy(padded).permute(2, 0, 1)[None] * 2 - 1
    with torch.no_grad():
        decoded = latent.vae.decode(latent.vae.encode(image).latent_dist.mode()).sample
    again = (decoded[0].permute(1, 2, 0).numpy()[:52, :52] / 2 + 0.5).clip(0, 1)
    assert np.abs(read_image(next((results / "vae").glob("*.png"))) - again).max() < 2 / 255
    for r in found:
        assert r["protocol"] == protocol.describe() + f" and VAE round trip {latent.digest[:8]}"
        folder = next(
            p.parent
            for p in results.rglob("records.jsonl")
            if json.loads(p.read_text())["row"] == r["row"]
        )
        restored = read_image(folder / f"{r['name']}.png")
        assert r["psnr"] == pytest.approx(psnr(restored, clean, protocol), abs=1e-6)
        assert r["psnr_vae"] == pytest.approx(psnr(restored, again, protocol), abs=0.05)
        assert (
            r["ssim_vae"] == pytest.approx(ssim(restored, again, protocol), abs=0.01)
            and r["lpips_vae"] > 0
        )
    table = (tmp_path / "runs/debug/table.md").read_text()
    assert "PSNR to VAE (Y) ↑" in table and "| PSNR (Y) ↑ |" in table
    for words, scored in (([], True), (["protocol.reference=clean"], False)):
        status, out, err = command(
            "evaluate",
            "run=runs/debug",
            "method=identity",
            "limit=1",
            "size=48",
            "device=cpu",
            *words,
        )
        assert status == 0 and ("to VAE" in out) == scored, err


def test_a_pixel_model_has_no_round_trip(backbone, command, small):
    with pytest.raises(UserError, match="task.protocol.reference=clean"):
        RoundTrip(SimpleNamespace(backbone=backbone))
    status, _, err = command("train", *small, "debug=default", "task.protocol.reference=vae")
    assert status == 2 and "this model has none" in err


# photographs without clean versions


@pytest.fixture
def pyiqa(monkeypatch):
    def create(name, device):
        return {
            "musiq": lambda batch: batch.mean(),
            "brisque": lambda batch: batch.shape[2],
            "niqe": lambda batch: 1.0,
        }[name]

    monkeypatch.setitem(
        sys.modules,
        "pyiqa",
        SimpleNamespace(
            list_models=lambda metric_mode: ["musiq", "brisque", "niqe"], create_metric=create
        ),
    )


def test_photographs(train, tmp_path, pyiqa, monkeypatch):
    photos = save_images(tmp_path / "photos", 3)  # 40 x 48
    words = [
        *published.words_of("table4_realrain"),
        "debug=default",
        "name=table4_realrain",
        f"evaluate.real={photos}",
        "evaluate.metrics=[musiq,brisque]",
        "evaluate.size=32",
    ]
    out = train(*words)
    (file,) = (tmp_path / "runs/table4_realrain/real").glob("*/scores.jsonl")
    found = read_lines(file)
    # the limit
    assert [r.name for r in found] == ["0", "1"]
    assert {r.about.method for r in found} == {"irbridge_y"}
    restored = read_image(file.parent / "0.png")
    assert restored.shape == (32, 32, 3) and found[0].scores == {
        "musiq": pytest.approx(restored.mean()),
        "brisque": 32,
    }
    mean = np.mean([r.scores["musiq"] for r in found])
    assert f" | {mean:.3f} | 32.000 | 2 |" in out and (file.parent / "table.md").exists()
    lines = file.read_text().splitlines(True)
    file.write_text(lines[0] + lines[1][:20])  # killed
    train(*words, "evaluate.all_rows=true")
    assert [r.about.method for r in read_lines(file)] == [
        "irbridge_y",
        "identity",
        "identity",
        "irbridge_y",
    ]
    text = paper_table("table4", tmp_path / "runs")
    assert f"{mean:.3f} / 32.000 / missing | 2 | size 32" in text and "sampler.nfe=2" in text
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    for wrong, said in (
        (words, 'pip install -e ".[iqa]"'),
        ([*words, "evaluate.metrics=[]"], "evaluate.metrics=[niqe"),
        ([*words, "evaluate.real=null"], "evaluate.real=DIR"),
    ):
        assert (
            said in train(*wrong, "name=none", status=2) and not (tmp_path / "runs/none").exists()
        )


# published beside reproduced


def paper_table(name, folder, form="markdown", **options):
    make = tables.paper_figures if form == "csv" else tables.paper_table
    return make(name, folder, **options).render(form)


def table_of(text):
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return {(line[0], line[1]): dict(zip(lines[0], line)) for line in lines[2:]}


@pytest.mark.parametrize("name", published.SCORES)
def test_without_runs_all_is_missing(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.run("table", [f"paper={name}"])
    found = table_of(capsys.readouterr().out)
    assert len(found) == len(published.lines(name))
    for line in published.lines(name):
        cells = found[line.group, line.method]
        mine = [value for key, value in cells.items() if key.startswith("reproduced")]
        assert (
            set(mine) == {"missing" if line.run else "—"}
            and " / ".join(line.figures) in cells.values()
        )


def scored(run, images, **changes):
    """A run's folder as scoring leaves it; its config is the experiment's, but for ``changes``."""
    config = json.loads(json.dumps(config_of("table1_lowlight_goub")))
    for key, value in changes.items():
        at = config
        *groups, last = key.split("__")
        for group in groups:
            at = at[group]
        at[last] = value
    write_json(run / "run.json", config)
    record = {
        "task": "lowlight",
        "row": "IRBridge (GOUB, end y, reverse, 100 calls)",
        "method": "irbridge_y",
        "nfe": 100,
        "protocol": "y, 8 bit, crop 0, reference clean and VAE round trip 1a2b",
        "seed": 0,
        "weights": "w",
        "size": config["evaluate"]["size"],
        "data": "LOL v1",
        "seconds": 14.0,
        "lpips": 0.1,
        "lpips_vae": 0.06,
    }
    lines = [
        record
        | {
            "name": str(i),
            "psnr": 20.0 + i,
            "ssim": 0.8,
            "psnr_vae": 24.0 + i,
            "ssim_vae": 0.9,
        }
        for i in range(images)
    ]
    path = run / "results" / slug(record["row"]) / "records.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in lines))


def test_reproduced_stands_beside_published(tmp_path):
    scored(tmp_path / "table1_lowlight_goub", 15)
    cells = table_of(paper_table("table1", tmp_path))["lowlight", "IRBridge-GOUB"]
    assert list(cells.values()) == [
        "lowlight",
        "IRBridge-GOUB",
        "25.59 / .9236 / .059 / 36.11",
        "31.00 / 0.9000 / 0.0600 / missing",
        "27.00 / 0.8000 / 0.1000 / missing",
        "15 of 15",
        "",
    ]
    found = {
        (r["task"], r["method"]): r
        for r in csv.DictReader(paper_table("table1", tmp_path, "csv").splitlines())
    }
    row = found["lowlight", "IRBridge-GOUB"]
    assert (row["published PSNR"], row["reproduced, clean reference PSNR"], row["images"]) == (
        "25.59",
        "27.0",
        "15",
    )
    assert found["derain", "IRBridge-GOUB"]["differs in"] == "missing"
    latex = paper_table("table1", tmp_path, "latex")
    assert "& 31.00 / 0.9000 / 0.0600 / missing &" in latex and latex.count("{") == latex.count("}")


def test_fid_of_saved_images_against_either_reference(tmp_path, monkeypatch):
    run = tmp_path / "table1_lowlight_goub"
    scored(run, 15)
    (row,) = (run / "results").iterdir()
    for folder in (row, run / "results/clean", run / "results/vae"):
        save_images(folder, 2)
    (run / "results/clean/1.png").unlink()  # other images
    monkeypatch.setattr(
        fid, "fid", lambda images, reference, weights: {"vae": 12.346}[reference.name]
    )
    cells = table_of(paper_table("table1", tmp_path, weights="w.pth"))["lowlight", "IRBridge-GOUB"]
    assert list(cells.values())[3:5] == [
        "31.00 / 0.9000 / 0.0600 / 12.35",
        "27.00 / 0.8000 / 0.1000 / missing",
    ]


@pytest.mark.parametrize(
    "images, changes, said",
    [
        (4, {}, "4 images"),
        (15, {"evaluate__size": 64}, "size 64"),
        (15, {"sampler__nfe": 2}, "sampler.nfe=2"),
        (15, {"backbone__pretrained": "small"}, "weights None of small"),
        (15, {"trainer__steps": 3}, "trainer.steps=3"),
    ],
)
def test_what_is_not_the_experiment_is_said(tmp_path, images, changes, said):
    scored(tmp_path / "table1_lowlight_goub", images, **changes)
    cells = table_of(paper_table("table1", tmp_path))["lowlight", "IRBridge-GOUB"]
    assert cells["differs in"] == said and cells["images"] == f"{images} of 15"


def test_the_adapter_that_was_taken_over_is_looked_at_too(tmp_path):
    scored(tmp_path / "source", 1, trainer__steps=5)
    scored(tmp_path / "table1_lowlight_irsde", 15, reuse=str(tmp_path / "source"))
    differs = table_of(paper_table("table1", tmp_path))["lowlight", "IRBridge-IRSDE"]["differs in"]
    assert "trainer.steps=5" in differs and "bridge.\\_target\\_=irbridge.bridges.GOUB" in differs


@pytest.mark.parametrize(
    "words, said",
    [
        (["paper=table2"], "table1, table3, table4, fig11"),
        (["paper=table1", "a", "b"], "one folder"),
        (["paper=table1", "format=html"], "md, latex, csv"),
        (["paper=table1", "layout=tasks"], "layout"),
    ],
)
def test_mistakes_of_the_table_command(words, said):
    with pytest.raises(UserError, match=said):
        cli.run("table", words)


def test_the_command_writes(tmp_path):
    cli.run("table", ["paper=table3", str(tmp_path), f"output={tmp_path / 't.md'}"])
    assert "Table 3" in Path(tmp_path / "t.md").read_text()
