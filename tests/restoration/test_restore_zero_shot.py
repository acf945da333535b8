"""irbridge restore method=zeroshot: what it writes, keeps, goes on from and refuses, through the
real command on a tiny frozen network."""

import json
import os
import sys

import numpy as np
import pytest
import torch
from conftest import RNG, save_backbone, small_unet
from PIL import Image
from PIL.ExifTags import IFD, Base
from pipelines import save_sd15

from irbridge.backbones.pixel import PixelBackbone
from irbridge.commands import options as declared
from irbridge.commands import zero_shot
from irbridge.commands.flags import known_flags, parse, plain
from irbridge.commands.options import RestoreOptions
from irbridge.errors import UserError
from irbridge.files import locked
from irbridge.images.photo import read_photo
from irbridge.images.png import png16
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.zero_shot import Kind, ZeroShot
from irbridge.priors.vp import VP, vp_alphas_cumprod
from irbridge.restoration import memory
from irbridge.restoration.degradation import WORDS, Degradation
from irbridge.restoration.memory import GB, Plan, measured
from irbridge.solvers.base import SOLVERS, solver_class

SIZE = 37, 24
SMALL = ["operator=sr", "operator.factor=2", "operator.kernel=average"]


def photograph(path, size=SIZE, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(RNG.integers(0, 256, (4, 5, len(mode)), dtype=np.uint8).squeeze())
    coarse.resize(size, Image.BICUBIC).save(path, **options)
    return path


def holes(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size[::-1], np.uint8)
    mask[3:9, 5:14] = 255
    Image.fromarray(mask).save(path)
    return path


def kernel(path):
    weights = np.zeros((5, 3), np.uint8)
    weights[:, 1] = 40, 80, 120, 80, 40
    Image.fromarray(weights).save(path)
    return path


def files(folder):
    """The records of a folder's one report, by the input's name."""
    (report,) = folder.glob("restored-*.json")
    return {os.path.basename(r["input"]): r for r in json.loads(report.read_text())["files"]}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("frozen"))


@pytest.fixture
def restore(command, frozen):
    def run(*words, steps=3):
        given = "method=zeroshot", f"backbone.pretrained={frozen}", "device=cpu"
        return command("restore", *given, *[f"steps={steps}"] * bool(steps), *words)

    return run


@pytest.fixture
def idle(monkeypatch):
    """No weights may be read."""

    def read(*_, **__):
        raise AssertionError("the weights are read")

    monkeypatch.setattr(zero_shot, "frozen_prior", read)


@pytest.mark.parametrize(
    "solver, words",
    [
        ("diffpir", ["operator=inpaint", "mask={}/m.png"]),
        ("ddrm", ["operator=sr", "operator.factor=3", "operator.kernel=average"]),
        ("ddnm", ["operator=sr", "operator.factor=2"]),
        ("diffpir", ["operator=blur", "kernel={}/k.png", "noise=0.05"]),
        ("pigdm", ["operator=blur", "kernel=gaussian", "operator.std=1"]),
        ("ddrm", ["operator=colour"]),
        ("ddrm", ["operator=denoise", "noise=0.1"]),
        ("dps", ["operator=jpeg", "operator.quality=20"]),
        ("reddiff", ["operator=hdr"]),
        ("deqir", ["operator=inpaint", "mask={}/m.png"]),
        ("scd", ["operator=colour", "solver.inner=1"]),
        ("likelihood", ["operator=denoise", "noise=0.1"]),
    ],
)
def test_every_operator(restore, tmp_path, solver, words):
    if solver == "scd":
        pytest.importorskip("peft", reason="peft is missing")
    if words[0] == "operator=blur" or words == ["operator=sr", "operator.factor=2"]:
        pytest.importorskip("deepinv", reason="deepinv, of the extra inverse, is missing")
    photo = photograph(tmp_path / "in" / "a.png")
    holes(tmp_path / "m.png"), kernel(tmp_path / "k.png")
    words = [word.format(tmp_path) for word in words]
    status, out, err = restore(f"solver={solver}", *words, f"input={photo}")
    assert status == 0, err
    name = words[0].removeprefix("operator=")
    factor = next((int(word[-1]) for word in words if "factor" in word), 1)
    size = [SIZE[0] * factor, SIZE[1] * factor]
    record = files(photo.parent)["a.png"]
    assert os.path.basename(record["output"]) == f"a-{name}-{solver}.png" in out
    assert list(Image.open(record["output"]).size) == record["size"] == size
    assert record["method"] == "zeroshot" and record["operator"]["name"] == name
    assert record["solver"]["name"] == solver and record["solver"]["steps"] == 3
    assert None not in record["solver"].values()  # the published constants are told
    assert len(record["weights"]) == 64 and record["seed"] == 0 and record["tiles"] is None


