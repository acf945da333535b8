"""Public test sets as their archives unpack: which files are pairs. Nothing is downloaded, moved or renamed."""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from irbridge.data import Degradation, Pair, PairedFolders, SyntheticPairs, centre_crop, refuse_duplicates
from irbridge.errors import UserError
from irbridge.images import is_image, list_images, read_header, read_image

DEPTH = 6   # folders below root that are looked at


@dataclass(frozen=True)
class Benchmark:
    """How a set's archives unpack.

    Args:
        title: of the records. task: whose adapter it is for. layout: its folders in words, for the one who lacks them.
        pairs: (clean, degraded) patterns of a path below the set's folder, without suffix, the first that fit count.
            Images with equal ``key``, and ``part`` where there is one, are partners.
        test, train: patterns of the folder names of its two halves. part: of a folder that is one part of the set.
        other: pattern of folders that belong to a sister set. cut: pixels by which the clean side is larger all round.
        partial: clean images may lack a degraded one."""
    title: str
    task: str
    layout: str
    pairs: tuple[tuple[str, str], ...]
    test: str = "(.*[-_])?test([-_].*)?"
    train: str = "(.*[-_])?train([-_].*)?"
    part: str = "(?!)"
    other: str = "(?!)"
    cut: int = 0
    partial: bool = False


KEY = "(?P<key>[^/]+)"
SCENE = "(?P<key>[^/_]+)"   # RESIDE: what follows "_" is the haze
PART = "(?P<part>[^/]+)/"
SOTS = ((f"(gt|clear)/{SCENE}", f"(hazy|haze)/{SCENE}(_[^/]*)?"),)
BENCHMARKS = {
    "rain100h": Benchmark(
        "Rain100H", "derain", "norain-1.png and rain-1.png, in one folder or in two",
        ((f"norain-{KEY}", f"rain-{KEY}"), (f"[^/]+/norain-{KEY}", f"[^/]+/rain-{KEY}"),
         (f"norain/norain-{KEY}", r"rain/(X2/)?norain-(?P<key>[^/]+?)(x2)?"))),
    "reside_ots": Benchmark(
        "RESIDE OTS", "dehaze", "clear/0001.jpg and haze/0001_0.8_0.2.jpg, the haze also in part1, part2, ...",
        ((f"(clear|gt)(/clear)?/{SCENE}", f"((haze|hazy|ots|part)[^/]*/)+{SCENE}_[^/]+"),), partial=True),
    "sots_indoor": Benchmark(
        "SOTS indoor", "dehaze", "indoor/gt/1400.png and indoor/hazy/1400_1.png", SOTS, other="(sots[-_]?)?outdoor", cut=10),
    "sots_outdoor": Benchmark(
        "SOTS outdoor", "dehaze", "outdoor/gt/0001.png and outdoor/hazy/0001_0.8_0.2.jpg", SOTS,
        other="(sots[-_]?)?indoor|nyuhaze500"),
    "snow100k": Benchmark(
        "Snow100K", "desnow", "gt/1.jpg and synthetic/1.jpg, in one folder or in each of Snow100K-S, -M and -L",
        tuple((f"{part}gt/{KEY}", f"{part}synthetic/{KEY}") for part in ("(snow100k-)?(?P<part>[sml])/", "")),
        train="all|train", part="(snow100k-)?([sml])"),
    "raindrop": Benchmark(
        "RainDrop", "raindrop", "test_a/gt/0_clean.png and test_a/data/0_rain.png, or train/...",
        (("(gt|clean)/(?P<key>[^/]+?)([-_]clean)?", "(data|rain)/(?P<key>[^/]+?)([-_]rain)?"),), test="test_a|test",
        part="(test_)(b)"),
    "lol": Benchmark("LOL v1", "lowlight", "eval15/high/1.png and eval15/low/1.png, or our485/...",
                     ((f"high/{KEY}", f"low/{KEY}"),), test="eval15|test", train="our485|train"),
    "celebahq": Benchmark("CelebA-HQ", "inpaint", "clean faces in one folder, or in female and male",
                          ((KEY, ""), (f"(female|male)/{KEY}", "")), test="test|val", train="train",
                          other="masks?"),
    "gopro": Benchmark(
        "GoPro", "deblur", "test/SCENE/sharp/000001.png and test/SCENE/blur/000001.png, or blur_gamma",
        tuple((f"{part}sharp/{KEY}", f"{part}{blur}/{KEY}") for part in (PART, "") for blur in ("blur", "blur_gamma"))),
}


