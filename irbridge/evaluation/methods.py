"""Methods."""

from typing import NamedTuple

import numpy as np

from irbridge.data.pair import split_mask
from irbridge.evaluation.evaluate import Method
from irbridge.gaussian.noise import image_seed
from irbridge.models.restorer import Restorer


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
    """The rows that a trained model gives, itself the last; see ``Restorer.rows``.

    ``options`` are fields of its sampler.
    """

    def by(**fixed) -> Method:
        def restore(seen: np.ndarray, name: str) -> np.ndarray:
            image, mask = split_mask(seen)
            return model.restore(image, mask=mask, seeds=[image_seed(seed, name)], **fixed)

        return restore

    return [
        Row(row.label, row.key, by(**row.options), row.nfe, weights)
        for row in model.rows(**options)
    ]
