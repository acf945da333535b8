"""A training as long as one says; precision by trial; a start from other weights; scores of
validation images as it goes."""

import json
import math
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import save_images, trainer_options

from irbridge.adapters.static import StaticAdapter
from irbridge.adapters.trunk import Trunk
from irbridge.bridges.brownian import Brownian
from irbridge.environment import set_threads
from irbridge.errors import UserError
from irbridge.experiments.run_folder import claim
from irbridge.files import read_json, write_json
from irbridge.models.irbridge import IRBridge
from irbridge.models.loss_options import LossOptions
from irbridge.models.precision import trial
from irbridge.models.regression import Regression
from irbridge.models.restorer import Restorer
from irbridge.models.timestep_schedule import critical
from irbridge.training import pace, precision_trial, trainer
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.pace import Pace, planned_steps
from irbridge.training.precision_trial import best_precision
from irbridge.training.trainer import Trainer
from irbridge.weights import load_weights


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "cache"))


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_minutes_become_steps_once(stream, tmp_path):
    options = trainer_options(minutes=0.03, steps=99999, batch_size=2)
    assert planned_steps(tmp_path, 99999, 0.03) == math.inf
    assert Trainer(Regression(Trunk([8, 8])), stream, options, 0, tmp_path).run()
    pace = read_json(tmp_path / "pace.json")
    assert pace["minutes"] == 0.03 and pace["steps"] >= Pace.SKIPPED + Pace.COUNTED
    assert lines(tmp_path)[-1]["step"] == pace["steps"] == planned_steps(tmp_path, 99999, 0.03)
    assert abs(pace["steps"] - max(0.03 * 60 / pace["seconds_per_step"], 15)) <= 1
    rates = [line["lr"] for line in lines(tmp_path)]
    assert rates[-1] < 0.5 * max(rates) or pace["steps"] < 40  # the decay ends where the steps do


def test_other_minutes_go_on_at_the_pace_that_was_measured(stream, tmp_path):
    options = trainer_options(minutes=0.03, steps=99999, batch_size=2)
    assert Trainer(Regression(Trunk([8, 8])), stream, options, 0, tmp_path).run()
    pace = {
        "steps": read_json(tmp_path / "pace.json")["steps"],
        "minutes": 0.03,
        "seconds_per_step": 0.01,
    }
    write_json(tmp_path / "pace.json", pace)
    assert planned_steps(tmp_path, 99999, 0.03) == pace["steps"]
    assert planned_steps(tmp_path, 99999, 50) == 300_000
    assert planned_steps(tmp_path, 99999, 1e-9) == pace["steps"]  # which are done
    more = replace(options, minutes=(pace["steps"] + 5) * 0.01 / 60)
    assert (
        Trainer(Regression(Trunk([8, 8])), stream, more, 0, tmp_path).run()
        and lines(tmp_path)[-1]["step"] == pace["steps"] + 5
    )


def test_a_pace_without_a_checkpoint_is_forgotten(tmp_path):
    claim(tmp_path, {"trainer": {"lr": 0.1}})
    for kept in (False, True):
        if kept:
            (tmp_path / "checkpoints/step-00000007").mkdir(parents=True)
        write_json(tmp_path / "pace.json", {"steps": 7, "minutes": 1, "seconds_per_step": 0.1})
        claim(tmp_path, {"trainer": {"lr": 0.1}})
        assert (tmp_path / "pace.json").exists() == kept


def test_a_stopped_run_keeps_its_pace(stream, tmp_path):
    options = trainer_options(minutes=0.03, steps=99999, batch_size=2, stop=17)
    assert (
        not Trainer(Regression(Trunk([8, 8])), stream, options, 0, tmp_path).run()
        or read_json(tmp_path / "pace.json")["steps"] <= 17
    )
    pace = read_json(tmp_path / "pace.json")
    Trainer(Regression(Trunk([8, 8])), stream, replace(options, stop=None), 0, tmp_path).run()
    assert (
        read_json(tmp_path / "pace.json") == pace and lines(tmp_path)[-1]["step"] == pace["steps"]
    )


def test_the_pace_counts_both_parts_of_a_training_and_its_baseline(tmp_path):
    pace = Pace(tmp_path, 1.0)
    pace.seconds = 0.1
    assert pace.settle(15, 0.0, 1.0, 0) == 600
    assert pace.settle(15, 0.3, 0.5, 0) == round(60 / 0.25)  # half of the steps cost 0.4
    assert pace.settle(15, 0.3, 0.5, 1) == round(60 / 0.35)  # and the baseline as many of 0.1
    assert pace.settle(1000, 0.0, 1.0, 0) == 1000  # never fewer than are done


