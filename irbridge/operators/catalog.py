"""The operators by their words."""

from inspect import signature
from pathlib import Path

from irbridge.errors import UserError, unknown
from irbridge.images.holes import MASK, read_mask
from irbridge.operators.base import Operator
from irbridge.operators.blur import Blur
from irbridge.operators.colourise import Colourise
from irbridge.operators.compressed_sensing import CompressedSensing
from irbridge.operators.denoise import Denoise
from irbridge.operators.hdr import HDR
from irbridge.operators.inpaint import Inpaint
from irbridge.operators.jpeg import JPEG
from irbridge.operators.kernels import KERNELS
from irbridge.operators.super_resolution import SuperResolution
from irbridge.operators.tomography import Tomography

OPERATORS: dict[str, type[Operator]] = {
    kind.name: kind
    for kind in (
        Inpaint,
        SuperResolution,
        Blur,
        Colourise,
        Denoise,
        CompressedSensing,
        Tomography,
        JPEG,
        HDR,
    )
}
"""Those that a command can name."""


def operator(name: str, size: tuple[int, int, int], /, **settings) -> Operator:
    """An operator from plain words.

    Args:
        name: one of :data:`OPERATORS`.
        size: (C, H, W) of the images.
        settings: of its class. ``holes`` may be the path of a mask, and ``kernel`` of a blur a word
            of :data:`~irbridge.operators.kernels.KERNELS` with its numbers, or the path of a file.

    Raises:
        UserError: there is no such operator or setting, one is missing, or a value does not fit.
    """
    if name not in OPERATORS:
        remedy = f"choose one of {', '.join(OPERATORS)}"
        raise unknown(f"operator={name} is unknown", str(name), OPERATORS, remedy)
    known, needed = accepted(name)
    for setting in settings:
        if setting not in known:
            remedy = f"give one of {', '.join(known)}" if known else "leave it out"
            raise unknown(f"operator={name} has no setting {setting}", setting, known, remedy)
    for setting in needed:
        if settings.get(setting) is None:
            remedy = MASK if setting == "holes" else f"give {setting}=..."
            raise UserError(f"operator={name} needs {setting}; {remedy}.")
    if isinstance(settings.get("holes"), str | Path):
        settings["holes"] = read_mask(settings["holes"])
    return OPERATORS[name](size, **settings)


def accepted(name: str) -> tuple[list[str], list[str]]:
    """(all, needed) settings of an operator by their names."""
    parameters = list(signature(OPERATORS[name].__init__).parameters.values())[2:]
    plain = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    needed = [p.name for p in plain if p.default is p.empty]
    known = [p.name for p in plain]
    if name == "blur":  # a kernel that is given by its word has numbers of its own
        own = {number for make in KERNELS.values() for number in signature(make).parameters}
        known += sorted(own)
    return known, needed
