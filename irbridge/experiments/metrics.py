"""Metrics by the names of their files in configs/metric."""

from pathlib import Path

from omegaconf import OmegaConf

from irbridge.assets import CONFIGS
from irbridge.errors import UserError
from irbridge.evaluation.metrics import STANDARD, Metric
from irbridge.experiments.config import own_folders
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.names import import_named


def metrics(names: list[str]) -> tuple[Metric, ...]:
    """The metrics that every table has, and further ones.

    Args:
        names: of files in the folder ``metric`` of the configs, or of the user's own with
            ``--config-dir``; each has the ``_target_`` of a
            :class:`~irbridge.evaluation.metrics.Metric`.

    Raises:
        UserError: if there is no such file, it makes no metric, or two have one key.
    """
    found = {metric.key: metric for metric in STANDARD}
    known = _files()
    for name in dict.fromkeys(names):
        if name not in known:
            raise UserError(f"metrics={name} is unknown; choose of {', '.join(known)}.")
        config = OmegaConf.to_container(OmegaConf.load(known[name]))
        import_named(config)
        metric = instantiate(config, of="metric")
        if metric.key in found:
            raise UserError(
                f"{known[name]} makes a metric with the key {metric.key}, which another has; give"
                " it a name of its own."
            )
        found[metric.key] = metric
    return tuple(found.values())


def _files() -> dict[str, Path]:
    """The config of each metric by its name; the user's own come first where names are the same."""
    folders = [CONFIGS, *own_folders()]
    paths = [path for folder in folders for path in (folder / "metric").glob("*.yaml")]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}