def test_the_pace_measures_steps_after_the_first(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pace, ends = Pace(tmp_path, 1.0), []
    for k in range(20):
        clock[0] += 5.0 if k < Pace.SKIPPED else 0.5
        ends.append(pace.step())
    assert ends.index(True) == Pace.SKIPPED + Pace.COUNTED - 1 and sum(ends) == 1
    monkeypatch.undo()
    pace, begun = Pace(tmp_path, 1.0), time.monotonic()
    for k in range(Pace.SKIPPED + Pace.COUNTED):
        time.sleep(0.002)
        pace.step()
    # however long the machine takes to wake up
    assert 0.002 <= pace.seconds <= (time.monotonic() - begun) / Pace.COUNTED


def test_a_later_part_that_costs_more_is_noticed(backbone, stream):
    adapter = StaticAdapter(backbone, [8, 8])
    model = IRBridge(
        backbone,
        adapter,
        Brownian(),
        critical(),
        "anchor",
        {"nfe": 3},
        LossOptions(anchor_first=0.5),
    )
    seen = []
    loss = model.loss
    model.loss = lambda batch, step: seen.append(step.progress) or loss(batch, step)
    more = pace.more_seconds(
        trainer.Accelerator(cpu=True), model, *precision_trial.first_batch(model, stream, 2, "cpu")
    )
    assert more > 0 and set(seen) == {0.0, 1.0} and model.first_share == 0.5
    assert all(p.grad is None for p in model.parameters())


class Sleeper(Restorer):
    """A model whose step takes longer in one of the precisions."""

    def __init__(self, slow_in_half, spend):
        super().__init__()
        self.weight, self.slow, self.asked = torch.nn.Parameter(torch.ones(1)), slow_in_half, []
        self.spend = spend

    def trainable(self):
        return self

    def loss(self, batch, step):
        clean, half = batch.clean, torch.is_autocast_enabled("cpu")
        self.asked.append((half, step.progress, clean.dtype))
        self.spend(0.02 if half == self.slow else 0.002)
        return {"x": (self.weight * clean.mean()).expand(len(clean))}


@pytest.mark.parametrize("slow_in_half, wanted", [(True, "no"), (False, "bf16")])
def test_auto_takes_what_was_faster_and_learns_nothing_meanwhile(
    slow_in_half, wanted, stream, monkeypatch, spend
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = Sleeper(slow_in_half, spend)
    assert best_precision(model, trainer_options(precision="auto"), stream) == wanted
    assert (
        model.weight.grad is None and model.weight == 1 and {p for _, p, _ in model.asked} == {1.0}
    )
    assert {half for half, _, _ in model.asked} == {True, False}
    asked = len(model.asked)
    # kept
    assert (
        best_precision(model, trainer_options(precision="auto"), stream) == wanted
        and len(model.asked) == asked
    )


def test_another_way_of_training_is_tried_anew(stream, spend):
    model, options = Sleeper(True, spend), trainer_options(precision="auto")
    counts = []
    for changes in ({}, {"channels_last": False}, {"checkpointing": True}, {"crop": 8}):
        best_precision(model, replace(options, **changes), stream)
        counts.append(len(model.asked))
    for model.loss_options in (
        LossOptions(anchor_first=0.0),
        LossOptions(anchor_first=1.0),
    ):
        best_precision(model, options, stream)
        counts.append(len(model.asked))
    assert counts == [counts[0] * k for k in range(1, 7)]


def test_the_trial_is_of_the_trainings_own_device(stream, monkeypatch, spend):
    """On MPS float32 without a trial; on CUDA, here the meta device in its place, on that
    device."""
    state = SimpleNamespace(device=torch.device("mps"), is_main_process=True)
    model = Sleeper(True, spend)
    monkeypatch.setattr(precision_trial, "PartialState", lambda cpu: state)
    assert (
        best_precision(model, trainer_options(precision="auto"), stream) == "no" and not model.asked
    )
    tried = []
    monkeypatch.setattr(
        precision_trial,
        "_tried_precision",
        lambda model, options, stream, at: tried.append(at) or "bf16",
    )
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    state.device = torch.device("cuda", 0)
    assert best_precision(model, trainer_options(precision="auto"), stream) == "bf16" and tried == [
        state.device
    ]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert (
        best_precision(model, trainer_options(precision="auto"), stream) == "no" and len(tried) == 1
    )


def test_a_resumed_training_keeps_its_precision_and_threads(stream, tmp_path, monkeypatch):
    options = trainer_options(precision="auto", stop=3)
    monkeypatch.setattr(precision_trial, "_tried_precision", lambda *_: "bf16")
    Trainer(Regression(Trunk([8, 8])), stream, options, 0, tmp_path).run()
    assert (
        Checkpoints(tmp_path).state()["precision"] == "bf16"
        and Checkpoints(tmp_path).state()["threads"] == torch.get_num_threads()
    )
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(precision_trial, "_tried_precision", lambda *_: "no")
    Trainer(Regression(Trunk([8, 8])), stream, replace(options, stop=None), 0, tmp_path).run()
    assert [line["precision"] for line in lines(tmp_path)] == ["bf16"] * 6
    AcceleratorState._reset_state(reset_partial_state=True)
    Trainer(
        Regression(Trunk([8, 8])), stream, replace(options, stop=None), 0, tmp_path / "new"
    ).run()
    assert lines(tmp_path / "new")[-1]["precision"] == "no"


def test_threads_of_a_training_that_goes_on(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    set_threads(None, 3)
    set_threads(2, 3)
    monkeypatch.delenv("OMP_NUM_THREADS")
    set_threads(None, 3)
    assert asked == [2, 3]


def test_a_command_goes_on_with_the_threads_of_its_run(tmp_path, small, command, monkeypatch):
    given = []
    monkeypatch.setattr("irbridge.commands.train.set_threads", lambda *words: given.append(words))
    words = [
        *small,
        "recipe=regression",
        "evaluate.enabled=false",
        "trainer.steps=3",
        "trainer.batch_size=2",
        "trainer.crop=16",
        "trainer.precision=no",
        "name=t",
    ]
    for stop in ("trainer.stop=2", "trainer.stop=null"):
        assert command("train", *words, stop)[0] == 0
    assert given == [(None, None), (None, torch.get_num_threads())]


def test_a_precision_that_is_given_is_not_tried(stream, spend):
    model = Sleeper(True, spend)
    assert (
        best_precision(model, trainer_options(precision="bf16"), stream) == "bf16"
        and not model.asked
    )
    with pytest.raises(UserError, match="fp16 needs a CUDA device"):
        best_precision(model, trainer_options(precision="fp16"), stream)


def test_a_trial_counts_the_least_of_alternating_runs(spend):
    seconds = {False: iter([0.03, 0.004, 0.03]), True: iter([0.012, 0.012, 0.02])}
    order = []

    def run(half):
        order.append(half)
        spend(next(seconds[half]))

    assert trial(run) is False and order == [False, True] * 3


def test_a_training_goes_on_from_other_weights(tmp_path, small, command):
    words = [
        *small,
        "recipe=regression",
        "evaluate.enabled=false",
        "trainer.steps=3",
        "trainer.batch_size=2",
        "trainer.crop=16",
        "trainer.precision=no",
    ]
    command("train", *words, "name=first")
    first = tmp_path / "runs/derain-first"
    going_on = "train", *words, "name=second", f"start={first}", "trainer.lr=1e-12"
    status, _, err = command(*going_on, "trainer.stop=2")
    assert status == 0, err
    a, b = (
        load_weights(run / "model.safetensors") for run in (first, tmp_path / "runs/derain-second")
    )
    assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)
    stopped = f"start={tmp_path / 'runs/derain-second'}"
    status, _, err = command("train", *words, "name=fifth", stopped)
    assert status == 2 and f"{stopped} is not trained to its end" in err
    first.rename(tmp_path / "gone")  # it goes on without what it started from
    status, _, err = command(*going_on)
    assert status == 0 and Checkpoints(tmp_path / "runs/derain-second").state()["step"] == 3, err
    (tmp_path / "gone").rename(first)
    status, _, err = command("train", *words, "name=third", "start=nowhere")
    assert status == 2 and "nowhere" in err
    status, _, err = command("train", *words, "name=fourth", f"start={first}", "adapter.width=8")
    assert status == 2 and "does not fit" in err


def test_the_trunk_learns_at_its_own_rate(backbone, stream, tmp_path):
    torch.manual_seed(0)
    adapter = StaticAdapter(backbone, [8, 8])
    before = {k: v.clone() for k, v in adapter.state_dict().items()}
    model = IRBridge(
        backbone,
        adapter,
        Brownian(),
        critical(),
        "anchor",
        {"nfe": 2},
        LossOptions(anchor_first=0.0, trunk_lr=0.0),
    )
    Trainer(model, stream, trainer_options(weight_decay=0.1, ema_decay=0.0), 0, tmp_path).run()
    after = adapter.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("trunk"))
    assert any(not torch.equal(before[k], after[k]) for k in before if k.startswith("zero"))


def test_validation_scores_stand_in_the_metrics(tmp_path, small, command, monkeypatch):
    restored, restore = [], IRBridge.restore
    monkeypatch.setattr(
        IRBridge,
        "restore",
        lambda self, image, *more, **options: (
            restored.append(
                # which calls itself with a tensor
                isinstance(image, np.ndarray)
            )
            or restore(self, image, *more, **options)
        ),
    )
    save_images(tmp_path / "many", 9)
    words = [
        *small,
        f"data.train={tmp_path / 'many'}",
        "data.validation=3",
        "baseline=false",
        "trainer.steps=4",
        "name=v",
        "trainer.batch_size=2",
        "trainer.crop=16",
        "trainer.validate_every=2",
        "evaluate.enabled=false",
        "loss.anchor_first=1.0",
        "sampler.steps=0",
    ]
    status, _, err = command("train", *words)
    assert status == 0, err
    scores = {
        line["step"]: line["validation"]
        for line in lines(tmp_path / "runs/derain-v")
        if "validation" in line
    }
    assert scores.keys() == {2, 4} and all(
        s["psnr"] == s["psnr_anchor"] > 5 for s in scores.values()
    )
    assert sum(restored) == 2 * 3 + 4  # each validation image once, and the samples
    status, out, err = command(
        "evaluate",
        f"run={tmp_path / 'runs/derain-v'}",
        "split=validation",
        "size=32",
        "method=identity",
    )
    assert status == 0 and "validation images" in out and "images 3" in out, err
    status, _, err = command("evaluate", "task=derain", "split=validation")
    assert status == 2 and "give run=FOLDER" in err
