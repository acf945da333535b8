"""Every command explains itself, at once and without doing its work."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT, configured
from omegaconf import OmegaConf

from irbridge import cli
from irbridge.commands.help_pages import PAGES

HYDRA = [name for name, command in cli.COMMANDS.items() if command.config]
PLAIN = [name for name, command in cli.COMMANDS.items() if not command.config]


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_page_with_sentences_and_an_example(name, flag, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["irbridge", name, "task=derain", flag])
    cli.main()
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: irbridge {name} ") and f"  irbridge {name}" in out
    assert max(map(len, out.splitlines())) <= 130


@pytest.mark.parametrize("name", HYDRA)
def test_the_keys_of_a_page_are_keys(name):
    paired = ["name=x", "task=paired", "data.clean=a", "data.degraded=b"]
    required = {"compare": ["run=x"], "train": paired}.get(name, [])
    cfg = configured(cli.COMMANDS[name].config, *required)
    known = [cfg]
    if name == "train":  # some keys are of one recipe alone
        known.append(configured(cli.COMMANDS[name].config, *required, "recipe=refine"))
    for key, sentence in PAGES[name].keys.items():
        group = (ROOT / "configs" / key).is_dir()
        given = [OmegaConf.select(cfg, key, default="absent") != "absent" for cfg in known]
        assert group or any(given), key
        assert sentence[0].isalnum() and sentence.endswith((".", "..."))


@pytest.mark.parametrize("name", PLAIN)
def test_every_flag_has_a_sentence(name):
    from irbridge.commands import options
    from irbridge.commands.flags import known_flags

    for flag in known_flags(getattr(options, cli.COMMANDS[name].options)).values():
        said = flag.entry.metadata["explained"]
        assert flag.entry.metadata.get("alone") or re.search(r"\.(  \[default: \w+\])?$", said), (
            flag
        )


def test_help_waits_neither_for_torch_nor_for_hydra():
    for name in ("restore", "train"):
        code = (
            f"import sys, irbridge.cli as c; sys.argv = ['irbridge', '{name}', '--help']; c.main();"
            " sys.exit(bool({'torch', 'hydra', 'numpy'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True
        )
        assert done.returncode == 0


def test_python_m_irbridge(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "irbridge", "restor"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "did you mean restore?" in done.stderr


@pytest.mark.parametrize(
    "script, word, meant",
    [
        ("train", "task=derian", "task=derain"),
        ("train", "bridge=gobu", "bridge=goub"),
        ("train", "trainer.lrr=3", "trainer.lr"),
        ("train", "trianer.lr=3", "trainer.lr"),
        ("train", "experiment=paper/tabel1", "experiment=paper/table1"),
        ("train", "brige=goub", "bridge"),
        ("evaluate", "sed=1", "seed"),
    ],
)
def test_a_near_miss_is_told_what_was_meant(command, script, word, meant):
    status, _, err = command(script, word)
    assert status == 2 and f"Did you mean {meant}" in err and err.count("\n") == 1