class BenchmarkPairs(PairedFolders):
    """The pairs of a benchmark's folder: ``len``, ``names``, ``pairs[i]``, ``keep`` and ``check`` as its parent's.

    Args:
        name: a key of ``BENCHMARKS``. root: the folder of the unpacked archive, or one around it.
        split: "test", "train", or None: test where it is there. size: of the centre crop; None: whole images.

    ``title`` is the set's name with what was taken of it, such as "Snow100K-S" or "LOL v1 train". UserError if the layout
    is not found, is found twice, or an image lacks its partner."""

    def __init__(self, name: str, root: str | Path, split: str | None = None, size: int | None = None):
        self.benchmark, self.size = _known(name), size
        self.title, triples = _find(self.benchmark, Path(root), split)
        self.names = [name for name, _, _ in triples]
        self.paths = [(clean, degraded) for _, clean, degraded in triples]

    def __getitem__(self, i: int) -> Pair:
        clean, degraded = (read_image(path) for path in self.paths[i])
        if cut := self._cut(clean.shape[1::-1], degraded.shape[1::-1]):
            clean = clean[cut:-cut, cut:-cut]
        if clean.shape != degraded.shape:
            raise UserError(self._differ(i, clean.shape[1::-1], degraded.shape[1::-1]))
        return Pair(self.names[i], centre_crop(clean, self.size), centre_crop(degraded, self.size))

    def check(self) -> None:
        """Open every header: UserError if one cannot be opened or a pair differs in size."""
        for i, pair in enumerate(self.paths):
            clean, degraded = (read_header(path)[0] for path in pair)
            if clean != degraded and not self._cut(clean, degraded):
                raise UserError(self._differ(i, clean, degraded))

    def _cut(self, clean: tuple, degraded: tuple) -> int:
        cut = self.benchmark.cut
        return cut if cut and all(a - b == 2 * cut for a, b in zip(clean, degraded)) else 0

    def _differ(self, i: int, clean: tuple, degraded: tuple) -> str:
        return f"{self.paths[i][0]} and {self.paths[i][1]} differ in size ({clean} and {degraded}); make the pair agree."


class Faces(SyntheticPairs):
    """Clean images of a benchmark, holes made by ``degradation`` with randomness of (seed, name); or, with a folder of
    ``masks``, filled with ``degradation.fill`` where a mask is dark (white: keep). Masks go by name, or where the names
    differ in turn, and are scaled to the image."""

    def __init__(self, name: str, root: str | Path, degradation: Degradation, masks: str | Path | None = None,
                 split: str | None = None, seed: int = 0, size: int | None = None):
        self.title, triples = _find(_known(name), Path(root), split)
        self.names, self.source = [n for n, _, _ in triples], _Files([clean for _, clean, _ in triples])
        self.degradation, self.seed, self.size = degradation, seed, size
        self.masks = list_images(masks) if masks else []
        if masks:
            self.title += f", masks {Path(masks).resolve().name}"

    def __getitem__(self, i: int) -> Pair:
        if not self.masks:
            return super().__getitem__(i)
        from skimage.transform import resize
        image, named = self.source[i], {path.stem: path for path in self.masks}
        mask = read_image(named.get(self.source.paths[i].stem, self.masks[i % len(self.masks)]))[..., :1]
        keep = resize(mask, image.shape[:2], order=0, anti_aliasing=False) > 0.5
        degraded = np.where(keep, image, np.float32(getattr(self.degradation, "fill", 0.5)))
        return Pair(self.names[i], centre_crop(image, self.size), centre_crop(degraded, self.size))

    def check(self) -> None:
        for path in [*self.source.paths, *self.masks]:
            read_header(path)


class _Files:
    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __getitem__(self, i: int) -> np.ndarray:
        return read_image(self.paths[i])


