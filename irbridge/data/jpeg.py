"""What saving an image as a JPEG file does to it."""

from io import BytesIO

import numpy as np
from PIL import Image

from irbridge.data.pair import Pair
from irbridge.errors import UserError
from irbridge.images.arrays import to_bytes

QUALITY = 40, 98
"""Of the files that :func:`as_jpeg` draws: from small previews to what a camera saves."""
BLOCK = 8  # pixels a side, which a file encodes together; 16 where colour is halved
LONGEST = 65_500  # pixels a side, by libjpeg
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


class SavedAsJpeg:
    """Pairs whose degraded images were saved as JPEG files, at half the colours' resolution.

    Args:
        pairs: ``names``, ``len(pairs)`` and ``pairs[i]``.
        quality: of the files, 1 to 100, as libjpeg's.
    """

    def __init__(self, pairs, quality: int):
        self.pairs, self.quality, self.names = pairs, quality, pairs.names

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> Pair:
        """A pair.

        Raises:
            UserError: it has a mask, whose edges no JPEG keeps, or is larger than a JPEG may be.
        """
        pair = self.pairs[i]
        if pair.mask is not None:
            raise UserError(
                f"jpeg={self.quality} does not go with images that have holes, whose edges no JPEG"
                " keeps; leave it out."
            )
        if max(pair.degraded.shape) > LONGEST:
            raise UserError(
                f"jpeg={self.quality} cannot save {pair.name}, as a JPEG has at most {LONGEST}"
                " pixels a side; give a size=, or leave jpeg out."
            )
        return pair._replace(degraded=saved_as_jpeg(pair.degraded, self.quality))
