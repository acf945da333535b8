"""The formula of images a second: from invented timings, and from a command that measures some."""

import itertools
import json

import numpy as np
import pytest

from irbridge.profiling.throughput import (
    Step,
    Throughput,
    Timing,
    errors,
    errors_of_strangers,
    fit,
    report,
)

TRUE = Throughput(step=0.03, million_weights=0.004, gflop=0.02, megapixel=0.9)
NETWORKS = {"small": (0.4, 30.0), "middle": (1.5, 90.0), "large": (3.5, 200.0)}


def grid(off=lambda: 1.0):
    """Steps of three networks and what they would take, each time multiplied by ``off()``."""
    found = []
    for name, crop, batch in itertools.product(NETWORKS, (32, 64, 128), (2, 4, 16)):
        weights, gflops = NETWORKS[name]
        step = Step(weights, gflops * crop**2 / 1e5, crop, batch)
        found.append(Timing(name, step, TRUE.seconds(step) * off()))
    return found


def test_the_fit_finds_what_made_the_timings():
    found = fit(grid())
    for key in ("step", "million_weights", "gflop", "megapixel"):
        assert getattr(found, key) == pytest.approx(getattr(TRUE, key), rel=1e-6)
    step = Step(2.0, 1.0, 48, 6)
    by_hand = 0.03 + 0.004 * 2 + 0.02 * 6 + 0.9 * 6 * 48**2 / 1e6
    assert found.images_per_second(step) == pytest.approx(6 / by_hand)
    assert max(map(abs, errors_of_strangers(grid()))) < 1e-6


def test_the_fit_of_a_busy_machine_is_off_by_as_much_as_its_timings():
    rng = np.random.default_rng(0)
    timings = grid(lambda: rng.uniform(0.9, 1.1))
    found = fit(timings)
    assert found.gflop == pytest.approx(TRUE.gflop, rel=0.15)
    sizes = np.abs(errors(timings))
    assert 0.01 < sizes.mean() < 0.08 and sizes.max() < 0.25
    assert np.mean(np.abs(errors_of_strangers(timings))) >= sizes.mean()


def test_no_rate_is_negative():
    """Though batches that got cheaper would ask for it."""
    timings = [
        Timing("one", Step(1.0, 1.0, 32, batch), seconds) for batch, seconds in ((2, 1.0), (4, 0.9))
    ]
    found = fit(timings)
    rates = found.step, found.million_weights, found.gflop, found.megapixel
    assert min(rates) >= 0 and max(rates) > 0
    assert errors_of_strangers(timings) == []
    assert "left out" not in report(timings)


def test_the_report():
    lines = report(grid()).splitlines()
    assert len(lines) == 2 + 27 + 3
    assert lines[2] == "| small | 32 | 2 | 0.31 | 0.046 | 43.7 | 43.7 | +0% |"
    assert lines[-2] == (
        "seconds a step = 0.03 + 0.004 x million weights + 0.02 x GFLOPs + 0.9 x million pixels"
    )
    assert "off by 0.0% on average and 0.0% at most; where a network is left out" in lines[-1]


def test_the_command_measures_and_fits(command, small, tmp_path):
    words = [*small, "recipe=regression", "trainer.precision=no", "threads=1", "benchmark.steps=2"]
    status, out, err = command(
        "profile_speed",
        *words,
        "benchmark.throughput=true",
        "benchmark.crops=[16,32]",
        "benchmark.batches=[1,2]",
        "benchmark.widths=[4,8]",
        "output=speed.json",
    )
    assert status == 0, err
    assert "seconds of its own processor time; it had" in out and "seconds a step = " in out
    found = json.loads((tmp_path / "speed.json").read_text())
    timings = found["timings"]
    assert [(t["crop"], t["batch"]) for t in timings] == [(16, 1), (16, 2), (32, 1), (32, 2)] * 2
    small_one, large_one = timings[0], timings[4]
    assert small_one["network"] != large_one["network"]
    assert large_one["gflops"] > 2 * small_one["gflops"] > 0
    assert timings[2]["gflops"] == pytest.approx(4 * timings[0]["gflops"], rel=0.1)
    rates = [
        found["fit"][key] * amount
        for key, amount in zip(
            ("step", "million_weights", "gflop", "megapixel"),
            Step(**{key: timings[0][key] for key in Step._fields}).amounts,
            strict=True,
        )
    ]
    assert sum(rates) == pytest.approx(timings[0]["seconds"], rel=0.9)