def _known(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise UserError(f"benchmark={name!r} is unknown; choose one of {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


def _find(benchmark: Benchmark, root: Path, split: str | None) -> tuple[str, list[tuple[str, Path, Path]]]:
    """(title, [(name, clean, degraded)]) of a set below root; degraded is clean where the set has clean images only."""
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder; give the one that {benchmark.title}'s archive unpacks to.")
    images = _images(root)
    for half in [split] if split else ["test", "train"]:
        files = _of_half(benchmark, images, half)
        bases = sorted({str(parent) for file in files for parent in PurePosixPath(file).parents})
        ranks = {base: rank for base in bases if (rank := _rank(benchmark, root, base, half)) is not None}
        for clean, degraded in benchmark.pairs:
            fits = [b for b in ranks if _matched(files, b, clean) and _matched(files, b, degraded or clean)]
            best = [b for b in fits if ranks[b] == min(ranks[b] for b in fits)]
            if len(best) > 1:
                raise UserError(f"{root} holds {benchmark.title} more than once, in {best[0]} and {best[1]}; give one of "
                                "them as data.root.")
            if best:
                return _paired(benchmark, root, best[0], half, files, clean, degraded)
    there = sorted(p.name + "/" * p.is_dir() for p in root.iterdir())
    raise UserError(f"{root} does not hold {benchmark.title}{f' ({split})' if split else ''}: its layout is "
                    f"{benchmark.layout}, looked for there and one folder below, and there is "
                    f"{', '.join(there[:6]) + ', ...' * (len(there) > 6) or 'nothing'}; give data.root=DIR of the unpacked "
                    "archive, or data.clean=DIR data.degraded=DIR.")


def _images(root: Path) -> list[str]:
    """Paths below root, relative and with slashes, hidden folders and those of macOS's archives left out."""
    found = []
    for folder, folders, names in os.walk(root, followlinks=True):
        here = Path(folder).relative_to(root)
        deep = len(here.parts) >= DEPTH
        folders[:] = [] if deep else sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        found += [(here / name).as_posix() for name in sorted(names) if is_image(Path(name))]
    return found


def _among(pattern: str, names) -> list[str]:
    return [name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)]


def _of_half(benchmark: Benchmark, files: list[str], half: str) -> list[str]:
    """The files that are in no folder of the other half or of a sister set."""
    wrong = f"{benchmark.test if half == 'train' else benchmark.train}|{benchmark.other}"
    return [file for file in files if not _among(wrong, file.split("/")[:-1])]


def _rank(benchmark: Benchmark, root: Path, base: str, half: str) -> tuple | None:
    """How well a folder fits as the set's own, less is better; None: root is the other half or a sister set, or the
    folder is further down than one besides its half's."""
    name, parts = root.resolve().name, [p for p in base.split("/") if p != "."]
    mine, others = (benchmark.test, benchmark.train)[:: 1 if half == "test" else -1]
    called = bool(_among(mine, [name])), bool(_among(others, [name]))
    own = [*_among(mine, parts), *[name] * (called == (True, False))]
    if _among(benchmark.other, [name]) or called == (False, True) or (half == "train" and not own):
        return None
    extra = [p for p in parts if p not in own and not _among(benchmark.part, [p])]
    return (not own, len(parts)) if len(extra) <= 1 else None


def _matched(files: list[str], base: str, pattern: str) -> dict[str, tuple[str, str]]:
    """{path: (part, key)} of the files of a base that fit."""
    prefix, pattern = "" if base == "." else base + "/", re.compile(pattern, re.IGNORECASE)
    fits = ((file, pattern.fullmatch(file[len(prefix):].rsplit(".", 1)[0])) for file in files if file.startswith(prefix))
    return {file: (fit.groupdict().get("part") or "", fit["key"]) for file, fit in fits if fit}


def _paired(benchmark: Benchmark, root: Path, base: str, half: str, files: list[str], clean: str, degraded: str):
    title, last = benchmark.title, (root.resolve() / base).name
    if fit := re.fullmatch(benchmark.part, last, re.IGNORECASE):
        title += f"-{fit[2].upper()}"
    title += " train" * (half == "train")
    cleans = {}
    for file, key in _matched(files, base, clean).items():
        if cleans.setdefault(key, file) != file:
            raise UserError(f"{root / file} and {root / cleans[key]} are two clean images of one name; keep one of them.")
    found = _matched(files, base, degraded or clean)
    alone = [file for file, key in found.items() if key not in cleans]
    used = set(found.values())
    if not benchmark.partial:
        alone += [file for key, file in cleans.items() if key not in used]
    if alone:
        raise UserError(f"{root / alone[0]} has no partner{f' (and {len(alone) - 1} more)' if alone[1:] else ''}; "
                        f"{title} has {benchmark.layout}.")
    several = {part for part, _ in used} != {""}
    names = [f"{key[0]}_{Path(file).stem}" if several else Path(file).stem for file, key in found.items()]
    refuse_duplicates(names, root / base)
    return title, [(name, root / cleans[key], root / file) for name, (file, key) in zip(names, found.items())]
