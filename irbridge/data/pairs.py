"""Sources of clean images, pairs to restore and score, and the endless stream of training crops."""

import os
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import count
from operator import eq
from pathlib import Path

import numpy as np

from irbridge.data.image_source import ImageSource
from irbridge.data.names import and_more, bare, partner, refuse_duplicates
from irbridge.data.pair import Degradation, Pair, check_headers, degraded, mismatch
from irbridge.errors import UserError
from irbridge.gaussian.noise import name_rng
from irbridge.images.io import list_images, read_header, read_image
from irbridge.images.resize import centre_crop, scaled


class SyntheticPairs:
    """Clean images of a folder, a tar or another source, :func:`scaled` to ``resize`` and
    centre-cropped to ``size`` pixels unless these are None, then degraded by ``degradation(image,
    rng)`` with randomness that depends on (seed, name) alone.
    """

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
    pairs have one name, or an image lacks its partner.
    """

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
        or mode.
        """
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
    that does not do.
    """
    times, found = Counter(names), {}
    for name, label in zip(names, labels):
        wanted = f"{label}_{name}".replace("/", "_") if times[name] > 1 else name
        free = (f"{wanted}_{k}" for k in count(2))
        while wanted in found or (wanted != name and wanted in times):
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
    tests. ``key``: of the config, in the UserError if none is left.
    """
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
    ``every``-th scene is held back, none with None.
    """
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
    a folder is missing or empty, a stem occurs twice, or an image has no partner.
    """

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
        without_key = {bare(p.stem): p for p in cleans}
        self.paths = [(partner(p.stem, exact, without_key), p) for p in degradeds]
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
        name.
        """
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
        split.
        """
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
        mode.
        """
        # a scene may have many degraded versions
        check_headers(self.paths, cache(read_header), self._fits)

    def _fits(self, clean: tuple, degraded: tuple) -> bool:
        """Whether the headers, (width, height) and mode, are those of a pair."""
        return clean == degraded


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
