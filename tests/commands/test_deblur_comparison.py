"""The list of runs that compares deblurring: equal images, and nothing before what it needs."""

import pytest

from irbridge.commands import deblur_comparison, domains
from irbridge.commands.deblur_comparison import ASKED, CALLS, DOMAINS, SAMPLES, contenders, run_of
from irbridge.experiments.config import composed


@pytest.fixture
def commands(monkeypatch):
    monkeypatch.setattr(domains, "find", lambda path: Here())
    return list(deblur_comparison.commands())


class Here:
    def is_dir(self):
        return True


def given(words):
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_runs_are_made_before_they_are_named(commands):
    made = set()
    for command, *words in commands:
        said = given(words)
        if command == "train":
            assert {said[k] for k in ("refine.predictor", "stage1") if k in said} <= made
            made.add(said["run"])
        elif command == "evaluate":
            assert said["run"] in made and said["results"] == f"{said['run']}/results"
        else:
            assert any(run.startswith(f"{words[0]}/") for run in made)
    assert made == {run_of(domain, name) for domain in DOMAINS for name in contenders(domain)}


def test_all_see_equally_many_images_and_every_line_composes(commands):
    seen = {}
    for command, *words in commands:
        if command == "train":
            config = composed("train", *words, "name=x")
            trainer = config["trainer"]
            images = trainer["steps"] * trainer["batch_size"]
            assert trainer["crop"] == 64 and config["task"]["name"] == "deblur"
            assert not config["evaluate"]["enabled"] and not config["baseline"]
            name = given(words)["run"].rpartition("/")[2].split("-")[1]
            seen.setdefault(images, set()).add(name)
        elif command == "evaluate":
            composed("evaluate", *words)
    assert seen.keys() == {10_000, 20_000}
    assert seen[20_000] == {"regression_twice", "refine_joint_twice"}


def test_refinements_are_asked_at_every_number_of_steps_and_samples(commands):
    asked = set()
    for command, *words in commands:
        said = given(words)
        if command == "evaluate" and "sampler.nfe" in said:
            asked.add((said["run"], int(said["sampler.nfe"]), int(said.get("samples", 1))))
    assert asked == {
        (run_of(domain, name), calls, samples)
        for domain in DOMAINS
        for name in ASKED
        for calls in CALLS
        for samples in (1, SAMPLES)
    }


def test_faces_that_are_not_there_are_passed_over(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(domains, "find", lambda path: tmp_path / "nothing")
    words = list(deblur_comparison.commands())
    said = capsys.readouterr()
    assert said.out == "" and "data/faces/test is not there" in said.err
    assert not [word for step in words for word in step if "faces" in word]
