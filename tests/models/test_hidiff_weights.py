"""The authors' files as models here: on stand-ins with their names, and what is refused."""

import pickle

import numpy as np
import pytest
import torch
from golden import load

from irbridge import cli
from irbridge.adapters.hidiff.network import HIDiffNetwork
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained
from irbridge.files import read_json
from irbridge.models import hidiff_weights
from irbridge.models.hidiff import HIDiff
from irbridge.models.hidiff_weights import gather, official, published, read_official

TABLE = load("hidiff")
FILES = {"transformer": "net_g", "encoder": "net_le_dm", "denoiser": "net_d"}
SMALL = {"width": 4, "blocks": [1, 1, 1, 1], "refinement": 1, "tokens": 2, "denoiser_width": 8}


@pytest.fixture(autouse=True)
def small_variants(monkeypatch):
    """The published variants, with fewer weights."""
    own = {
        key: sizes | SMALL | {"heads": [1, 1, 2, 2]}
        for key, sizes in hidiff_weights.PUBLISHED.items()
    }
    monkeypatch.setattr(hidiff_weights, "PUBLISHED", own)


def authors(variant="gopro", stage=2, seed=0):
    """The authors' state_dicts of a model by the name of their file, and the model's own."""
    torch.manual_seed(seed)
    network, found = HIDiffNetwork(published(variant), stage), {}
    for part, file in FILES.items():
        if (module := getattr(network, part)) is not None:
            name = "net_le" if stage == 1 and part == "encoder" else file
            tensors = module.state_dict().items()
            found[name] = {official(part, key, variant): value for key, value in tensors}
    return found, network.state_dict()


def write(folder, networks, wrap=lambda tensors: {"params": tensors}):
    folder.mkdir(exist_ok=True)
    for name, tensors in networks.items():
        torch.save(wrap(tensors), folder / f"{name}.pth")
    return [folder / f"{name}.pth" for name in networks]


def test_the_names_are_the_authors():
    """Those of the golden tables, which the authors' own modules gave."""
    (networks, _) = authors()
    listed = {name for _, name, *_ in TABLE["transformer_tiny"]["params"]}
    assert networks["net_g"].keys() >= listed
    assert {n for _, n, *_ in TABLE["losses"]["params_le_dm"]} <= networks["net_le_dm"].keys()
    assert {n for _, n, *_ in TABLE["losses"]["params_d"]} <= networks["net_d"].keys()
    (networks, _) = authors("realblur")
    assert {n for _, n, *_ in TABLE["le_lrelu"]["params"]} <= networks["net_le_dm"].keys()
    assert {n for _, n, *_ in TABLE["denoiser_realblur"]["params"]} <= networks["net_d"].keys()


def prefixed(tensors):
    return {f"module.{name}": value for name, value in tensors.items()}


@pytest.mark.parametrize("variant,stage", [("gopro", 2), ("realblur", 2), ("gopro", 1)])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"params": tensors},
        lambda tensors: {"params_ema": prefixed(tensors)},
        lambda tensors: tensors,
        prefixed,
        lambda tensors: {"params_ema": {}, "state_dict": tensors, "optimizer": {"step": 3}},
        lambda tensors: tensors | {"iter": 5, "optimizers": [{"lr": 0.1}]},
    ],
)
def test_all_weights_find_their_place(tmp_path, variant, stage, wrap):
    networks, own = authors(variant, stage)
    found, known, weights = gather(write(tmp_path, networks, wrap))
    assert (found, known) == (variant, stage) and weights.keys() == own.keys()
    assert all(torch.equal(weights[name], value) for name, value in own.items())


