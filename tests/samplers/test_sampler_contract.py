"""What every sampler of the registry promises: the project's own and a user's."""

import sys
from itertools import product

import pytest
import torch
from closed_form import BRIDGES, PRIORS, Draws, Y, column, run

from irbridge.errors import UserError
from irbridge.experiments.build import sampler_fields
from irbridge.experiments.names import import_named
from irbridge.samplers import DBIM, Eta, Reverse, Sampler, make
from irbridge.samplers.base import REGISTRY

PROCESSES = {**BRIDGES, **{f"prior {name}": path for name, path in PRIORS.items()}}
PAIRS = list(product(REGISTRY, PROCESSES))
BUDGETS = (1, 2, 3, 4, 7)


def estimate(t, x):
    return torch.tanh(0.7 * x + 0.1)


def served(name, process, **options):
    """The sampler, or None where the process cannot serve it, which one sentence must say."""
    sampler = make(name, **options)
    try:
        return sampler.check(process, direct=True)
    except UserError as error:
        said = str(error)
        assert said.endswith(".") and ". " not in said and "\n" not in said
        assert said.startswith("sampler.") and type(process).__name__ in said
        assert sampler.solves_ode, said
        return None


@pytest.mark.parametrize("name,process", PAIRS)
def test_it_makes_exactly_its_calls_or_says_why_not(name, process):
    process = PROCESSES[process]
    for nfe, boot in product(BUDGETS, (0.0, 0.01)):
        if sampler := served(name, process, nfe=nfe, boot=boot):
            seen, x = run(process, sampler, estimate)
            assert len(seen) == nfe == sampler.nfe and x.isfinite().all()
            assert [t for t, _ in seen] == sorted((t for t, _ in seen), reverse=True)


@pytest.mark.parametrize("name,process", PAIRS)
def test_the_noise_alone_decides(name, process):
    process = PROCESSES[process]
    if sampler := served(name, process, nfe=5, boot=0.01):
        (seen, first), (_, second) = (run(process, sampler, estimate) for _ in range(2))
        assert torch.equal(first, second)
        noise = Draws()
        quiet = make(sampler, noise=False)
        run(process, quiet, estimate, noise=noise)
        assert noise.count == 1 and len(seen) == 5


@pytest.mark.parametrize("name", REGISTRY)
def test_its_times_and_calls_agree(name):
    for nfe, spacing, boot in product((1, 2, 3, 8), ("time", "logsnr", "karras"), (0.0, 0.05)):
        times, calls = make(name, nfe=nfe, spacing=spacing, boot=boot).plan(BRIDGES["ou"])
        assert len(times) == len(calls) + 1 and sum(calls) == nfe and min(calls) >= 1
        assert times[-1] == 0 and (times[:-1] > times[1:]).all()
    given = make(name, times=(100, 60, 20, 0))
    seen, _ = run(BRIDGES["ou"], given, estimate)
    assert len(seen) == given.nfe


@pytest.mark.parametrize("name", REGISTRY)
def test_its_name_makes_it_again(name):
    sampler = make(name, nfe=7, spacing="karras", rho=5.0, boot=0.1, noise=False)
    assert sampler.rule == name and name in sampler.describe()
    assert make(**sampler.record()) == sampler
    for other in REGISTRY:
        there = sampler.changed(rule=other)
        assert (there.rule, there.nfe, there.boot) == (other, 7, 0.1)
        assert there.changed(rule=name) == sampler


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize(
    "option,value", [("nfe", -1), ("nfe", 2.5), ("eta", 1.5), ("churn", 1), ("boot", 1), ("rho", 0)]
)
def test_values_out_of_range_are_refused_by_all(name, option, value):
    """Also those of options that the sampler does not have."""
    with pytest.raises(UserError, match=f"sampler.{option}={value} must be "):
        make(name, **{option: value})


def test_classes_and_instances_serve_as_names():
    assert make() == Reverse() == make("reverse") == make(Reverse) == make(None)
    assert make(Eta, eta=0.3, nfe=2) == Eta(nfe=2, eta=0.3) == make("eta", eta=0.3, nfe=2)
    assert make(DBIM(order=3), nfe=9) == make("dbim3", nfe=9)
    assert make("posterior", nfe=4).changed(rule=DBIM).rule == "dbim2"


MINE = '''
from dataclasses import dataclass
from typing import ClassVar

from irbridge.samplers.base import must_be, option
from irbridge.samplers.single_step import SingleStep


@dataclass(frozen=True)
class Share(SingleStep):
    """A fixed share of the noise is kept."""

    share: float = option(0.5, must_be("from 0 to 1", lambda v: 0 <= v <= 1))
    name: ClassVar = "share"

    def laws(self, bridge, t, s):
        now, then = bridge.marginal(t), bridge.marginal(s)
        return now, then, self.share * then.noise * (now.noise > 0)


class Nameless(Share):
    pass
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's own module of samplers, not imported yet."""
    (tmp_path / "my_samplers.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_samplers"
    sys.modules.pop("my_samplers", None)
    REGISTRY.pop("share", None)


def test_a_new_sampler_is_one_class_and_one_yaml(mine):
    """The YAML names the class; from then on it goes by its name, as the project's own do."""
    yaml = {"_target_": f"{mine}.Share", "share": 0.7, "rule": None, "nfe": 4, "eta": None}
    import_named(yaml)  # as the door does with what the user wrote
    fields = sampler_fields(yaml)
    assert fields == {"rule": "share", "share": 0.7, "nfe": 4}
    sampler = make(**fields)
    assert sampler.share == 0.7 and make("reverse", nfe=4).changed(**fields) == sampler
    assert make(**sampler.record()) == sampler
    for bridge in BRIDGES.values():
        seen, x = run(bridge, sampler, estimate, y=column(Y))
        assert len(seen) == 4 and x.isfinite().all()
    with pytest.raises(UserError, match="sampler.share=2 must be from 0 to 1"):
        make("reverse", share=2)


def test_a_new_file_of_the_chapter_is_known_by_name(tmp_path, monkeypatch):
    """A sampler's YAML may say ``rule: share`` where the class was put beside the project's own."""
    (tmp_path / "put_beside.py").write_text(MINE)
    monkeypatch.setattr("irbridge.samplers.__path__", [str(tmp_path)])
    try:
        assert make("share", share=0.3).share == 0.3
    finally:
        sys.modules.pop("irbridge.samplers.put_beside", None)
        REGISTRY.pop("share", None)


def test_a_class_without_a_name_cannot_be_named_by_a_config(mine):
    yaml = {"_target_": f"{mine}.Nameless"}
    import_named(yaml)
    with pytest.raises(UserError, match="Nameless has no name of its own"):
        sampler_fields(yaml)


def test_a_name_belongs_to_one_class():
    with pytest.raises(UserError, match="'eta' is taken by irbridge.samplers.single_step.Eta"):

        class Other(Sampler):
            name = "eta"

    assert REGISTRY["eta"].kind is Eta
