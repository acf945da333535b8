"""Which classes a configuration may name, and what those that older ones name are called now.

A configuration names a class by its dotted path under ``_target_``. Configurations come from
outside too: with a downloaded adapter, with a run's folder. So a name is looked up here and nowhere
else, and it may only be a part of one of the project's families (:data:`FAMILIES`): a bridge, an
adapter, a degradation. No other function of Python can be reached by it.

Runs and adapters of earlier versions stay readable by the table :data:`MOVED`.
"""

import ast
import inspect
import pkgutil
import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import yaml

from irbridge.errors import UserError

MOVED = {
    "irbridge.adapters.": {
        "StaticAdapter": "irbridge.adapters.static.StaticAdapter",
        "ControlAdapter": "irbridge.adapters.control.ControlAdapter",
    },
    "irbridge.backbones.": {"load_backbone": "irbridge.backbones.pixel.load_backbone"},
    "irbridge.bridges.": {"OU": "irbridge.bridges.IRSDE", "Residual": "irbridge.bridges.RDBM"},
    "irbridge.degradations.": "irbridge.data.degradations.",
    "irbridge.interpolants.": "irbridge.bridges.",
    "irbridge.latent.": "irbridge.backbones.latent.",
    "irbridge.latent_adapters.": {
        "ControlNet": "irbridge.adapters.controlnet.ControlNet",
        "LoRA": "irbridge.adapters.lora.LoRA",
        "SD3ControlNet": "irbridge.adapters.sd3_controlnet.SD3ControlNet",
        "T2I": "irbridge.adapters.t2i.T2I",
    },
    "irbridge.metrics.": "irbridge.evaluation.protocol.",
    "irbridge.timesteps.": "irbridge.models.timestep_schedule.",
}
"""Where the classes of earlier versions are: a prefix and its successor, or the successor of each
name behind it."""


LACKED = {
    "irbridge.bridges.I2SB": {"convention": "i2sb"},
    "irbridge.bridges.ResShift": {"scaled": False},
}
"""Fields that configurations of earlier versions lack, with what these versions did."""


class Family(NamedTuple):
    """One kind of part that a configuration may name."""

    base: str  # dotted path of the class that all of the family derive from
    chapter: str  # the package whose modules hold the family
    called: str  # what a sentence calls one of them

    def kind(self) -> type:
        """The base class."""
        module, _, name = self.base.rpartition(".")
        return getattr(import_module(module), name)

    def has(self, part) -> bool:
        """Whether an object is a class of the family, or a function that says it returns one."""
        if inspect.isclass(part):
            return issubclass(part, self.kind())
        if not inspect.isfunction(part) or not part.__module__.startswith(self.chapter):
            return False
        given = part.__annotations__.get("return")
        return inspect.isclass(given) and issubclass(given, self.kind())


FAMILIES = {
    "bridge": Family("irbridge.bridges.base.Bridge", "irbridge.bridges", "bridge"),
    "adapter": Family("irbridge.adapters.base.Adapter", "irbridge.adapters", "adapter"),
    "backbone": Family("irbridge.backbones.base.Backbone", "irbridge.backbones", "backbone"),
    "timesteps": Family(
        "irbridge.models.timestep_schedule.Timesteps", "irbridge.models", "timestep schedule"
    ),
    "degradation": Family("irbridge.data.degradations.Degradation", "irbridge.data", "degradation"),
    "protocol": Family("irbridge.evaluation.protocol.Protocol", "irbridge.evaluation", "protocol"),
    "sampler": Family("irbridge.samplers.base.Sampler", "irbridge.samplers", "sampler"),
    "metric": Family("irbridge.evaluation.metrics.Metric", "irbridge.evaluation", "metric"),
}
"""The families by the key of a configuration that names one of them. A new bridge or degradation is
found in its chapter by itself and needs no line here."""

MARKS = "_args_", "_partial_", "_recursive_", "_convert_"
"""Words by which Hydra would be told to call a class otherwise; none is taken from outside."""


def present(config):
    """The config, or a part of it, with every class under its present name.

    Args:
        config: plain data: dicts, lists, words, numbers.

    Returns:
        A copy, with the fields that earlier versions lacked; the given one is left as it is.
    """
    if isinstance(config, list):
        return [present(value) for value in config]
    if not isinstance(config, dict):
        return config
    made = {
        key: present_name(value) if key == "_target_" else present(value)
        for key, value in config.items()
        # earlier versions had to tell Hydra that lists are lists
        if (key, value) != ("_convert_", "all")
    }
    lacked = LACKED.get(made.get("_target_")) if isinstance(made.get("_target_"), str) else None
    return made | {key: value for key, value in (lacked or {}).items() if key not in made}


def present_name(target: str) -> str:
    """The dotted name of today; a name that never moved is returned as it is."""
    for prefix, now in MOVED.items():
        name = str(target).removeprefix(prefix)
        if name == target or "." in name:
            continue
        return now + name if isinstance(now, str) else now.get(name, target)
    return target


