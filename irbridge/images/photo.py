"""Photograph files with what a restoration must keep: depth, greyness, alpha, colour profile, EXIF.

Read are JPEG, PNG, WebP, TIFF and BMP of any mode; of several frames or pages the first. Pillow
reads 16 bits of grey alone; those of colour PNGs come from torchvision and those of TIFFs from
tifffile, both at full depth. Only what these cannot decode (colour TIFFs packed by LZW or PackBits
without imagecodecs, and CMYK) is read at 8 bits. Written is PNG, which keeps all of it.
"""

import errno
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

from irbridge.errors import UserError
from irbridge.files import write_atomically
from irbridge.images.arrays import LUMA, to_bytes
from irbridge.images.io import unreadable
from irbridge.images.png16 import LEVEL, _deep_png, png16

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
GREY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
# What a TIFF's directory says of the picture rather than of its storage.
DESCRIPTIVE = (
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.Copyright,
)


@dataclass(frozen=True)
class Photo:
    """A photograph: ``pixels``, upright, float32 (H, W, 3) in [0, 1], and what a restored version
    keeps.

    alpha: (H, W), uint8 or uint16 as ``bits`` says, or None. grey: whether the file has one colour
    channel. bits: 8 or 16. icc: the colour profile, or None. exif: with the orientation reset, or
    empty.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    bits: int = 8
    icc: bytes | None = None
    exif: bytes = b""

    @property
    def channels(self) -> int:
        """Of the file: 1 to 4."""
        return (1 if self.grey else 3) + (self.alpha is not None)

    def shown(self, restored: np.ndarray) -> np.ndarray:
        """A restored (H, W, 3) as this photograph's file will show it: of a grey one the luma, in
        all channels.
        """
        return np.repeat((restored @ LUMA)[..., None], 3, axis=2) if self.grey else restored


def read_photo(path: str | Path) -> Photo:
    """Read a photograph. UserError names the file where it is missing, damaged, of another format,
    or larger than Pillow's MAX_IMAGE_PIXELS allows (twice that many pixels).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"The photograph {path} does not exist or is no file; check the path.")
    try:
        with warnings.catch_warnings():
            # of odd EXIF, and of images between one and two MAX_IMAGE_PIXELS
            warnings.simplefilter("ignore")
            # A file, as Pillow 13 maps a grey TIFF that it is given by name into memory with its
            # sides swapped where EXIF turns it.
            with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
                return _photo(path, image)
    except Exception as error:  # decoders raise anything on damaged data
        raise unreadable(path, error) from error


