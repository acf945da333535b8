"""Pictures of every synthetic degradation, and how much each degrades by default."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from irbridge.assets import find
from irbridge.data import degradations
from irbridge.data.pairs import SyntheticPairs
from irbridge.errors import unknown
from irbridge.images.arrays import to_bytes
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


def _save(picture: Image.Image, path: Path) -> None:
    write_result(path, lambda aside: picture.save(aside, format="JPEG", quality=70))


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
