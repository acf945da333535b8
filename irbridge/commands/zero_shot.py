"""``irbridge restore method=zeroshot``: which solver undoes what, and whether the two fit.

All of it is known before any weights are read.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import torch

from irbridge.assets import find
from irbridge.backbones.pixel import EMBEDDED
from irbridge.commands.options import RestoreOptions
from irbridge.environment import device
from irbridge.errors import UserError
from irbridge.experiments.build import frozen_prior
from irbridge.models import precision
from irbridge.models.zero_shot import Kind, ZeroShot
from irbridge.restoration.degradation import WORDS, Degradation
from irbridge.restoration.jobs import Job
from irbridge.solvers.base import SOLVERS, Solver
from irbridge.solvers.base import solver as named_solver


class ByFrozenModel:
    """Restoration by a frozen model and a known degradation, without an adapter.

    Attributes:
        label: what the names of the results end with.
        run: what a report calls the model: its folder, or its name of the hub.
        fields: of a sampler, of which it has none.
        degradation: that is undone.
        enlarge: 1, as the operator itself enlarges.

    Args:
        options: of the command.

    Raises:
        UserError: a word is missing, unknown or for an adapter, or solver and operator do not fit.
    """

    enlarge = 1

    def __init__(self, options: RestoreOptions):
        _check_words(options)
        self.options, self.fields, self.noise = options, {}, float(options.noise or 0)
        self.degradation = _degradation(options)
        self.solver = _solver(options).settled(self.degradation.name)
        self.solver.check(self.degradation.tried(), 2 * self.noise)  # states are in [-1, 1]
        if self.degradation.name == "denoise" and not self.noise:
            raise UserError(
                "operator=denoise without noise leaves a photograph as it is; give such as"
                " noise=0.1."
            )
        self.label = f"{self.degradation.name}-{self.solver.name}"
        given = options.backbone.pretrained
        place = find(os.path.expanduser(given)) if given else EMBEDDED
        self.run = os.path.realpath(place) if Path(place).is_dir() else str(given)

    def check(self, jobs: list[Job], label: str) -> None:
        """UserError where no photograph at all can have been degraded so.

        What only some of them cannot is told where their turn comes.
        """
        refused = []
        for job in jobs:
            try:
                self.degradation.check(job)
            except UserError as error:
                refused.append(error)
        if len(refused) == len(jobs):
            raise refused[0]

    def load(self) -> ZeroShot:
        """The frozen model with its solver, ready to restore."""
        backbone = frozen_prior(self.options.backbone.given())
        about = self.degradation.factor, self.degradation.record()
        kind = Kind(self.degradation.name, self.degradation, *about)
        model = ZeroShot(backbone, kind, self.solver, self.noise)
        model.check(self.degradation.tried())  # of latents not every solver serves
        place = device(self.options.device)
        model = model.to(place, memory_format=torch.channels_last).eval()
        # a trial would take many calls; and gradients, of some solvers, are float32
        asked = "float32" if self.options.precision == "auto" else self.options.precision
        model.precision = precision.chosen(asked, model, {})
        return model

    def about(self, model: ZeroShot) -> dict:
        """What a report says of model and degradation, by which a photograph is finished."""
        return {
            "method": "zeroshot",
            "solver": {"name": self.solver.name, **asdict(self.solver)},
            "operator": self.degradation.record(),
            "noise": self.noise,
            "weights": model.digest,
        }


def _check_words(options: RestoreOptions) -> None:
    """UserError where a word is missing, or is one of an adapter."""
    for key in ("task", "run"):
        if given := getattr(options, key):
            raise UserError(f"method=zeroshot needs no adapter; leave out {key}={given}.")
    if any(value not in (None, {}) for value in asdict(options.sampler).values()):
        raise UserError(
            "method=zeroshot has a solver in place of a sampler; leave out sampler, and give such"
            " as solver.steps=50."
        )
    if options.backbone.anchor:
        raise UserError(
            f"backbone.anchor={options.backbone.anchor} is of an adapter; method=zeroshot has none,"
            " leave it out."
        )
    for key, words in (("solver", SOLVERS), ("operator", WORDS)):
        if not getattr(options, key):
            raise UserError(f"method=zeroshot needs {key}=NAME; give one of {', '.join(words)}.")
    if options.enlarge is not None:
        raise UserError(
            f"enlarge is for adapters; give operator=sr operator.factor={options.enlarge} instead."
        )
    if options.mask and options.operator != "inpaint":
        raise UserError(
            f"mask={options.mask} tells nothing here: it is for operator=inpaint; leave it out."
        )
    if options.steps is not None and "steps" in options.solver_settings:
        raise UserError("steps and solver.steps both say how many calls; give one of them.")


def _solver(options: RestoreOptions) -> Solver:
    """The solver that the options name, with its constants."""
    given = dict(options.solver_settings)
    if options.steps is not None:
        given["steps"] = options.steps
    return named_solver(options.solver, **given)


def _degradation(options: RestoreOptions) -> Degradation:
    """The degradation that the options name."""
    # null is what it is left out
    settings = {k: v for k, v in options.operator_settings.items() if v is not None}
    if options.kernel is not None:
        if "kernel" in settings:
            raise UserError("kernel and operator.kernel are the same; give one of them.")
        settings["kernel"] = options.kernel
    return Degradation(options.operator, settings)
