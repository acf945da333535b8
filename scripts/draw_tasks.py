"""Draw docs/images/<task>.jpg, from clean and light to heavy, and print the degraded PSNR of every
synthetic task with its defaults.

Run from the repository root: python scripts/draw_tasks.py
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from irbridge.data import degradations
from irbridge.data.pairs import SyntheticPairs
from irbridge.images.arrays import to_bytes

ROOT = Path(__file__).resolve().parents[1]
TASKS = {
    "derain": "Rain",
    "dehaze": "Haze",
    "desnow": "Snow",
    "raindrop": "Raindrop",
    "lowlight": "LowLight",
    "inpaint": "Inpaint",
    "deblur": "Blur",
    "sr": "Downsample",
    "denoise": "Noise",
}
SHOWN, DRAWS, SEED = 3, 16, 0


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for task, name in TASKS.items():
        degradation = getattr(degradations, name)()
        pairs = list(SyntheticPairs(ROOT / "data/samples/test", degradation, seed=SEED, size=160))
        values = [psnr(pair.clean, pair.degraded) for pair in pairs]
        rows = [
            row(pair.clean, degradation, i)
            for i, pair in enumerate(pairs[1 :: len(pairs) // SHOWN][:SHOWN])
        ]
        Image.fromarray(to_bytes(np.concatenate(rows))).save(folder / f"{task}.jpg", quality=70)
        print(
            f"{task:9} {name:10} degraded PSNR {np.mean(values):.2f} dB ({min(values):.2f} to"
            f" {max(values):.2f})"
        )


def psnr(clean: np.ndarray, degraded: np.ndarray) -> float:
    return -10 * np.log10(np.mean((clean - degraded) ** 2))


def row(clean: np.ndarray, degradation, seed: int) -> np.ndarray:
    """The clean image, and from many draws a light, a middling and a heavy one; one draw where they
    hardly differ.
    """
    draws = [degradation(clean, np.random.default_rng([seed, k])) for k in range(DRAWS)]
    draws.sort(key=lambda degraded: psnr(clean, degraded), reverse=True)
    alike = psnr(clean, draws[0]) - psnr(clean, draws[-1]) < 0.5
    return np.concatenate(
        [clean, *(draws[:1] if alike else (draws[1], draws[DRAWS // 2], draws[-2]))], axis=1
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/images")
