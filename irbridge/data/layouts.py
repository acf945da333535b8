"""Public sets as their archives unpack: which files are pairs. Nothing is downloaded, moved or
renamed.
"""

import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np

from irbridge.data.names import refuse_duplicates
from irbridge.data.pair import Degradation, Pair, mismatch
from irbridge.data.pairs import PairedFolders, SyntheticPairs
from irbridge.data.public_sets import Benchmark, known
from irbridge.errors import UserError
from irbridge.images.io import is_image, list_images, read_header, read_image
from irbridge.images.resize import centre_crop, scaled

DEPTH = 8  # folders below root that are looked at
REMEDY = "give data.root=DIR of the unpacked archive, or data.clean=DIR data.degraded=DIR"


class BenchmarkPairs(PairedFolders):
    """The pairs of a benchmark's folder: ``len``, ``names``, ``pairs[i]``, ``keep`` and ``check``
    as its parent's.

    Args: name: a key of ``BENCHMARKS``. root: the folder of the unpacked archive, or one around it.
        split: "test", "train", or None: test where it is there. size: of the centre crop; None:
        whole images. resize: what they are :func:`~irbridge.images.resize.scaled` to before. alone: the root
        holds no other half than the one asked for, so that its folder may have any name. remedy: of
        the errors, where nothing is found.

    ``title`` is the set's name with what was taken of it, such as "Snow100K-S" or "LOL v1 train".
    UserError if the layout is not found, is found twice, or an image lacks its partner.
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
        self.title, triples = _find(self.benchmark, Path(root), split, alone, remedy)
        self.names = [name for name, _, _ in triples]
        self.paths = [(clean, degraded) for _, clean, degraded in triples]

    def __getitem__(self, i: int) -> Pair:
        clean, degraded = (read_image(path) for path in self.paths[i])
        if cut := self._cut(clean.shape[1::-1], degraded.shape[1::-1]):
            clean = clean[cut:-cut, cut:-cut]
        if clean.shape != degraded.shape:
            raise UserError(mismatch(*self.paths[i], clean.shape[1::-1], degraded.shape[1::-1]))
        return self._pair(i, clean, degraded)

    def _fits(self, clean: tuple, degraded: tuple) -> bool:
        return clean[0] == degraded[0] or bool(self._cut(clean[0], degraded[0]))

    def _cut(self, clean: tuple, degraded: tuple) -> int:
        cut = self.benchmark.cut
        return cut if cut and all(a - b == 2 * cut for a, b in zip(clean, degraded)) else 0


class Faces(SyntheticPairs):
    """Clean images of a benchmark, holes made by ``degradation`` with randomness of (seed, name);
    or, with a folder of ``masks``, filled with ``degradation.fill`` where a mask is dark (white:
    keep). Masks go by name, or where the names differ in turn, and are scaled to the image.
    ``source`` are the clean images; the rest as of BenchmarkPairs.
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
        self.title, triples = _find(known(name), Path(root), split, alone, remedy)
        self.source = CleanFiles(
            [name for name, _, _ in triples], [clean for _, clean, _ in triples], resize
        )
        self.degradation, self.seed, self.size = degradation, seed, size
        self.masks = list_images(masks) if masks else []
        if masks:
            self.title += f", masks {Path(masks).resolve().name}"

    @property
    def names(self) -> list[str]:
        return self.source.names

    @property
    def scenes(self) -> list[str]:
        return self.source.scenes

    def __getitem__(self, i: int) -> Pair:
        if not self.masks:
            return super().__getitem__(i)
        from skimage.transform import resize

        image, named = self.source[i], {path.stem: path for path in self.masks}
        mask = read_image(named.get(self.source.paths[i].stem, self.masks[i % len(self.masks)]))[
            ..., :1
        ]
        holes = resize(mask, image.shape[:2], order=0, anti_aliasing=False)[..., 0] <= 0.5
        images = image, self.degradation.fill_in(image, holes), holes
        return Pair(self.names[i], *(centre_crop(im, self.size) for im in images))

    def keep(self, wanted: Callable[[int], bool]) -> None:
        """Keep the images whose index is wanted; UserError if none is left."""
        kept = [i for i in range(len(self)) if wanted(i)]
        if not kept:
            raise UserError(
                f"{self.title} has {len(self)} images here, too few to hold some back; give more,"
                " or the tests' own folder, data.test_root=DIR."
            )
        self.source = CleanFiles(
            *([v[i] for i in kept] for v in (self.names, self.source.paths)), self.source.resize
        )

    def check(self) -> None:
        for path in [*self.source.paths, *self.masks]:
            read_header(path)


class CleanFiles:
    """Clean images of a benchmark, as an ImageSource: ``len``, ``names``, ``scenes``, ``paths`` and
    ``source[i]``.
    """

    def __init__(self, names: list[str], paths: list[Path], resize: int | None = None):
        self.names, self.scenes, self.paths, self.resize = names, names, paths, resize

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        return scaled(read_image(self.paths[i]), self.resize)


def halves(name: str, root: str | Path) -> list[str]:
    """The halves of a benchmark below a root, of "train" and "test"; a folder that says neither is
    the test half, or the one that the set is.
    """
    images, benchmark = _images(Path(root)), known(name)
    wanted = [benchmark.only] if benchmark.only else ["train", "test"]
    return [half for half in wanted if _search(benchmark, Path(root), images, half, False)]


