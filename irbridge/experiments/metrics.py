"""Metrics by the names of their files in configs/metric."""

from omegaconf import OmegaConf

from irbridge.assets import CONFIGS
from irbridge.errors import UserError
from irbridge.evaluation.metrics import STANDARD, Metric
from irbridge.experiments.instantiate import instantiate


def metrics(names: list[str]) -> tuple[Metric, ...]:
    """The metrics that every table has, and further ones.

    Args:
        names: of files in configs/metric, each with the ``_target_`` of a
            :class:`~irbridge.evaluation.metrics.Metric`.

    Raises:
        UserError: if there is no such file, it makes no metric, or two have one key.
    """
    found = {metric.key: metric for metric in STANDARD}
    known = {path.stem: path for path in sorted((CONFIGS / "metric").glob("*.yaml"))}
    for name in dict.fromkeys(names):
        if name not in known:
            raise UserError(f"metrics={name} is unknown; choose of {', '.join(known)}.")
        metric = instantiate(OmegaConf.to_container(OmegaConf.load(known[name])))
        if not isinstance(metric, Metric):
            raise UserError(f"{known[name]} makes no Metric; name a subclass of it as _target_.")
        if metric.key in found:
            raise UserError(
                f"{known[name]} makes a metric with the key {metric.key}, which another has; give"
                " it a name of its own."
            )
        found[metric.key] = metric
    return tuple(found.values())
