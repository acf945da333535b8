"""Sources of clean images, pairs to restore and score, and the endless stream of training crops."""

import io
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from irbridge.errors import UserError
from irbridge.images import decode, is_image, list_images, read_header, read_image, to_bytes, to_tensor

CACHE_BYTES = 400_000_000
Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def centre_crop(image: np.ndarray, size: int | None) -> np.ndarray:
    """The central size x size pixels; a side that is shorter, or all with ``None``, is kept whole."""
    top, left = (max(0, side - (size or side)) // 2 for side in image.shape[:2])
    return image[top : top + (size or len(image)), left : left + (size or image.shape[1])]


def scaled(image: np.ndarray, shorter: int | None) -> np.ndarray:
    """The image with its shorter side ``shorter`` pixels long and the aspect kept to the nearest pixel, or with None as
    it is. Pillow's bicubic filter (a = -0.5), which widens with the reduction and so does not alias; the result is
    rounded to 8 bits, as a file of that size holds it."""
    side = min(image.shape[:2])
    if shorter in (None, side):
        return image
    size = [max(1, round(n * shorter / side)) for n in image.shape[1::-1]]
    return np.asarray(Image.fromarray(to_bytes(image)).resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255


def name_rng(seed: int, name: str) -> np.random.Generator:
    """Randomness of (seed, name) alone, the same wherever the image is in a set."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


class ImageSource:
    """The images of a folder, or of an uncompressed .tar: ``len``, ``names`` and ``source[i]``. A name is a file's
    stem, with the folders inside a tar joined by "_". Images are :func:`scaled` to ``resize``. No file stays open
    between reads. UserError if nothing is there, no images, two images of one name, or a tar that is compressed or
    damaged."""

    def __init__(self, path: str | Path, resize: int | None = None):
        self.path, self.resize = Path(path), resize
        if self.path.suffix.lower() == ".tar" and not self.path.is_dir():
            self.entries = _tar_entries(self.path)
            self.names = [str(Path(name).with_suffix("")).replace("/", "_") for name, _, _ in self.entries]
        else:
            self.entries = list_images(self.path)
            self.names = [path.stem for path in self.entries]
        refuse_duplicates(self.names, self.path)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> np.ndarray:
        if isinstance(self.entries[i], Path):
            return scaled(read_image(self.entries[i]), self.resize)
        name, offset, size = self.entries[i]
        with open(self.path, "rb") as file:
            file.seek(offset)
            return scaled(decode(io.BytesIO(file.read(size)), f"{self.path}:{name}"), self.resize)


class Pair(NamedTuple):
    """One image and its degraded version, both float32 (H, W, 3) in [0, 1]."""
    name: str
    clean: np.ndarray
    degraded: np.ndarray


class SyntheticPairs:
    """Clean images of a folder or tar, :func:`scaled` to ``resize`` and centre-cropped to ``size`` pixels unless these
    are None, then degraded by ``degradation(image, rng)`` with randomness that depends on (seed, name) alone."""

    def __init__(self, clean: str | Path, degradation: Degradation, seed: int = 0, size: int | None = None,
                 resize: int | None = None):
        self.source, self.degradation, self.seed, self.size = ImageSource(clean, resize), degradation, seed, size
        self.names = self.source.names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Pair:
        image = centre_crop(self.source[i], self.size)
        return Pair(self.names[i], image, self.degradation(image, name_rng(self.seed, self.names[i])))


class PairedFolders:
    """Degraded images and their clean partners in two folders, or mixed in one, named by the degraded stem; both sides
    :func:`scaled` to ``resize``, then centre-cropped to ``size``.

    Partners have equal stems, or equal but for the markers of Rain100H and RainDrop (norain-001 and rain-001, 3_clean
    and 3_rain), or the degraded stem continues the clean one after "_" (RESIDE). In one folder the markers alone tell the
    two apart, and other images are left out. UserError if a folder is missing or empty, a stem occurs twice, or an image
    has no partner."""

    def __init__(self, clean: str | Path, degraded: str | Path, size: int | None = None, resize: int | None = None):
        self.size, self.resize, cleans, degradeds = size, resize, list_images(clean), list_images(degraded)
        if Path(clean).resolve() == Path(degraded).resolve():
            cleans, degradeds = _unmix(cleans)
        exact, self.names = {p.stem: p for p in cleans}, [p.stem for p in degradeds]
        refuse_duplicates([p.stem for p in cleans], clean)
        refuse_duplicates(self.names, degraded)
        bare = {_bare(p.stem): p for p in cleans}
        self.paths = [(_partner(p.stem, exact, bare), p) for p in degradeds]
        used = {c for c, _ in self.paths}
        alone = [p for c, p in self.paths if c is None] + [p for p in cleans if p not in used]
        if alone:
            raise UserError(f"{alone[0]} has no partner{and_more(alone)}, {clean} holding {len(cleans)} and "
                            f"{degraded} {len(degradeds)} images; give the two of a pair the same name.")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Pair:
        clean, degraded = (read_image(path) for path in self.paths[i])
        if clean.shape != degraded.shape:
            raise UserError(mismatch(*self.paths[i], clean.shape[1::-1], degraded.shape[1::-1]))
        return self._pair(i, clean, degraded)

    def _pair(self, i: int, *images: np.ndarray) -> Pair:
        return Pair(self.names[i], *(centre_crop(scaled(image, self.resize), self.size) for image in images))

    def keep(self, wanted: Callable[[int], bool]) -> None:
        """Keep the pairs whose clean image has a wanted index: no scene is then on both sides of a split."""
        order = {path: index for index, path in enumerate(sorted({clean for clean, _ in self.paths}))}
        kept = [i for i, (clean, _) in enumerate(self.paths) if wanted(order[clean])]
        self.paths, self.names = ([values[i] for i in kept] for values in (self.paths, self.names))
        if not self.paths:
            raise UserError(f"{len(order)} images are too few to hold some back; give more, or test folders.")

    def check(self) -> None:
        """Open every header: UserError if one cannot be opened or a pair does not fit, in size or mode."""
        faults, header = [], cache(read_header)   # a scene may have many degraded versions
        for clean, degraded in self.paths:
            try:
                kinds = header(clean), header(degraded)
                faults += [] if self._fits(*kinds) else [mismatch(clean, degraded, *kinds)]
            except UserError as error:
                faults.append(str(error))
        if faults:
            raise UserError(faults[0].rstrip(".") + and_more(faults) + ".")

    def _fits(self, clean: tuple, degraded: tuple) -> bool:
        """Whether the headers, (width, height) and mode, are those of a pair."""
        return clean == degraded


class CropStream(Dataset):
    """Endless training crops; ``stream[draw]`` is a pure function of (seed, draw).

    The draw picks the image, the position, a horizontal flip and the degradation. It is a dict of ``clean`` and
    ``degraded``, (3, crop, crop) in [-1, 1], and ``draw``. Images smaller than the crop are padded by reflection.
    ``source``: clean images, degraded after the crop (unchanged without a degradation); or aligned pairs. ``fixed``:
    the draw picks the image and the flip alone; the crop is the central one and the degradation depends on (seed,
    name), so that an image has two versions in all, whose encodings can be kept."""

    def __init__(self, source: ImageSource | PairedFolders, crop: int, seed: int,
                 degradation: Degradation | None = None, fixed: bool = False):
        self.source, self.crop, self.seed, self.degradation, self.fixed = source, crop, seed, degradation, fixed
        self.cache, self.cached_bytes = {}, 0

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, draw])
        i = int(rng.integers(len(self.source)))
        images = self._read(i)
        missing = [max(0, self.crop - side) for side in images.shape[1:3]]
        images = np.pad(images, [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)], mode="reflect")
        spare = [side - self.crop for side in images.shape[1:3]]
        top, left = (s // 2 if self.fixed else int(rng.integers(s + 1)) for s in spare)
        images = images[:, top : top + self.crop, left : left + self.crop].astype(np.float32) / 255
        mirror = slice(None, None, -1 if rng.random() < 0.5 else None)
        if self.fixed:   # the degradation must not see the flip
            clean, degraded = (im[:, mirror] for im in self._pair(images, name_rng(self.seed, self.source.names[i])))
        else:
            clean, degraded = self._pair(images[:, :, mirror], rng)
        return {"clean": to_tensor(clean), "degraded": to_tensor(degraded), "draw": draw}

    def _pair(self, images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return images[0], images[-1] if self.degradation is None else self.degradation(images[0], rng)

    def _read(self, i: int) -> np.ndarray:
        """The clean image, or the pair, as uint8 (1 or 2, H, W, 3); decoded once while the cache has room."""
        if i in self.cache:
            return self.cache[i]
        item = self.source[i]
        images = to_bytes(np.stack(item[1:] if isinstance(item, Pair) else [item]))
        worker = get_worker_info()
        if self.cached_bytes + images.nbytes <= CACHE_BYTES / (worker.num_workers if worker else 1):
            self.cache[i] = images
            self.cached_bytes += images.nbytes
        return images


def stream_loader(stream: CropStream, start_draw: int, batch_size: int, workers: int = 0, rank: int = 0,
                  world: int = 1) -> DataLoader:
    """Endless batches of consecutive draws from start_draw on, the same for any number of workers. With ``world``
    processes each takes every world-th batch, so that together they see what one would."""
    batches = _Batches(start_draw + rank * batch_size, batch_size, batch_size * world)
    # Its own generator, because a loader otherwise draws from torch's global one.
    return DataLoader(stream, batch_sampler=batches, num_workers=workers, generator=torch.Generator())


class _Batches:
    def __init__(self, start: int, size: int, stride: int):
        self.start, self.size, self.stride = start, size, stride

    def __iter__(self):
        return (range(k, k + self.size) for k in count(self.start, self.stride))


def _tar_entries(path: Path) -> list[tuple[str, int, int]]:
    """(name, offset, bytes) of every image in a tar, sorted by name."""
    try:
        with tarfile.open(path, "r:") as tar:
            files = [member for member in tar if member.isfile() and is_image(Path(member.name))]
    except FileNotFoundError:
        raise UserError(f"The archive {path} does not exist; check the path.") from None
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path} cannot be read as an uncompressed tar ({error}); make it with `tar -cf`, or give a "
                        "folder.") from error
    if not files:
        raise UserError(f"The archive {path} holds no images; pack image files such as .png or .jpg.")
    return sorted((member.name, member.offset_data, member.size) for member in files)


def _unmix(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """The clean and the degraded images of one folder, by their markers."""
    cleans, degradeds = ([p for p in paths if re.search(marker, p.stem)] for marker in
                         (r"^norain[-_]|[-_]clean$", r"^rain[-_]|[-_]rain$"))
    if not cleans or not degradeds:
        raise UserError(f"{paths[0].parent} is given as both clean and degraded, but its names do not tell the two apart; "
                        "name them norain-1 and rain-1, or 1_clean and 1_rain, or give two folders.")
    return cleans, degradeds


def _bare(stem: str) -> str:
    return re.sub(r"^(no)?rain[-_]|[-_](clean|rain)$", "", stem)


def _partner(stem: str, exact: dict[str, Path], bare: dict[str, Path]) -> Path | None:
    parts = stem.split("_")
    prefixes = ["_".join(parts[:k]) for k in range(len(parts) - 1, 0, -1)]
    return next((exact[s] for s in [stem, *prefixes] if s in exact), bare.get(_bare(stem)))


def refuse_duplicates(stems: list[str], where) -> None:
    twice = [stem for stem, times in Counter(stems).items() if times > 1]
    if twice:
        raise UserError(f"{where} holds several images named {twice[0]}{and_more(twice)}; keep one of each.")


def and_more(faults: list) -> str:
    return f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""


def mismatch(clean: Path, degraded: Path, a, b) -> str:
    return f"{clean} and {degraded} differ in size or mode ({a} and {b}); make the pair agree."
