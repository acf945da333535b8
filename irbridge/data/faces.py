"""LFW's faces, cropped to 64 px and split by people: what ``experiment=faces`` is trained on.

Labeled Faces in the Wild (Huang et al., 2007), in the release whose faces are aligned by deep
funneling (Huang et al., NIPS 2012): 13,233 photographs of 250 px of 5,749 people, each in a folder
of its person, ``Aaron_Eckhart/Aaron_Eckhart_0001.jpg``. Nothing is downloaded.
"""

import hashlib
import io
import shutil
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from irbridge.data.names import refuse_duplicates
from irbridge.data.people import NUMBERED, person_of
from irbridge.errors import UserError
from irbridge.files import write_json
from irbridge.images.arrays import to_bytes
from irbridge.images.io import is_image, read_image
from irbridge.images.resize import centre_crop, scaled

SIDE = 64
FRAME, FACE = 250, (61, 52, 189, 180)  # LFW's side, and left, top, right, bottom of the face in it
MOST = 60  # photographs of one person: some have hundreds
PARTS = "train", "validation", "test"
# of the people: up to the first they are trained on, up to the second they are for choices
SHARES = 0.9, 0.95
QUALITY, JPEG = 90, b"\xff\xd8"  # Pillow's, and how such a file begins
# what a damaged archive raises
DAMAGES = OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile
REMEDY = (
    "give LFW's deep-funneled archive, lfw-deepfunneled.tgz, or the folder that it unpacks to, or"
    " faces that are cropped already"
)


class Face(NamedTuple):
    """A photograph that is to be cropped: its name without ending, and where it is."""

    name: str
    place: object  # a path, a name in a zip, or a member of a tar
    title: str  # what errors call it


class FaceSet(NamedTuple):
    """What was written.

    Attributes:
        counts: images of each part.
        people: of each part; None where the names do not tell people.
    """

    counts: dict[str, int]
    people: dict[str, int] | None

    def in_words(self, folder: Path) -> str:
        """What is where now, and what that is worth."""
        lines = []
        for part in PARTS:
            of = f" of {self.people[part]:,} people" if self.people else ""
            lines.append(f"{folder / part}: {self.counts[part]:,} faces{of}")
        if self.people is None:
            lines.append(
                "The names tell no people, so the last tenth by name is for validation and test;"
                " one person may be on both sides."
            )
        return "\n".join(lines)