def test_known_pixels_stay_bit_for_bit_unless_they_are_noisy(restore, tmp_path):
    deep = RNG.integers(0, 65536, (24, 37, 3), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(png16(deep))
    photo, mask = photograph(tmp_path / "a.png"), holes(tmp_path / "m.png")
    inside = np.asarray(Image.open(mask)) > 0
    words = "solver=ddnm", "operator=inpaint", f"mask={mask}", "suffix=new"
    assert restore(*words, photo, tmp_path / "deep.png")[0] == 0
    before, after = (np.asarray(Image.open(tmp_path / n)) for n in ("a.png", "a-new.png"))
    assert (before == after)[~inside].all() and (before != after)[inside].mean() > 0.5
    kept = np.round(read_photo(tmp_path / "deep-new.png").pixels * 65535)
    assert (kept == deep)[~inside].all() and (kept != deep)[inside].mean() > 0.5
    assert restore(*words, "noise=0.1", photo)[0] == 0
    noisy = np.asarray(Image.open(tmp_path / "a-new.png"))
    assert (noisy != before)[~inside].mean() > 0.5


def test_what_is_transparent_is_filled_and_masks_come_by_folder(restore, tmp_path):
    photo = photograph(tmp_path / "in" / "a.png")
    holes(tmp_path / "masks" / "a.png")
    words = "solver=ddnm", "operator=inpaint"
    assert restore(*words, photo, f"mask={tmp_path / 'masks'}")[0] == 0
    clear = Image.open(photo).convert("RGBA")
    clear.putalpha(Image.eval(Image.open(tmp_path / "masks" / "a.png"), lambda v: 255 - v))
    clear.save(tmp_path / "a.png")
    assert restore(*words, tmp_path / "a.png")[0] == 0
    one, other = (
        Image.open(tmp_path / "in/a-inpaint-ddnm.png"),
        Image.open(tmp_path / "a-inpaint-ddnm.png"),
    )
    assert one.mode == other.mode == "RGB" and (np.asarray(one) == np.asarray(other)).all()


def test_a_larger_photograph_keeps_what_the_small_one_had(restore, tmp_path):
    exif = Image.Exif()
    exif[Base.Artist] = "me"
    exif.get_ifd(IFD.Exif).update({Base.ExifImageWidth: 37, Base.ExifImageHeight: 24})
    photograph(tmp_path / "alpha.png", mode="RGBA", exif=exif.tobytes())
    photograph(tmp_path / "grey.png", mode="L")
    deep = RNG.integers(0, 65536, (24, 37, 4), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(png16(deep))
    words = "solver=ddrm", *SMALL, "suffix=x", "compare=true", "save_path=true"
    status, _, err = restore(*words, f"input={tmp_path}")
    assert status == 0, err
    large = 74, 48
    with Image.open(tmp_path / "alpha-x.png") as made, Image.open(tmp_path / "alpha.png") as small:
        assert made.mode == "RGBA" and made.size == large
        wanted = small.getchannel("A").resize(large, Image.BILINEAR)
        off = np.abs(np.asarray(made.getchannel("A")).astype(int) - np.asarray(wanted))
        told = made.getexif()
        assert off.max() <= 1 and told[Base.Artist] == "me"
        assert told.get_ifd(IFD.Exif)[Base.ExifImageWidth] == 74
        assert told.get_ifd(IFD.Exif)[Base.ExifImageHeight] == 48
    with Image.open(tmp_path / "grey-x.png") as made:
        assert made.mode == "L" and made.size == large
    made = read_photo(tmp_path / "deep-x.png")
    assert made.bits == 16 and made.alpha.shape == (48, 74) and made.alpha.dtype == np.uint16
    assert files(tmp_path)["deep.png"]["size"] == [74, 48]
    with Image.open(tmp_path / "alpha-x-compare.png") as pair:
        assert pair.width >= 2 * 74 and pair.height >= 48
        shown = np.asarray(pair)
    first = np.asarray(Image.open(tmp_path / "alpha.png"))[..., :3]
    squares = first.repeat(2, 0).repeat(2, 1)
    top = shown.shape[0] - 48 - 2
    assert (shown[top : top + 48, 2 : 2 + 74] == squares).all()
    assert Image.open(tmp_path / "alpha-x-path.png").width >= 3 * 74


def test_a_grey_photograph_gets_colours(restore, tmp_path):
    photograph(tmp_path / "grey.png", mode="L", icc_profile=b"of grey alone")
    assert restore("solver=ddnm", "operator=colour", tmp_path / "grey.png")[0] == 0
    with Image.open(tmp_path / "grey-colour-ddnm.png") as made:
        values = np.asarray(made).astype(int)
        assert made.mode == "RGB" and "icc_profile" not in made.info and np.ptp(values, 2).max() > 3
    mean = values.mean(2)  # what the operator keeps
    inside = ((values > 0) & (values < 255)).all(2)
    assert np.abs(mean - np.asarray(Image.open(tmp_path / "grey.png")))[inside].max() <= 1


def test_again_only_what_changed(restore, tmp_path):
    pytest.importorskip("deepinv", reason="deepinv, of the extra inverse, is missing")
    photo = photograph(tmp_path / "a.png")
    words = "solver=ddrm", "operator=blur", f"kernel={kernel(tmp_path / 'k.png')}", f"input={photo}"
    finished = "1 was finished before"

    def again(*more, steps=3):
        status, out, err = restore(*words, *more, "suffix=x", steps=steps)
        assert status == 0, err
        return finished in out

    assert not again() and again()
    assert (
        again("solver.steps=3", steps=None) and again("--solver.eta", "0.85") and again("noise=0")
    )
    (tmp_path / "k.png").rename(tmp_path / "other.png")
    words = (*words[:2], f"kernel={tmp_path / 'other.png'}", words[3])
    assert again()  # the same kernel under another name
    Image.fromarray(np.full((3, 3), 9, np.uint8)).save(tmp_path / "other.png")
    assert not again() and again()
    for change in ("solver.eta=0.5", "noise=0.1", "seed=1", "operator.threshold=0.1", "tile=256"):
        assert not again(change) and again(change)
    words = "solver=ddnm", *words[1:]
    assert not again() and again()


def test_several_of_different_sizes_and_a_seed_by_name(restore, tmp_path):
    sizes = {"1": (24, 37), "2": (40, 16), "3": (9, 50)}
    for name, size in sizes.items():
        photograph(tmp_path / "in" / f"{name}.png", size)
    words = "solver=ddrm", "operator=denoise", "noise=0.1"
    assert restore(*words, f"input={tmp_path / 'in'}", f"output={tmp_path / 'all'}")[0] == 0
    made = {n: Image.open(tmp_path / "all" / f"{n}-denoise-ddrm.png").size for n in sizes}
    assert made == sizes
    one = tmp_path / "in" / "2.png"
    for name, more in {"x.png": [], "y.png": ["seed=1"]}.items():
        assert restore(*words, *more, f"input={one}", f"output={tmp_path / name}")[0] == 0
    wanted = (tmp_path / "all" / "2-denoise-ddrm.png").read_bytes()
    assert (tmp_path / "x.png").read_bytes() == wanted != (tmp_path / "y.png").read_bytes()


def test_those_that_do_not_fit_fail_and_the_others_go_on(restore, tmp_path):
    pytest.importorskip("deepinv", reason="deepinv, of the extra inverse, is missing")
    photograph(tmp_path / "large.png", (40, 30)), photograph(tmp_path / "small.png", (6, 30))
    words = "solver=ddrm", "operator=blur", "kernel=uniform", "operator.width=9"
    status, _, err = restore(*words, f"input={tmp_path}")
    records = files(tmp_path)
    assert status == 1 and records["large.png"]["status"] == "done"
    assert "9 x 9" in records["small.png"]["error"] and "6 x 30" in records["small.png"]["error"]


REFUSED = [
    (["solver=ddrm"], ["needs operator=NAME", "inpaint, sr, blur"]),
    (["operator=denoise"], ["needs solver=NAME", "ddrm"]),
    (["solver=ddrn", "operator=denoise"], ["did you mean ddrm?"]),
    (["solver=ddrm", "operator=denoize"], ["did you mean denoise?"]),
    (["solver=ddrm", "operator=cs"], ["measures no photograph"]),
    (["solver=ddrm", "operator=denoise", "solver.etaa=1"], ["did you mean eta?"]),
    (["solver=ddrm", "operator=denoise", "solver.eta=2"], ["solver.eta=2 must be"]),
    (["solver=ddrm", "operator=denoise", "solver.eta=x"], ["solver.eta='x' must be"]),
    (["solver=ddrm", "operator=denoise", "steps=0"], ["solver.steps=0 must be"]),
    (["solver=ddrm", "operator=denoise", "steps=3", "solver.steps=4"], ["give one of them"]),
    (["solver=ddrm", "operator=denoise", "noise=-0.1"], ["noise=-0.1 must be a number from 0"]),
    (["solver=ddrm", "operator=denoise"], ["without noise"]),
    (["solver=ddrm", "operator=denoise", "noise=25"], ["noise=25 must be a number from 0 to 1"]),
    (["solver=reddiff", "operator=jpeg", "operator.size=1"], ["has no setting size"]),
    (["solver=ddrm", "operator=sr", "operator.factor=64"], ["from 2 to 16"]),
    (["solver=ddrm", "operator=jpeg"], ["solver=ddrm needs", "is linear", "reddiff"]),
    (["solver=deqir", "operator=denoise", "noise=0.1"], ["solver=deqir", "noise=0"]),
    (["solver=ddrm", "operator=inpaint", "mask=k.png"], ["k.png is 3 x 5", "is 37 x 24"]),
    (["solver=ddrm", "operator=inpaint", "operator.holes=x"], ["give mask=FILE"]),
    (["solver=ddrm", "operator=denoise", "mask=m.png"], ["operator=inpaint", "leave it out"]),
    (["solver=ddrm", "operator=sr", "operator.factr=2"], ["did you mean factor?"]),
    (["solver=ddrm", "operator=sr", "operator.factor=1"], ["factor=1 must be"]),
    (["solver=ddrm", "operator=sr", "operator.factor=x"], ["factor=x must be"]),
    (["solver=ddrm", "operator=blur"], ["kernel=FILE", "kernel=gaussian"]),
    (["solver=ddrm", "operator=blur", "kernel=none.png"], ["none.png does not exist"]),
    (["solver=ddrm", "operator=blur", "kernel=gausian"], ["did you mean gaussian?"]),
    (["solver=ddrm", "operator=denoise", "task=derain"], ["no adapter", "leave out task=derain"]),
    (["solver=ddrm", "operator=denoise", "run=x"], ["no adapter", "leave out run=x"]),
    (["solver=ddrm", "operator=denoise", "sampler=ddim"], ["leave out sampler"]),
    (["solver=ddrm", "operator=denoise", "backbone=face"], ["did you mean faces?"]),
    (["solver=ddrm", "operator=denoise", "backbone.anchor=x"], ["backbone.anchor=x"]),
    (["solver=ddrm", "operator=colour", "tile=10"], ["tile=10 with overlap=64"]),
]
WITH_DEEPINV = [
    (
        ["solver=ddrm", "operator=blur", "kernel=uniform", "operator.width=25"],
        ["25 x 25", "37 x 24"],
    ),
    (["solver=ddrm", "operator=blur", "kernel=gaussian", "operator.sd=2"], ["did you mean std?"]),
    (
        ["solver=ddrm", "operator=blur", "kernel=k.png", "operator.padding=reflect"],
        ["padding=circ"],
    ),
]


@pytest.mark.parametrize("words, said", [*REFUSED, *WITH_DEEPINV])
def test_a_mistake_is_told_before_the_weights_are_read(restore, idle, tmp_path, words, said):
    if (words, said) in WITH_DEEPINV:
        pytest.importorskip("deepinv", reason="deepinv, of the extra inverse, is missing")
    photo = photograph(tmp_path / "a.png")
    holes(tmp_path / "m.png"), kernel(tmp_path / "k.png")
    status, _, err = restore(*words, f"input={photo}", steps=None)
    assert status == 2 and err.count("\n") == 1 and all(word in err for word in said), err
    assert sorted(p.name for p in tmp_path.glob("a*")) == ["a.png"]
    assert not list(tmp_path.glob("restored*"))


def test_too_large_a_result(restore, idle, tmp_path, monkeypatch):
    monkeypatch.setenv("IRBRIDGE_MAX_PIXELS", "10000")
    photo = photograph(tmp_path / "a.png")
    status, _, err = restore("solver=ddrm", "operator=sr", "operator.factor=4", f"input={photo}")
    assert status == 2 and "a.png would become 148 x 96 pixels" in err and "operator.factor" in err


@pytest.mark.parametrize("word", ["solver=ddrm", "operator=sr", "kernel=k.png", "noise=0"])
@pytest.mark.parametrize("ending", ["", ".x"])
def test_its_words_are_for_it_alone(command, tmp_path, word, ending):
    key = word.partition("=")[0]
    if ending and key not in ("solver", "operator"):
        return
    given = f"{key}{ending}=1" if ending else word
    photo = photograph(tmp_path / "a.png")
    status, _, err = command("restore", "task=derain", f"input={photo}", given)
    assert status == 2 and f"{key}{ending} is for a frozen model" in err
    assert "give method=zeroshot" in err


def test_a_backbone_is_no_adapters_choice(command, tmp_path):
    photo = photograph(tmp_path / "a.png")
    status, _, err = command("restore", "task=derain", f"input={photo}", "backbone=sd15")
    assert status == 2 and "backbone=NAME is for method=zeroshot" in err


@pytest.mark.parametrize(
    "missing, words, said",
    [
        ("deepinv", ["solver=ddrm", "operator=blur", "kernel=uniform"], '".[inverse]"'),
        ("deepinv", ["solver=ddrm", "operator=sr"], '".[inverse]"'),
        ("peft", ["solver=scd", "operator=denoise", "noise=0.1"], "peft"),
    ],
)
def test_what_is_not_installed_is_told_in_a_sentence(
    restore, idle, tmp_path, monkeypatch, missing, words, said
):
    for module in (missing, f"{missing}.physics"):
        monkeypatch.setitem(sys.modules, module, None)
    photo = photograph(tmp_path / "a.png")
    status, _, err = restore(*words, f"input={photo}")
    assert status == 2 and f"needs {missing}" in err and said in err and err.count("\n") == 1


def test_more_steps_than_timesteps_are_refused_before_any_call(restore, tmp_path):
    photo = photograph(tmp_path / "a.png")
    words = "solver=ddnm", "operator=colour", f"input={photo}"
    status, _, err = restore(*words, steps=1001)
    assert status == 2 and "solver.steps=1001 is more than the 1000 timesteps" in err
    assert not list(tmp_path.glob("restored*"))


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (300, 3)])
@pytest.mark.parametrize("words", [["operator=denoise", "noise=0.1"], ["operator=colour"], SMALL])
def test_any_size(restore, tmp_path, size, words):
    photo = photograph(tmp_path / "a.png", size)
    status, _, err = restore("solver=diffpir", *words, f"input={photo}", steps=1)
    assert status == 0, err
    factor = 2 if words is SMALL else 1
    assert files(tmp_path)["a.png"]["size"] == [size[0] * factor, size[1] * factor]


