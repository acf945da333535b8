"""A released restoration network as a row of the table: ``method=spandrel:FILE``."""

from pathlib import Path

import numpy as np

from irbridge.adapters.pretrained_anchor import load_anchor
from irbridge.data.pair import split_mask
from irbridge.environment import device
from irbridge.evaluation.methods import Method
from irbridge.evaluation.records import fingerprint
from irbridge.images.arrays import to_image, to_tensor


def network_row(given: str, label: str | None, where: str = "auto") -> Method:
    """A network that spandrel knows by its weights, as a method of one call an image.

    It sees the whole image at once, without the mask of a task that has holes.

    Args:
        given: "spandrel:FILE".
        label: of the row; by default the architecture and the file's name.
        where: the device's name, as :func:`irbridge.environment.device` takes it.

    Raises:
        UserError: spandrel is missing, or the file is no restoration network of three channels and
            scale 1.
    """
    place = device(where)
    network = load_anchor(given, key="method").to(place)

    def restore(seen: np.ndarray, name: str) -> np.ndarray:
        image, _ = split_mask(seen)
        return to_image(network(to_tensor(image)[None].to(place))[0])

    label = label or f"{network.architecture} {Path(network.name).stem}"
    parameters = sum(weights.numel() for weights in network.network.model.parameters())
    more = {"architecture": network.architecture, "params": parameters}
    # each kind of device rounds in its own way
    settings = fingerprint([network.architecture, place.type])
    return Method(label, label, restore, 1, network.digest[:12], settings, more)
