"""What a configuration from outside may name: the project's own classes, and nothing that runs."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from conftest import ROOT

from irbridge.bridges.base import Bridge
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.names import FAMILIES, import_own, members, part_named, present_name
from irbridge.experiments.saved import check_foreign, read_settings

ADAPTERS = sorted((ROOT / "data/adapters").glob("*/"))
FOREIGN = [
    "os.system",
    "builtins.eval",
    "subprocess.run",
    "torch.load",
    "numpy.load",
    "torch.hub.load",
    "dataclasses._create_fn",
    "pathlib.Path.write_text",
    "shutil.copyfile",
    "webbrowser.open",
    "hydra.utils.call",
    "irbridge.files.write_json",
    "irbridge.files.write_atomically",
    "irbridge.experiments.build.from_pretrained",
    "irbridge.backbones.pretrained_files.load",
    "irbridge.backbones.pixel.torch.load",
    "irbridge.backbones.pixel.Path",
    "irbridge.backbones.latent.torch",
    "irbridge.adapters.pretrained_anchor.PretrainedAnchor",
    "irbridge.bridges.base.Bridge.marginal",
    "irbridge.bridges.brownian.__builtins__",
    "irbridge.bridges.brownian.__builtins__.eval",
    "irbridge.bridges.base.Published",
    "irbridge.bridges.Nothing",
    "irbridge.bridges",
    "__main__.main",
    "eval",
    "",
    ".",
    "..os.system",
    None,
    7,
    ["os.system"],
    {"_target_": "os.system"},
]


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def hostile(folder, **changes):
    """A copy of the shipped adapter whose config.json and run.json say something else."""
    shutil.copytree(ROOT / "data/adapters/derain", folder)
    for name in ("config.json", "run.json"):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("target", FOREIGN, ids=str)
@pytest.mark.parametrize("family", [None, *FAMILIES])
def test_foreign_names_are_refused(target, family):
    with pytest.raises(UserError) as refused:
        instantiate({"_target_": target, "command": "true"}, of=family)
    assert f"{target} cannot be built" in str(refused.value)


def test_a_part_of_another_family_is_refused():
    with pytest.raises(UserError, match="GOUB cannot be built: it is no timestep schedule"):
        instantiate({"_target_": "irbridge.bridges.GOUB"}, of="timesteps")
    with pytest.raises(UserError, match=r"no bridge; choose one of .*brownian\.Brownian"):
        instantiate({"_target_": "irbridge.models.timestep_schedule.linear"}, of="bridge")


@pytest.mark.parametrize("mark", ["_partial_", "_args_", "_recursive_", "_convert_"])
def test_hydras_marks_are_refused(mark):
    part = {"_target_": "irbridge.bridges.GOUB", mark: True}
    with pytest.raises(UserError, match=mark):
        instantiate(part)
    with pytest.raises(UserError, match=f"here.json: bridge.{mark}"):
        check_foreign({"bridge": part}, "here.json")


def test_nested_parts_are_held_to_the_family():
    choices = [{"_target_": "irbridge.data.degradations.Rain"}]
    several = {"_target_": "irbridge.data.degradations.OneOf", "choices": choices}
    assert type(instantiate(several, of="degradation").choices[0]).__name__ == "Rain"
    choices.append({"_target_": "os.getcwd"})
    with pytest.raises(UserError, match="os.getcwd cannot be built"):
        instantiate(several, of="degradation")
    with pytest.raises(UserError, match=r"here: task.degradation.choices\[1\]._target_: os.getcwd"):
        check_foreign({"task": {"degradation": several}}, "here")


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"timesteps": {"_target_": "torch.load", "weights_only": False}}, "timesteps._target_"),
        ({"bridge": {"_target_": "os.mkdir", "path": "PWNED"}}, "bridge._target_"),
        ({"adapter": {"_target_": "os.mkdir", "path": "PWNED"}}, "adapter._target_"),
        ({"backbone": {"_target_": "os.mkdir", "path": "PWNED"}}, "backbone._target_"),
        ({"anything": [{"deep": {"_target_": "os.mkdir"}}]}, r"anything\[0\].deep._target_"),
        ({"backbone": {"pretrained": "evil/${oc.env:HOME}"}}, "backbone.pretrained"),
        ({"loss": {"weight": ["${now:%Y}"]}}, r"loss.weight\[0\]"),
        ({"task": {"name": "x", "degradation": {"_target_": "os.mkdir"}}}, "task.degradation"),
        ({"task": {"name": "x", "protocol": {"_target_": "os.mkdir"}}}, "task.protocol"),
    ],
)
def test_a_hostile_folder_is_refused_by_file_and_key(tmp_path, monkeypatch, changes, key):
    monkeypatch.chdir(tmp_path)
    if "timesteps" in changes:
        torch.save(Payload(tmp_path / "PWNED"), tmp_path / "p.pt")
        changes["timesteps"]["f"] = str(tmp_path / "p.pt")
    folder = hostile(tmp_path / "evil", **changes)
    with pytest.raises(UserError, match=rf"config.json: {key}"):
        from_pretrained(folder)
    with pytest.raises(UserError, match=rf"run.json: {key}"):
        read_settings(folder / "run.json")
    assert not (tmp_path / "PWNED").exists()


def test_commands_refuse_a_hostile_run(command, tmp_path):
    bad = {"name": "derain", "protocol": {"_target_": "os.mkdir", "path": "PWNED"}}
    folder = hostile(tmp_path / "evil")
    settings = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(settings | {"task": settings["task"] | bad}))
    for script, *words in (
        ("evaluate", "limit=1"),
        ("compare_samplers", "limit=1"),
        ("export_adapter", f"output={tmp_path / 'out'}"),
    ):
        status, _, error = command(script, f"run={folder}", *words)
        assert status == 2 and "run.json: task.protocol._target_: os.mkdir" in error, error
        assert error.count("\n") == 1
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda folder: folder.name)
def test_the_shipped_adapters_pass(folder):
    for name in ("config.json", "run.json"):
        settings = read_settings(folder / name)
        assert type(instantiate(settings["bridge"], of="bridge")).__name__ == "Brownian"
        assert instantiate(settings["timesteps"], of="timesteps").absolute[1] == 1
        assert instantiate(settings["task"]["protocol"], of="protocol").describe()
        assert instantiate(settings["task"]["degradation"], of="degradation")


def test_names_of_earlier_versions():
    assert present_name("irbridge.bridges.OU") == "irbridge.bridges.IRSDE"
    assert present_name("irbridge.interpolants.GOUB") == "irbridge.bridges.GOUB"
    assert present_name("irbridge.metrics.Protocol") == "irbridge.evaluation.protocol.Protocol"
    old = {"_target_": "irbridge.degradations.OneOf", "_convert_": "all"}
    old["choices"] = [{"_target_": "irbridge.degradations.Rain"}]
    assert check_foreign({"degradation": old}, "")["degradation"].keys() == {"_target_", "choices"}


def test_every_family_is_found_in_its_chapter():
    for family in FAMILIES:
        for name in members(family):
            assert part_named(name, family).__name__ == name.rpartition(".")[2]
    assert {name.rpartition(".")[2] for name in members("adapter")} > {"LoRA", "StaticAdapter"}
    assert [name.rpartition(".")[2] for name in members("timesteps")] == [
        "critical",
        "linear",
        "paper",
    ]


def test_a_bridge_of_the_users_own_program(monkeypatch):
    """It is found where the program has imported it, and where not it is not imported."""

    @dataclass(frozen=True)
    class Straight(Bridge):
        slope: float = 1.0

    module = ModuleType("my_program")
    module.Straight, module.run = Straight, lambda slope: 1 / 0
    config = {"_target_": "my_program.Straight", "slope": 2.0}
    with pytest.raises(UserError, match="my_program.Straight cannot be built"):
        instantiate(config, of="bridge")
    monkeypatch.setitem(sys.modules, "my_program", module)
    assert instantiate(config, of="bridge").slope == 2.0
    with pytest.raises(UserError, match="cannot be built"):
        instantiate({"_target_": "my_program.run", "slope": 2.0}, of="bridge")


def test_the_users_own_configs_import_what_they_name(tmp_path, monkeypatch):
    """Then a run that holds such a class is built again; before, the sentence says how."""
    (tmp_path / "own_arc.py").write_text("from irbridge.bridges import Brownian as Arc\n")
    (tmp_path / "own/bridge").mkdir(parents=True)
    (tmp_path / "own/bridge/Arc.yaml").write_text("_target_: own_arc.Arc\nT: ${broken\n")
    (tmp_path / "own/bridge/other.yaml").write_text("{ no yaml")
    monkeypatch.syspath_prepend(tmp_path)
    config = {"_target_": "own_arc.Arc"}
    with pytest.raises(UserError, match="no bridge that is imported.*--config-dir"):
        instantiate(config, of="bridge")
    import_own([tmp_path / "own"])
    assert type(instantiate(config, of="bridge")).__name__ == "Brownian"
    sys.modules.pop("own_arc")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"adapter": None}, "adapter=None must be a group of keys"),
        ({"task": ["x"]}, "task=.'x'. must be a group of keys"),
        ({"bridge": "brownian"}, "bridge='brownian' must be a group of keys"),
        ({"seed": {"a": 1}}, "seed=.* must be a whole number"),
    ],
)
def test_a_damaged_folder_is_told_by_file_and_key(tmp_path, changes, said):
    folder = hostile(tmp_path / "odd", **changes)
    with pytest.raises(UserError, match=f"config.json: {said}"):
        from_pretrained(folder)


def test_settings_nested_without_end_are_refused():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(UserError, match="here is nested too deeply"):
        check_foreign({"x": deep}, "here")