def test_a_folder_in_use(restore, tmp_path):
    photo = photograph(tmp_path / "a.png")
    with locked(tmp_path):
        status, _, err = restore("solver=ddrm", "operator=colour", f"input={photo}")
    assert status == 2 and "another" in err


def test_results_of_an_adapter_and_of_another_model_are_not_replaced(restore, tmp_path):
    photo = photograph(tmp_path / "a.png")
    words = "solver=ddrm", "operator=colour", f"input={photo}"
    assert restore(*words)[0] == 0
    other = save_backbone(tmp_path / "other", small_unet((8, 8)))
    status, _, err = restore(*words, f"backbone.pretrained={other}")
    assert status == 2 and "restored by another model" in err


def test_the_words_of_a_command():
    one = parse(
        "restore",
        RestoreOptions,
        ["a", "method=zeroshot", "solver=ddrm", "solver.eta=.5", "solver.clip=false", "noise=.05"]
        + ["operator=blur", "kernel=k.png", "operator.padding=reflect", "backbone=sd15"],
    )
    other = parse(
        "restore",
        RestoreOptions,
        [
            "a",
            "--method",
            "zeroshot",
            "--solver",
            "ddrm",
            "--solver.eta",
            ".5",
            "--solver.clip=false",
        ]
        + [
            "--noise=.05",
            "--operator",
            "blur",
            "--kernel",
            "k.png",
            "--operator.padding",
            "reflect",
        ]
        + ["--backbone", "sd15"],
    )
    assert one == other and one.solver_settings == {"eta": 0.5, "clip": False}
    assert one.operator_settings == {"padding": "reflect"} and one.noise == 0.05
    assert one.backbone.pretrained == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert one.backbone.more["_target_"] == "irbridge.backbones.latent.load_latent"
    faces = parse("restore", RestoreOptions, ["a", "backbone=faces"]).backbone
    assert faces.pretrained == "data/prior_faces" and faces.more == {}
    with pytest.raises(UserError, match="requires an argument"):
        parse("restore", RestoreOptions, ["a", "--solver.eta"])
    with pytest.raises(UserError, match="did you mean solver?"):
        parse("restore", RestoreOptions, ["a", "slover=ddrm"])