def part_named(target, family: str | None = None):
    """The class or function that a configuration names.

    This is the only way from a name to something that is called.

    Args:
        target: the dotted name, of today or of an earlier version.
        family: a key of :data:`FAMILIES`; None: any of them.

    Raises:
        UserError: It is not of the family, whatever else it may be; nothing of it was run.
    """
    families = [FAMILIES[family]] if family else list(FAMILIES.values())
    found = _attribute(present_name(target), families) if isinstance(target, str) else None
    if any(one.has(found) for one in families):
        return found
    wanted = families[0].called if family else "part of irbridge"
    if isinstance(target, str) and not _imported(target):
        raise UserError(
            f"{target} cannot be built: it is no {wanted} that is imported; if the class is your"
            " own, import its module first, by --config-dir=FOLDER with the YAML that names it or"
            " in a program of yours (docs/recipes)."
        )
    choices = f"; choose one of {', '.join(members(family))}" if family else ""
    raise UserError(f"{target} cannot be built: it is no {wanted}{choices}.")


def _attribute(target: str, families: list[Family]):
    """What a dotted name stands for, None where it may not be looked at.

    Only modules of the families' chapters are imported. A class of a program that uses this package
    is found where that program has imported it already.
    """
    module, _, name = target.rpartition(".")
    if not name or name.startswith("_"):
        return None
    if any(module in _modules(family.chapter) for family in families):
        return vars(import_module(module)).get(name)
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    return found if inspect.isclass(found) else None


def _imported(target: str) -> bool:
    """Whether a name has no module, one of irbridge's, or one that is imported already."""
    module = target.rpartition(".")[0]
    return not module or module in sys.modules or module.partition(".")[0] == "irbridge"


def import_own(folders: Iterable[Path]) -> None:
    """Import the modules of the classes that the user's own folders of configs name.

    So a run that was trained with a class of the user's is built again where ``--config-dir`` is
    given again.

    Args:
        folders: those of ``--config-dir``.

    Raises:
        UserError: A module cannot be found, or a folder is none.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"--config-dir={folder} is no folder; give the folder of your own configs."
            )
        for path in sorted(folder.rglob("*.yaml")):
            try:
                config = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                continue  # whoever asks for this file is told
            import_named(config)


def import_named(config) -> None:
    """Import the modules of the classes that the user's own words and YAML files name.

    What a person types, or has in a folder of configs, is as much their own as their program. What
    came with an adapter or a run's folder never passes here: its names find what is imported, and
    import nothing (see :func:`part_named`).

    Args:
        config: the plain config of a command.

    Raises:
        UserError: A module cannot be found.
    """
    if isinstance(config, list):
        for value in config:
            import_named(value)
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        if key != "_target_" or not isinstance(value, str):
            import_named(value)
            continue
        module = value.rpartition(".")[0]
        if not module or module.partition(".")[0] == "irbridge" or module in sys.modules:
            continue
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise UserError(
                f"{value} cannot be built: Python finds no module {error.name}; put its folder on"
                " PYTHONPATH."
            ) from error


@cache
def _modules(chapter: str) -> list[str]:
    """The names of a chapter's modules, its own first; only the chapter itself is imported."""
    package = import_module(chapter)
    return [chapter, *(m.name for m in pkgutil.walk_packages(package.__path__, f"{chapter}."))]


@cache
def members(family: str) -> list[str]:
    """The names of a family's classes and functions, for a sentence that lists the choices.

    They are read in the source: to import all of a chapter, for a name that is refused, would take
    many seconds.
    """
    one = FAMILIES[family]
    parts = [(module, node) for module in _modules(one.chapter) for node in _defined(module)]
    kin, known = {one.base.rpartition(".")[2]}, 0
    while len(kin) > known:  # classes of classes
        known = len(kin)
        kin |= {n.name for _, n in parts if isinstance(n, ast.ClassDef) and kin & _parents(n)}
    found = [
        f"{module}.{node.name}"
        for module, node in parts
        if not node.name.startswith("_") and kin & _parents(node)
    ]
    return sorted(found) or [one.base]


def _defined(module: str) -> list[ast.ClassDef | ast.FunctionDef]:
    """The classes and functions of a module, by its source."""
    spec = find_spec(module)
    source = spec.loader.get_source(module) if spec and spec.loader else None
    nodes = ast.parse(source or "").body
    deferred = any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in nodes)
    # where annotations are deferred, no function says by a class what it returns
    kinds = ast.ClassDef if deferred else (ast.ClassDef, ast.FunctionDef)
    return [node for node in nodes if isinstance(node, kinds)]


def _parents(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    """The names of the classes that a class derives from, or that a function returns."""
    parents = node.bases if isinstance(node, ast.ClassDef) else [node.returns]
    return {getattr(parent, "id", getattr(parent, "attr", "")) for parent in parents}
