"""Pictures of what a model does to images, call by call."""

from collections.abc import Sequence

import numpy as np
import torch

from irbridge.data.pair import Pair, spread
from irbridge.evaluation.metrics import psnr
from irbridge.evaluation.protocol import Protocol
from irbridge.gaussian.noise import image_seed
from irbridge.images.arrays import pad, to_image, to_tensor
from irbridge.images.grid import grid
from irbridge.models.restorer import Restorer

MOST = 8  # calls that are shown
EXAMINED = 33  # images that cases are looked for among


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


def cases(model: Restorer, pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """A good, a middling and a bad case: the largest, the median and the smallest gain in PSNR.

    Args:
        model: that restores.
        pairs: to look among; of many, 33 that are spread over all.
        seed: of the noise, together with each image's name.

    Returns:
        The three pairs; fewer where there are fewer.
    """
    protocol, found = Protocol(), []
    for pair in spread(pairs, EXAMINED):
        told = model.told(pair.clean)
        restored = model.restore(pair.degraded, image_seed(seed, pair.name), mask=pair.mask, **told)
        gain = psnr(restored, pair.clean, protocol) - psnr(pair.degraded, pair.clean, protocol)
        found.append((gain, pair))
    found.sort(key=lambda case: case[0], reverse=True)
    places = sorted({0, len(found) // 2, len(found) - 1})
    return [found[place][1] for place in places]
