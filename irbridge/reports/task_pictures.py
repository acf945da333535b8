"""Pictures of every synthetic degradation, and how much each degrades by default."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from irbridge.assets import find
from irbridge.data import degradations
from irbridge.data.degradations import Downsample
from irbridge.data.pair import Pair
from irbridge.data.pairs import SyntheticPairs
from irbridge.errors import unknown
from irbridge.images.arrays import to_bytes
from irbridge.images.grid import grid
from irbridge.images.resize import resized
from irbridge.own_files import check_writable, write_result

DEGRADATIONS = {
    "derain": "Rain",
    "dehaze": "Haze",
    "desnow": "Snow",
    "raindrop": "Raindrop",
    "lowlight": "LowLight",
    "inpaint": "Inpaint",
    "deblur": "CameraBlur",
    "sr": "Downsample",
    "sr8": "Downsample",
    "denoise": "Noise",
}
# what a degradation has that is not its default
SETTINGS = {"sr8": {"scale": 8}}
SHOWN, DRAWS, SEED = 3, 16, 0
SAMPLES = {
    "derain": "220003",
    "dehaze": "36046",
    "desnow": "92014",
    "raindrop": "166081",
    "lowlight": "201080",
    "inpaint": "105027",
    "deblur": "10081",
    "sr": "108041",
    "denoise": "147080",
}
"""Which held-back photograph is the degraded sample of each task."""
FRONT = "derain", "dehaze", "raindrop", "lowlight"
"""The tasks of the front page's picture."""


def draw_tasks(folder: Path, only: str | None = None) -> Iterator[str]:
    """Draw ``<task>.jpg`` into a folder, from clean and light to heavy.

    Args:
        folder: where to.
        only: this task alone; None: all.

    Yields:
        Of each task a line with the degraded PSNR of the held-back photographs, centre crops of
        160 px.

    Raises:
        UserError: there is no such task.
    """
    if only not in (None, *DEGRADATIONS):
        remedy = f"give one of {', '.join(DEGRADATIONS)}, or leave it out"
        raise unknown(f"task={only!r} has no degradation to draw", only, DEGRADATIONS, remedy)
    tasks = {task: name for task, name in DEGRADATIONS.items() if only in (None, task)}
    for task in tasks:  # before anything is drawn
        check_writable(folder / f"{task}.jpg")
    for task, name in tasks.items():
        degradation = getattr(degradations, name)(**SETTINGS.get(task, {}))
        photographs = SyntheticPairs(find("data/samples/test"), degradation, seed=SEED, size=160)
        pairs = list(photographs)
        chosen = pairs[1 :: len(pairs) // SHOWN][:SHOWN]
        rows = [_row(pair.clean, degradation, seed) for seed, pair in enumerate(chosen)]
        _save(Image.fromarray(to_bytes(np.concatenate(rows))), folder / f"{task}.jpg")
        values = [_psnr(pair.clean, pair.degraded) for pair in pairs]
        span = f"{min(values):.2f} to {max(values):.2f}"
        yield f"{task:9} {name:10} degraded PSNR {np.mean(values):.2f} dB ({span})"


def draw_samples(folder: Path) -> Iterator[str]:
    """Write a degraded photograph for each task, to be tried by ``irbridge restore`` and the page.

    It is ``<task>.jpg``; of inpaint a PNG that is transparent in the holes, of sr the small
    version, which ``irbridge restore`` enlarges. Which photograph is degraded says
    :data:`SAMPLES`, and how strongly its name, as of :class:`SyntheticPairs`.

    Yields:
        The files.
    """
    named = {task: f"{task}.{'png' if task == 'inpaint' else 'jpg'}" for task in SAMPLES}
    for name in named.values():  # before anything is drawn
        check_writable(folder / name)
    for task, name in named.items():
        pair = _sample(task)
        degraded = pair.degraded
        if task == "sr":
            height, width = (side // Downsample.scale for side in pair.clean.shape[:2])
            degraded = resized(pair.clean, height, width).clip(0, 1)
        picture = Image.fromarray(to_bytes(degraded))
        if pair.mask is not None:
            opaque = np.where(pair.mask, 0, 255).astype(np.uint8)
            picture.putalpha(Image.fromarray(opaque))
        _save(picture, folder / name, quality=95)
        yield str(folder / name)


def draw_front(folder: Path, restore: Callable[[str, np.ndarray], np.ndarray]) -> Iterator[str]:
    """Write ``front.jpg``: a column a task of :data:`FRONT`, degraded, restored and clean.

    Args:
        folder: where it is written.
        restore: takes the task and the degraded sample, (H, W, 3) in [0, 1], and restores it.

    Yields:
        The file.
    """
    path = folder / "front.jpg"
    check_writable(path)
    columns = []
    for task in FRONT:
        pair = _sample(task)
        columns.append([pair.degraded, restore(task, pair.degraded), pair.clean])
    rows = [[_middle(image) for image in row] for row in zip(*columns, strict=True)]
    _save(Image.fromarray(to_bytes(grid(rows, list(FRONT)))), path, quality=80)
    yield str(path)


def _sample(task: str) -> Pair:
    """The photograph of a task that :data:`SAMPLES` names, whole, and its degraded version."""
    degradation = getattr(degradations, DEGRADATIONS[task])()
    photographs = SyntheticPairs(find("data/samples/test"), degradation, seed=SEED)
    return photographs[photographs.names.index(SAMPLES[task])]


def _middle(image: np.ndarray, height: int = 200, width: int = 300) -> np.ndarray:
    """The middle of an image."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]


def _save(picture: Image.Image, path: Path, quality: int = 70) -> None:
    kind = "PNG" if path.suffix == ".png" else "JPEG"
    write_result(path, lambda aside: picture.save(aside, format=kind, quality=quality))


def _psnr(clean: np.ndarray, degraded: np.ndarray) -> float:
    return -10 * np.log10(np.mean((clean - degraded) ** 2))


def _row(clean: np.ndarray, degradation, seed: int) -> np.ndarray:
    """The clean image, and from many draws a light, a middling and a heavy one.

    One draw where they hardly differ.
    """
    draws = [degradation(clean, np.random.default_rng([seed, k])) for k in range(DRAWS)]
    draws.sort(key=lambda degraded: _psnr(clean, degraded), reverse=True)
    alike = _psnr(clean, draws[0]) - _psnr(clean, draws[-1]) < 0.5
    shown = draws[:1] if alike else [draws[1], draws[DRAWS // 2], draws[-2]]
    return np.concatenate([clean, *shown], axis=1)
