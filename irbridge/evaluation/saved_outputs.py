"""Another method's saved images as a row of the table, under the same protocol."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from irbridge.data.names import and_more, refuse_duplicates
from irbridge.data.pairs import PairedFolders
from irbridge.errors import UserError
from irbridge.evaluation.methods import Method
from irbridge.evaluation.records import fingerprint
from irbridge.files import sha256
from irbridge.images.io import is_image, read_image
from irbridge.images.resize import centre_crop
from irbridge.images.samples import read_header

SIDE_PICTURES = "-compare", "-path"  # what irbridge restore writes beside a restored photograph


def output_row(
    folder: str | Path, label: str | None, pairs, size: int | None, limit: int | None = None
) -> Method:
    """The images of a folder, also in folders of scenes, as a method.

    A name is that of the pair, of its clean image, or one of them with an ending such as _out or
    -derain. An image has the size of the whole degraded one, and is then cropped as that is, or of
    its crop.

    Args:
        folder: of the restored images.
        label: of the row; by default the folder's name.
        pairs: that were restored.
        size: of their centre crop in pixels; None: whole images.
        limit: so many pairs are scored.

    Raises:
        UserError: if the folder holds no images, or one is ambiguous, missing, or of another size.
    """
    folder = Path(folder)
    paths = _images(folder)
    # pairs of folders say where their files are; others are made in memory
    files = dict(zip(pairs.names, getattr(pairs, "paths", [None] * len(pairs.names)), strict=True))
    accepted = {name: [name] for name in pairs.names}
    cleans = Counter(pair[0].stem for pair in files.values() if pair)
    for name, pair in files.items():
        # of several degraded versions, the clean name tells none
        if pair and cleans[pair[0].stem] == 1:
            accepted[name].append(pair[0].stem)
    found = _assigned(paths, accepted)
    if missing := [name for name in pairs.names[:limit] if name not in found]:
        raise UserError(
            f"outputs={folder} has no image for {missing[0]}{and_more(missing)}; name it"
            f" {missing[0]}.png."
        )

    def restore(image: np.ndarray, name: str) -> np.ndarray:
        path, restored = found[name], read_image(found[name])
        if restored.shape[:2] == image.shape[:2]:
            return restored
        whole = image.shape[1::-1]
        if isinstance(pairs, PairedFolders):
            whole = read_header(files[name][1])[0]
        if restored.shape[1::-1] != whole:
            raise UserError(
                f"{path} is {restored.shape[1]} x {restored.shape[0]} pixels and the degraded image"
                f" {whole[0]} x {whole[1]}; save it in that size."
            )
        return centre_crop(restored, size)

    label = label or folder.resolve().name
    weights = fingerprint([sha256(path) for path in paths.values()])[:12]
    return Method(label, label, restore, weights=weights, more={"outputs": str(folder.resolve())})


def _images(folder: Path) -> dict[str, Path]:
    """{name: file} of the restored images of a folder and the folders in it."""
    if not folder.is_dir():
        raise UserError(
            f"outputs={folder} is not a folder; give the one that holds the restored images."
        )
    files = [path for path in sorted(folder.rglob("*")) if is_image(path)]
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    flat = [name.replace("/", "_") for name in names]
    known = set(flat)
    restored = {
        name: path for name, path in zip(flat, files, strict=True) if not _beside(name, known)
    }
    refuse_duplicates([name for name in flat if name in restored], folder)
    if not restored:
        raise UserError(
            f"outputs={folder} holds no images; give the folder of the restored ones, .png or .jpg."
        )
    return restored


def _beside(name: str, names: set[str]) -> bool:
    """Whether it is a picture that irbridge wrote beside the restored image of that name."""
    return any(name.endswith(end) and name.removesuffix(end) in names for end in SIDE_PICTURES)


def _assigned(paths: dict[str, Path], accepted: dict[str, list[str]]) -> dict[str, Path]:
    """The image of each pair's name.

    An exact name wins, then the longest one that the image's name continues.

    Args:
        paths: the images by name.
        accepted: the names, best first, that an image of each pair may have or continue.
    """
    owners = {stem: name for name, stems in accepted.items() for stem in reversed(stems)}
    exact, continued = {}, {}
    for stem, path in paths.items():
        if stem in owners:
            exact.setdefault(owners[stem], path)
            continue
        cuts = [m.start() for m in re.finditer(r"[-_. ]", stem)]
        owner = next((owners[stem[:cut]] for cut in reversed(cuts) if stem[:cut] in owners), None)
        if owner is not None:
            continued.setdefault(owner, []).append(path)
    for name, several in continued.items():
        if name not in exact and len(several) > 1:
            raise UserError(
                f"{several[0]} and {several[1]} could both be the output for {name}; keep one of"
                " them."
            )
    return {name: several[0] for name, several in continued.items()} | exact
