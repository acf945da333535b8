"""Another method's saved images as a row of the table, under the same protocol."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np

from irbridge.data.names import and_more, refuse_duplicates
from irbridge.data.pairs import PairedFolders
from irbridge.errors import UserError
from irbridge.evaluation.methods import Row
from irbridge.images.io import is_image, read_header, read_image
from irbridge.images.resize import centre_crop


def output_row(
    folder: str | Path, label: str | None, pairs, size: int | None, limit: int | None = None
) -> Row:
    """The images of a folder, also in folders of scenes, as a method.

    A name is that of the pair, of its clean image, or one of them with an ending such as _out or
    -derain. An image has the size of the whole degraded one, and is then cropped as that is, or of
    its crop. label: default the folder's name. limit: so many pairs are scored. UserError if the
    folder holds no images, one is ambiguous, missing, or of another size.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"outputs={folder} is not a folder; give the one that holds the restored images."
        )
    images = [p for p in sorted(folder.rglob("*")) if is_image(p)]
    names = [p.relative_to(folder).with_suffix("").as_posix().replace("/", "_") for p in images]
    refuse_duplicates(names, folder)
    paths = dict(zip(names, images))
    if not paths:
        raise UserError(
            f"outputs={folder} holds no images; give the folder of the restored ones, .png or .jpg."
        )
    label = label or folder.resolve().name
    files = dict(zip(pairs.names, getattr(pairs, "paths", [None] * len(pairs.names))))
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
        whole = (
            read_header(files[name][1])[0]
            if isinstance(pairs, PairedFolders)
            else image.shape[1::-1]
        )
        if restored.shape[1::-1] != whole:
            raise UserError(
                f"{path} is {restored.shape[1]} x {restored.shape[0]} pixels and the degraded image"
                f" {whole[0]} x {whole[1]}; save it in that size."
            )
        return centre_crop(restored, size)

    digest = hashlib.sha256()
    for path in paths.values():
        digest.update(path.read_bytes())
    return Row(label, label, restore, None, digest.hexdigest()[:12])


def _assigned(paths: dict[str, Path], accepted: dict[str, list[str]]) -> dict[str, Path]:
    """{pair's name: output}; an exact name wins, then the longest one that the output's
    continues.
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
