"""Photograph files with what a restoration must keep: depth, greyness, alpha, colour profile, EXIF.

Read are JPEG, PNG, WebP, TIFF and BMP of any mode; of several frames or pages the first. Pillow
reads 16 bits of grey alone; those of colour PNGs come from torchvision and those of TIFFs from
tifffile, both at full depth. Only what these cannot decode (colour TIFFs packed by LZW or PackBits
without imagecodecs, and CMYK) is read at 8 bits. Written is PNG, which keeps all of it.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

from irbridge.errors import UserError
from irbridge.files import full_disk, write_atomically
from irbridge.images.arrays import LUMA, to_bytes
from irbridge.images.io import unreadable
from irbridge.images.png16 import LEVEL, png16, read_png16

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
# of a TIFF's fourth channel, as the format numbers them
PREMULTIPLIED, STRAIGHT = 1, 2


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
        """A restored (H, W, 3) as this photograph's file will show it.

        Of a grey photograph that is the luma, in all channels.
        """
        return np.repeat((restored @ LUMA)[..., None], 3, axis=2) if self.grey else restored


def read_photo(path: str | Path) -> Photo:
    """Read a photograph.

    Raises:
        UserError: the file is missing, damaged, of another format, or larger than Pillow's
            MAX_IMAGE_PIXELS allows (twice that many pixels).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"The photograph {path} does not exist or is no file; check the path.")
    try:
        with warnings.catch_warnings():
            # of odd EXIF, and of images between one and two MAX_IMAGE_PIXELS
            warnings.simplefilter("ignore")
            # An open file, as Pillow 13 maps a grey TIFF that it is given by name into memory with
            # its sides swapped where EXIF turns it.
            with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
                return _photo(path, image)
    except Exception as error:  # decoders raise anything on damaged data
        raise unreadable(path, error) from error


def write_photo(path: str | Path, photo: Photo, restored: np.ndarray) -> None:
    """Write a restored photograph as a PNG; the file appears whole or not at all.

    Args:
        path: ends in .png.
        photo: what was restored; the file keeps all that it keeps.
        restored: (H, W, 3) in [0, 1].

    Raises:
        UserError: the name does not end in .png, or the place cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"Restored photographs are written as PNG, so {path} must end in .png.")
    values = _file_values(photo, restored)

    def write(temporary: Path) -> None:
        if photo.bits == 16:
            temporary.write_bytes(png16(values, photo.icc, photo.exif))
            return
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
        remedy = "make room" if full_disk(error) else "choose a writable folder"
        reason = error.strerror or error
        raise UserError(f"{path} cannot be written ({reason}); {remedy}.") from error


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


def _photo(path: Path, image: Image.Image) -> Photo:
    """The photograph in a file that Pillow has opened."""
    # before loading, which turns a TIFF upright and forgets that it did
    turn, exif = read_exif(image)
    # a profile of CMYK does not fit what is read
    icc = None if image.mode == "CMYK" else image.info.get("icc_profile")
    image.load()  # a damaged file fails here, whatever reads its 16 bits
    samples = _deep_samples(path, image)
    if samples is None:
        samples = _samples(image)
        turn = 1 if image.format == "TIFF" else turn
    samples = np.ascontiguousarray(upright(samples, turn))
    channels, bits = samples.shape[2], samples.itemsize * 8
    grey = channels < 3
    pixels = samples[..., :1].repeat(3, axis=2) if grey else samples[..., :3]
    return Photo(
        pixels.astype(np.float32) / (2**bits - 1),
        alpha=samples[..., -1] if channels in (2, 4) else None,
        grey=grey,
        bits=bits,
        icc=icc,
        exif=exif,
    )


def read_exif(image: Image.Image) -> tuple[int, bytes]:
    """The orientation (1 to 8) of an image, and its EXIF without it."""
    try:
        exif = image.getexif()
        turn = exif.get(Base.Orientation, 1)
        if image.format == "TIFF":
            exif = _descriptive(exif)
        elif Base.Orientation in exif:
            exif[Base.Orientation] = 1
        return turn, exif.tobytes() if len(exif) else b""
    except Exception:  # broken EXIF is no reason to give up the picture
        return 1, b""


def _descriptive(exif: Image.Exif) -> Image.Exif:
    """What a TIFF's directory says of the picture rather than of its storage."""
    kept = Image.Exif()
    kept.update({tag: exif[tag] for tag in DESCRIPTIVE if tag in exif})
    for ifd in (IFD.Exif, IFD.GPSInfo):
        kept.get_ifd(ifd).update(exif.get_ifd(ifd))
    return kept


