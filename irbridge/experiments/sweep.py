"""Jobs of a sweep that would write to one place."""

import os
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from irbridge.errors import UserError

PLACES = {"train": "run", "pretrain": "run", "benchmark": "output"}
"""The key of each command under Hydra that names the one place that a job writes to."""


class Claim(NamedTuple):
    """A job of a sweep and the place that it writes to."""

    words: tuple[str, ...]
    place: str


def check_alone(command: str, words: tuple[str, ...], compose) -> None:
    """Refuse the running job of a sweep where a later one of it writes to the same place.

    Of jobs that write to one place the last one alone is done, so that nothing of the sweep is
    overwritten or goes on from what another one has left.

    Args:
        command: the file in configs/ that lists the command's keys.
        words: of the command line, as typed.
        compose: from words to a config, as :func:`irbridge.experiments.config.sweep_job`.

    Raises:
        UserError: A later job writes there; the sentence names the place and that job.
    """
    running = HydraConfig.get()
    if command not in PLACES or running.mode != RunMode.MULTIRUN:
        return
    own = tuple(running.overrides.task)
    swept = tuple(f"{key}={value}" for key, value in (running.sweeper.get("params") or {}).items())
    claims = _claims(command, (*swept, *words), compose)
    place = next((claim.place for claim in claims if claim.words == own), None)
    if place is None:
        return
    after = [claim.words for claim in claims if claim.place == place]
    if after[-1] == own:
        return
    key = PLACES[command]
    differs = " ".join(word for word in after[-1] if word not in own)
    such = "name=mine-${seed}" if key == "run" else "output=speed-${seed}.json"
    raise UserError(
        f"{key}={place} is also that of the job {differs or 'of the same words'}, which alone is"
        f" done; give each a place of its own, such as '{such}' with the key that is swept."
    )


@cache
def _claims(command: str, words: tuple[str, ...], compose) -> tuple[Claim, ...]:
    """What the jobs of a sweep write to; none where the sweep is not a plain list of jobs."""
    claims = []
    try:
        for job in _jobs(words):
            config = compose(command, job)
            if place := OmegaConf.select(config, PLACES[command]):
                claims.append(Claim(job, os.path.realpath(place)))
    except (HydraException, OmegaConfBaseException, AssertionError):
        return ()  # each job says itself what is wrong with it
    return tuple(claims)


def _jobs(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The words of each job, as Hydra's own sweeper takes them apart."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    given = [word for word in words if "=" in word or word.startswith(("+", "~"))]
    given = [word for word in given if not word.startswith("-")]
    for batch in BasicSweeper.split_arguments(
        OverridesParser.create().parse_overrides(given), None
    ):
        yield from map(tuple, batch)
