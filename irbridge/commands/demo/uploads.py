"""What a browser sends: files of any name and content, which stay below one temporary folder."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from irbridge.assets import ROOT
from irbridge.errors import UserError
from irbridge.images.holes import CLEAR, MASK
from irbridge.images.samples import read_header

LONGEST_STEM = 150  # bytes of a photograph's name that its result keeps
SAMPLES = ROOT / "data" / "samples" / "degraded"
PAINT = (
    "paint over what is to be filled, upload a mask that is white there, or give a photograph that"
    " is more than half transparent there"
)


class Place(NamedTuple):
    """Where one photograph is restored.

    Attributes:
        folder: of the result.
        source: the photograph, under its own name.
        mask: what is to be filled of it, or None.
    """

    folder: Path
    source: Path
    mask: Path | None


def plain_name(given: str) -> str:
    """The name of an uploaded file as the name of a result may continue it.

    What a browser sends can be anything. Left out are folders, signs that cannot be shown, NUL
    among them, dots at the beginning, and what is too long for a file's name.
    """
    last = re.split(r"[/\\]", given)[-1]
    shown = "".join(sign for sign in last if sign.isprintable()).strip().lstrip(".")
    stem, suffix = os.path.splitext(shown)
    stem = stem.encode()[:LONGEST_STEM].decode(errors="ignore").strip()
    return (stem or "photo") + suffix[:10]


def named(upload) -> str:
    """What the owner of an upload calls it, as a :func:`plain_name`."""
    return plain_name(upload.orig_name or Path(upload.path).name)


@contextmanager
def placed(below: str | Path, photo, painted=None, mask=None) -> Iterator[Place]:
    """A folder of its own for one photograph; errors within it name files as their owner does.

    The copies of what was uploaded go at the end, and the whole folder where there is no result.

    Args:
        below: the folder that it is made in.
        photo: the upload.
        painted: what the editor gives.
        mask: an upload, which counts instead of what is painted; None: what is painted counts.
    """
    folder = Path(tempfile.mkdtemp(dir=below))
    given = folder / "given"
    try:
        (given / "mask").mkdir(parents=True)
        source = given / named(photo)
        shutil.copyfile(photo.path, source)
        holes = _mask(given / "mask", source, painted, mask)
        yield Place(folder, source, holes)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, UserError):
            raise UserError(plainly(str(error), given)) from error
        raise
    finally:
        shutil.rmtree(given, ignore_errors=True)


def plainly(sentence: str, given: Path) -> str:
    """A command's sentence as the page says it: without folders, and with the page's own remedy.

    Args:
        sentence: the command's.
        given: the folder of the uploads.
    """
    for folder in (given / "mask", given, given.parent, ROOT):
        sentence = sentence.replace(f"{folder}{os.sep}", "")
    return sentence.replace(f"{MASK}, or {CLEAR}", PAINT).replace(MASK, PAINT)


def without_folders(reason: str) -> str:
    """What an unforeseen error says, with paths of this machine reduced to their last part."""
    return re.sub(r"(?:[A-Za-z]:)?(?:[/\\][^\s/\\'\",;:]+)+[/\\]", "", reason)


def _mask(folder: Path, source: Path, painted, mask) -> Path | None:
    """The mask's file, below ``folder``; None where nothing says what to fill."""
    if mask is not None:
        path = folder / named(mask)
        shutil.copyfile(mask.path, path)
        return path
    holes = painted_holes(painted)
    if holes is None:
        return None
    (width, height), _ = read_header(source)
    path = folder / "painted.png"
    painted_mask = Image.fromarray(holes.astype(np.uint8) * 255)
    painted_mask.resize((width, height), Image.Resampling.NEAREST).save(path)
    return path


def painted_holes(painted) -> np.ndarray | None:
    """Where something was painted, bool (H, W); None where nothing was.

    Args:
        painted: what the editor gives: ``layers``, uint8 (H, W, 4), transparent where nothing is.
    """
    layers = (painted or {}).get("layers") or []
    holes = [layer[..., 3] > 127 for layer in layers if layer.ndim == 3 and layer.shape[2] == 4]
    holes = [part for part in holes if part.any()]
    if not holes:
        return None
    return np.logical_or.reduce([part for part in holes if part.shape == holes[0].shape])


def samples() -> dict[str, Path]:
    """The degraded sample photographs, task -> file; none where the folder is not there."""
    found = sorted(SAMPLES.glob("*")) if SAMPLES.is_dir() else []
    return {path.stem: path for path in found if path.suffix in (".jpg", ".png")}
