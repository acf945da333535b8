"""Sources made of sources: some items of one, several as one, other names, a split by scenes.

A source has ``len(source)``, ``source[i]``, ``names`` and ``scenes``; most have ``files`` too.
"""

from collections import Counter
from itertools import count
from pathlib import Path

from irbridge.data.image_source import ImageSource
from irbridge.errors import UserError
from irbridge.images.io import list_images


class Subset:
    """Some items of a source, by their indices."""

    def __init__(self, source, indices: list[int]):
        self.source, self.indices = source, indices
        self.names = [source.names[i] for i in indices]
        self.scenes = [source.scenes[i] for i in indices]

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
        self.sources = sources
        self.items = [(source, i) for source in sources for i in range(len(source))]
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
    """A source of pairs under other names."""

    def __init__(self, source, names: list[str]):
        self.source, self.names, self.scenes = source, names, source.scenes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int):
        return self.source[i]._replace(name=self.names[i])


class OfTask:
    """A source of pairs that are those of one task among several, where they say no task."""

    def __init__(self, source, task: str):
        self.source, self.task = source, task
        self.names, self.scenes = source.names, source.scenes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int):
        pair = self.source[i]
        return pair if pair.task else pair._replace(task=self.task)


def distinct(names: list[str], labels: list[str]) -> list[str]:
    """Names of which none occurs twice.

    Those that repeat have their label before them, and a number behind where that does not do.

    Args:
        names: some of which may repeat.
        labels: one for each name, such as its source.
    """
    times = Counter(names)
    found = {}  # in the order of the names
    for name, label in zip(names, labels, strict=True):
        repeats = times[name] > 1
        wanted = f"{label}_{name}".replace("/", "_") if repeats else name
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
) -> Subset:
    """The images of several folders or tars as one source.

    Args:
        paths: the folders and tars.
        exclude: a folder of images that are held back for tests. Left out is an image whose name is
            the stem of one of them, or ends with "_" and that stem.
        resize: what images are :func:`~irbridge.images.resize.scaled` to.
        key: of the config, for the error.

    Raises:
        UserError: no image is left.
    """
    held = {path.stem for path in list_images(exclude)} if exclude else set()
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
    """Split images by their scenes, so that no scene is on both sides.

    Args:
        scenes: of each image.
        every: every so many-th scene is held back, in the order of their names; None: none is.

    Returns:
        The indices to train on, and those held back for validation.
    """
    held = set(sorted(set(scenes))[::every]) if every else set()
    training = [i for i, scene in enumerate(scenes) if scene not in held]
    validation = [i for i, scene in enumerate(scenes) if scene in held]
    return training, validation