@pytest.mark.parametrize(
    "word, value",
    [
        ("null", None),
        ("True", True),
        ("3", 3),
        ("1e-3", 0.001),
        ("[1,x]", [1, "x"]),
        ("[1", "[1"),
        ("'3'", "3"),
        ("average", "average"),
        ("", ""),
    ],
)
def test_a_plain_value(word, value):
    assert plain(word) == value and type(plain(word)) is type(value)


def test_the_page_names_every_solver_and_operator():
    flags = known_flags(RestoreOptions)
    for key, words in (("solver", SOLVERS), ("operator", WORDS)):
        said = flags[key].entry.metadata["explained"].replace(" or ", ", ").replace(";", ",")
        assert set(words) <= set(said.split(", ")[1:]) | set(said.split(": ")[1].split(", "))
    assert declared.RestoreOptions.EXAMPLES


class Pointwise(PixelBackbone):
    """A frozen network whose pixels do not see one another, so that tiles change nothing."""

    def predict(self, inputs, time, residuals):
        return 0.9 * inputs


def pointwise(*_, **__):
    return Pointwise(small_unet(), VP(vp_alphas_cumprod({}), "epsilon"), "points", "0" * 64)


@pytest.mark.parametrize("solver", ["dps", "pigdm", "reddiff"])
def test_gradients_pass_where_an_operator_holds_tensors(restore, tmp_path, solver):
    photo, mask = photograph(tmp_path / "a.png"), holes(tmp_path / "m.png")
    words = "operator=inpaint", f"mask={mask}", f"input={photo}"
    status, _, err = restore(f"solver={solver}", *words)
    assert status == 0, err


