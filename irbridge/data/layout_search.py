"""Finds a public set below a folder, as its archives unpack, and pairs its files."""

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from irbridge.data.names import and_more, refuse_duplicates
from irbridge.data.public_sets import Benchmark
from irbridge.errors import UserError
from irbridge.images.io import is_image

DEPTH = 8  # folders below root that are looked at


class Found(NamedTuple):
    """Where a half of a set is."""

    base: str
    """Its folder, relative to root; "." is root itself."""
    files: list[str]
    """Images below root that are in no folder of the other half or of a sister set."""
    clean: str
    """The pattern of clean images below ``base``."""
    degraded: str
    """The pattern of degraded ones; empty where there are none."""


class FoundPair(NamedTuple):
    """The files of a pair; of a set of clean images alone both are the clean one."""

    name: str
    clean: Path
    degraded: Path


def find_pairs(
    benchmark: Benchmark, root: Path, split: str | None, alone: bool, remedy: str
) -> tuple[str, list[FoundPair]]:
    """The pairs of a set below a folder.

    Args:
        benchmark: the set.
        root: the folder of its unpacked archive, or one around it.
        split: "train" or "test"; None: test where it is there.
        alone: root holds no other half than the one asked for, so that the set's folder may have
            any name.
        remedy: what the errors end in.

    Returns:
        The title of what was found, and its pairs.

    Raises:
        UserError: the set is not found, is found twice, or an image lacks its partner.
    """
    if not os.path.isdir(root):  # also where no folder can have that name
        raise UserError(
            f"{root} is not a folder, but {benchmark.title} was looked for in it; {remedy}."
        )
    if split and benchmark.only and split != benchmark.only:
        raise UserError(
            f"{benchmark.title} is a {benchmark.only} set as a whole; take the {split} images of"
            " another, for instance data.benchmark=reside_ots data.test_benchmark=sots_outdoor."
        )
    images = images_below(root)
    one = split or benchmark.only
    for half in [one] if one else ["test", "train"]:
        if found := find_half(benchmark, root, images, half, alone):
            return _title(benchmark, root, half, found), _partners(benchmark, root, half, found)
    there = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    listed = ", ".join(there[:6]) + ", ..." * (len(there) > 6)
    raise UserError(
        f"{root} does not hold {benchmark.title}{f' ({split})' if split else ''}: its layout is "
        f"{benchmark.layout}, looked for there and one folder below, and there is "
        f"{listed or 'nothing'}; {remedy}."
    )


def images_below(root: Path) -> list[str]:
    """Paths of images below a folder, relative and with slashes.

    Hidden folders and those of macOS's archives are left out.
    """
    found = []
    for folder, folders, names in os.walk(root, followlinks=True):
        here = Path(folder).relative_to(root)
        seen = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        folders[:] = sorted(seen) if len(here.parts) < DEPTH else []
        found += [(here / name).as_posix() for name in sorted(names) if is_image(Path(name))]
    return found


def find_half(
    benchmark: Benchmark, root: Path, images: list[str], half: str, alone: bool
) -> Found | None:
    """Where a half of a set is, if it is below a folder.

    Args:
        benchmark: the set.
        root: the folder.
        images: those below it, see :func:`images_below`.
        half: "train" or "test".
        alone: root holds no other half.

    Raises:
        UserError: it is there twice.
    """
    files = _of_half(benchmark, images, half)
    if benchmark.lists:
        files = _listed(benchmark, root, files, half)
    folders = {PurePosixPath(file.rpartition("/")[0]) for file in files}
    bases = sorted({str(base) for folder in folders for base in (folder, *folder.parents)})
    told = benchmark.only or benchmark.shared or benchmark.lists
    named = not (alone or told)
    ranks = {base: _rank(benchmark, root, base, half, named) for base in bases}
    for clean, degraded in benchmark.pairs:
        patterns = clean, degraded or clean
        fits = {
            base: rank
            for base, rank in ranks.items()
            if rank is not None and all(any(_matched(files, base, p)) for p in patterns)
        }
        best = [base for base, rank in fits.items() if rank == min(fits.values())]
        if len(best) > 1:
            raise UserError(
                f"{root} holds {benchmark.title} more than once, in {best[0]} and {best[1]}; give"
                " the one that is meant."
            )
        if best:
            return Found(best[0], files, clean, degraded)
    return None