def write_photo(path: str | Path, photo: Photo, restored: np.ndarray) -> None:
    """Write ``restored``, (H, W, 3) in [0, 1], as a PNG with all that ``photo`` keeps; whole or not
    at all. UserError if the name does not end in .png or the place cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"Restored photographs are written as PNG, so {path} must end in .png.")
    values = photo.shown(restored)[..., : 1 if photo.grey else 3]
    values = (
        to_bytes(values)
        if photo.bits == 8
        else np.round(np.clip(values, 0, 1) * 65535).astype(np.uint16)
    )
    if photo.alpha is not None:
        values = np.concatenate([values, photo.alpha[..., None]], axis=2)

    def write(temporary: Path) -> None:
        if photo.bits == 16:
            temporary.write_bytes(png16(values, photo.icc, photo.exif))
        else:
            image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
            image.save(
                temporary,
                format="PNG",
                compress_level=LEVEL,
                icc_profile=photo.icc,
                exif=photo.exif,
            )

    try:
        write_atomically(path, write)
    except OSError as error:
        remedy = "make room" if error.errno == errno.ENOSPC else "choose a writable folder"
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); {remedy}."
        ) from error


def _photo(path: Path, image: Image.Image) -> Photo:
    # before loading, which turns a TIFF upright and forgets that it did
    turn, exif = read_exif(image)
    icc, cmyk = image.info.get("icc_profile"), image.mode == "CMYK"
    image.load()  # a damaged file fails here, whatever reads its 16 bits
    try:
        samples = {"PNG": _deep_png, "TIFF": _deep_tiff}.get(image.format, lambda *_: None)(
            path, image
        )
    except Exception:  # such as a compression that needs imagecodecs: Pillow's reading stands
        samples = None
    if samples is None:
        samples, turn = _samples(image), 1 if image.format == "TIFF" else turn
    samples = np.ascontiguousarray(upright(samples, turn))
    grey, bits = samples.shape[2] < 3, samples.itemsize * 8
    pixels = samples[..., :1].repeat(3, axis=2) if grey else samples[..., :3]
    alpha = None if samples.shape[2] in (1, 3) else samples[..., -1]
    return Photo(
        pixels.astype(np.float32) / (2**bits - 1), alpha, grey, bits, None if cmyk else icc, exif
    )


def read_exif(image: Image.Image) -> tuple[int, bytes]:
    """The orientation (1 to 8) and the EXIF without it."""
    try:
        exif = image.getexif()
        turn = exif.get(Base.Orientation, 1)
        if image.format == "TIFF":
            kept = Image.Exif()
            kept.update({tag: exif[tag] for tag in DESCRIPTIVE if tag in exif})
            for ifd in (IFD.Exif, IFD.GPSInfo):
                kept.get_ifd(ifd).update(exif.get_ifd(ifd))
            exif = kept
        elif Base.Orientation in exif:
            exif[Base.Orientation] = 1
        return turn, exif.tobytes() if len(exif) else b""
    except Exception:  # broken EXIF is no reason to give up the picture
        return 1, b""


def upright(samples: np.ndarray, turn: int) -> np.ndarray:
    """(H, W, C) as EXIF's orientation asks."""
    if turn in (5, 6, 7, 8):
        samples = samples.transpose(1, 0, 2)
    down = slice(None, None, -1 if turn in (3, 4, 7, 8) else 1)
    return samples[down, :: -1 if turn in (2, 3, 6, 7) else 1]


def _samples(image: Image.Image) -> np.ndarray:
    """What Pillow reads, (H, W, C): grey or colour, then alpha if there is any; uint8, or uint16 of
    deep grey.
    """
    if image.mode == "F":
        return _scaled(np.asarray(image), 1)[..., None]
    if image.mode.startswith("I"):
        return np.asarray(image).clip(0, 65535).astype(np.uint16)[..., None]
    mode = ("L" if image.mode in GREY else "RGB") + "A" * image.has_transparency_data
    return np.atleast_3d(np.asarray(image if image.mode == mode else image.convert(mode)))


def _deep_tiff(path: Path, image: Image.Image) -> np.ndarray | None:
    """The samples (H, W, C) of a TIFF of more than 8 bits, not turned; None of others."""
    from tifffile import PHOTOMETRIC, TiffFile  # late, as most photographs are none

    with TiffFile(path) as file:
        page = file.pages[0]
        kind, bits, extra = page.photometric, page.bitspersample, page.extrasamples
        colours = {PHOTOMETRIC.MINISBLACK: 1, PHOTOMETRIC.MINISWHITE: 1, PHOTOMETRIC.RGB: 3}.get(
            kind
        )
        if bits <= 8 or colours is None or page.axes not in ("YX", "YXS", "SYX"):
            return None
        values = page.asarray()
    values = np.atleast_3d(values.transpose(1, 2, 0) if page.axes == "SYX" else values)
    samples = _scaled(values, 1 if values.dtype.kind == "f" else 2**bits - 1)
    alpha = (
        samples[..., colours : colours + 1] if extra and extra[0] in (1, 2) else samples[..., :0]
    )
    samples = samples[..., :colours]
    if kind == PHOTOMETRIC.MINISWHITE:
        samples = 65535 - samples
    if alpha.size and extra[0] == 1:  # colours were multiplied by it
        samples = _scaled(samples / np.maximum(alpha, 1, dtype=np.float32), 1)
    return np.concatenate([samples, alpha], axis=2)


def _scaled(values: np.ndarray, white: float) -> np.ndarray:
    """Values of which ``white`` is the largest, as uint16; what is no number counts as black."""
    if values.dtype == np.uint16 and white == 65535:
        return values
    return np.round(np.nan_to_num(values.astype(np.float64) / white).clip(0, 1) * 65535).astype(
        np.uint16
    )
