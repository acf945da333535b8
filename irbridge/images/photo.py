"""Photograph files with what a restoration must keep: depth, greyness, alpha, profile, EXIF.

Written is PNG, which keeps all of it; :mod:`.samples` says how the files are read.
"""

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

from irbridge.errors import UserError
from irbridge.files import write_atomically
from irbridge.images.arrays import LUMA, check_range, to_bytes
from irbridge.images.formats import cannot_write, told
from irbridge.images.png import LEVEL, png16, with_chunks
from irbridge.images.resize import resized
from irbridge.images.samples import read_samples

EXIF_SIDES = Base.ExifImageWidth, Base.ExifImageHeight


@dataclass(frozen=True)
class Photo:
    """A photograph, and what a restored version of it keeps.

    Args:
        pixels: upright, float32 (H, W, 3) in [0, 1].
        alpha: (H, W), uint8 or uint16 as ``bits`` says, or None.
        grey: whether the file has one colour channel.
        bits: 8 or 16.
        icc: the colour profile, or None.
        exif: with the orientation reset, or empty.
        colour: the PNG chunks that say what the values mean, such as gAMA.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    bits: int = 8
    icc: bytes | None = None
    exif: bytes = b""
    colour: bytes = b""

    @property
    def visible(self) -> np.ndarray:
        """The pixels as a network is to see them, which sees no alpha.

        What is fully transparent has any colour in the file, black or white or what was cut away.
        Here it has that of the nearest pixel that can be seen.
        """
        hidden = None if self.alpha is None else self.alpha == 0
        if hidden is None or not hidden.any() or hidden.all():
            return self.pixels
        from scipy.ndimage import distance_transform_edt  # late, as most photographs are opaque

        rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
        return self.pixels[rows, columns]

    @property
    def channels(self) -> int:
        """Of the file: 1 to 4."""
        return (1 if self.grey else 3) + (self.alpha is not None)

    def shown(self, restored: np.ndarray) -> np.ndarray:
        """A restored (H, W, 3) as this photograph's file will show it.

        Of a grey photograph that is the luma, in all channels.
        """
        return np.repeat((restored @ LUMA)[..., None], 3, axis=2) if self.grey else restored

    def coloured(self) -> "Photo":
        """The photograph whose file has colours, also where it was grey; a grey profile goes."""
        return replace(self, grey=False, icc=None) if self.grey else self

    def interpolated(self, factor: int) -> "Photo":
        """The photograph with ``factor`` times the sides, its pixels by a bicubic filter."""
        if factor == 1:
            return self
        height, width = self.pixels.shape[:2]
        pixels = resized(self.visible, height * factor, width * factor)
        return replace(self.enlarged(factor), pixels=np.clip(pixels, 0, 1))

    def enlarged(self, factor: int) -> "Photo":
        """The photograph with what its file keeps for ``factor`` times the sides.

        The pixels are those of the small one still.
        """
        if factor == 1:
            return self
        alpha, exif = self.alpha, self.exif
        if alpha is not None:
            size = alpha.shape[1] * factor, alpha.shape[0] * factor
            smooth = Image.fromarray(alpha.astype(np.float32)).resize(
                size, Image.Resampling.BILINEAR
            )
            alpha = np.round(np.asarray(smooth)).astype(alpha.dtype)
        if exif:
            exif = _enlarged_exif(exif, factor)
        return replace(self, alpha=alpha, exif=exif)


def _enlarged_exif(exif: bytes, factor: int) -> bytes:
    """EXIF that tells the sides of an image, where it did, ``factor`` times as large.

    What is no number, or more than a tag can hold, is no side of an image, and goes.
    """
    read = Image.Exif()
    read.load(exif)
    sides = read.get_ifd(IFD.Exif)
    for part, tags in ((read, (Base.ImageWidth, Base.ImageLength)), (sides, EXIF_SIDES)):
        for tag in tags:
            side = part.get(tag)
            if isinstance(side, int) and side * factor < 2**32:
                part[tag] = side * factor
            elif side is not None:
                del part[tag]
    return read.tobytes()


def read_photo(path: str | Path) -> Photo:
    """Read a photograph.

    Raises:
        UserError: the file is missing, no file, damaged, of another format, too large, or does not
            say what is black and white.
    """
    samples = read_samples(path)
    with told(path):
        levels = samples.levels()
        colours = levels[..., :-1] if samples.alpha else levels
        grey, bits = colours.shape[2] == 1, levels.itemsize * 8
        pixels = colours.repeat(3, axis=2) if grey else colours
        return Photo(
            pixels.astype(np.float32) / (2**bits - 1),
            alpha=levels[..., -1] if samples.alpha else None,
            grey=grey,
            bits=bits,
            icc=samples.icc,
            exif=samples.exif,
            colour=samples.colour,
        )


def write_photo(path: str | Path, photo: Photo, restored: np.ndarray) -> None:
    """Write a restored photograph as a PNG; the file appears whole or not at all.

    Args:
        path: ends in .png.
        photo: what was restored; the file keeps all that it keeps.
        restored: (H, W, 3) in [0, 1].

    Raises:
        UserError: the name does not end in .png, the place cannot be written, or what was restored
            is no image.
    """
    path = Path(path)
    check_range(restored, f"What was restored for {path}")
    if path.suffix.lower() != ".png":
        raise UserError(f"Restored photographs are written as PNG, so {path} must end in .png.")
    values = _file_values(photo, restored)

    def write(temporary: Path) -> None:
        if photo.bits == 16:
            file = png16(values, photo.icc, photo.exif, photo.colour)
            temporary.write_bytes(file)
            return
        image, file = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values), BytesIO()
        image.save(
            file,
            format="PNG",
            compress_level=LEVEL,
            icc_profile=photo.icc,
            exif=photo.exif,
        )
        temporary.write_bytes(with_chunks(file.getvalue(), photo.colour))

    try:
        write_atomically(path, write)
    except OSError as error:
        raise cannot_write(path, error) from error


def _file_values(photo: Photo, restored: np.ndarray) -> np.ndarray:
    """The samples of a restored photograph's file: uint8 or uint16 (H, W, C), alpha last."""
    values = photo.shown(restored)[..., : 1 if photo.grey else 3]
    if photo.bits == 8:
        values = to_bytes(values)
    else:
        values = np.round(np.clip(values, 0, 1) * 65535).astype(np.uint16)
    if photo.alpha is None:
        return values
    return np.concatenate([values, photo.alpha[..., None]], axis=2)
