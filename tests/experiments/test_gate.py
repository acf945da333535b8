"""What comes from outside is data: no name in it is called, no value of it looked up elsewhere."""

import copy
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irbridge.commands import demo
from irbridge.commands.demo.ways import own_calls
from irbridge.commands.restore import chosen, masked
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained
from irbridge.experiments.names import FAMILIES, part_named
from irbridge.experiments.saved import check_foreign, read_settings

HOSTILE = """
os.system os.popen os.mkdir os.makedirs os.execv os.spawnlp posix.system nt.system pty.spawn
subprocess.run subprocess.Popen subprocess.check_output asyncio.create_subprocess_shell
multiprocessing.Process threading.Thread builtins.eval builtins.exec builtins.open
builtins.__import__ builtins.getattr code.interact timeit.timeit cProfile.run pdb.run runpy.run_path
importlib.import_module ctypes.CDLL pickle.load pickle.loads marshal.loads shelve.open joblib.load
pandas.read_pickle numpy.load numpy.testing.measure torch.load torch.jit.load torch.hub.load
torch.package.PackageImporter torch.ops.load_library torch.utils.cpp_extension.load
torch.utils.collect_env.run torch._inductor.codecache.PyCodeCache.load sympy.sympify
sympy.parsing.sympy_parser.parse_expr dataclasses._create_fn distutils.spawn.spawn webbrowser.open
pathlib.Path.write_text pathlib.Path.unlink shutil.copyfile shutil.rmtree urllib.request.urlretrieve
tempfile.mkdtemp functools.partial functools.reduce operator.methodcaller operator.attrgetter
hydra.utils.instantiate hydra.utils.call hydra.utils.get_method hydra.main omegaconf.OmegaConf.load
huggingface_hub.snapshot_download diffusers.DiffusionPipeline.from_pretrained
irbridge.files.write_json irbridge.files.write_atomically irbridge.files.remove_leftovers
irbridge.own_files.write_result irbridge.weights.save_weights irbridge.cli.main irbridge.hub.load
irbridge.commands.reproduce.reproduce_run irbridge.experiments.names.import_named
irbridge.experiments.names.import_module irbridge.experiments.build.from_pretrained
irbridge.data.degradations.base.os.system irbridge.bridges.base.np.load irbridge.bridges..os.system
..os.system __main__.main
""".split()
ADAPTER = ROOT / "data/adapters/derain"
CONFIG = json.loads((ADAPTER / "config.json").read_text())


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_names_reach_nothing(target):
    assert len(HOSTILE) >= 58
    for family in (None, *FAMILIES):
        with pytest.raises(UserError, match="cannot be built"):
            part_named(target, family)
    for key in ("bridge", "adapter", "task", "loss", "elsewhere"):
        with pytest.raises(UserError, match=rf"config.json: {key}\.x._target_"):
            check_foreign({key: {"x": {"_target_": target, "command": "true"}}}, "config.json")


@pytest.fixture
def evil(tmp_path):
    """A function that makes an adapter's folder whose settings are changed."""

    def make(**changes):
        folder = shutil.copytree(ADAPTER, tmp_path / "evil")
        for name in ("config.json", "run.json"):
            settings_of = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(settings_of | changes))
        return folder

    return make


READERS = {
    "the API": from_pretrained,
    "the demo's list": lambda folder: demo.models(str(folder)),
    "the demo's calls": own_calls,
    "the command's names": lambda folder: chosen(None, str(folder)),
    "whether it has masks": masked,
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_passes_the_gate(evil, reader):
    folder = evil(bridge={"_target_": "os.mkdir", "path": "PWNED"})
    with pytest.raises(UserError, match=r"config.json: bridge._target_: os.mkdir cannot be built"):
        READERS[reader](folder)


def test_no_value_is_looked_up_elsewhere(evil, monkeypatch):
    monkeypatch.setenv("SECRET", "tok3n")
    folder = evil(backbone=CONFIG["backbone"] | {"pretrained": "x/${oc.env:SECRET}"})
    for reader in READERS.values():
        with pytest.raises(UserError, match=r"config.json: backbone.pretrained=") as refused:
            reader(folder)
        assert "tok3n" not in str(refused.value)


@pytest.mark.parametrize("key", ["${oc.env:SECRET}", "a\nb", "\0", "\x1b[2J", "\u202e"])
def test_a_key_is_a_word(key):
    for config in ({key: 1}, {"loss": {key: {}}}, {"data": {"mix": [{key: None}]}}):
        with pytest.raises(UserError, match="config.json: the key .* is no setting") as refused:
            check_foreign(config, "config.json")
        assert str(refused.value).isprintable()


def test_a_wrong_name_is_refused_at_once():
    """The choices that its sentence lists are not imported for it."""
    heavy = "peft", "diffusers.models.controlnets", "transformers.models.clip"
    code = f"""
import sys
from irbridge.errors import UserError
from irbridge.experiments.names import FAMILIES, part_named
for family in FAMILIES:
    try:
        part_named("os.system", family)
    except UserError as error:
        print(error)
sys.exit(any(name in sys.modules for name in {heavy}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("choose one of irbridge.") == len(FAMILIES)
    assert "irbridge.adapters.lora.LoRA" in done.stdout


NAMES = [
    "../../x",
    "/x",
    "a/b",
    "a b",
    "derain,dehaze",
    "x=y",
    "..",
    "",
    "x\n",
    "${x}",
    5,
    None,
    [],
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_task_is_a_word_as_it_becomes_a_part_of_paths(evil, name):
    folder = evil(task=CONFIG["task"] | {"name": name})
    for file in ("config.json", "run.json"):
        with pytest.raises(UserError, match=rf"{file}: task.name="):
            read_settings(folder / file)


def places(value, path=()):
    """The paths of all values in plain data."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else []
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield from places(item, (*path, key))


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS | st.sampled_from([10**400, float("nan"), float("inf"), "../x", "torch.load", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(sorted(places(CONFIG), key=repr)), VALUES)
def test_any_value_of_a_config_is_refused_in_a_sentence_or_is_a_model(tmp_path, place, value):
    folder, config = tmp_path / "odd", copy.deepcopy(CONFIG)
    if not folder.exists():
        shutil.copytree(ADAPTER, folder)
    part = config
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))
    try:
        assert isinstance(from_pretrained(folder), torch.nn.Module)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    assert os.listdir(tmp_path) == ["odd"]
