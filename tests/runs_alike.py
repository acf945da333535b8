"""Tiny regression trainings, and whether two runs are the same."""

import json

import torch
from safetensors.torch import load_file

from irbridge.adapters.trunk import Trunk
from irbridge.models.regression import Regression
from irbridge.training.checkpoint import Checkpoints

QUICK = [
    "recipe=regression",
    "evaluate.enabled=false",
    "trainer.batch_size=2",
    "trainer.crop=16",
    "trainer.log_every=1",
    "trainer.precision=no",
    "trainer.sample_every=1000",
]


def regression():
    torch.manual_seed(0)
    return Regression(Trunk([8, 8]))


def state_of(run):
    folder = Checkpoints(run).latest()
    return {
        f"{p.name}/{k}": v for p in folder.glob("*.safetensors") for k, v in load_file(p).items()
    }


def assert_same(run, other):
    a, b = state_of(run), state_of(other)
    assert (
        Checkpoints(run).latest().name == Checkpoints(other).latest().name and a.keys() == b.keys()
    )
    assert [k for k in a if not torch.equal(a[k], b[k])] == []
    read = [
        [json.loads(line) for line in (r / "metrics.jsonl").read_text().splitlines()]
        for r in (run, other)
    ]
    ours, theirs = ([(m["step"], m["loss"], m["grad_norm"]) for m in lines] for lines in read)
    assert ours == theirs
