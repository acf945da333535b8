"""One word for every table of the documentation: what it runs, in which order, and that it does."""

import re
import shlex

import pytest
from conftest import ROOT, configured
from omegaconf import OmegaConf

from irbridge import cli
from irbridge.commands import options
from irbridge.commands.flags import parse
from irbridge.commands.reproduce import RECIPES, planned
from irbridge.errors import UserError
from irbridge.experiments.config import composed


def one_job(words):
    """The words of a sweep's first job."""
    if "-m" not in words:
        return words
    found = []
    for word in words:
        key, _, value = word.partition("=")
        if word != "-m":
            found.append(f"{key}={value.split(',')[0]}" if key in ("task", "method") else word)
    return found


def kind(words):
    """A command without whole numbers and folders; of those that differ in them, one stands for
    all."""
    return tuple(re.sub(r"^(run|reuse|results)=.*|(?<==)\d+$", r"\1", word) for word in words)


@pytest.mark.parametrize("name", RECIPES)
def test_every_command_that_it_prints_is_one(name, capsys):
    cli.run("reproduce", [name, "--dry-run"])
    commands = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines()]
    assert commands and commands == list(planned(name, []))
    for command, *words in {kind(words): words for words in commands}.values():
        entry = cli.COMMANDS[command]
        if entry.config:
            composed = configured(entry.config, *cli.evaluate_words(one_job(words)))
            for word in one_job(words):
                key = word.partition("=")[0]
                if not (ROOT / "configs" / key).is_dir() and not key.startswith("hydra"):
                    assert OmegaConf.select(composed, key, default="absent") != "absent", word
        else:
            parse(command, getattr(options, entry.options), words)


def test_the_list_has_names_costs_and_pages(capsys):
    cli.run("reproduce", ["list"])
    out = capsys.readouterr().out
    for name, recipe in RECIPES.items():
        assert name in out and recipe.cost in out and (ROOT / recipe.page).is_file()


def test_adapters_come_before_the_rows_that_take_them_over():
    for table in ("table1", "table3", "table4", "fig11"):
        made = {None}
        *rows, last = planned(f"paper/{table}", [])
        for command, *words in rows:
            assert command == "train"
            schedule = ["timesteps.name=S1"] * (table == "fig11" and "paper/fig11" in words[0])
            row = composed("train", *words, *schedule)
            assert row["reuse"] in made, words
            made.add(f"{row['run_root']}/{row['name']}")
        assert last == ["table", f"paper={table}"] and len(made) > 2


def test_words_reach_the_steps_that_they_name():
    words = ["derain.data.root=A", "dehaze.data.root=B", "table4_rtts.evaluate.real=C", "seed=1"]
    steps = [" ".join(step) for step in planned("paper/table4", words)]
    adapter, row = "train experiment=paper/table1 task=", "train experiment=paper/table4 task="
    assert f"{adapter}derain bridge=goub data.root=A seed=1" in steps
    assert f"{row}dehaze data.root=B evaluate.real=C seed=1" in steps
    assert f"{adapter}desnow bridge=goub seed=1" in steps and "table paper=table4" in steps


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "irbridge reproduce list"),
        (["paper/table2"], "did you mean paper/table"),
        (["rdbm", "tasks"], "'tasks' is no key=value"),
    ],
)
def test_mistakes(words, said):
    with pytest.raises(UserError, match=said):
        cli.run("reproduce", words)


@pytest.mark.slow
def test_two_tiny_runs_and_their_table(small, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = ["rdbm", *small, "debug=default", 'hydra.sweeper.params.recipe="rdbm,rdbm_zero"']
    cli.run("reproduce", words)
    first = capfd.readouterr().out
    assert "[1/2] irbridge train experiment=rdbm" in first and "[2/2] irbridge table" in first
    table = first[first.index("[2/2]") :]
    assert "[rdbm-0]" in table and "[rdbm_zero-0]" in table and "PSNR" in table
    assert "universal by task" in table and "mean of tasks: PSNR" in table

    cli.run("reproduce", words)  # all is finished: the same table
    again = capfd.readouterr().out
    assert again[again.index("[2/2]") :] == table


def test_a_step_that_fails_ends_it(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(RuntimeError, match="ended with status 2; the same reproduce command goes"):
        cli.run("reproduce", ["rdbm", "bridge=none"])
    out, err = capfd.readouterr()
    assert "[2/2]" not in out and "none" in err
