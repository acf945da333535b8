"""Inverse problems from clean images: seeds, counts, who can serve what, and the tables of it."""

import numpy as np
import pytest
import torch
from conftest import save_images

from irbridge.data.image_source import ImageSource
from irbridge.data.problems import PROBLEMS, measured, operator_of
from irbridge.environment import peak_memory, reset_peak
from irbridge.errors import UserError
from irbridge.evaluation import inverse
from irbridge.evaluation.inverse import CLASSICAL, DEGRADED, Measurements, by_solver, compete
from irbridge.evaluation.meter import BACKWARD, FORWARD, MEMORY, Meter
from irbridge.evaluation.metrics import psnr
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import About, read_records
from irbridge.gaussian.noise import name_rng
from irbridge.operators.base import Operator
from irbridge.reports.inverse_table import inverse_tables
from irbridge.reports.table import render

CPU = torch.device("cpu")
ABOUT = About("", data="tests", size=48, seed=0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return ImageSource(save_images(tmp_path_factory.mktemp("clean") / "images", 3, (56, 64)))


def given(source, problem="brush", noise=0.05, seed=0):
    return Measurements(source, problem, noise, seed, 48)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_measurement_is_a_function_of_seed_problem_and_name(source, problem):
    one, two = given(source, problem).measurement(1), given(source, problem).measurement(1)
    assert torch.equal(one.m, two.m) and torch.equal(one.operator(one.m), two.operator(two.m))
    other = given(source, problem, seed=1).measurement(1)
    assert not torch.equal(one.m, other.m)
    # the noise is the same unit noise at every level, and is on top of A x
    quiet, loud = (
        given(source, problem, 0).measurement(1),
        given(source, problem, 0.1).measurement(1),
    )
    assert torch.allclose(loud.m - quiet.m, 2 * (one.m - quiet.m), atol=1e-5)
    known = torch.ones(48, 48, dtype=bool) if one.mask is None else one.operator.known
    error = (one.m - quiet.m)[..., known] if one.m.shape[-1] == 48 else one.m - quiet.m
    assert abs(float(error.std()) - 0.1) < 0.01  # twice 0.05, as images are in [-1, 1]
    # it is neither clipped nor rounded
    assert float(loud.m.abs().max()) > 1
    assert one.image.shape == (48, 48, 3) and 0 <= one.image.min() and one.image.max() <= 1


def test_problems_lose_what_they_say(source):
    holes = {name: given(source, name).measurement(0).mask for name in ("pixels", "brush")}
    assert holes["pixels"].mean() == 0.5 and 0.3 <= holes["brush"].mean() < 0.5
    assert given(source, "sr").measurement(0).m.shape == (1, 3, 12, 12)
    kernel = operator_of("gaussian", (64, 64), name_rng(0, "a")).kernel
    assert kernel.shape == (9, 9) and float(kernel.sum()) == pytest.approx(1)
    tracks = [operator_of("motion", (64, 64), name_rng(0, f"{k}")).kernel for k in range(20)]
    rows, columns = (np.array([(k.sum(axis) > 1e-3).sum() for k in tracks]) for axis in (0, 1))
    widest = np.maximum(rows, columns)
    assert widest.min() >= 5 and widest.max() <= 21  # the track, and the brush that drew it


def test_what_cannot_be_measured_is_one_sentence(source):
    with pytest.raises(UserError, match="problem=gausian is unknown; did you mean gaussian"):
        given(source, "gausian").measurement(0)
    with pytest.raises(UserError, match="divides sides by factor=4, and the image is 30 x 48"):
        operator_of("sr", (48, 30), name_rng(0, "a"))


class Half(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return (self.weight * x,)


def test_a_meter_counts_images_forward_and_backward():
    network, x = Half(), torch.ones(5, 3, requires_grad=True)
    meter = Meter(network)

    def restore():
        with torch.no_grad():
            network(x)
        network(x[:2])  # of which no gradient is asked
        torch.autograd.grad(network(x)[0].sum(), x)
        return np.zeros((1, 1, 3))

    meter.measured(restore)
    assert meter.scores[FORWARD.key] == 12 and meter.scores[BACKWARD.key] == 5
    assert meter.seconds > 0 and not network._forward_hooks
    network(x)
    assert meter.scores[FORWARD.key] == 12


def test_a_meter_tells_the_memory_that_one_restoration_takes():
    reset_peak(CPU)
    before = peak_memory(CPU)
    held = np.ones(2**24)
    reset_peak(CPU)
    if peak_memory(CPU) > before + 2**30 or not peak_memory(CPU):
        pytest.skip("no peaks here")
    meter = Meter()
    meter.measured(lambda: np.ones(2**23))
    assert 60 < meter.scores[MEMORY.key] < 120 and held.any()  # 64 MB, whatever is held besides
    meter.measured(lambda: np.ones(8))
    assert meter.scores[MEMORY.key] < 20


@pytest.mark.parametrize(
    "name, forward, backward",
    [("ddrm", 3, 0), ("dps", 3, 3), ("pigdm", 3, 3), ("reddiff", 3, 0), ("diffpir", 3, 0)],
)
def test_calls_of_solvers_are_counted_as_they_happen(
    source, backbone, tmp_path, name, forward, backward
):
    row = by_solver(backbone, name, {"steps": 3}, CPU)
    found = list(compete(row, given(source), Protocol(), tmp_path, ABOUT, metrics=(), limit=1))
    assert found[0].scores[FORWARD.key] == forward
    assert found[0].scores[BACKWARD.key] == backward


def test_a_batch_of_levels_counts_each(source, backbone, tmp_path):
    pytest.importorskip("irbridge.solvers.deqir")
    row = by_solver(backbone, "deqir", {"steps": 4, "scheme": "picard", "iterations": 2}, CPU)
    with pytest.raises(UserError, match="deqir holds the measurement as exact"):
        row.check(given(source).measurement(0))
    quiet = given(source, noise=0)
    found = list(compete(row, quiet, Protocol(), tmp_path, ABOUT, metrics=(), limit=1))
    assert found[0].scores[FORWARD.key] >= 8


def test_a_restoration_is_its_seed_and_another_has_other_noise(source, backbone):
    row = by_solver(backbone, "ddrm", {"steps": 3}, CPU)
    first, second = given(source).measurement(0), given(source).measurement(1)
    assert np.array_equal(row.restore(first, 0), row.restore(first, 0))
    assert not np.array_equal(row.restore(first, 0), row.restore(first, 1))
    assert first.seed(0) != second.seed(0) != given(source, "sr").measurement(1).seed(0)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_classical_methods_beat_the_degraded_image(source, problem):
    problem = given(source, problem, 0.01)
    gains = []
    for i in range(3):
        measurement, clean = problem.measurement(i), problem.clean(i)
        scores = [
            psnr(row.restore(measurement, 0), clean, Protocol()) for row in (CLASSICAL, DEGRADED)
        ]
        gains.append(scores[0] - scores[1])
    assert np.mean(gains) > (-0.6 if problem.problem == "sr" else 0.5)  # bicubic both


def test_what_is_scored_is_not_restored_again(source, backbone, tmp_path, monkeypatch):
    row = by_solver(backbone, "ddrm", {"steps": 2}, CPU)
    problem = given(source)

    def scored(row, limit=None):
        return list(compete(row, problem, Protocol(), tmp_path, ABOUT, metrics=(), limit=limit))

    first = scored(row, 2)
    asked = []
    monkeypatch.setattr(inverse.ZeroShot, "forward", lambda *given: asked.append(1) or 1 / 0)
    assert scored(row, 2) == first and not asked
    with pytest.raises(ZeroDivisionError):  # the third image is new
        scored(row)
    with pytest.raises(ZeroDivisionError):  # so is a solver of other constants
        scored(by_solver(backbone, "ddrm", {"steps": 2, "eta": 0.5}, CPU), 1)
    assert len(asked) == 2 and scored(row, 2) == first


def test_the_tables_have_a_row_for_each_and_say_what_it_takes(source, backbone, tmp_path):
    rows = [by_solver(backbone, "dps", {"steps": 2}, CPU), CLASSICAL, DEGRADED]
    for problem in ("sr", "pixels"):
        for noise in (0, 0.05):
            for row in rows[problem == "sr" :]:
                list(
                    compete(
                        row, given(source, problem, noise), Protocol(), tmp_path, ABOUT, limit=2
                    )
                )
    text = render(inverse_tables(read_records(tmp_path)), "markdown")
    quiet, noisy, costs = text.split("\n\n")[1::2]
    assert "noise 0.05: PSNR" in text and quiet.splitlines()[0] == "|  | pixels | sr |"
    names = [line.split(" | ")[0].strip("| ") for line in quiet.splitlines()[2:]]
    assert names == ["Degraded input", CLASSICAL.label, "dps steps=2"]
    assert noisy.splitlines()[-1].endswith("| — |")  # dps was not asked about sr
    assert costs.splitlines()[-1].startswith("| dps steps=2 | 2 | 2 | ")
    assert text.count("**") >= 24 and "images 2" in text
    few = render(inverse_tables(read_records(tmp_path), ["0"]), "markdown")
    assert "images 1;" in few
    with pytest.raises(UserError, match="folder of results of irbridge inverse"):
        inverse_tables([])


def test_noise_of_a_measurement_is_drawn_where_there_is_none_too():
    class Same(Operator):
        name = "same"

        def __call__(self, x):
            return x

        def inverse(self, m):
            return m.clone()

    image, rngs = np.full((8, 8, 3), 0.5, np.float32), [np.random.default_rng(0) for _ in range(2)]
    same = Same((3, 8, 8))
    measured(same, image, 0, rngs[0]), measured(same, image, 0.1, rngs[1])
    assert rngs[0].random() == rngs[1].random()
