"""The list of runs of the claim: equal budgets, every contender, and nothing twice."""

from collections import Counter

from conftest import ROOT

from irbridge.commands import claim
from irbridge.commands.reproduce import planned
from irbridge.experiments.config import composed
from irbridge.experiments.run_folder import contradiction


def given(words):
    return dict(word.split("=", 1) for word in words[1:])


def test_every_contender_has_every_budget_task_and_seed():
    runs = [given(words) for words in claim.contests()]
    folders = [run["run"] for run in runs]
    cells = len(claim.TASKS) * len(claim.STEPS) * len(claim.SEEDS)
    assert len(folders) == len(set(folders)) == cells * len(claim.CONTENDERS)
    counts = Counter((run["task"], run["trainer.steps"], run["seed"]) for run in runs)
    assert set(counts.values()) == {len(claim.CONTENDERS)} and len(counts) == cells
    steps = [int(run["trainer.steps"]) for run in runs]
    assert steps == sorted(steps)  # a result of all before the first long run
    recipes = {word for words in claim.CONTENDERS.values() for word in words if "recipe=" in word}
    assert all((ROOT / f"configs/recipe/{word[7:]}.yaml").is_file() for word in recipes)


def test_budgets_are_what_they_say():
    batch = composed("train", "experiment=faces", "name=x", "run=x")["trainer"]["batch_size"]
    assert [batch * steps for steps in claim.STEPS] == [2_000, 10_000, 50_000]


def test_contenders_differ_in_what_they_say_alone():
    """The same data, crops, seed and scores for all."""
    shared = []
    for contender in claim.CONTENDERS:
        words = claim.training("sr", claim.CONTENDERS[contender], 125, 0, "x")
        config = composed(*words, "name=x")
        shared.append([config[key] for key in ("data", "trainer", "evaluate", "backbone")])
    assert all(one == shared[0] for one in shared)


def test_what_is_taken_over_was_trained_before():
    made = set()
    for command, *words in planned("claim", []):
        said = given([command, *words]) if command != "table" else {}
        for key in ("reuse", "run"):
            if key == "reuse" or command != "train":
                assert said.get(key, None) in made | {None}, words
        if command == "train":
            assert said["run"] not in made
            made.add(said["run"])
    assert len(made) > 120


def test_words_of_the_user_reach_the_trainings_alone():
    steps = list(planned("claim", ["data.folder=DIR"]))
    assert all(("data.folder=DIR" in words) == (words[0] == "train") for words in steps)


def test_an_inpainting_of_before_the_scale_goes_on():
    degradation = composed("train", "task=inpaint", "name=x", "run=x")["task"]["degradation"]

    def run(**changes):
        return {"task": {"degradation": degradation | changes}}

    before = {key: value for key, value in degradation.items() if key != "scale"}
    old = {"task": {"degradation": before}}
    assert contradiction(old, run()) is None
    said = "task.degradation.scale was 1.0 and is now 0.4"
    assert contradiction(old, run(scale=0.4)) == said
