"""The words of a command line reach the config as they were typed."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from irbridge.errors import UserError
from irbridge.experiments.suggestions import suggested
from irbridge.experiments.words import for_hydra, is_sweep

PARSER = OverridesParser.create()
STRANGE = st.text("ab'\"\\${}[](),=~ üé用\n\t:!#&;%@-.*", max_size=10)
NAMES = [
    "фото",
    "é",
    "用户",
    "a=b",
    "a,b",
    "it's",
    'say "hi"',
    "x(1)",
    "y[1]",
    "a&b",
    "a#1",
    "a~b",
    "a;b",
    "a!b",
    "$HOME",
    "a${b",
    "trailing\\",
    "new\nline",
    "-dash",
    "🌧 rain",
    "{a: b}",
    "true",
    "12",
    "1e3",
    "@here",
    " x ",
]


def values(command, *words):
    """What Hydra makes of the words: the values of the last key, one for each job of a sweep."""
    words = for_hydra(command, list(words))
    override = PARSER.parse_override(words[-1])
    found = list(override.sweep_string_iterator()) if override.is_sweep_override() else [None]
    jobs = [PARSER.parse_override(f"k={item}") if item else override for item in found]
    configs = [OmegaConf.create({"key": job.value()}) for job in jobs]
    return [OmegaConf.to_container(config, resolve=True)["key"] for config in configs]


def typed(value):
    """Whether a value is meant as it stands, and is no null, home folder or text in quotes."""
    quotes = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return not (value == "null" or value.startswith("~") or quotes or "${" in value)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text(max_size=12) | STRANGE)
def test_any_text_reaches_a_key_of_text(value):
    for command, key in (("evaluate", "data.clean"), ("train", "run"), ("pretrain", "start")):
        if typed(value):
            assert values(command, f"{key}={value}") == [value]


@pytest.mark.parametrize("name", NAMES)
def test_names_in_keys_lists_and_sweeps(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert values("evaluate", f"outputs={name}") == [name]
    assert values("evaluate", "-m", f"run=x,{name},z") == ["x", name, "z"]
    kept = name.strip()  # spaces around an item of a list are for the eye
    if kept == name:
        assert values("pretrain", f"data.train=[a,{name}]") == [["a", name]]
    mix = OmegaConf.to_yaml([{"clean": name}]) if "\n" in name else None
    if mix is None:
        quoted = "'" + name.replace("'", "''") + "'"
        word = f"data.mix=[{{clean: {quoted}, weight: 1}}]"
        assert values("train", word) == [[{"clean": name, "weight": 1}]]


def test_what_keeps_the_grammar_of_hydra():
    assert values("train", "trainer.betas=[0.9,0.99]") == [[0.9, 0.99]]
    assert values("evaluate", "-m", "task=derain,dehaze") == ["derain", "dehaze"]
    assert values("evaluate", "run=null") == [None]
    assert values("evaluate", "run='a b'") == ["a b"]
    assert for_hydra("evaluate", ["results=results/${task.name}"]) == [
        "results='results/${task.name}'"
    ]
    assert values("evaluate", "-m", "run=choice(a,b)") == ["a", "b"]
    assert is_sweep(["--multirun"]) and not is_sweep(["-c", "job"])
    assert for_hydra("train", ["--cfg", "job", "task=derain"]) == ["--cfg", "job", "task=derain"]


def test_the_home_folder_is_meant_by_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ü")
    assert values("train", "run=~") == ["/home/ü"] and values("evaluate", "run=~/a") == [
        "/home/ü/a"
    ]


@pytest.mark.parametrize(
    "words, said",
    [
        (["photo.png"], "is no key=value"),
        (["task"], "give task=VALUE"),
        (["derain"], "did you mean task=derain?"),
        (["--task", "derain"], "did you mean task=VALUE?"),
        (["--trainer.lr=3"], "did you mean trainer.lr=3?"),
        (["--multirn"], "did you mean --multirun?"),
        (["=5"], "no key"),
        (["~seed"], "give seed=VALUE"),
        (["~trainer.lr"], "give trainer.lr=VALUE"),
        (["task=null"], "one of deblur"),
        (["task="], "one of deblur"),
        (["--cfg"], "lacks its value"),
    ],
)
def test_words_that_say_nothing(words, said):
    with pytest.raises(UserError) as refused:
        for_hydra("train", words)
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["joblib", "submitit_slurm", "submitit_local"])
def test_a_launcher_that_is_not_installed_says_what_installs_it(name):
    said = suggested(f"Could not find 'hydra/launcher/{name}' Available options: basic", None)
    assert said == f'hydra/launcher={name} is not installed; pip install -e ".[sweep]" has it.'