def upright(samples: np.ndarray, turn: int) -> np.ndarray:
    """Samples (H, W, C), turned and mirrored as EXIF's orientation asks."""
    if turn in (5, 6, 7, 8):
        samples = samples.transpose(1, 0, 2)
    down = -1 if turn in (3, 4, 7, 8) else 1
    right = -1 if turn in (2, 3, 6, 7) else 1
    return samples[::down, ::right]


def _deep_samples(path: Path, image: Image.Image) -> np.ndarray | None:
    """The samples (H, W, C) of a file of more than 8 bits, not turned; None of others."""
    readers = {"PNG": read_png16, "TIFF": _read_deep_tiff}
    if image.format not in readers:
        return None
    try:
        return readers[image.format](path, image)
    except Exception:  # such as a compression that needs imagecodecs: Pillow's reading stands
        return None


def _samples(image: Image.Image) -> np.ndarray:
    """The samples that Pillow reads, (H, W, C): grey or colour, then alpha if there is any.

    Returns:
        uint8, or uint16 of deep grey.
    """
    if image.mode == "F":
        return _to_16_bits(np.asarray(image), 1)[..., None]
    if image.mode.startswith("I"):
        return np.asarray(image).clip(0, 65535).astype(np.uint16)[..., None]
    mode = ("L" if image.mode in GREY else "RGB") + "A" * image.has_transparency_data
    return np.atleast_3d(np.asarray(image if image.mode == mode else image.convert(mode)))


def _read_deep_tiff(path: Path, image: Image.Image) -> np.ndarray | None:
    """The samples (H, W, C) of a TIFF of more than 8 bits, not turned; None of others."""
    from tifffile import PHOTOMETRIC, TiffFile  # late, as most photographs are none

    kinds = {PHOTOMETRIC.MINISBLACK: 1, PHOTOMETRIC.MINISWHITE: 1, PHOTOMETRIC.RGB: 3}
    with TiffFile(path) as file:
        page = file.pages[0]
        kind, bits, extra = page.photometric, page.bitspersample, page.extrasamples
        if bits <= 8 or kind not in kinds or page.axes not in ("YX", "YXS", "SYX"):
            return None
        values = page.asarray()
    values = np.atleast_3d(values.transpose(1, 2, 0) if page.axes == "SYX" else values)
    samples = _to_16_bits(values, 1 if values.dtype.kind == "f" else 2**bits - 1)
    colours = samples[..., : kinds[kind]]
    if kind == PHOTOMETRIC.MINISWHITE:
        colours = 65535 - colours
    if not extra or extra[0] not in (PREMULTIPLIED, STRAIGHT):
        return colours
    alpha = samples[..., kinds[kind] : kinds[kind] + 1]
    if alpha.size and extra[0] == PREMULTIPLIED:
        colours = _to_16_bits(colours / np.maximum(alpha, 1, dtype=np.float32), 1)
    return np.concatenate([colours, alpha], axis=2)


def _to_16_bits(values: np.ndarray, white: float) -> np.ndarray:
    """Values of which ``white`` is the largest, as uint16; what is no number counts as black."""
    if values.dtype == np.uint16 and white == 65535:
        return values
    shares = np.nan_to_num(values.astype(np.float64) / white).clip(0, 1)
    return np.round(shares * 65535).astype(np.uint16)
