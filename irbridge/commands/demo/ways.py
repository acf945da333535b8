"""What the page restores with: adapters, and a frozen model with a known degradation."""

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from irbridge.assets import find, shipped
from irbridge.commands.demo.asked import Asked
from irbridge.commands.options import RestoreOptions
from irbridge.commands.restore import enlargement, masked
from irbridge.commands.zero_shot import ByFrozenModel
from irbridge.environment import device as to_device
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained, precision_of
from irbridge.experiments.saved import read_settings
from irbridge.models.restorer import Restorer
from irbridge.restoration.degradation import Degradation

NUMBER_OF = {"gaussian": "std", "uniform": "width", "motion": "extent", "line": "extent"}
"""Of each kernel's word: the setting that says how far it blurs."""


class Way(NamedTuple):
    """How a photograph is restored.

    Attributes:
        label: what the name of the result ends with.
        fields: of a sampler.
        load: gives the model, ready to restore.
        degradation: that is undone, where it is known.
        enlarge: how many times as large a photograph is made first.
    """

    label: str
    fields: dict
    load: Callable[[], Restorer]
    degradation: Degradation | None = None
    enlarge: int = 1


def models(run: str | None = None) -> dict[str, Path]:
    """What the page offers, name -> folder: the shipped adapters, then ``run``.

    Raises:
        UserError: there is none at all, or the run is none.
    """
    found = shipped()
    if run is not None:
        folder = find(os.path.expanduser(run))
        # a wrong folder must show now, not at the first photograph
        read_settings(folder / "config.json")
        name = folder.resolve().name
        found[name if name not in found else str(folder)] = folder
    if not found:
        raise UserError(
            "data/adapters holds no trained adapter; give run=FOLDER, a run that irbridge train"
            " made."
        )
    return found


def own_calls(folder: Path) -> int:
    """The calls of the frozen prior that a trained model was made for; 0: its anchor alone."""
    config = read_settings(folder / "config.json")
    chosen = [
        (config.get("sampler") or {}).get("nfe"),
        ((config.get("task") or {}).get("sampler") or {}).get("nfe"),
    ]
    return next((calls for calls in chosen if calls is not None), 3)


def loader(folders: dict[str, Path], device, precision: str) -> Callable:
    """A function of (name, calls) that gives the model of that name, loaded once.

    Its precision is the one that ``irbridge restore`` chooses for so many calls.
    """
    load = cache(lambda name: from_pretrained(folders[name], device))
    fitting = cache(
        lambda name, calls: precision_of(load(name), folders[name], precision, nfe=calls)
    )

    def model(name: str, calls: int):
        load(name).precision = fitting(name, calls)
        return load(name)

    return model


class Ways:
    """The ways that the page offers.

    Args:
        folders: of the trained models, see :func:`models`.
        device: that restores.
        precision: of the trained models, as of ``irbridge restore``.
    """

    def __init__(self, folders: dict[str, Path], device: str, precision: str):
        self.folders, self.device = folders, device
        self.model = loader(folders, to_device(device), precision)

    def of(self, asked: Asked) -> Way:
        """The way that the page's fields name.

        Raises:
            UserError: a field is empty, or operator, solver and noise do not go together.
        """
        if not asked.zero_shot:
            calls = asked.whole("steps", "Calls of the frozen prior")
            name = Path(asked.task).name
            larger = enlargement(self.folders[asked.task])
            load = partial(self.model, asked.task, calls)
            return Way(name, {"nfe": calls}, load, enlarge=larger)
        known = ByFrozenModel(zero_shot(asked, self.device))
        return Way(known.label, known.fields, known.load, known.degradation)

    def fills(self, asked: Asked) -> bool:
        """Whether the fields name a way that fills holes."""
        if asked.zero_shot:
            return asked.operator == "inpaint"
        return masked(self.folders[asked.task])


def zero_shot(asked: Asked, device: str) -> RestoreOptions:
    """The options of ``irbridge restore`` that the fields of a known degradation say.

    Raises:
        UserError: a field is empty.
    """
    settings, kernel = {}, None
    if asked.operator == "sr":
        settings = {"factor": asked.whole("factor", "Factor"), "kernel": asked.reduction}
    elif asked.operator == "jpeg":
        settings = {"quality": asked.whole("quality", "Quality")}
    elif asked.operator == "blur":
        kernel = asked.kernel
        width = asked.number("width", "Width of the blur")
        settings = {NUMBER_OF[kernel]: int(width) if kernel == "uniform" else float(width)}
        if kernel == "line":
            settings["angle"] = float(asked.number("angle", "Angle"))
    return RestoreOptions(
        input=("photo",),
        method="zeroshot",
        solver=asked.solver,
        operator=asked.operator,
        operator_settings=settings,
        kernel=kernel,
        noise=float(asked.number("noise", "Noise")),
        steps=asked.whole("calls", "Calls of the frozen prior"),
        device=device,
    )
