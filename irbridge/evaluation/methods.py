"""The methods that a table compares, each a function of the degraded image."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from irbridge.data.pair import split_mask
from irbridge.evaluation.classical import classical
from irbridge.evaluation.records import About, fingerprint
from irbridge.evaluation.rows import of_draws
from irbridge.files import read_json, sha256
from irbridge.gaussian.noise import image_seed
from irbridge.models.irbridge import IRBridge
from irbridge.models.restorer import Restorer, Row

# (Pair.seen, image name) -> restored (H, W, 3) in [0, 1]
Restore = Callable[[np.ndarray, str], np.ndarray]
CODE = "irbridge", "commit"  # of a config.json: what wrote it


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Args:
        label: what the table calls it.
        key: its short name, see :data:`irbridge.evaluation.rows.METHODS`.
        restore: the method itself.
        nfe: its sampler's network calls.
        weights: hash of what the restored images come from.
        settings: hash of all else that changes a pixel.
        more: what else its records say.
    """

    label: str
    key: str
    restore: Restore
    nfe: int | None = None
    weights: str | None = None
    settings: str = ""
    more: dict[str, object] = field(default_factory=dict)

    def about(self, shared: About) -> About:
        """What each of its records says, those of all rows' included."""
        return replace(
            shared,
            row=self.label,
            method=self.key,
            nfe=self.nfe,
            weights=self.weights,
            more=shared.more | self.more,
        )


IDENTITY = Method("Degraded input", "identity", lambda image, name: image[..., :3])


def classical_method(task: str) -> Method:
    """The row of a task's method without learning; UserError where there is none."""
    label, function = classical(task)
    return Method(label, "classical", lambda image, name: function(image))


@dataclass(frozen=True)
class Trained:
    """What a trained model is by its folder, so that scores of another one are not taken for its.

    Args:
        weights: a short hash of what was trained.
        settings: a hash of all else that changes a pixel: bridge, sampler, frozen network, number
            types.
    """

    weights: str | None = None
    settings: str = ""

    @classmethod
    def of(cls, model: Restorer, folder: Path) -> "Trained":
        """Of a model that was loaded from, or saved to, this folder."""
        config = read_json(folder / "config.json")
        backbone = dict(config.get("backbone") or {})
        for place in ("pretrained", "vae"):  # what is there is known by its hash
            backbone.pop(place, None)
        if isinstance(model, IRBridge):
            backbone |= {"digest": model.backbone.digest, "dtype": str(model.backbone.dtype)}
        kept = {key: value for key, value in config.items() if key not in CODE}
        device = next(model.parameters()).device.type  # each rounds in its own way
        settings = fingerprint(
            kept | {"backbone": backbone, "precision": model.precision, "device": device}
        )
        return cls(sha256(folder / "model.safetensors")[:12], settings)


def methods(
    model: Restorer, seed: int, trained: Trained | None = None, pairs=None, **options
) -> list[Method]:
    """The rows that a trained model gives, itself the last.

    Before it are the baselines with the same adapter. Of a model whose images are means of several
    draws the one before the last is a single draw. Of an anchor alone (``nfe=0``) these, and
    the row with the prior, make ``CALLS`` calls.

    Args:
        model: it restores without randomness but that of ``seed`` and the image's name.
        seed: of the noise.
        trained: what its records say of its weights.
        pairs: that are scored, whose clean images an oracle is told; None: there are none.
        **options: fields of its sampler to change.

    Raises:
        UserError: if the bridge cannot serve the sampler.
    """
    trained = trained or Trained()
    oracle = model.sees_clean and pairs is not None
    places = {name: i for i, name in enumerate(pairs.names)} if oracle else {}
    more = {"oracle": "sees the clean image"} if model.sees_clean else {}

    def method(row: Row, samples: int = 1) -> Method:
        def restore(seen: np.ndarray, name: str) -> np.ndarray:
            image, mask = split_mask(seen)
            told = model.told(pairs[places[name]].clean) if oracle else {}
            own = {"seeds": [image_seed(seed, name)], "samples": samples, **told}
            return model.restore(image, mask=mask, **own, **row.options)

        changed = {key: repr(value) for key, value in row.options.items() if key != "trajectory"}
        if samples > 1:
            changed["samples"] = samples
        settings = fingerprint([trained.settings, changed])
        return Method(row.label, row.key, restore, row.nfe, trained.weights, settings, more)

    rows = model.rows(**options)
    made = [method(row) for row in rows]
    last = rows[-1]
    if model.samples > 1 and model.random(**options):
        label = of_draws(last.label, model.samples)
        mean = last._replace(label=label, nfe=last.nfe and last.nfe * model.samples)
        made.append(method(mean, model.samples))
    return made
