"""Reading, writing and listing images, float32 (H, W, 3) in [0, 1]; and tensors of them, (3, H, W)
in [-1, 1]."""

import errno
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from irbridge.checkpoint import write_atomically
from irbridge.errors import UserError

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's mode L
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) in [0, 1] to (3, H, W) in [-1, 1], float32."""
    return (
        torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)) * 2 - 1
    )


def to_image(tensor: Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] to float32 (H, W, 3), clipped to [0, 1]."""
    return (tensor.detach().float().cpu() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()


def pad(image: Tensor, stride: int) -> Tensor:
    """Reflect-pad (B, C, H, W) on the right and below to sides divisible by ``stride``."""
    down, right = -image.shape[-2] % stride, -image.shape[-1] % stride
    while down or right:  # reflection reaches at most one image's width at a time
        d, r = min(down, image.shape[-2] - 1), min(right, image.shape[-1] - 1)
        mode = "reflect" if (d or not down) and (r or not right) else "replicate"
        d, r = (d, r) if mode == "reflect" else (down, right)
        image = F.pad(image, (0, r, 0, d), mode=mode)
        down, right = down - d, right - r
    return image


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[0, 1] to uint8, rounded."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def read_image(path: str | Path) -> np.ndarray:
    """Read one image of any common mode: upright, RGB, alpha over white, 16-bit grey at full depth.
    UserError if it is missing, a folder, no image, damaged, or larger than Pillow's
    MAX_IMAGE_PIXELS allows."""
    path = Path(path)
    if path.is_dir():
        raise UserError(
            f"{path} is a folder where an image file is expected; name one image in it."
        )
    if not path.exists():
        raise UserError(f"The image {path} does not exist; check the path.")
    return decode(path, path)


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write (H, W, 3) in [0, 1] as an 8-bit PNG; the file appears whole or not at all. UserError if
    the name does not end in .png or the place cannot be written."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"Results are written as PNG, so {path} must end in .png.")
    try:
        write_atomically(path, lambda p: Image.fromarray(to_bytes(image)).save(p, format="PNG"))
    except OSError as error:
        remedy = (
            "make room"
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            else "choose a writable folder"
        )
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); {remedy}."
        ) from error


def is_image(path: Path) -> bool:
    """Whether the name is that of an image; hidden files are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_images(folder: str | Path) -> list[Path]:
    """The images directly inside a folder, sorted by name. Raises UserError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"The image folder {folder} does not exist; check the path.")
    paths = sorted(path for path in folder.iterdir() if is_image(path) and path.is_file())
    if not paths:
        raise UserError(
            f"The folder {folder} holds no images; put files such as .png or .jpg in it."
        )
    return paths


_SCALES = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I": 65535, "F": 1}


def decode(file, name) -> np.ndarray:
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode in _SCALES:
                grey = np.asarray(image, dtype=np.float32) / _SCALES[image.mode]
                return np.repeat(grey.clip(0, 1)[..., None], 3, axis=2)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    except Exception as error:  # decoders raise anything on damaged data
        raise unreadable(name, error) from error


def read_header(file, name: str | None = None) -> tuple[tuple[int, int], str]:
    """((width, height), mode) of an image as it is shown, by its header alone. UserError, which
    calls it ``name``, if it is none."""
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            return (image.size[::-1] if turned else image.size), image.mode
    except Exception as error:
        raise unreadable(name or file, error) from error


def unreadable(name, error: Exception) -> UserError:
    if isinstance(error, Image.DecompressionBombError):
        return UserError(
            f"{name} declares more pixels than Pillow accepts ({2 * Image.MAX_IMAGE_PIXELS}); "
            "replace it, or cut it into smaller images."
        )
    known = str(error).rstrip(".") or type(error).__name__
    reason = "unknown format" if isinstance(error, UnidentifiedImageError) else known
    return UserError(f"{name} is not a readable image ({reason}); replace or remove it.")
