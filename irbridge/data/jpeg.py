"""What saving an image as a JPEG file does to it."""

from io import BytesIO

import numpy as np
from PIL import Image

from irbridge.images.arrays import to_bytes

QUALITY = 40, 98
"""Of the files that :func:`as_jpeg` draws: from small previews to what a camera saves."""
BLOCK = 8  # pixels a side, which a file encodes together; 16 where colour is halved
ALL, HALVED = 0, 2  # Pillow's names of 4:4:4 and of 4:2:0


def as_jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop of a photograph that was saved as a JPEG file.

    Half of the files store colour at half the resolution, as most cameras do. The crop begins
    anywhere in the file's blocks.

    Args:
        image: (H, W, 3) in [0, 1].
        rng: draws the quality, uniform in :data:`QUALITY`, the colours' resolution and the
            crop's place.
    """
    quality = int(rng.integers(QUALITY[0], QUALITY[1] + 1))
    subsampling = HALVED if rng.random() < 0.5 else ALL
    top, left = rng.integers(2 * BLOCK, size=2)
    padded = np.pad(image, [(top, 0), (left, 0), (0, 0)], mode="reflect")
    return saved_as_jpeg(padded, quality, subsampling)[top:, left:]


def saved_as_jpeg(image: np.ndarray, quality: int, subsampling: int = HALVED) -> np.ndarray:
    """An image as a JPEG file holds it.

    Args:
        image: (H, W, 3) in [0, 1]; what is outside is clipped.
        quality: 1 to 100, as libjpeg's.
        subsampling: of the colours, as Pillow numbers it.

    Returns:
        Float32 in [0, 1].
    """
    file = BytesIO()
    Image.fromarray(to_bytes(image)).save(
        file, format="JPEG", quality=quality, subsampling=subsampling
    )
    return np.asarray(Image.open(file), np.float32) / 255