@pytest.mark.parametrize("solver", ["ddnm", "dps"])
def test_tiles_give_what_the_whole_image_gives(restore, tmp_path, monkeypatch, solver):
    monkeypatch.setattr(zero_shot, "frozen_prior", pointwise)
    photo = photograph(tmp_path / "a.png", (61, 50))
    words = f"solver={solver}", *SMALL, f"input={photo}"
    assert restore(*words, f"output={tmp_path / 'whole.png'}")[0] == 0
    status, _, err = restore(*words, f"output={tmp_path / 'cut.png'}", "tile=32", "overlap=8")
    assert status == 0 and "15/15" not in err
    record = json.loads(next(tmp_path.glob("restored-*.json")).read_text())["files"][-1]
    assert record["tiles"] == [32, 32]
    whole, cut = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("whole", "cut"))
    assert np.abs(whole.astype(int) - cut).max() <= 1


def zero_shot_model(solver, operator="inpaint", **settings):
    degradation = Degradation(operator, settings)
    backbone = PixelBackbone(small_unet(), VP(vp_alphas_cumprod({}), "epsilon"))
    kind = Kind(operator, degradation, degradation.factor)
    return ZeroShot(backbone, kind, solver_class(solver)()).eval()


def test_memory_counts_gradients_and_what_the_solver_holds():
    plain_call, graded = measured(zero_shot_model("ddnm"), 1), measured(zero_shot_model("dps"), 1)
    assert graded.call > 1.5 * plain_call.call and plain_call.image > 0
    adam = measured(zero_shot_model("reddiff"), 1)
    assert adam.image > plain_call.image and adam.call == plain_call.call
    held = 130 + max(plain_call.image, graded.image) + 1.6 * plain_call.call
    needed = 1 + held * 2000**2 / GB
    whole = Plan(zero_shot_model("ddnm"), plain_call, None, needed, 64, 1).tiles(2000, 2000)
    cut = Plan(zero_shot_model("dps"), graded, None, needed, 64, 1).tiles(2000, 2000)
    assert whole.size is None and cut.size is not None


