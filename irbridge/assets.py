"""What belongs to this installation: its version, and where its own files are.

The configs, the frozen prior, the shipped adapters, the metrics' weights and the sample photographs
stand beside the package in a checkout, and inside it once it is installed from a wheel.
"""

import json
import os
from pathlib import Path

__version__ = "1.0.0"

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_assets"

CHECKOUT = None if _INSTALLED.is_dir() else _PACKAGE.parent
"""The folder of the clone that this code runs from; None where a wheel was installed."""

ROOT = CHECKOUT or _INSTALLED
"""The folder that holds ``configs`` and ``data``."""

CONFIGS = ROOT / "configs"
ADAPTERS = ROOT / "data" / "adapters"


def at_home(path: str) -> str:
    """The path with a leading ``~`` as the home folder; a file that really begins so stays.

    Shells leave it as it is behind an equals sign: ``run=~/runs/mine``.
    """
    named = path == "~" or path.startswith(("~/", "~" + os.sep))
    return os.path.expanduser(path) if named and not os.path.lexists(path) else path


def find(path: str | Path) -> Path:
    """The file or folder that a config names.

    Args:
        path: absolute, or relative to the current folder or to the project, such as
            ``data/samples/train``.

    Returns:
        The path as given where it exists or is in neither place, else the project's own.
    """
    given = Path(path)
    if given.is_absolute() or given.exists():
        return given
    own = ROOT / given
    return own if own.exists() else given


def shipped() -> dict[str, Path]:
    """The adapters that come with the project, task -> folder."""
    weights = sorted(ADAPTERS.glob("*/model.safetensors"))
    return {path.parent.name: path.parent for path in weights}


def experimental(folder: Path) -> str:
    """Why a trained adapter is experimental: ``experimental`` of its ``config.json``.

    An adapter is, where nothing shows yet that it helps on real photographs.

    Args:
        folder: of the adapter.

    Returns:
        A sentence, empty where it is none, or where the file cannot be read.
    """
    try:
        reason = json.loads((folder / "config.json").read_text("utf-8")).get("experimental")
    except (OSError, ValueError, AttributeError, RecursionError):  # whoever loads it says so
        return ""
    return reason if isinstance(reason, str) else ""


def called(task: str, folder: Path) -> str:
    """What lists call an adapter: its task, with a remark where it is experimental."""
    return f"{task} (experimental)" if experimental(folder) else task


def remedy(part: str) -> str:
    """What to do about a file of the project that is missing or damaged.

    Args:
        part: its place below the project's folder, such as ``data/prior``.

    Returns:
        The end of a sentence.
    """
    return f"run `git checkout {part}`" if CHECKOUT else "install irbridge again"


def cache_folder(name: str) -> Path:
    """Where this user's files that can be computed again are kept.

    It is ``$IRBRIDGE_CACHE/name``, else ``$XDG_CACHE_HOME/irbridge/name``, else
    ``~/.cache/irbridge/name``.
    """
    if own := os.environ.get("IRBRIDGE_CACHE"):
        return Path(own).expanduser() / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irbridge" / name
