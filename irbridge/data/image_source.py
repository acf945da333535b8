"""Image source."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np

from irbridge.data.names import refuse_duplicates
from irbridge.errors import UserError
from irbridge.images.io import decode, is_image, list_images, read_image
from irbridge.images.resize import scaled

CACHE_SHARE = 0.25  # of the free memory, of the machine or of the GPU, for decoded training images


class ImageSource:
    """The images of a folder, or of an uncompressed .tar: ``len``, ``names``, ``scenes`` (what of a
    source shows one scene has one entry there) and ``source[i]``. A name is a file's stem, with the
    folders inside a tar joined by "_". Images are :func:`scaled` to ``resize``. No file stays open
    between reads. UserError if nothing is there, no images, two images of one name, or a tar that
    is compressed or damaged.
    """

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
