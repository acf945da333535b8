"""Where the project's own configs, weights and photographs are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"


def find(path: str) -> Path:
    """A path of the config: as given, or relative to the project where it does not exist here."""
    return Path(path) if Path(path).exists() or Path(path).is_absolute() else ROOT / path
