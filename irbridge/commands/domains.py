"""What comparisons of ``irbridge reproduce`` share: images of one kind, and a short training."""

import sys
from typing import NamedTuple

from irbridge.assets import find

STEPS, BATCH = 625, 16  # 10,000 images
BUDGET = (
    f"trainer.batch_size={BATCH}",
    "trainer.crop=64",
    "trainer.lr=1.0e-3",
    "trainer.warmup=10",
    "trainer.sample_every=100000",
    "trainer.save_every=100000",
    "baseline=false",
    "evaluate.enabled=false",
    "seed=0",
)
"""The words of every training besides its steps."""


class Domain(NamedTuple):
    """Images of one kind.

    Attributes:
        name: of folders.
        training: words of their trainings.
        scoring: words of the command that scores them.
        needs: a folder without which there is nothing to run; empty: none.
        tuned: constants of solvers that were chosen on validation images of the domain, beside the
            published ones. What is not here is best, or as good, as published.
    """

    name: str
    training: tuple[str, ...] = ()
    scoring: tuple[str, ...] = ()
    needs: str = ""
    tuned: tuple[tuple[str, tuple[str, ...]], ...] = ()


def present(domains: tuple[Domain, ...]) -> list[Domain]:
    """The domains whose images are there; of another it is said that it is passed over."""
    there = [domain for domain in domains if not domain.needs or find(domain.needs).is_dir()]
    for domain in domains:
        if domain not in there:
            print(
                f"{domain.needs} is not there, so {domain.name} are passed over; docs/faces.md"
                " says how it is made.",
                file=sys.stderr,
            )
    return there
