"""Public sets as their archives unpack. Nothing is downloaded, moved or renamed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from typing_extensions import override

from irbridge.data.layout_search import find_half, find_pairs, images_below
from irbridge.data.pair import Degradation, Pair
from irbridge.data.pairs import PairedFolders, SyntheticPairs
from irbridge.data.public_sets import known
from irbridge.errors import UserError
from irbridge.gaussian.noise import name_rng
from irbridge.images.holes import read_mask
from irbridge.images.io import list_images, read_image
from irbridge.images.resize import centre_crop, scaled
from irbridge.images.samples import read_header

REMEDY = "give data.root=DIR of the unpacked archive, or data.clean=DIR data.degraded=DIR"
DARK = "make the masks of data.masks black in the holes and white elsewhere"


class BenchmarkPairs(PairedFolders):
    """The pairs of a public set.

    Args:
        name: a key of ``BENCHMARKS``.
        root: the folder of the unpacked archive, or one around it.
        split: "test", "train", or None: test where it is there.
        size: of the centre crop; None: whole images.
        resize: what they are :func:`~irbridge.images.resize.scaled` to before.
        alone: the root holds no other half than the one asked for, so that its folder may have any
            name.
        remedy: of the errors, where nothing is found.

    Attributes:
        title: the set's name with what was taken of it, such as "Snow100K-S" or "LOL v1 train".

    Raises:
        UserError: the layout is not found, is found twice, or an image lacks its partner.
    """

    def __init__(
        self,
        name: str,
        root: str | Path,
        split: str | None = None,
        size: int | None = None,
        resize: int | None = None,
        alone: bool = False,
        remedy: str = REMEDY,
    ):
        self.benchmark, self.size, self.resize = known(name), size, resize
        self.title, found = find_pairs(self.benchmark, Path(root), split, alone, remedy)
        self.names = [pair.name for pair in found]
        self.paths = [(pair.clean, pair.degraded) for pair in found]

    @override
    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        clean, degraded = super().read(i)
        if self._has_margin(clean.shape[1::-1], degraded.shape[1::-1]):
            cut = self.benchmark.cut
            clean = clean[cut:-cut, cut:-cut]
        return clean, degraded

    @override
    def fits(self, clean: tuple, degraded: tuple) -> bool:
        return clean[0] == degraded[0] or self._has_margin(clean[0], degraded[0])

    def _has_margin(self, clean: tuple[int, int], degraded: tuple[int, int]) -> bool:
        """Whether a clean image of this size is larger by the margin that the set's have."""
        cut = self.benchmark.cut
        return bool(cut) and all(a - b == 2 * cut for a, b in zip(clean, degraded, strict=True))


class Faces(SyntheticPairs):
    """Clean images of a public set, with holes.

    Args:
        name: a key of ``BENCHMARKS``.
        root: as of :class:`BenchmarkPairs`.
        degradation: makes the holes, with randomness of (seed, name), and fills them.
        masks: a folder of masks instead, dark in the holes. They go by name, or where the names
            differ in turn, and are scaled to the image.
        split: as of :class:`BenchmarkPairs`.
        seed: of the holes.
        size: as of :class:`BenchmarkPairs`.
        resize: as of :class:`BenchmarkPairs`.
        alone: as of :class:`BenchmarkPairs`.
        remedy: as of :class:`BenchmarkPairs`.

    Attributes:
        title: the set's name, and that of the masks' folder.
    """

    def __init__(
        self,
        name: str,
        root: str | Path,
        degradation: Degradation,
        masks: str | Path | None = None,
        split: str | None = None,
        seed: int = 0,
        size: int | None = None,
        resize: int | None = None,
        alone: bool = False,
        remedy: str = REMEDY,
    ):
        self.title, found = find_pairs(known(name), Path(root), split, alone, remedy)
        names, paths = [pair.name for pair in found], [pair.clean for pair in found]
        self.source = CleanFiles(names, paths, resize)
        self.degradation, self.seed, self.size = degradation, seed, size
        self.masks = list_images(masks) if masks else []
        if masks:
            self.title += f", masks {Path(masks).resolve().name}"

    @property
    def names(self) -> list[str]:
        """Of the images."""
        return self.source.names

    @property
    def scenes(self) -> list[str]:
        """The images' names: each shows its own scene."""
        return self.source.scenes

    def __getitem__(self, i: int) -> Pair:
        if not self.masks:
            return super().__getitem__(i)
        image = self.source[i]
        holes = self._holes(i, image.shape[:2])
        rng = name_rng(self.seed, self.names[i])
        images = image, self.degradation.fill_in(image, holes, rng), holes
        return Pair(self.names[i], *(centre_crop(image, self.size) for image in images))

    def _holes(self, i: int, shape: tuple[int, int]) -> np.ndarray:
        """The mask of image i, of a shape (H, W): bool, True in the holes."""
        from skimage.transform import resize

        named = {path.stem: path for path in self.masks}
        in_turn = self.masks[i % len(self.masks)]
        known = read_mask(named.get(self.source.paths[i].stem, in_turn), DARK)
        return resize(known.astype(np.float32), shape, order=0, anti_aliasing=False) <= 0.5

    def keep(self, wanted: Callable[[int], bool]) -> None:
        """Keep the images whose index is wanted.

        Raises:
            UserError: none is left.
        """
        kept = [i for i in range(len(self)) if wanted(i)]
        if not kept:
            raise UserError(
                f"{self.title} has {len(self)} images here, too few to hold some back; give more,"
                " or the tests' own folder, data.test_root=DIR."
            )
        names, paths = [self.names[i] for i in kept], [self.source.paths[i] for i in kept]
        self.source = CleanFiles(names, paths, self.source.resize)

    def check(self) -> None:
        """Open every header, of images and masks; UserError if one cannot be opened."""
        for path in [*self.source.paths, *self.masks]:
            read_header(path)


class CleanFiles:
    """Clean images under names of their own: ``len(source)`` and ``source[i]``.

    Args:
        names: of the images.
        paths: their files.
        resize: what images are :func:`~irbridge.images.resize.scaled` to.
    """

    def __init__(self, names: list[str], paths: list[Path], resize: int | None = None):
        self.names, self.scenes, self.paths, self.resize = names, names, paths, resize

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        return scaled(read_image(self.paths[i]), self.resize)


def halves(name: str, root: str | Path) -> list[str]:
    """The halves of a public set below a folder, of "train" and "test".

    A folder that says neither is the test half, or the one that the set is.
    """
    root, benchmark = Path(root), known(name)
    images = images_below(root)
    wanted = [benchmark.only] if benchmark.only else ["train", "test"]
    return [half for half in wanted if find_half(benchmark, root, images, half, alone=False)]
