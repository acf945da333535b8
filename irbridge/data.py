"""Sources of clean images, pairs to restore and score, and the endless stream of training crops."""

import io
import os
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from operator import eq
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from irbridge.errors import UserError
from irbridge.images import (
    decode,
    is_image,
    list_images,
    read_header,
    read_image,
    to_bytes,
    to_tensor,
)

CACHE_SHARE = 0.25  # of the free memory, of the machine or of the GPU, for decoded training images
Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def centre_crop(image: np.ndarray, size: int | None) -> np.ndarray:
    """The central size x size pixels; a side that is shorter, or all with ``None``, is kept
    whole."""
    top, left = (max(0, side - (size or side)) // 2 for side in image.shape[:2])
    return image[top : top + (size or len(image)), left : left + (size or image.shape[1])]


def scaled(image: np.ndarray, shorter: int | None) -> np.ndarray:
    """The image with its shorter side ``shorter`` pixels long and the aspect kept to the nearest
    pixel, or with None as it is. Pillow's bicubic filter (a = -0.5), which widens with the
    reduction and so does not alias; the result is rounded to 8 bits, as a file of that size holds
    it."""
    side = min(image.shape[:2])
    if shorter in (None, side):
        return image
    size = [max(1, round(n * shorter / side)) for n in image.shape[1::-1]]
    return (
        np.asarray(
            Image.fromarray(to_bytes(image)).resize(size, Image.Resampling.BICUBIC),
            dtype=np.float32,
        )
        / 255
    )


def name_rng(seed: int, name: str) -> np.random.Generator:
    """Randomness of (seed, name) alone, the same wherever the image is in a set."""
    return np.random.default_rng([seed, zlib.crc32(name.encode(errors="surrogateescape"))])


class ImageSource:
    """The images of a folder, or of an uncompressed .tar: ``len``, ``names``, ``scenes`` (what of a
    source shows one scene has one entry there) and ``source[i]``. A name is a file's stem, with the
    folders inside a tar joined by "_". Images are :func:`scaled` to ``resize``. No file stays open
    between reads. UserError if nothing is there, no images, two images of one name, or a tar that
    is compressed or damaged."""

    def __init__(self, path: str | Path, resize: int | None = None):
        self.path, self.resize = Path(path), resize
        if self.path.suffix.lower() == ".tar" and not self.path.is_dir():
            self.entries = _tar_entries(self.path)
            self.names = [
                str(Path(name).with_suffix("")).replace("/", "_") for name, _, _ in self.entries
            ]
        else:
            self.entries = list_images(self.path)
            self.names = [path.stem for path in self.entries]
        refuse_duplicates(self.names, self.path)
        self.scenes = self.names

    @property
    def files(self) -> list[tuple[str, ...]]:
        """What each image is read from: the same of one file, by whatever path."""
        at = os.path.realpath(self.path)
        return [
            (os.path.realpath(e) if isinstance(e, Path) else f"{at}:{e[0]}",) for e in self.entries
        ]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> np.ndarray:
        if isinstance(self.entries[i], Path):
            return scaled(read_image(self.entries[i]), self.resize)
        return scaled(decode(self.packed(i), self.called(i)), self.resize)

    def packed(self, i: int) -> io.BytesIO:
        """The file of an image in a tar."""
        _, offset, size = self.entries[i]
        with open(self.path, "rb") as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))

    def called(self, i: int) -> str:
        """What errors call an image in a tar."""
        return f"{self.path}:{self.entries[i][0]}"


class Pair(NamedTuple):
    """One image and its degraded version, both float32 (H, W, 3) in [0, 1], and where the task has
    holes their mask, (H, W) bool, True in a hole."""

    name: str
    clean: np.ndarray
    degraded: np.ndarray
    mask: np.ndarray | None = None

    @property
    def seen(self) -> np.ndarray:
        """What a method is given: the degraded image, with the mask as a fourth channel where there
        is one."""
        return with_mask(self.degraded, self.mask)


def spread(pairs, most: int) -> list[Pair]:
    """At most so many of the pairs, evenly spaced, so that all sources of a mix are among them."""
    return [
        pairs[i] for i in np.linspace(0, len(pairs) - 1, min(most, len(pairs))).round().astype(int)
    ]


