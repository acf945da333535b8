"""Methods."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from irbridge.data.pair import split_mask
from irbridge.evaluation.evaluate import Method
from irbridge.gaussian.noise import image_seed
from irbridge.models.bridge_network import BridgeNetwork
from irbridge.models.regression import Regression
from irbridge.models.restorer import Restorer
from irbridge.samplers import make

CALLS = 3  # of the rows beside an anchor alone


class Row(NamedTuple):
    """One method of a table: what the table calls it, its short key (see ``scoring.METHODS``), its
    sampler's network calls.
    """

    label: str
    method: str
    restore: Method
    nfe: int | None = None
    weights: str | None = None  # a hash of what the scores come from

    def about(self) -> dict:
        """What each of its records says of it."""
        return {"row": self.label, "method": self.method, "nfe": self.nfe, "weights": self.weights}


IDENTITY = Row("Degraded input", "identity", lambda image, name: image[..., :3])


def methods(model: Restorer, seed: int, weights: str | None = None, **options) -> list[Row]:
    """The rows that a trained model gives, itself the last: before it the baselines with the same
    adapter, which for an anchor alone (``nfe=0``) are those of ``CALLS`` calls. ``options`` are
    fields of its sampler.
    """

    def by(path: Callable, **fixed) -> Method:
        def restore(seen: np.ndarray, name: str) -> np.ndarray:
            image, mask = split_mask(seen)
            return model.restore(
                image, path=path, mask=mask, seeds=[image_seed(seed, name)], **fixed
            )

        return restore

    if isinstance(model, Regression):
        return [Row("Plain regression", "regression", by(model.path), None, weights)]
    # a mistake must not come up after the other rows
    sampler = model.sampler.changed(**options).check(model.bridge)
    # the anchor is the default; what the calls would make of it is shown all the same
    alone = sampler.nfe == 0
    sampler = sampler.changed(nfe=CALLS) if alone else sampler
    settings, nfe = f"{sampler.describe()}, {sampler.nfe} calls", sampler.nfe
    bridge = type(model.bridge).__name__
    if isinstance(model, BridgeNetwork):
        return [
            Row(
                f"Bridge from scratch ({bridge}, {settings})",
                "bridge",
                by(model.path, **options),
                nfe,
                weights,
            )
        ]
    rows = [
        Row(
            f"{label}, {nfe} calls",
            key,
            by(model.path, sampler=make(how, nfe=nfe), start=start),
            nfe,
            weights,
        )
        for label, key, how, start in (
            ("DDIM from noise, same adapter", "ddim_noise", "ddim", "noise"),
            ("DDIM, same adapter and start", "ddim", "ddim", "end"),
            ("DPM-Solver++(2M), same adapter and start", "dpmpp", "dpmpp", "end"),
        )
    ]
    key = "irbridge_y" if model.endpoint == "y" else "irbridge"
    label = f"IRBridge ({bridge}, end {model.endpoint}, {settings})"
    bridged = Row(label, key, by(model.path, sampler=sampler), nfe, weights)
    if model.endpoint == "y":
        return [*rows, bridged]
    anchor = Row("Anchor g(y) alone", "anchor", by(model.coarse), None, weights)
    return [*rows, bridged, anchor] if alone else [*rows, anchor, bridged]