def test_one_file_of_all_networks(tmp_path):
    networks, own = authors()
    torch.save({name: {"params": t} for name, t in networks.items()}, tmp_path / "all.pth")
    flat = {f"{name}.{key}": v for name, t in networks.items() for key, v in t.items()}
    torch.save({"state_dict": flat}, tmp_path / "flat.pth")
    for name in ("all", "flat"):
        _, _, weights = gather([tmp_path / f"{name}.pth"])
        assert all(torch.equal(weights[key], value) for key, value in own.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_half_precision_and_both_formats_of_torch(tmp_path, zipped):
    networks, own = authors()
    for name, tensors in networks.items():
        half = {key: value.half() for key, value in tensors.items()}
        path = tmp_path / f"{name}.pth"
        torch.save({"params": half}, path, _use_new_zipfile_serialization=zipped)
    _, _, weights = gather(tmp_path.iterdir())
    assert all(torch.equal(weights[key], value.half().float()) for key, value in own.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, zipped):
    """Cut anywhere, or with other bytes in it."""
    path, draw = tmp_path / "net_d.pth", np.random.default_rng(0)
    torch.save(authors()[0]["net_d"], path, _use_new_zipfile_serialization=zipped)
    whole, refused = path.read_bytes(), 0
    for turn in range(150):
        damaged = bytearray(whole)
        if turn % 2:
            del damaged[int(draw.integers(300 if turn % 4 == 1 else len(whole))) :]
        else:
            for place in draw.integers(min(3000, len(whole)), size=3):
                damaged[place] = int(draw.integers(256))
        path.write_bytes(bytes(damaged))
        try:
            list(read_official(path))
        except UserError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1 and str(error).endswith(".")
    assert refused > 75  # of the others only numbers differ


def lacking(networks):
    del networks["net_g"]["latent.blocks.0.attn.ln1.weight"]


def unknown(networks):
    networks["net_d"]["last.bias"] = torch.zeros(3)


def wider(networks):
    networks["net_le_dm"]["end.0.bias"] = torch.zeros(9)


def another(networks):
    networks["net_d"] = authors("realblur")[0]["net_d"]


def alone(networks):
    del networks["net_d"]


def foreign(networks):
    networks["net_d"] = {"conv.weight": torch.zeros(3)}


@pytest.mark.parametrize(
    "change,said",
    [
        (lacking, "latent.blocks.0.attn.ln1.weight is missing in the file"),
        (unknown, "last.bias is .3,. in the file and unknown"),
        (wider, r"end.0.bias is \(9,\) in the file and \(8,\)"),
        (another, "not of HI-Diff's realblur variant"),
        (alone, "denoiser is missing; give net_d.pth"),
        (foreign, "'conv.weight' is none of its names"),
    ],
)
def test_other_weights_are_refused(tmp_path, change, said):
    networks, _ = authors()
    change(networks)
    with pytest.raises(UserError, match=said) as refused:
        gather(write(tmp_path, networks))
    assert str(refused.value).endswith(".") and ". " not in str(refused.value)


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_nothing_but_tensors_is_read(tmp_path, capsys):
    path = tmp_path / "net_g.pth"
    more = {"params": {"a": torch.zeros(1)}, "b": Evil()}
    for content, said in (
        (Evil(), "more than tensors"),
        (more, "more than tensors"),
        ({"params": {"a": 1}}, "no tensor"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=said):
            gather([path])
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="more than tensors"):
        gather([path])
    assert "run" not in capsys.readouterr().out
    with pytest.raises(UserError, match="does not exist"):
        gather([tmp_path / "none.pth"])


def test_the_command_writes_a_model(tmp_path, monkeypatch, capsys):
    """Of the published sizes, as a user types it; it restores, and no folder is written twice."""
    monkeypatch.undo()
    torch.manual_seed(0)
    tensors, given = {}, HIDiff(published("realblur"), 2).eval()
    for part, file in FILES.items():
        own = getattr(given.network, part).state_dict().items()
        tensors[file] = {official(part, name, "realblur"): value for name, value in own}
    write(tmp_path / "released", tensors)
    words = [str(tmp_path / "released"), f"output={tmp_path / 'model'}"]
    cli.run("convert_hidiff", words)
    assert "realblur variant, stage 2" in capsys.readouterr().out
    saved = read_json(tmp_path / "model/config.json")
    assert saved["method"] == "hidiff" and saved["hidiff"]["steps"] == 16
    model = from_pretrained(tmp_path / "model")
    assert sum(p.numel() for p in model.parameters()) == 24_182_959
    image = np.random.default_rng(0).random((40, 56, 3), dtype=np.float32)
    wanted = given.restore(image, seed=3)
    assert np.abs(wanted - image).max() > 0.1
    assert np.allclose(model.restore(image, seed=3), wanted, atol=1e-5)
    with pytest.raises(UserError, match="was converted or exported, and is a folder to hand on"):
        cli.run("export", [f"run={tmp_path / 'model'}", f"output={tmp_path / 'out'}"])
    with pytest.raises(UserError, match="holds config.json; give a folder that is not there"):
        cli.run("convert_hidiff", words)