def with_mask(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """An image (H, W, 3) with its mask (H, W), True in a hole, as a fourth channel of 0 and 1;
    without one as it is."""
    return image if mask is None else np.dstack([image, mask.astype(np.float32)])


def split_mask(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The image (H, W, 3) and its mask (H, W) bool, or None, of what :func:`with_mask` gives."""
    return seen[..., :3], seen[..., 3] > 0.5 if seen.shape[-1] > 3 else None


def degraded(
    clean: np.ndarray, degradation: Degradation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """(degraded image, mask of its holes or None) of a clean image."""
    if not hasattr(degradation, "mask"):
        return degradation(clean, rng), None
    mask = degradation.mask(clean.shape[:2], rng)
    return degradation.fill_in(clean, mask), mask


class SyntheticPairs:
    """Clean images of a folder, a tar or another source, :func:`scaled` to ``resize`` and
    centre-cropped to ``size`` pixels unless these are None, then degraded by ``degradation(image,
    rng)`` with randomness that depends on (seed, name) alone."""

    def __init__(
        self,
        clean,
        degradation: Degradation,
        seed: int = 0,
        size: int | None = None,
        resize: int | None = None,
    ):
        self.source = ImageSource(clean, resize) if isinstance(clean, (str, Path)) else clean
        self.degradation, self.seed, self.size = degradation, seed, size
        self.names, self.scenes = self.source.names, self.source.scenes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Pair:
        image = centre_crop(self.source[i], self.size)
        return Pair(
            self.names[i],
            image,
            *degraded(image, self.degradation, name_rng(self.seed, self.names[i])),
        )


class PackedPairs:
    """Pairs of an uncompressed tar, or of a folder, that holds two folders ``clean`` and
    ``degraded`` with equal stems: ``len``, ``names`` and ``pairs[i]``. Both sides are
    :func:`scaled` to ``resize`` and centre-cropped to ``size``. UserError where there are none, two
    pairs have one name, or an image lacks its partner."""

    def __init__(self, path: str | Path, size: int | None = None, resize: int | None = None):
        self.path, self.size, self.resize = Path(path), size, resize
        if self.path.is_dir():
            self.pairs = PairedFolders(
                *(self.path / half for half in ("clean", "degraded")), size, resize
            )
            self.names, self.scenes = self.pairs.names, self.pairs.scenes
            return
        self.pairs, self.archive = None, ImageSource(self.path)
        found = {"clean": {}, "degraded": {}}
        for i, (name, _, _) in enumerate(self.archive.entries):
            half, stem = Path(name).parent.name, Path(name).stem
            if stem in found.get(half, ()):
                raise UserError(
                    f"{path} holds two pairs named {stem},"
                    f" {self.archive.entries[found[half][stem]][0]} and {name}; give them names of"
                    " their own."
                )
            if half in found:
                found[half][stem] = i
        self.names = self.scenes = sorted(found["degraded"])
        alone = sorted(found["clean"].keys() ^ found["degraded"].keys())
        if alone or not self.names:
            which = f" ({alone[0]} has no partner{and_more(alone)})" if alone else ""
            raise UserError(
                f"{path} holds no pairs{which}; pack two folders, clean and degraded, whose images"
                " have equal names."
            )
        self.indices = [(found["clean"][name], found["degraded"][name]) for name in self.names]

    @property
    def files(self) -> list[tuple[str, ...]]:
        """See :attr:`ImageSource.files`."""
        if self.pairs is not None:
            return self.pairs.files
        files = self.archive.files
        return [files[clean] + files[degraded] for clean, degraded in self.indices]

    def check(self) -> None:
        """Open every header: UserError if one cannot be opened or the two of a pair differ in size
        or mode."""
        if self.pairs is not None:
            return self.pairs.check()
        index = {self.archive.called(i): i for pair in self.indices for i in pair}
        check_headers(
            [tuple(map(self.archive.called, pair)) for pair in self.indices],
            lambda name: read_header(self.archive.packed(index[name]), name),
            eq,
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Pair:
        if self.pairs is not None:
            return self.pairs[i]
        clean, degraded = (self.archive[k] for k in self.indices[i])
        if clean.shape != degraded.shape:
            raise UserError(
                mismatch(
                    f"{self.path}: clean {self.names[i]}",
                    "its degraded version",
                    clean.shape[1::-1],
                    degraded.shape[1::-1],
                )
            )
        return Pair(
            self.names[i],
            *(centre_crop(scaled(image, self.resize), self.size) for image in (clean, degraded)),
        )


class Subset:
    """Some items of a source, by their indices."""

    def __init__(self, source, indices: list[int]):
        self.source, self.indices = source, indices
        self.names, self.scenes = (
            [values[i] for i in indices] for values in (source.names, source.scenes)
        )

    @property
    def files(self) -> list[tuple[str, ...]]:
        """See :attr:`ImageSource.files`."""
        files = self.source.files
        return [files[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int):
        return self.source[self.indices[i]]


class Chain:
    """Several sources as one."""

    def __init__(self, sources: list):
        self.sources, self.items = (
            sources,
            [(source, i) for source in sources for i in range(len(source))],
        )
        self.names = [name for source in sources for name in source.names]
        self.scenes = [scene for source in sources for scene in source.scenes]

    @property
    def files(self) -> list[tuple[str, ...]]:
        """See :attr:`ImageSource.files`."""
        return [files for source in self.sources for files in source.files]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, k: int):
        source, i = self.items[k]
        return source[i]


class Renamed:
    """A source under other names."""

    def __init__(self, source, names: list[str]):
        self.source, self.names, self.scenes = source, names, source.scenes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int):
        return self.source[i]._replace(name=self.names[i])


def distinct(names: list[str], labels: list[str]) -> list[str]:
    """The names, of which those that repeat have their label before them, and a number behind where
    that does not do."""
    times, found = Counter(names), {}
    for name, label in zip(names, labels):
        wanted = f"{label}_{name}".replace("/", "_") if times[name] > 1 else name
        free = (f"{wanted}_{k}" for k in count(2))
        while wanted in found or wanted != name and wanted in times:
            wanted = next(free)
        found[wanted] = None
    return list(found)


def photographs_of(
    paths: list[str | Path],
    exclude: str | Path | None = None,
    resize: int | None = None,
    key: str = "data.train",
):
    """The images of several folders or tars as one source. Left out is an image whose name is the
    stem of one in the folder ``exclude``, or ends with "_" and that stem: it is held back for
    tests. ``key``: of the config, in the UserError if none is left."""
    held = {p.stem for p in list_images(exclude)} if exclude else set()
    images = Chain([ImageSource(path, resize) for path in paths])
    kept = [
        i
        for i, name in enumerate(images.names)
        if name not in held and name.split("_")[-1] not in held
    ]
    if not kept:
        raise UserError(
            f"No image of {key}=[{', '.join(map(str, paths))}] is left, those of {exclude}"
            " excluded; give other folders."
        )
    return Subset(images, kept)


def split_scenes(scenes: list[str], every: int | None) -> tuple[list[int], list[int]]:
    """(indices to train on, indices held back for validation) of images of these scenes: every
    ``every``-th scene is held back, none with None."""
    held = set(sorted(set(scenes))[::every]) if every else set()
    return (
        [i for i, s in enumerate(scenes) if s not in held],
        [i for i, s in enumerate(scenes) if s in held],
    )


class PairedFolders:
    """Degraded images and their clean partners in two folders, or mixed in one, named by the
    degraded stem; both sides :func:`scaled` to ``resize``, then centre-cropped to ``size``.

    Partners have equal stems, or equal but for the markers of Rain100H and RainDrop (norain-001 and
    rain-001, 3_clean and 3_rain), or the degraded stem continues the clean one after "_" (RESIDE).
    In one folder the markers alone tell the two apart, and other images are left out. UserError if
    a folder is missing or empty, a stem occurs twice, or an image has no partner."""

    def __init__(
        self,
        clean: str | Path,
        degraded: str | Path,
        size: int | None = None,
        resize: int | None = None,
    ):
        self.size, self.resize, cleans, degradeds = (
            size,
            resize,
            list_images(clean),
            list_images(degraded),
        )
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
            raise UserError(
                f"{alone[0]} has no partner{and_more(alone)}, {clean} holding {len(cleans)} and "
                f"{degraded} {len(degradeds)} images; give the two of a pair the same name."
            )

    @property
    def scenes(self) -> list[str]:
        """The scene of each pair: all degraded versions of one clean image have the first one's
        name."""
        first = {}
        for (clean, _), name in zip(self.paths, self.names):
            first[clean] = min(name, first.get(clean, name))
        return [first[clean] for clean, _ in self.paths]

    @property
    def files(self) -> list[tuple[str, ...]]:
        """See :attr:`ImageSource.files`."""
        return [tuple(map(os.path.realpath, pair)) for pair in self.paths]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Pair:
        clean, degraded = (read_image(path) for path in self.paths[i])
        if clean.shape != degraded.shape:
            raise UserError(mismatch(*self.paths[i], clean.shape[1::-1], degraded.shape[1::-1]))
        return self._pair(i, clean, degraded)

    def _pair(self, i: int, *images: np.ndarray) -> Pair:
        return Pair(
            self.names[i], *(centre_crop(scaled(image, self.resize), self.size) for image in images)
        )

    def keep(self, wanted: Callable[[int], bool]) -> None:
        """Keep the pairs whose clean image has a wanted index: no scene is then on both sides of a
        split."""
        order = {
            path: index for index, path in enumerate(sorted({clean for clean, _ in self.paths}))
        }
        kept = [i for i, (clean, _) in enumerate(self.paths) if wanted(order[clean])]
        self.paths, self.names = ([values[i] for i in kept] for values in (self.paths, self.names))
        if not self.paths:
            raise UserError(
                f"{len(order)} images are too few to hold some back; give more, or test folders."
            )

    def check(self) -> None:
        """Open every header: UserError if one cannot be opened or a pair does not fit, in size or
        mode."""
        # a scene may have many degraded versions
        check_headers(self.paths, cache(read_header), self._fits)

    def _fits(self, clean: tuple, degraded: tuple) -> bool:
        """Whether the headers, (width, height) and mode, are those of a pair."""
        return clean == degraded


class CropStream(Dataset):
    """Endless training crops; ``stream[draw]`` is a pure function of (seed, draw).

    The draw picks the image, the position, a horizontal flip and the degradation. It is a dict of
    ``clean`` and ``degraded``, (3, crop, crop) in [-1, 1], and ``draw``; ``degraded`` has the mask
    as a fourth channel where the degradation makes holes. Images smaller than the crop are padded
    by reflection.

    Args: source: clean images, degraded after the crop (unchanged without a degradation); or
        aligned pairs. fixed: the draw picks the image and the flip alone; the crop is the central
        one and the degradation depends on
            (seed, name), so that an image has two versions in all, whose encodings can be kept.
        lighter: share of the draws whose degradation is mixed back towards the clean image, by a
            uniform amount.
        same: share of the draws that stay clean, so that a clean image passes unharmed.
        turn: a random quarter turn as well, where up and down mean nothing to the task.
        room: for decoded images, which the streams of a mix share."""

    def __init__(
        self,
        source,
        crop: int,
        seed: int,
        degradation: Degradation | None = None,
        fixed: bool = False,
        lighter: float = 0.0,
        same: float = 0.0,
        turn: bool = False,
        room: "Room | None" = None,
    ):
        self.source, self.crop, self.seed, self.degradation, self.fixed = (
            source,
            crop,
            seed,
            degradation,
            fixed,
        )
        self.lighter, self.same, self.turn = lighter, same, turn
        self.room, self.kept, self.moved = room or Room(), {}, {}

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, draw])
        i = int(rng.integers(len(self.source)))
        images = self._crop(self._padded(self._read(i)), rng).astype(np.float32) / 255
        mirror = slice(None, None, -1 if rng.random() < 0.5 else None)
        if self.fixed:  # the degradation must not see the flip
            clean, seen = (
                im[:, mirror]
                for im in self._pair(images, name_rng(self.seed, self.source.names[i]))
            )
        else:
            images = images[:, :, mirror]
            clean, seen = self._pair(
                np.rot90(images, rng.integers(4), (1, 2)) if self.turn else images, rng
            )
        return {"clean": to_tensor(clean), "degraded": to_tensor(seen), "draw": draw}

    def on_device(self, draw: int, device: torch.device, room: "Room") -> dict[str, Tensor]:
        """``self[draw]`` of a stream without a degradation, cropped and flipped on the device,
        where its images are kept as uint8 while there is ``room``."""
        rng = np.random.default_rng([self.seed, draw])
        images = self._moved(int(rng.integers(len(self.source))), device, room)
        images = (
            self._crop(images.permute(0, 2, 3, 1), rng).float().permute(0, 3, 1, 2) / 255 * 2 - 1
        )
        images = images.flip(-1) if rng.random() < 0.5 else images
        images = images.rot90(int(rng.integers(4)), (2, 3)) if self.turn else images
        share, same = self._share(rng)
        clean, worse = images[0], images[0] if same else images[-1]
        return {
            "clean": clean,
            "degraded": worse if share is None else clean + share * (worse - clean),
            "draw": draw,
        }

    def _moved(self, i: int, device: torch.device, room: "Room") -> Tensor:
        """The padded image or pair on the device, uint8 (1 or 2, 3, H, W). What is kept there is
        not kept here as well."""
        if i in self.moved:
            return self.moved[i]
        images = self.kept[i] if i in self.kept else self._decoded(i)
        there = torch.from_numpy(self._padded(images)).permute(0, 3, 1, 2).contiguous().to(device)
        if room.take(there.nbytes):
            self.moved[i] = there
            self.kept.pop(i, None)
        else:
            self._keep(i, images)
        return there

    def _padded(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, 3), padded to the crop where it is smaller."""
        missing = [max(0, self.crop - side) for side in images.shape[1:3]]
        return (
            np.pad(
                images, [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)], mode="reflect"
            )
            if any(missing)
            else images
        )

    def _crop(self, images, rng: np.random.Generator):
        """A random crop of (N, H, W, 3), the central one of a ``fixed`` stream."""
        spare = [side - self.crop for side in images.shape[1:3]]
        top, left = (s // 2 if self.fixed else int(rng.integers(s + 1)) for s in spare)
        return images[:, top : top + self.crop, left : left + self.crop]

    def _share(self, rng: np.random.Generator) -> tuple[np.float32 | None, bool]:
        """How much of the degradation a draw keeps, None for all of it; and whether it stays
        clean."""
        if not (self.same or self.lighter):
            return None, False
        chance = rng.random()
        if chance < self.same:
            return None, True
        return (np.float32(rng.random()) if chance < self.same + self.lighter else None), False

    def _pair(self, images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        clean, mask = images[0], None
        if self.degradation is None:
            worse = images[-1]
        else:
            worse, mask = degraded(clean, self.degradation, rng)
        share, same = self._share(rng)
        if same:
            worse, mask = clean, None if mask is None else np.zeros_like(mask)
        elif share is not None:
            worse = clean + share * (worse - clean)
        return clean, with_mask(worse, mask)

    def _read(self, i: int) -> np.ndarray:
        """The clean image, or the pair, as uint8 (1 or 2, H, W, 3); decoded once while there is
        room."""
        return self.kept[i] if i in self.kept else self._keep(i, self._decoded(i))

    def _decoded(self, i: int) -> np.ndarray:
        item = self.source[i]
        return to_bytes(np.stack(item[1:3] if isinstance(item, Pair) else [item]))

    def _keep(self, i: int, images: np.ndarray) -> np.ndarray:
        """The images themselves, kept where there is room."""
        if i not in self.kept and self.room.take(images.nbytes):
            self.kept[i] = images
        return images

    def preload(self) -> None:
        """Decode every image that there is room for, before workers start, which then share one
        copy."""
        for i in range(len(self.source)):
            self._read(i)
            if i not in self.kept:
                return


class MixedStream(Dataset):
    """Several streams as one: a draw takes one of them, with the odds of its weight, as a function
    of (seed, draw)."""

    def __init__(self, streams: list[CropStream], weights: list[float], seed: int):
        self.streams, self.seed, self.crop = streams, seed, streams[0].crop
        self.shares = np.cumsum(weights) / np.sum(weights)

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        return self._chosen(draw)[draw]

    def on_device(self, draw: int, device: torch.device, room: "Room") -> dict[str, Tensor]:
        """See :meth:`CropStream.on_device`."""
        return self._chosen(draw).on_device(draw, device, room)

    def _chosen(self, draw: int) -> CropStream:
        # other numbers than the chosen stream draws
        chance = np.random.default_rng([self.seed, draw, 1]).random()
        return self.streams[
            int(np.searchsorted(self.shares, chance, side="right").clip(max=len(self.streams) - 1))
        ]

    def preload(self) -> None:
        """See :meth:`CropStream.preload`."""
        for stream in self.streams:
            stream.preload()


class Room:
    """Memory for decoded images, in bytes: by default a share of what is free when it is first
    asked for, of a GPU where ``device`` is one, else of the machine, which the processes of a
    command share. What a worker of a loader takes, each of the others may take as well."""

    def __init__(self, limit: int | None = None, device: torch.device | None = None):
        self.limit, self.taken, self.device = limit, 0, device

    def take(self, size: int) -> bool:
        """Whether so many bytes are left; they are then taken."""
        if self.limit is None:
            self.limit = int(CACHE_SHARE * self._free())
        size *= worker.num_workers if (worker := get_worker_info()) else 1
        if self.taken + size > self.limit:
            return False
        self.taken += size
        return True

    def _free(self) -> float:
        if self.device is not None and self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        # as launchers say it
        processes = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or 1
        return psutil.virtual_memory().available / int(processes)


def stream_loader(
    stream: CropStream | MixedStream,
    start_draw: int,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> DataLoader:
    """Endless batches of consecutive draws from start_draw on, the same for any number of workers.
    With ``world`` processes each takes every world-th batch, so that together they see what one
    would."""
    batches = _Batches(start_draw + rank * batch_size, batch_size, batch_size * world)
    # Its own generator, because a loader otherwise draws from torch's global one.
    return DataLoader(
        stream,
        batch_sampler=batches,
        num_workers=workers,
        generator=torch.Generator(),
        prefetch_factor=4 if workers else None,
    )


def device_batches(
    stream: CropStream | MixedStream,
    start_draw: int,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Iterator[dict[str, Tensor]]:
    """The batches of :func:`stream_loader`, made on the device. UserError where a degradation is in
    the way, which the processor makes."""
    if any(part.degradation is not None for part in getattr(stream, "streams", [stream])):
        raise UserError(
            "data.on_device=true is for pairs and for clean images alone, but this task degrades"
            " its images on the processor; leave it out, and give trainer.workers=8."
        )
    room = Room(device=device)
    for draws in _Batches(start_draw + rank * batch_size, batch_size, batch_size * world):
        yield default_collate([stream.on_device(draw, device, room) for draw in draws])


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
            tar.fileobj.seek(tar.offset)
            # tarfile takes a damaged header for the end
            if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError(f"damaged at byte {tar.offset}")
    except FileNotFoundError:
        raise UserError(f"The archive {path} does not exist; check the path.") from None
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as an uncompressed tar ({error}); make it with `tar -cf`, or"
            " give a folder."
        ) from error
    if not files:
        raise UserError(
            f"The archive {path} holds no images; pack image files such as .png or .jpg."
        )
    return sorted((member.name, member.offset_data, member.size) for member in files)


def _unmix(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """The clean and the degraded images of one folder, by their markers."""
    cleans, degradeds = (
        [p for p in paths if re.search(marker, p.stem)]
        for marker in (r"^norain[-_]|[-_]clean$", r"^rain[-_]|[-_]rain$")
    )
    if not cleans or not degradeds:
        raise UserError(
            f"{paths[0].parent} is given as both clean and degraded, but its names do not tell the"
            " two apart; name them norain-1 and rain-1, or 1_clean and 1_rain, or give two"
            " folders."
        )
    return cleans, degradeds


def _bare(stem: str) -> str:
    return re.sub(r"^(no)?rain[-_]|[-_](clean|rain)$", "", stem)


def _partner(stem: str, exact: dict[str, Path], bare: dict[str, Path]) -> Path | None:
    parts = stem.split("_")
    prefixes = ["_".join(parts[:k]) for k in range(len(parts) - 1, 0, -1)]
    return next((exact[s] for s in [stem, *prefixes] if s in exact), bare.get(_bare(stem)))


def check_headers(pairs: list[tuple], header: Callable, fits: Callable) -> None:
    """UserError if a header of these pairs of files cannot be opened, or two do not fit."""
    faults = []
    for clean, degraded in pairs:
        try:
            kinds = header(clean), header(degraded)
            faults += [] if fits(*kinds) else [mismatch(clean, degraded, *kinds)]
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError(faults[0].rstrip(".") + and_more(faults) + ".")


def refuse_duplicates(stems: list[str], where) -> None:
    twice = [stem for stem, times in Counter(stems).items() if times > 1]
    if twice:
        raise UserError(
            f"{where} holds several images named {twice[0]}{and_more(twice)}; keep one of each."
        )


def and_more(faults: list) -> str:
    return f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""


def mismatch(clean: Path, degraded: Path, a, b) -> str:
    return f"{clean} and {degraded} differ in size or mode ({a} and {b}); make the pair agree."
