"""How many images a second a training makes: a formula of four terms, fitted to timed steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls


class Step(NamedTuple):
    """A training step, by what its time depends on.

    Attributes:
        weights: that are trained, in millions.
        gflops: of an image's forward and backward pass.
        crop: pixels a side.
        batch: images.
    """

    weights: float
    gflops: float
    crop: int
    batch: int

    @property
    def amounts(self) -> tuple[float, float, float, float]:
        """Of the step: 1, millions of weights, GFLOPs, millions of pixels."""
        pixels = self.batch * self.crop**2 / 1e6
        return 1.0, self.weights, self.batch * self.gflops, pixels


class Timing(NamedTuple):
    """A step of a network of that name, and the seconds that it took."""

    network: str
    step: Step
    seconds: float


@dataclass(frozen=True)
class Throughput:
    """Seconds of a training step as a sum of what its parts cost on one machine.

    Attributes:
        step: seconds of any step: the loop, the calls of many small operations.
        million_weights: for clipping, the optimizer and the average, of 10^6 weights.
        gflop: for 10^9 operations of convolutions and matrix products.
        megapixel: for 10^6 pixels of crops, whatever the network: norms, additions, losses.
    """

    step: float
    million_weights: float
    gflop: float
    megapixel: float

    def seconds(self, step: Step) -> float:
        """How long a step takes."""
        rates = self.step, self.million_weights, self.gflop, self.megapixel
        return sum(rate * amount for rate, amount in zip(rates, step.amounts, strict=True))

    def images_per_second(self, step: Step) -> float:
        """How many images a second steps like this one take in."""
        return step.batch / self.seconds(step)

    def error(self, timing: Timing) -> float:
        """How much longer the formula says a step takes than it took, as a share."""
        return self.seconds(timing.step) / timing.seconds - 1

    def in_words(self) -> str:
        """The formula."""
        return (
            f"seconds a step = {self.step:.4g} + {self.million_weights:.4g} x million weights +"
            f" {self.gflop:.4g} x GFLOPs + {self.megapixel:.4g} x million pixels"
        )


def fit(timings: Sequence[Timing]) -> Throughput:
    """The formula whose errors, as shares of the times, have the least sum of squares.

    No term is below 0: with few timings some may be exactly 0, where another one explains as much.
    """
    rows = np.array([timing.step.amounts for timing in timings])
    seconds = np.array([timing.seconds for timing in timings])
    rates, _ = nnls(rows / seconds[:, None], np.ones(len(rows)))
    return Throughput(*map(float, rates))


def errors(timings: Sequence[Timing]) -> list[float]:
    """Of each timing the error of the formula that all were fitted to."""
    found = fit(timings)
    return [found.error(timing) for timing in timings]


def errors_of_strangers(timings: Sequence[Timing]) -> list[float]:
    """Of each timing the error of the formula that was fitted to the other networks alone.

    Nothing where there is only one network.
    """
    networks = dict.fromkeys(timing.network for timing in timings)
    if len(networks) == 1:
        return []
    found = {
        name: fit([timing for timing in timings if timing.network != name]) for name in networks
    }
    return [found[timing.network].error(timing) for timing in timings]


def report(timings: Sequence[Timing]) -> str:
    """The fit of some timings: a Markdown table of them, the formula, and how far it is off."""
    found = fit(timings)
    rows = [
        "| network | crop | batch | GFLOPs an image | s a step | images/s | by the formula | off |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for timing in timings:
        step = timing.step
        cells = (
            timing.network,
            step.crop,
            step.batch,
            f"{step.gflops:.2f}",
            f"{timing.seconds:.3f}",
            f"{step.batch / timing.seconds:.3g}",
            f"{found.images_per_second(step):.3g}",
            f"{found.error(timing):+.0%}",
        )
        rows.append(f"| {' | '.join(map(str, cells))} |")
    off = f"off by {_off(errors(timings))}"
    if strangers := errors_of_strangers(timings):
        off += f"; where a network is left out of the fit, its steps by {_off(strangers)}"
    return "\n".join([*rows, "", found.in_words(), off])


def _off(found: Sequence[float]) -> str:
    sizes = [abs(error) for error in found]
    return f"{mean(sizes):.1%} on average and {max(sizes):.1%} at most"
