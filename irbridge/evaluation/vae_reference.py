"""Vae reference."""

import numpy as np
import torch

from irbridge.errors import UserError
from irbridge.images.arrays import pad, to_image, to_tensor
from irbridge.models.restorer import Restorer


class RoundTrip:
    """The second reference of ``protocol.reference=vae``: an image as the VAE of a model's backbone
    gives it back, so that the VAE's own loss does not count (IRBridge, Sec. 4). It is a function of
    the image alone. UserError if the model has no VAE.
    """

    def __init__(self, model: Restorer):
        self.backbone = getattr(model, "backbone", None)
        if getattr(self.backbone, "vae", None) is None:
            raise UserError(
                "protocol.reference=vae compares with the round trip through the backbone's VAE,"
                " and this model has none; give task.protocol.reference=clean (evaluate.py:"
                " protocol.reference=clean)."
            )
        self.name = self.backbone.digest[:8]

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Float (H, W, 3) in [0, 1] to the same."""
        height, width = image.shape[:2]
        padded = pad(
            to_tensor(image)[None].to(next(self.backbone.parameters()).device), self.backbone.stride
        )
        return to_image(self.backbone.decode(self.backbone.encode(padded))[0])[:height, :width]
