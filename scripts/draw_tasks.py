"""Draw docs/images/<task>.jpg and print the degraded PSNR of every synthetic task with its defaults.

Run from the repository root: python scripts/draw_tasks.py
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from irbridge import degradations
from irbridge.data import SyntheticPairs
from irbridge.images import to_bytes

ROOT = Path(__file__).resolve().parents[1]
TASKS = {"derain": "Rain", "dehaze": "Haze", "desnow": "Snow", "raindrop": "Raindrop", "lowlight": "LowLight",
         "inpaint": "Inpaint", "deblur": "Blur", "sr": "Downsample", "denoise": "Noise"}
SHOWN = 4


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for task, name in TASKS.items():
        pairs = list(SyntheticPairs(ROOT / "data/samples/test", getattr(degradations, name)(), seed=0, size=160))
        psnr = [-10 * np.log10(np.mean((pair.clean - pair.degraded) ** 2)) for pair in pairs]
        shown = pairs[:: len(pairs) // SHOWN][:SHOWN]
        rows = [np.concatenate([getattr(pair, row) for pair in shown], axis=1) for row in ("clean", "degraded")]
        Image.fromarray(to_bytes(np.concatenate(rows))).save(folder / f"{task}.jpg", quality=85)
        print(f"{task:9} {name:10} degraded PSNR {np.mean(psnr):.2f} dB ({min(psnr):.2f} to {max(psnr):.2f})")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/images")