def test_tiles_bound_the_memory_of_gradients_and_change_none():
    model = zero_shot_model("dps", "denoise")
    model.backbone = pointwise()
    z, tau = torch.randn(1, 3, 64, 64), torch.tensor(500.0, dtype=torch.float64)

    def gradient(tiles):
        state = z.clone().requires_grad_()
        return torch.autograd.grad((model.denoise(state, tau, tiles) ** 2).sum(), state)[0]

    torch.testing.assert_close(gradient(Tiles(16, 4)), gradient(WHOLE))
    model = zero_shot_model("dps", "denoise")
    cut, whole = (memory._most(lambda: gradient(tiles)) for tiles in (Tiles(16, 4), WHOLE))
    assert cut < whole / 4


def test_a_latent_model(command, tmp_path):
    """The operator acts on the decoded image, and gradients pass the decoder."""
    photo, mask = photograph(tmp_path / "a.png"), holes(tmp_path / "m.png")
    given = "method=zeroshot", "backbone=sd15", f"backbone.pretrained={save_sd15(tmp_path / 'sd')}"
    words = *given, "device=cpu", "operator=inpaint", f"mask={mask}", f"input={photo}", "steps=2"
    status, _, err = command("restore", *words, "solver=dps")
    assert status == 0, err
    assert Image.open(tmp_path / "a-inpaint-dps.png").size == SIZE
    status, _, err = command("restore", *words, "solver=ddrm")
    assert status == 2 and "ddrm" in err and "dps" in err


def test_bf16_and_a_constant_of_the_network(restore, tmp_path):
    photo = photograph(tmp_path / "a.png")
    words = "solver=ddrm", "operator=denoise", "noise=0.1", f"input={photo}"
    assert restore(*words)[0] == 0
    assert files(tmp_path)["a.png"]["precision"] == "float32"
    assert restore(*words, "precision=bf16")[0] == 0
    assert files(tmp_path)["a.png"]["precision"] == "bf16"
