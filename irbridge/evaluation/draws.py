"""Images that a prior draws by itself, from noise alone."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from irbridge.backbones.pixel import PixelBackbone
from irbridge.errors import UserError
from irbridge.files import read_json, write_json
from irbridge.images.arrays import to_image
from irbridge.images.io import write_image
from irbridge.models.pretrainer import Pretrainer

BATCH = 20
ABOUT = "draws.json"  # beside the draws: what they are made of


def draws(
    backbone: PixelBackbone, seeds: Sequence[int], size: int, calls: int, half: bool = False
) -> list[np.ndarray]:
    """Images of a prior by DDIM, timesteps evenly spaced, estimates clipped to [-1, 1].

    Args:
        backbone: the prior.
        seeds: of the noise, one an image.
        size: pixels of a side, divisible by the backbone's stride.
        calls: of the network for an image.
        half: the network computes in bfloat16.

    Returns:
        (size, size, 3) each, in [0, 1].

    Raises:
        UserError: the size does not fit the network.
    """
    if size % backbone.stride:
        raise UserError(
            f"kid.size={size} does not fit the prior; give a multiple of {backbone.stride}."
        )
    model, like = Pretrainer(backbone).eval(), torch.zeros(len(seeds), 3, size, size)
    backbone.network.to(memory_format=torch.channels_last)
    number_type = torch.autocast("cpu", dtype=torch.bfloat16) if half else nullcontext()
    with torch.inference_mode(), number_type:
        *_, last = model.trajectory(like, list(seeds), calls)
    return [to_image(image) for image in last.x0]


def write_draws(backbone: PixelBackbone, folder: Path, count: int, made_of: dict) -> list[Path]:
    """Draw images into a folder; those that are there already are kept.

    Args:
        backbone: the prior.
        folder: of the PNGs, which are named by their number.
        count: how many.
        made_of: what else the draws depend on: seed, size, calls, precision, and the prior's hash.
            Number k has the seed ``seed * 10**6 + k``.

    Returns:
        The files, by number.

    Raises:
        UserError: the folder holds draws that are made of something else.
    """
    if (folder / ABOUT).exists() and read_json(folder / ABOUT) != made_of:
        raise UserError(
            f"{folder} holds other draws, as its {ABOUT} says; give another kid.output=DIR."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ABOUT, made_of)
    files = [folder / f"{number:05d}.png" for number in range(count)]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    first, half = made_of["seed"] * 10**6, made_of["precision"] == "bf16"
    with tqdm(total=len(missing), desc="drawing", unit="image", dynamic_ncols=True) as bar:
        for begun in range(0, len(missing), BATCH):
            numbers = missing[begun : begun + BATCH]
            seeds = [first + number for number in numbers]
            made = draws(backbone, seeds, made_of["size"], made_of["calls"], half)
            for number, image in zip(numbers, made, strict=True):
                write_image(files[number], image)
            bar.update(len(numbers))
    return files