def part_of(person: str, seed: int) -> str:
    """The part that a person is in: by a hash of (seed, name), not by who else is there."""
    digest = hashlib.sha256(f"{seed} {person}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return PARTS[sum(share >= edge for edge in SHARES)]


def split(names: list[str], seed: int) -> tuple[dict[str, list[str]], bool]:
    """Names by the part that they are in.

    Args:
        names: of photographs, sorted.
        seed: of the people's hash.

    Returns:
        The parts, and whether they are of different people. Names that do not all end with a
        number of four digits tell no people: the first nine tenths are then to train on, the first
        half of the last tenth for validation, the rest for tests.
    """
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    if all(NUMBERED.fullmatch(name) for name in names):
        for name in names:
            parts[part_of(person_of(name), seed)].append(name)
        return parts, True
    first = len(names) * 9 // 10
    second = first + (len(names) - first) // 2
    slices = names[:first], names[first:second], names[second:]
    return dict(zip(PARTS, slices, strict=True)), False


def write_faces(source: str | Path, folder: Path, seed: int = 0) -> FaceSet:
    """Crop the faces of LFW, or take faces that are cropped, into train, validation and test.

    A photograph of 250 px is cropped to the face and reduced to 64; of others the central square
    is. Files of 64 px are copied as they are. Of a person whom the names tell, the first 60 count.

    Args:
        source: a .tgz, .tar or .zip, or a folder with images in it or in its folders.
        folder: where the three folders go, and ``faces.json``, which says how they were made.
        seed: of the people's hash.

    Raises:
        UserError: there are no images, two have one name, a part would be empty, or the folder
            holds images already.
    """
    for part in PARTS:
        if (folder / part).exists():
            raise UserError(f"{folder / part} is there already; give another output=DIR.")
    with _Archive(Path(source)) as archive:
        faces = {face.name: face for face in archive.faces()}
        parts, by_people = split(list(faces), seed)
        if empty := [part for part in PARTS if not parts[part]]:
            raise UserError(
                f"{source} holds {len(faces)} faces, too few for a {empty[0]} part; give more."
            )
        # apart, so that what was stopped halfway is not taken for the whole
        unfinished = folder / ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        where = {name: unfinished / part for part in PARTS for name in parts[part]}
        for face in archive.in_order(faces.values()):
            _write(where[face.name] / f"{face.name}.jpg", archive.read(face), face)
        for part in PARTS:
            (unfinished / part).rename(folder / part)
        unfinished.rmdir()
    people = None
    if by_people:
        people = {part: len({person_of(name) for name in parts[part]}) for part in PARTS}
    found = FaceSet({part: len(parts[part]) for part in PARTS}, people)
    about = {"source": Path(source).name, "seed": seed, "side": SIDE, "most": MOST}
    write_json(folder / "faces.json", about | found._asdict())
    return found


class _Archive:
    """The photographs of a folder, tar or zip."""

    def __init__(self, source: Path):
        self.source, self.opened, self._stack = source, None, ExitStack()
        if source.is_dir():
            return
        kind = zipfile.ZipFile if zipfile.is_zipfile(source) else tarfile.open
        try:
            self.opened = self._stack.enter_context(kind(source))
        except FileNotFoundError:
            raise UserError(f"{source} does not exist; {REMEDY}.") from None
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"{source} is no folder, tar or zip ({error}); {REMEDY}.") from error

    def __enter__(self) -> "_Archive":
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def faces(self) -> list[Face]:
        """The photographs by name, of a person no more than the first 60.

        Raises:
            UserError: there are none, two have one name, or the archive is damaged.
        """
        found = sorted(self._all(), key=lambda face: face.name)
        if not found:
            raise UserError(f"{self.source} holds no images; {REMEDY}.")
        refuse_duplicates([face.name for face in found], self.source)
        if not all(NUMBERED.fullmatch(face.name) for face in found):
            return found
        times: Counter[str] = Counter()
        kept = []
        for face in found:
            times[person_of(face.name)] += 1
            if times[person_of(face.name)] <= MOST:
                kept.append(face)
        return kept

    def _all(self) -> Iterator[Face]:
        """Every image; UserError where the archive is damaged."""
        if self.opened is None:
            for path in self.source.rglob("*"):
                if is_image(path) and path.is_file():
                    yield Face(path.stem, path, str(path))
            return
        try:
            if isinstance(self.opened, zipfile.ZipFile):
                members = [(name, name) for name in self.opened.namelist()]
            else:
                members = [(member.name, member) for member in self.opened if member.isfile()]
        except DAMAGES as error:
            raise UserError(f"{self.source} is damaged ({error}); copy it again.") from error
        for name, place in members:
            if is_image(PurePosixPath(name)):
                yield Face(PurePosixPath(name).stem, place, f"{self.source}:{name}")

    def in_order(self, faces: Iterable[Face]) -> list[Face]:
        """The photographs in the order of a tar, which a packed one is read in only once."""
        if not isinstance(self.opened, tarfile.TarFile):
            return list(faces)
        return sorted(faces, key=lambda face: face.place.offset_data)

    def read(self, face: Face) -> bytes:
        """The bytes of a photograph's file."""
        if self.opened is None:
            return face.place.read_bytes()
        try:
            if isinstance(self.opened, zipfile.ZipFile):
                return self.opened.read(face.place)
            return self.opened.extractfile(face.place).read()
        except DAMAGES as error:
            raise UserError(f"{face.title} is damaged ({error}); copy it again.") from error


def _write(path: Path, content: bytes, face: Face) -> None:
    """Write a face: cropped and reduced, or as it is where it is a JPEG of 64 px."""
    image = read_image(io.BytesIO(content), face.title)
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.shape[:2] == (SIDE, SIDE) and content.startswith(JPEG):
        path.write_bytes(content)
        return
    Image.fromarray(to_bytes(cropped(image))).save(path, "JPEG", quality=QUALITY)


def cropped(image: np.ndarray) -> np.ndarray:
    """The face of a photograph: (H, W, 3) to (64, 64, 3), both in [0, 1]."""
    if image.shape[:2] == (FRAME, FRAME):
        left, top, right, bottom = FACE
        return scaled(image[top:bottom, left:right], SIDE)
    return scaled(centre_crop(image, min(image.shape[:2])), SIDE)
