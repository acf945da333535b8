"""Pairs to train on, restore and score: made from clean images, in a tar, or in two folders."""

import os
import re
from collections.abc import Callable
from functools import cache
from operator import eq
from pathlib import Path

import numpy as np

from irbridge.data.degradations.mixture import OneOf, in_rounds
from irbridge.data.image_source import ImageSource
from irbridge.data.names import and_more, bare, partner, refuse_duplicates
from irbridge.data.pair import Degradation, Pair, check_headers, degraded, mismatch
from irbridge.data.selection import Subset
from irbridge.errors import UserError
from irbridge.gaussian.noise import name_rng
from irbridge.images.io import list_images, read_image
from irbridge.images.resize import centre_crop, scaled
from irbridge.images.samples import read_header


class SyntheticPairs:
    """Clean images, degraded with randomness that depends on (seed, name) alone.

    Args:
        clean: a folder, a tar, or another source.
        degradation: ``degradation(image, rng)``.
        seed: of the degradations.
        size: side of the centre crop before the degradation; None: whole images.
        resize: what images of a folder or tar are :func:`~irbridge.images.resize.scaled` to.
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
        name = self.names[i]
        image = centre_crop(self.source[i], self.size)
        seen, mask = degraded(image, self.degradation, name_rng(self.seed, name))
        task = ""
        if isinstance(self.degradation, OneOf):
            task = self.degradation.task_of(name_rng(self.seed, name))
        return Pair(name, image, seen, mask, task)


def in_turns(pairs: SyntheticPairs) -> SyntheticPairs | Subset:
    """The pairs; those of tasks that training takes in turn in an order that does so too.

    The first so many of them have equally many of each task, as far as these go.
    """
    degradation, seed = pairs.degradation, pairs.seed
    if not (isinstance(degradation, OneOf) and degradation.each_step):
        return pairs
    return Subset(
        pairs, in_rounds([degradation.drawn(name_rng(seed, name)) for name in pairs.names])
    )


class PackedPairs:
    """Pairs of a tar, or of a folder, that holds two folders ``clean`` and ``degraded``.

    Args:
        path: the folder, or the uncompressed tar; the two of a pair have equal stems.
        size: side of the centre crop; None: whole images.
        resize: what both are :func:`~irbridge.images.resize.scaled` to before.

    Raises:
        UserError: there are no pairs, two have one name, or an image lacks its partner.
    """

    def __init__(self, path: str | Path, size: int | None = None, resize: int | None = None):
        self.path, self.size, self.resize = Path(path), size, resize
        if self.path.is_dir():
            clean, degraded = self.path / "clean", self.path / "degraded"
            self.pairs = PairedFolders(clean, degraded, size, resize)
            self.names, self.scenes = self.pairs.names, self.pairs.scenes
            return
        self.pairs, self.archive = None, ImageSource(self.path)
        clean, degraded = self._halves()
        self.names = self.scenes = sorted(degraded)
        alone = sorted(clean.keys() ^ degraded.keys())
        if alone or not self.names:
            which = f" ({alone[0]} has no partner{and_more(alone)})" if alone else ""
            raise UserError(
                f"{path} holds no pairs{which}; pack two folders, clean and degraded, whose images"
                " have equal names."
            )
        self.indices = [(clean[name], degraded[name]) for name in self.names]

    def _halves(self) -> tuple[dict[str, int], dict[str, int]]:
        """The archive's clean and degraded images: stem -> index."""
        found = {"clean": {}, "degraded": {}}
        for i, entry in enumerate(self.archive.entries):
            half, stem = Path(entry.name).parent.name, Path(entry.name).stem
            if half not in found:
                continue
            if stem in found[half]:
                other = self.archive.entries[found[half][stem]].name
                raise UserError(
                    f"{self.path} holds two pairs named {stem}, {other} and {entry.name}; give them"
                    " names of their own."
                )
            found[half][stem] = i
        return found["clean"], found["degraded"]

    @property
    def files(self) -> list[tuple[str, ...]]:
        """See :attr:`ImageSource.files`."""
        if self.pairs is not None:
            return self.pairs.files
        files = self.archive.files
        return [files[clean] + files[degraded] for clean, degraded in self.indices]

    def check(self) -> None:
        """Open every header.

        Raises:
            UserError: one cannot be opened, or the two of a pair differ in size or mode.
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
            title = f"{self.path}: clean {self.names[i]}"
            sizes = clean.shape[1::-1], degraded.shape[1::-1]
            raise UserError(mismatch(title, "its degraded version", *sizes))
        return _pair(self.names[i], clean, degraded, self.resize, self.size)


class PairedFolders:
    """Degraded images and their clean partners in two folders, or mixed in one.

    Partners have equal stems, or equal but for the markers of Rain100H and RainDrop (norain-001 and
    rain-001, 3_clean and 3_rain), or the degraded stem continues the clean one after "_" (RESIDE):
    beach_2 is a version of beach, but where a degraded beach is there too it is another photograph.
    In one folder the markers alone tell the two apart, and other images are left out.

    Args:
        clean: folder of the clean images.
        degraded: folder of the degraded ones, by whose stems the pairs are named; may be the same.
        size: side of the centre crop; None: whole images.
        resize: what both sides are :func:`~irbridge.images.resize.scaled` to before.

    Attributes:
        paths: (clean, degraded) of each pair.

    Raises:
        UserError: a folder is missing or empty, a stem occurs twice, or an image has no partner.
    """

    def __init__(
        self,
        clean: str | Path,
        degraded: str | Path,
        size: int | None = None,
        resize: int | None = None,
    ):
        self.size, self.resize = size, resize
        cleans, degradeds = list_images(clean), list_images(degraded)
        if Path(clean).resolve() == Path(degraded).resolve():
            cleans, degradeds = split_by_markers(cleans)
        self.names = [path.stem for path in degradeds]
        refuse_duplicates([path.stem for path in cleans], clean)
        refuse_duplicates(self.names, degraded)
        exact = {path.stem: path for path in cleans}
        without_key = {bare(path.stem): path for path in cleans}
        self.paths = [(partner(path.stem, exact, without_key), path) for path in degradeds]
        self._refuse_guessed(clean)
        used = {path for path, _ in self.paths}
        alone = [path for found, path in self.paths if found is None]
        alone += [path for path in cleans if path not in used]
        if alone:
            raise UserError(
                f"{alone[0]} has no partner{and_more(alone)}, {clean} holding {len(cleans)} and "
                f"{degraded} {len(degradeds)} images; give the two of a pair the same name."
            )

    def _refuse_guessed(self, clean: str | Path) -> None:
        """Refuse a degraded image whose clean one has a degraded image of its very name.

        Raises:
            UserError: it names both.
        """
        named = {
            found.stem: path for found, path in self.paths if found and found.stem == path.stem
        }
        for found, path in self.paths:
            if found and path.stem != found.stem and found.stem in named:
                raise UserError(
                    f"{path} has no partner of its name in {clean}, and {found.name} is that of"
                    f" {named[found.stem].name}; add {path.stem}{found.suffix}, or give the two of"
                    " a pair the same name."
                )

    @property
    def scenes(self) -> list[str]:
        """The scene of each pair: the first name of all degraded versions of its clean image."""
        first = {}
        for (clean, _), name in zip(self.paths, self.names, strict=True):
            first[clean] = min(name, first.get(clean, name))
        return [first[clean] for clean, _ in self.paths]

    @property
    def files(self) -> list[tuple[str, ...]]:
        """See :attr:`ImageSource.files`."""
        return [tuple(map(os.path.realpath, pair)) for pair in self.paths]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Pair:
        clean, degraded = self.read(i)
        if clean.shape != degraded.shape:
            raise UserError(mismatch(*self.paths[i], clean.shape[1::-1], degraded.shape[1::-1]))
        return _pair(self.names[i], clean, degraded, self.resize, self.size)

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The two images of a pair as they are stored."""
        clean, degraded = self.paths[i]
        return read_image(clean), read_image(degraded)

    def keep(self, wanted: Callable[[int], bool]) -> None:
        """Keep some pairs. No scene is then on both sides of a split.

        Args:
            wanted: whether to keep the pairs of the clean image of this index.

        Raises:
            UserError: none is left.
        """
        cleans = sorted({clean for clean, _ in self.paths})
        order = {path: index for index, path in enumerate(cleans)}
        kept = [i for i, (clean, _) in enumerate(self.paths) if wanted(order[clean])]
        self.paths = [self.paths[i] for i in kept]
        self.names = [self.names[i] for i in kept]
        if not self.paths:
            raise UserError(
                f"{len(order)} images are too few to hold some back; give more, or test folders."
            )

    def check(self) -> None:
        """Open every header.

        Raises:
            UserError: one cannot be opened, or a pair does not fit, in size or mode.
        """
        # kept, as a scene may have many degraded versions
        check_headers(self.paths, cache(read_header), self.fits)

    def fits(self, clean: tuple, degraded: tuple) -> bool:
        """Whether two headers, (width, height) and mode, are those of a pair."""
        return clean == degraded


def _pair(
    name: str, clean: np.ndarray, degraded: np.ndarray, resize: int | None, size: int | None
) -> Pair:
    """A pair, both sides scaled and then cropped."""
    clean = centre_crop(scaled(clean, resize), size)
    return Pair(name, clean, centre_crop(scaled(degraded, resize), size))


def split_by_markers(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """The clean and the degraded images of one folder, by the markers in their names.

    Raises:
        UserError: the names do not tell the two apart.
    """
    cleans = [path for path in paths if re.search(r"^norain[-_]|[-_]clean$", path.stem)]
    degradeds = [path for path in paths if re.search(r"^rain[-_]|[-_]rain$", path.stem)]
    if not cleans or not degradeds:
        raise UserError(
            f"{paths[0].parent} is given as both clean and degraded, but its names do not tell the"
            " two apart; name them norain-1 and rain-1, or 1_clean and 1_rain, or give two"
            " folders."
        )
    return cleans, degradeds
