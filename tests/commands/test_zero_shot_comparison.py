"""The list of runs that compares zero-shot solvers: same problems for all, dear rows last."""

import numpy as np
import pytest
from conftest import configured

from irbridge.commands import domains, flags, zero_shot_comparison
from irbridge.commands.options import InverseOptions
from irbridge.data.problems import PROBLEMS, operator_of
from irbridge.experiments.config import composed
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.run_folder import contradiction
from irbridge.gaussian.noise import name_rng
from irbridge.solvers.base import SOLVERS


@pytest.fixture
def commands(monkeypatch):
    monkeypatch.setattr(domains, "find", lambda path: Here())
    return list(zero_shot_comparison.commands())


class Here:
    def is_dir(self):
        return True


def given(words):
    return dict(word.split("=", 1) for word in words[1:])


def test_every_solver_is_asked_as_published_and_the_dear_ones_last(commands):
    published = []
    for command, *words in commands:
        if command == "inverse" and not any(word.startswith("solver.") for word in words):
            published += flags.parse("inverse", InverseOptions, words).solver
    domains = len(zero_shot_comparison.DOMAINS)
    assert sorted(published) == sorted([*SOLVERS] * domains)
    assert set(published[-2 * domains :]) == set(zero_shot_comparison.DEAR)
    for domain in zero_shot_comparison.DOMAINS:
        for solver, constants in domain.tuned:
            assert solver in SOLVERS and constants


def test_trainings_come_before_their_scores_at_one_budget(commands):
    made = set()
    for command, *words in commands:
        said = given([command, *words])
        if command == "train":
            trainer = composed("train", *words, "name=x")["trainer"]
            assert trainer["steps"] * trainer["batch_size"] == 10_000 and trainer["crop"] == 64
            made.add(said["run"])
        elif "run" in said:
            runs = flags.parse("inverse", InverseOptions, words).run
            assert set(runs) <= made and all(f"/{said['problem']}-" in run for run in runs)
    assert len(made) == len(zero_shot_comparison.DOMAINS) * len(PROBLEMS) * 2


@pytest.mark.parametrize("domain", zero_shot_comparison.DOMAINS, ids=lambda domain: domain.name)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_is_trained_on_is_the_problem_itself(problem, domain):
    words = zero_shot_comparison.training(domain, problem, "regression", "x")
    config = composed("train", *words[1:], "name=x")["task"]
    degrade = instantiate(config["degradation"], of="degradation")
    assert tuple(degrade.noise) == (0, 0.05)
    if problem not in ("pixels", "brush"):
        assert degrade.operator == problem
        return
    trained = [degrade.mask((64, 64), np.random.default_rng(k)).mean() for k in range(60)]
    rngs = [name_rng(0, f"{k}") for k in range(60)]
    asked = [1 - operator_of(problem, (64, 64), rng).known.double().mean() for rng in rngs]
    assert np.mean(trained) == pytest.approx(np.mean(asked), abs=0.02)
    assert np.std(trained) == pytest.approx(np.std(asked), abs=0.02)
    assert configured("train", *words[1:], "name=x").task.masked


def test_faces_that_are_not_there_are_passed_over(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(domains, "find", lambda path: tmp_path / "nothing")
    words = list(zero_shot_comparison.commands())
    said = capsys.readouterr()
    assert said.out == "" and "data/faces/test is not there" in said.err
    assert not [word for step in words for word in step if "faces" in word]


def test_an_inpainting_of_before_the_noise_goes_on():
    now = composed("train", "task=inpaint", "name=x")["task"]["degradation"]
    before = {key: value for key, value in now.items() if key != "noise"}

    def run(degradation):
        return {"task": {"degradation": degradation}}

    assert contradiction(run(before), run(now)) is None
    assert "noise was" in contradiction(run(before), run(now | {"noise": [0.0, 0.05]}))
