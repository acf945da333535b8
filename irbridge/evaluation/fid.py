"""Frechet Inception distance of two folders of images. Nothing downloads."""

import pickle
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from irbridge.errors import UserError
from irbridge.evaluation.saved_images import compared_under, saved_rows, saved_under, strangers
from irbridge.files import sha256
from irbridge.images.arrays import to_bytes
from irbridge.images.io import list_images, read_image

# SHA-256 of torch-fidelity's weights-inception-2015-12-05-6726825d.pth begins so
PUBLISHED = "6726825d"


class _Images(Dataset):
    """uint8 (3, H, W) of image files, as the Inception network takes them."""

    def __init__(self, folder: str | Path):
        self.paths = list_images(folder)
        if len(self.paths) < 2:
            raise UserError(
                f"{folder} holds {len(self.paths)} image; FID needs 2 or more a folder, and"
                " thousands to mean much."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(to_bytes(read_image(self.paths[index]))).permute(2, 0, 1)


def fid(
    restored: str | Path, clean: str | Path, weights: str | Path | None, features: int = 2048
) -> float:
    """Frechet Inception distance (Heusel et al., 2017) of two folders, by torch-fidelity.

    It is biased upwards for few images, so only values of equally many images compare.

    Args:
        restored: a folder of images.
        clean: another one.
        weights: a local file, such as torch-fidelity's weights-inception-2015-12-05-6726825d.pth,
            the published ones.
        features: 2048 is the published layer; 64, 192 and 768 are earlier ones, for other
            quantities.

    Raises:
        UserError: if torch-fidelity, the weights or images are missing, or the file holds no such
            network.
    """
    try:
        import torch_fidelity
    except ImportError:
        raise UserError(
            'FID needs torch-fidelity; install it with pip install -e ".[fid]".'
        ) from None
    path = _checked(weights)
    sets = [_Images(restored), _Images(clean)]
    try:  # batches of one, because images of different sizes do not stack
        found = torch_fidelity.calculate_metrics(
            input1=sets[0],
            input2=sets[1],
            fid=True,
            cuda=torch.cuda.is_available(),
            batch_size=1,
            save_cpu_ram=True,
            feature_extractor="inception-v3-compat",
            feature_layer_fid=str(features),
            cache=False,
            verbose=False,
            feature_extractor_weights_path=str(path),
        )
    except RuntimeError as error:
        if "state_dict" in str(error):
            raise UserError(
                f"{path} does not hold the weights of torch-fidelity's Inception network; give "
                f"weights-inception-2015-12-05-{PUBLISHED}.pth."
            ) from error
        raise
    return max(float(found["frechet_inception_distance"]), 0.0)


def _checked(weights: str | Path | None) -> Path:
    """The file, once it is known to hold tensors only.

    torch-fidelity itself would run whatever a pickle says.
    """
    if not weights or not Path(weights).is_file():
        named = f"weights {weights}" if weights else "weights"
        raise UserError(
            f"The Inception {named} are missing and nothing is downloaded; give weights=FILE, such"
            f" as torch-fidelity's weights-inception-2015-12-05-{PUBLISHED}.pth."
        )
    try:
        if isinstance(torch.load(weights, map_location="cpu", weights_only=True), dict):
            return Path(weights)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError):
        pass
    raise UserError(
        f"{weights} is not a file of plain PyTorch weights; give weights=FILE of a saved"
        " state_dict."
    )


def saved_fid(place: Path, beside: str, weights: str | Path | None) -> float | None:
    """FID of a row's saved images against those of a folder beside the row's.

    Args:
        place: the row's folder.
        beside: "clean" or "vae".
        weights: and errors: as those of :func:`fid`.

    Returns:
        None where there are none, or the two folders hold other names, or images that were not
        saved with the row's scores.
    """
    reference = place.parent / beside
    names = saved_under(place)
    if not names or names != compared_under(place, beside):
        return None
    if strangers(place, names) or strangers(reference, names):
        return None
    return fid(place, reference, weights)


class RowFid(NamedTuple):
    """FID of a row's ``images`` saved images; None where the clean ones beside it are others."""

    task: str
    label: str
    value: float | None
    images: int


def fid_of_rows(folder: str | Path, weights: str | Path | None) -> list[RowFid]:
    """FID of every row's saved images below a folder, against ``clean/`` beside the row's folder.

    Raises:
        UserError: as :func:`fid`, or if no row has its images and the clean ones.
    """
    found = [
        RowFid(row.task, row.label, saved_fid(row.folder, "clean", weights), len(row.images))
        for row in saved_rows(folder)
    ]
    if all(row.value is None for row in found):
        raise UserError(
            f"No row below {folder} has its images and the clean ones (clean/NAME.png beside the"
            " row's folder); score with save_images=true."
        )
    return found


def weights_in_words(weights: str | Path) -> str:
    """The hash of the Inception weights, and whether they are the published ones."""
    digest = sha256(Path(weights))[:8]
    if digest == PUBLISHED:
        return f"{digest} (published)"
    return f"{digest} (not the published, so comparable only among themselves)"