def _find(
    benchmark: Benchmark, root: Path, split: str | None, alone: bool, remedy: str
) -> tuple[str, list[tuple[str, Path, Path]]]:
    """(title, [(name, clean, degraded)]) of a set below root; degraded is clean where the set has
    clean images only.
    """
    if not root.is_dir():
        raise UserError(
            f"{root} is not a folder, but {benchmark.title} was looked for in it; {remedy}."
        )
    if split and benchmark.only and split != benchmark.only:
        raise UserError(
            f"{benchmark.title} is a {benchmark.only} set as a whole; take the {split} images of"
            " another, for instance data.benchmark=reside_ots data.test_benchmark=sots_outdoor."
        )
    images = _images(root)
    for half in [split or benchmark.only] if split or benchmark.only else ["test", "train"]:
        if found := _search(benchmark, root, images, half, alone):
            return _partners(benchmark, root, half, *found)
    there = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
    raise UserError(
        f"{root} does not hold {benchmark.title}{f' ({split})' if split else ''}: its layout is "
        f"{benchmark.layout}, looked for there and one folder below, and there is "
        f"{', '.join(there[:6]) + ', ...' * (len(there) > 6) or 'nothing'}; {remedy}."
    )


def _search(
    benchmark: Benchmark, root: Path, images: list[str], half: str, alone: bool
) -> tuple[str, list[str], str, str] | None:
    """(folder, files, clean pattern, degraded pattern) of a half, if it is below root."""
    files = _of_half(benchmark, images, half)
    folders = {PurePosixPath(file.rpartition("/")[0]) for file in files}
    bases = sorted({str(base) for folder in folders for base in (folder, *folder.parents)})
    named = not (alone or benchmark.only)
    ranks = {
        base: rank
        for base in bases
        if (rank := _rank(benchmark, root, base, half, named)) is not None
    }
    for clean, degraded in benchmark.pairs:
        fits = [
            b for b in ranks if all(any(_matched(files, b, p)) for p in (clean, degraded or clean))
        ]
        best = [b for b in fits if ranks[b] == min(ranks[b] for b in fits)]
        if len(best) > 1:
            raise UserError(
                f"{root} holds {benchmark.title} more than once, in {best[0]} and {best[1]}; give"
                " the one that is meant."
            )
        if best:
            return best[0], files, clean, degraded
    return None


def _images(root: Path) -> list[str]:
    """Paths below root, relative and with slashes, hidden folders and those of macOS's archives
    left out.
    """
    found = []
    for folder, folders, names in os.walk(root, followlinks=True):
        here = Path(folder).relative_to(root)
        deep = len(here.parts) >= DEPTH
        folders[:] = (
            [] if deep else sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        )
        found += [(here / name).as_posix() for name in sorted(names) if is_image(Path(name))]
    return found


def _among(pattern: str, names) -> list[str]:
    return [name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)]


def _of_half(benchmark: Benchmark, files: list[str], half: str) -> list[str]:
    """The files that are in no folder of the other half or of a sister set."""
    wrong = f"{benchmark.test if half == 'train' else benchmark.train}|{benchmark.other}"
    # sets have many files in few folders
    fine = cache(lambda folder: not _among(wrong, folder.split("/")))
    return [file for file in files if fine(file.rpartition("/")[0])]


def _rank(benchmark: Benchmark, root: Path, base: str, half: str, named: bool) -> tuple | None:
    """How well a folder fits as the set's own, less is better; None: root is the other half or a
    sister set, the folder is further down than one besides its half's, or it does not say
    (``named``) that it is for training.
    """
    name, parts = root.resolve().name, [p for p in base.split("/") if p != "."]
    mine, others = (benchmark.test, benchmark.train)[:: 1 if half == "test" else -1]
    called = bool(_among(mine, [name])), bool(_among(others, [name]))
    own = [*_among(mine, parts), *[name] * (called == (True, False))]
    if (
        _among(benchmark.other, [name])
        or called == (False, True)
        or (named and half == "train" and not own)
    ):
        return None
    extra = [p for p in parts if p not in own and not _among(benchmark.part, [p])]
    return (not own, len(parts)) if len(extra) <= 1 else None


def _matched(files: list[str], base: str, pattern: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """(path, (part, key)) of each file of a base that fits."""
    prefix, pattern = "" if base == "." else base + "/", re.compile(pattern, re.IGNORECASE)
    below = (file for file in files if file.startswith(prefix))
    fits = ((file, pattern.fullmatch(file[len(prefix) :].rsplit(".", 1)[0])) for file in below)
    return ((file, (fit.groupdict().get("part") or "", fit["key"])) for file, fit in fits if fit)


def _partners(
    benchmark: Benchmark,
    root: Path,
    half: str,
    base: str,
    files: list[str],
    clean: str,
    degraded: str,
):
    title, last = benchmark.title, (root.resolve() / base).name
    if (fit := re.fullmatch(benchmark.part, last, re.IGNORECASE)) and fit[2]:
        title += f"-{fit[2].upper()}"
    title += " train" * (half == "train" and not benchmark.only)
    cleans = {}
    for file, key in _matched(files, base, clean):
        if cleans.setdefault(key, file) != file:
            raise UserError(
                f"{root / file} and {root / cleans[key]} are two clean images of one name; keep"
                " one."
            )
    found = dict(_matched(files, base, degraded or clean))
    alone = [file for file, key in found.items() if key not in cleans]
    used = set(found.values())
    if not benchmark.partial:
        alone += [file for key, file in cleans.items() if key not in used]
    if alone:
        raise UserError(
            f"{root / alone[0]} has no"
            f" partner{f' (and {len(alone) - 1} more)' if alone[1:] else ''}; {title} has"
            f" {benchmark.layout}."
        )
    several = {part for part, _ in used} != {""}
    names = [
        f"{key[0]}_{Path(file).stem}" if several else Path(file).stem for file, key in found.items()
    ]
    refuse_duplicates(names, root / base)
    return title, [
        (name, root / cleans[key], root / file) for name, (file, key) in zip(names, found.items())
    ]
