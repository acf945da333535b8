"""Pictures of what a model does to images, call by call."""

import numpy as np
import torch

from irbridge.gaussian.noise import image_seed
from irbridge.images.arrays import pad, to_image, to_tensor
from irbridge.images.grid import grid
from irbridge.models.restorer import Restorer

MOST = 8  # calls that are shown


@torch.no_grad()
def picture(model: Restorer, pairs, seed: int, count: int = 4) -> np.ndarray:
    """``[degraded | some steps ... | restored | clean]`` of a few images, (H, W, 3) in [0, 1]."""
    rows = []
    for pair in (pairs[i] for i in range(min(count, len(pairs)))):
        y = pad(to_tensor(pair.seen)[None].to(next(model.parameters()).device), model.stride)
        told = model.told(pair.clean)
        states = list(model.trajectory(y, seeds=[image_seed(seed, pair.name)], **told))
        calls = np.unique(np.linspace(0, len(states) - 1, MOST).round().astype(int))
        height, width = pair.clean.shape[:2]
        shots = [to_image(model.image(states[i].x0)[0])[:height, :width] for i in calls]
        rows.append([pair.degraded, *shots, pair.clean])
    return grid(rows, ["degraded", *[f"call {i + 1}" for i in calls[:-1]], "restored", "clean"])
