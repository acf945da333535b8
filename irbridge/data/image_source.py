"""The images of a folder or of a tar."""

import io
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from irbridge.data.names import and_more, refuse_duplicates
from irbridge.errors import UserError
from irbridge.files import open_regular
from irbridge.images.io import is_image, list_images, read_image
from irbridge.images.resize import scaled

CACHE_SHARE = 0.25  # of the free memory, of the machine or of the GPU, for decoded training images


class TarEntry(NamedTuple):
    """Where an image is in a tar."""

    name: str
    offset: int
    """Bytes before it."""
    size: int
    """Bytes of it."""


class ImageSource:
    """The images of a folder, or of an uncompressed .tar: ``len(source)`` and ``source[i]``.

    No file stays open between reads.

    Args:
        path: the folder or the tar.
        resize: what images are :func:`~irbridge.images.resize.scaled` to.

    Attributes:
        names: a file's stem, with the folders inside a tar joined by "_".
        scenes: what of a source shows one scene has one entry there.

    Raises:
        UserError: nothing is there, no images, two images of one name, or a tar that is compressed
            or damaged.
    """

    def __init__(self, path: str | Path, resize: int | None = None):
        self.path, self.resize = Path(path), resize
        if self.path.suffix.lower() == ".tar" and not self.path.is_dir():
            self.entries = tar_entries(self.path)
            stems = [str(Path(entry.name).with_suffix("")) for entry in self.entries]
            self.names = [stem.replace("/", "_") for stem in stems]
        else:
            self.entries = list_images(self.path)
            self.names = [path.stem for path in self.entries]
        refuse_duplicates(self.names, self.path)
        self.scenes = self.names

    @property
    def files(self) -> list[tuple[str, ...]]:
        """What each image is read from: the same of one file, by whatever path."""
        archive = os.path.realpath(self.path)
        return [
            (os.path.realpath(entry) if isinstance(entry, Path) else f"{archive}:{entry.name}",)
            for entry in self.entries
        ]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> np.ndarray:
        """Image i, float32 (H, W, 3) in [0, 1]."""
        if isinstance(self.entries[i], Path):
            return scaled(read_image(self.entries[i]), self.resize)
        return scaled(read_image(self.packed(i), self.called(i)), self.resize)

    def packed(self, i: int) -> io.BytesIO:
        """The file of an image in a tar."""
        entry = self.entries[i]
        with open_regular(self.path) as file:
            file.seek(entry.offset)
            return io.BytesIO(file.read(entry.size))

    def called(self, i: int) -> str:
        """What errors call an image in a tar."""
        return f"{self.path}:{self.entries[i].name}"


def tar_entries(path: Path) -> list[TarEntry]:
    """Every image in a tar, sorted by name.

    Raises:
        UserError: it is no uncompressed tar, is damaged, or holds no images.
    """
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            files = [member for member in tar if is_image(Path(member.name))]
            # tarfile takes a damaged header for the end
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError(f"damaged at byte {tar.offset}")
    except FileNotFoundError:
        raise UserError(f"The archive {path} does not exist; check the path.") from None
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as an uncompressed tar"
            f" ({getattr(error, 'strerror', None) or error}); make it with `tar -cf`, or give a"
            " folder."
        ) from error
    if links := [member.name for member in files if not (member.isfile() or member.isdir())]:
        raise UserError(
            f"{path} holds {links[0]} as a link or a device{and_more(links)}, not as a file; pack"
            " it with `tar --dereference --hard-dereference -cf`."
        )
    files = [member for member in files if member.isfile()]
    if not files:
        raise UserError(
            f"The archive {path} holds no images; pack image files such as .png or .jpg."
        )
    return sorted(TarEntry(member.name, member.offset_data, member.size) for member in files)
