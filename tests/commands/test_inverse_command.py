"""The command that compares solvers on known problems: what it writes, goes on with and refuses."""

import sys

import numpy as np
import pytest
from conftest import save_images

from irbridge import cli
from irbridge.commands import inverse
from irbridge.data.image_source import ImageSource
from irbridge.errors import UserError
from irbridge.evaluation.meter import Meter
from irbridge.evaluation.records import read_records
from irbridge.experiments.config import composed
from irbridge.experiments.task_data import validation_pairs


@pytest.fixture
def words(backbone_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = save_images(tmp_path / "images", 3, (40, 48))
    return [
        f"images={images}",
        f"backbone.pretrained={backbone_folder}",
        "size=32",
        "limit=2",
        "threads=1",
        "device=cpu",
        "results=scored",
    ]


def test_rows_and_tables(words, tmp_path, capsys):
    few = ["problem=[pixels,brush]", "noise=0.05"]
    cli.run("inverse", [*words, *few, "solver=ddrm", "solver.steps=2", "save_images=true"])
    out = capsys.readouterr().out
    table = (tmp_path / "scored/table.md").read_text()
    assert table.strip() in out and "| ddrm steps=2 | 2 | 0 |" in table
    records = read_records(tmp_path / "scored")
    assert {(r.about.task, r.name) for r in records} == {
        (f"{problem}, noise 0.05", name) for problem in ("pixels", "brush") for name in "01"
    }
    assert len(records) == 12 and (tmp_path / "scored/brush-noise-0-05/clean/1.png").is_file()
    # other constants are a row of their own, in the same table
    cli.run("inverse", [*words, *few, "solver=ddrm", "solver.steps=3", "baselines=false"])
    table = (tmp_path / "scored/table.md").read_text()
    assert "| ddrm steps=2 |" in table and "| ddrm steps=3 |" in table
    cli.run("table", ["scored"])  # as of any scored folder
    assert "Forward calls" in capsys.readouterr().out


def test_it_goes_on_where_it_was_stopped(words, tmp_path, monkeypatch, capsys):
    words += [
        "problem=pixels",
        "noise=[0,0.05]",
        "solver=ddrm",
        "solver.steps=2",
        "baselines=false",
    ]
    measured, asked = Meter.measured, []

    def interrupted(self, restore):
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return measured(self, restore)

    monkeypatch.setattr(Meter, "measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cli.run("inverse", words)
    assert len(read_records(tmp_path / "scored")) == 2
    cli.run("inverse", words)
    assert len(asked) == 5  # the one that was cut, and the last
    table = (tmp_path / "scored/table.md").read_bytes()
    cli.run("inverse", words)
    assert len(asked) == 5 and (tmp_path / "scored/table.md").read_bytes() == table


def test_what_does_not_fit_is_left_out_and_said_so(words, tmp_path, capsys):
    few = ["problem=pixels", "solver=deqir", "solver.steps=2", "solver.iterations=2", "limit=1"]
    cli.run("inverse", [*words, *few, "noise=[0,0.05]", "baselines=false"])
    out, err = capsys.readouterr()
    assert "left out: deqir steps=2 iterations=2, pixels, noise 0.05: solver=deqir" in out + err
    assert len(read_records(tmp_path / "scored")) == 1
    with pytest.raises(UserError, match="Nobody could serve any of these problems"):
        cli.run("inverse", [*words, *few, "noise=0.05", "baselines=false", "results=other"])


def test_trained_models_are_shown_the_measurement(words, small, command, tmp_path, capfd):
    train = [*small, "debug=default", "baseline=false", "evaluate.enabled=false"]
    holes = ["task.degradation.kinds=[pixels]", "task.degradation.noise=[0,0.05]"]
    for name, more in {
        "holes": ["task=inpaint", *holes],
        "blurred": ["task=known", "trainer.crop=32"],
    }.items():
        status, _, err = command("train", *train, *more, "recipe=regression", f"name={name}")
        assert status == 0, err
    runs = f"run=[{tmp_path}/runs/inpaint-holes]"
    cli.run("inverse", [*words, "problem=[pixels,sr]", "noise=0.05", "solver=[]", runs])
    out, err = capfd.readouterr()
    assert "left out: Plain regression, sr, noise 0.05" in out + err
    assert "fills holes, and problem=sr has none" in out + err
    lines = [line for line in out.splitlines() if line.startswith("| Plain regression |")]
    assert (
        len(lines) == 2
        and lines[0].endswith("| — |")
        and lines[1].startswith("| Plain regression | 1 | 0 |")
    )
    both = f"run=[{tmp_path}/runs/inpaint-holes,{tmp_path}/runs/known-blurred]"
    with pytest.raises(UserError, match="would both be the row 'Plain regression'"):
        cli.run("inverse", [*words, "problem=pixels", "solver=[]", both])


def test_known_pixels_with_noise_are_not_kept(small, command, tmp_path):
    from irbridge.experiments.build import from_pretrained

    train = [*small, "debug=default", "baseline=false", "evaluate.enabled=false", "task=inpaint"]
    assert command("train", *train, "recipe=regression", "name=clean")[0] == 0
    noisy = "task.degradation.noise=[0,0.05]"
    assert command("train", *train, noisy, "recipe=regression", "name=noisy")[0] == 0
    assert command("train", *train, noisy, "name=bridge")[0] == 0
    rng = np.random.default_rng(0)
    image, holes = rng.random((32, 32, 3), np.float32), rng.random((32, 32)) < 0.5
    for name in ("clean", "noisy", "bridge"):
        model = from_pretrained(tmp_path / f"runs/inpaint-{name}")
        for weights in model.trainable().parameters():  # which hardly moved from doing nothing
            weights.data += 0.1
        restored = model.restore(image, mask=holes)
        assert np.array_equal(restored[~holes], image[~holes]) == (name == "clean")


@pytest.mark.parametrize(
    "more, said",
    [
        (["problem=blur"], "problem=blur is unknown"),
        (["noise=-1"], "noise=-1 must be a number from 0"),
        (["solver=dpss"], "solver='dpss' is unknown; did you mean dps"),
        (["solver=[ddrm,dps]", "solver.zeta=1"], "solver.zeta is a constant of one solver"),
        (["solver=ddrm", "solver.zeta=1"], "solver.zeta is no constant of ddrm"),
        (["solver=ddrm", "solver.steps=0"], "solver.steps=0 must be a whole number from 1"),
        (["split=validation"], "give images=DIR of other validation images without split"),
        (["solver=[]", "baselines=false"], "Nobody is left to compare"),
        (["noise=[]"], "noise=\\[\\] leaves nothing to solve"),
        (["run=nothing", "solver=[]"], "'nothing' is no folder here"),
        (["images=nowhere"], "nowhere"),
        (
            ["problem=sr", "size=30", "solver=ddrm"],
            "divides sides by factor=4, and the image is 30 x 30",
        ),
    ],
)
def test_mistakes_are_one_sentence(words, more, said):
    with pytest.raises(UserError, match=said):
        cli.run("inverse", [*words, *more])


def test_blurs_need_deepinv_and_holes_do_not(words, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepinv.physics", None)
    few = ["solver=ddrm", "solver.steps=1", "noise=0", "limit=1"]
    cli.run("inverse", [*words, *few, "problem=brush"])
    with pytest.raises(UserError, match="operator=blur needs deepinv; pip install"):
        cli.run("inverse", [*words, *few, "problem=motion"])


def test_a_table_of_another_hand_is_left(words, tmp_path):
    (tmp_path / "scored").mkdir()
    (tmp_path / "scored/table.md").write_text("mine")
    with pytest.raises(UserError, match="is not what irbridge wrote"):
        cli.run("inverse", words)


def test_validation_images_are_those_that_no_training_sees():
    options = inverse.InverseOptions(split="validation")
    images, data = inverse.chosen_images(options)
    pairs = validation_pairs(composed("train", "task=denoise", "name=x"), 64)
    assert images.names == pairs.names and data == "validation images"
    test = ImageSource(inverse.find(inverse.TEST)).names
    assert not set(test) & set(images.names)
