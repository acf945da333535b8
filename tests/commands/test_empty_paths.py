"""An empty path, as of a variable that is not set, is refused by every key of every command."""

import json
from functools import cache
from pathlib import Path

import pytest

from irbridge.commands import flags, options
from irbridge.errors import UserError
from irbridge.experiments.config import composed as compose
from irbridge.experiments.run_folder import run_folder
from irbridge.experiments.schema import checked
from irbridge.restoration.jobs import plan

KEYS = {
    "train": "run run_root name reuse start data.root data.test_root data.masks data.train"
    " data.test data.clean data.degraded data.test_clean data.test_degraded data.exclude"
    " evaluate.real backbone.pretrained",
    "benchmark": "output benchmark.restore benchmark.against",
    "evaluate": "run run_root results outputs data.clean data.degraded data.root data.masks"
    " backbone.pretrained backbone.vae backbone.anchor",
    "compare": "run results backbone.pretrained",
    "pretrain": "run run_root name start data.exclude",
    "prior": "images backbone.pretrained",
}
PLAIN = {
    "restore": "input run output mask config_dir backbone.pretrained backbone.vae backbone.anchor",
    "export": "run output results config_dir backbone.pretrained",
    "table": "output plot weights",
    "data": "output manifest",
    "demo": "run",
    "inverse": "images results config_dir backbone.pretrained",
}
CASES = [(command, key) for command, keys in KEYS.items() for key in keys.split()]
PLAIN_CASES = [(command, key) for command, keys in PLAIN.items() for key in keys.split()]
EMPTY = ["", "  "]


@cache
def composed(command):
    words = {"compare": ["run=r"], "train": ["name=x"], "benchmark": ["name=x"]}
    return json.dumps(compose(command, *words.get(command, [])))


@pytest.mark.parametrize("value", EMPTY, ids=repr)
@pytest.mark.parametrize("command, key", CASES)
def test_keys_under_hydra(command, key, value):
    part = config = json.loads(composed(command))
    for name in key.split(".")[:-1]:
        part = part[name]
    part[key.rpartition(".")[2]] = value
    if key == "run" and command in ("train", "pretrain"):
        with pytest.raises(UserError, match="run= is empty"):
            run_folder(config)
        return
    with pytest.raises(UserError, match=rf"{key}={value} must be a"):
        checked(command, config)


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", ".", "/x", "a\\b"])
@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_a_name_is_a_part_of_a_path(command, name):
    config = json.loads(composed(command))
    with pytest.raises(UserError, match="must be a part of a folder's name"):
        checked(command, config | {"name": name})


@pytest.mark.parametrize("value", EMPTY, ids=repr)
@pytest.mark.parametrize(
    "command, key", [(c, k) for c, keys in PLAIN.items() for k in keys.split()]
)
def test_plain_keys(command, key, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = getattr(options, f"{command.title()}Options")
    words = {"restore": ["task=derain"], "export": [], "table": ["x"], "data": ["list"]}
    base = {"restore": {"input": "a.png"}, "export": {"run": "r", "output": "o"}}.get(command, {})
    given = [f"{k}={v}" for k, v in (base | {key: value}).items()]
    if (command, key) == ("restore", "input"):
        with pytest.raises(UserError, match="input="):
            plan([value], "derain")
        return
    with pytest.raises(UserError, match=key):
        flags.parse(command, kind, [*words.get(command, []), *given])
    assert not list(Path(tmp_path).iterdir())