def _among(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern fits."""
    return [name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)]


def _of_half(benchmark: Benchmark, files: list[str], half: str) -> list[str]:
    """The files that are in no folder of the other half or of a sister set."""
    others = benchmark.test if half == "train" else benchmark.train
    wrong = f"{others}|{benchmark.other}"

    @cache  # sets have many files in few folders
    def belongs(folder: str) -> bool:
        return not _among(wrong, folder.split("/"))

    return [file for file in files if belongs(file.rpartition("/")[0])]


def _listed(benchmark: Benchmark, root: Path, files: list[str], half: str) -> list[str]:
    """The files that the list of a half names, by their last three parts (scene, side and name).

    The list is in the folder, in one below it on the way to an image, or in the one above it.

    Raises:
        UserError: the list cannot be read or is empty, or images that it names are not there though
            others are.
    """
    folders = {folder for file in files for folder in PurePosixPath(file).parents}
    places = [root, *(root / folder for folder in sorted(folders)), root.resolve().parent]
    paths = [place / benchmark.lists.format(half=half) for place in places]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return []
    try:
        words = path.read_text("utf-8").replace("\\", "/").split()
    except (OSError, UnicodeError) as error:
        raise UserError(f"The list {path} cannot be read ({error}); unpack it again.") from error
    wanted = {_tail(word): word for word in words if is_image(Path(word))}
    if not wanted:  # the other half must not stand in for this one
        raise UserError(f"{path} lists no image; unpack the archive again.")
    kept = {_tail(file): file for file in files if _tail(file) in wanted}
    lost = [word for tail, word in wanted.items() if tail not in kept]
    if kept and lost:
        raise UserError(
            f"{path} lists {lost[0]}, which is not below {root}{and_more(lost)}; unpack the archive"
            " again."
        )
    return [file for file in files if _tail(file) in wanted]


def _tail(file: str) -> str:
    """The last three parts of a path, in small letters."""
    return "/".join(PurePosixPath(file).parts[-3:]).lower()


def _rank(
    benchmark: Benchmark, root: Path, base: str, half: str, named: bool
) -> tuple[bool, int] | None:
    """How well a folder fits as the set's own; less is better.

    Args:
        benchmark: the set.
        root: where it is looked for.
        base: the folder, relative to root.
        half: "train" or "test".
        named: a folder of the training half must say that it is one.

    Returns:
        Whether no folder is named after the half, and how deep it is. None: root is the other half
        or a sister set, the folder is further down than one besides its half's, or it does not say
        that it is for training.
    """
    name = root.resolve().name
    parts = [part for part in base.split("/") if part != "."]
    mine, others = benchmark.test, benchmark.train
    if half == "train":
        mine, others = others, mine
    is_mine, is_other = bool(_among(mine, [name])), bool(_among(others, [name]))
    own = _among(mine, parts)
    if is_mine and not is_other:
        own.append(name)
    if _among(benchmark.other, [name]) or (is_other and not is_mine):
        return None
    if named and half == "train" and not own:
        return None
    extra = [part for part in parts if part not in own and not _among(benchmark.part, [part])]
    return (not own, len(parts)) if len(extra) <= 1 else None


def _matched(files: list[str], base: str, pattern: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """(path, (part, key)) of each file of a folder that a pattern fits."""
    prefix = "" if base == "." else base + "/"
    compiled = re.compile(pattern, re.IGNORECASE)
    for file in files:
        if not file.startswith(prefix):
            continue
        fit = compiled.fullmatch(file[len(prefix) :].rsplit(".", 1)[0])
        if fit:
            yield file, (fit.groupdict().get("part") or "", fit["key"])


def _title(benchmark: Benchmark, root: Path, half: str, found: Found) -> str:
    """The set's name with what was taken of it, such as "Snow100K-S" or "LOL v1 train"."""
    title, last = benchmark.title, (root.resolve() / found.base).name
    part = re.fullmatch(benchmark.part, last, re.IGNORECASE)
    if part and part.re.groups > 1 and part[2]:
        title += f"-{part[2].upper()}"
    return title + " train" * (half == "train" and not benchmark.only)


def _partners(benchmark: Benchmark, root: Path, half: str, found: Found) -> list[FoundPair]:
    """The pairs of a half that was found.

    Raises:
        UserError: two clean images have one name, or an image lacks its partner.
    """
    cleans = {}
    for file, key in _matched(found.files, found.base, found.clean):
        if cleans.setdefault(key, file) != file:
            raise UserError(
                f"{root / file} and {root / cleans[key]} are two clean images of one name; keep"
                " one."
            )
    degraded = dict(_matched(found.files, found.base, found.degraded or found.clean))
    used = set(degraded.values())
    alone = [file for file, key in degraded.items() if key not in cleans]
    if not benchmark.partial:
        alone += [file for key, file in cleans.items() if key not in used]
    if alone:
        title = _title(benchmark, root, half, found)
        raise UserError(
            f"{root / alone[0]} has no partner{and_more(alone)}; {title} has {benchmark.layout}."
        )
    several = {part for part, _ in used} != {""}
    pairs = []
    for file, key in degraded.items():
        part, stem = key[0], Path(file).stem
        name = f"{part}_{stem}" if several else stem
        pairs.append(FoundPair(name, root / cleans[key], root / file))
    refuse_duplicates([pair.name for pair in pairs], root / found.base)
    return pairs
