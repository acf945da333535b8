"""The second reference of IRBridge's protocol: the clean image as the VAE gives it back."""

import numpy as np
import torch

from irbridge.errors import UserError
from irbridge.images.arrays import pad, to_image, to_tensor
from irbridge.models.restorer import Restorer


class RoundTrip:
    """An image as the VAE of a model's backbone gives it back, a function of the image alone.

    Scores against it leave out the VAE's own loss (IRBridge, Sec. 4; ``protocol.reference=vae``).

    Args:
        model: its backbone works on latents.

    Raises:
        UserError: if the model has no VAE.
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
        at = next(self.backbone.parameters()).device
        padded = pad(to_tensor(image)[None].to(at), self.backbone.stride)
        again = self.backbone.decode(self.backbone.encode(padded))
        return to_image(again[0])[:height, :width]
