"""Scores beside those of pairs: FID of two sets of images, and metrics without a reference. Nothing
downloads."""

import contextlib
import io
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch.utils.data import Dataset

from irbridge.checkpoint import sha256
from irbridge.errors import UserError
from irbridge.images import list_images, read_image, to_bytes
from irbridge.tables import read_records, record_files

# SHA-256 of torch-fidelity's weights-inception-2015-12-05-6726825d.pth begins so
PUBLISHED = "6726825d"
# pyiqa lists them, but they score sets or need a text
OF_SETS = {"fid", "fid_dinov2", "inception_score", "clipscore"}


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
    """Frechet Inception distance (Heusel et al., 2017) of the images in two folders, by
    torch-fidelity. It is biased upwards for few images, so only values of equally many images
    compare.

    Args: weights: a local file, such as torch-fidelity's weights-inception-2015-12-05-6726825d.pth,
        the published ones. features: 2048 is the published layer; 64, 192 and 768 are earlier ones,
        for other quantities.
    UserError if torch-fidelity, the weights or images are missing, or the file holds no such
    network."""
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
    """The file, once it is known to hold tensors only: torch-fidelity itself would run whatever a
    pickle says."""
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


def judge(
    names: list[str], device: str | torch.device = "cpu"
) -> Callable[[np.ndarray], dict[str, float]]:
    """A function of one float (H, W, 3) in [0, 1] that gives its scores by pyiqa's metrics without
    a reference, such as niqe, musiq, clipiqa, piqe. The network is closed meanwhile, so that
    missing weights are an error and not a download.

    UserError if pyiqa is missing, a name is not one of its metrics without a reference, or its
    weights are not here."""
    try:
        import pyiqa
    except ImportError:
        raise UserError(
            'Scores without a reference need pyiqa; install it with pip install -e ".[iqa]".'
        ) from None
    known = [n for n in pyiqa.list_models(metric_mode="NR") if n not in OF_SETS]
    if wrong := [n for n in names if n not in known]:
        raise UserError(
            f"{wrong[0]!r} is not a metric of single images without a reference; use one of "
            f"{', '.join(known)}."
        )
    metrics = {}
    for name in names:
        with _offline(name):
            metrics[name] = pyiqa.create_metric(name, device=torch.device(device))

    @torch.inference_mode()
    def scores(image: np.ndarray) -> dict[str, float]:
        batch, found = (
            torch.from_numpy(image.clip(0, 1).astype(np.float32)).permute(2, 0, 1)[None].to(device),
            {},
        )
        for name, metric in metrics.items():
            with _offline(name):
                found[name] = float(metric(batch))
        return found

    return scores


@contextlib.contextmanager
def _offline(name: str):
    """The block runs with the network closed; UserError where it asks for the network."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    asked = []

    def refuse(*args, **options):
        asked.append(args)
        raise ConnectionRefusedError("irbridge downloads nothing")

    said = io.StringIO()  # pyiqa prints which file it would fetch
    try:
        with (
            contextlib.redirect_stdout(said),
            mock.patch.object(socket.socket, "connect", refuse),
            mock.patch.object(socket, "getaddrinfo", refuse),
            mock.patch.object(constants, "HF_HUB_OFFLINE", True),
        ):
            yield
    except Exception as error:  # every library wraps the refusal in an error of its own
        if not asked and not isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
            raise
        wanted = " ".join((said.getvalue() or str(error)).split())
        raise UserError(
            f"The weights of {name} are not here and nothing is downloaded ({wanted}); put them"
            f" into {torch.hub.get_dir()}/pyiqa, or run pyiqa.create_metric({name!r}) on a machine"
            " with internet and copy its caches of torch and Hugging Face."
        ) from error


def saved_fid(place: Path, beside: str, weights: str | Path | None) -> float | None:
    """FID of a row's saved images against the folder of that name beside the row's, "clean" or
    "vae"; None where the two hold other names or none. UserError as :func:`fid`."""
    names = _names(place)
    return (
        fid(place, place.parent / beside, weights)
        if names and names == _names(place.parent / beside)
        else None
    )


def fid_table(folder: str | Path, weights: str | Path | None) -> str:
    """Markdown: FID of every row's saved images against ``clean/`` beside the row's folder; a dash
    where the two folders hold other names. UserError as :func:`fid`, or if no row has both."""
    lines, found = ["| Task | Method | FID ↓ | images |", "|---|---|---:|---:|"], False
    for task, row, place in _rows(folder):
        value = saved_fid(place, "clean", weights)
        found |= value is not None
        lines.append(
            f"| {task} | {row} | {'—' if value is None else f'{value:.2f}'} |"
            f" {len(_names(place))} |"
        )
    if not found:
        raise UserError(
            f"No row below {folder} has its images and the clean ones (clean/NAME.png beside the"
            " row's folder); score with save_images=true."
        )
    digest = sha256(Path(weights))[:8]
    known = (
        "published"
        if digest == PUBLISHED
        else "not the published, so comparable only among themselves"
    )
    caption = (
        f"FID by torch-fidelity, Inception weights {digest} ({known}); few images bias it upwards."
    )
    return f"{caption}\n\n" + "\n".join(lines)


def iqa_table(folder: str | Path, metrics: list[str]) -> str:
    """Markdown: the mean of each metric over every row's saved images. UserError as :func:`judge`,
    or if there are no metrics or no images."""
    if not metrics:
        raise UserError(
            "format=iqa needs the names of metrics; give metrics=niqe,musiq or others of pyiqa."
        )
    score = judge(metrics)
    lines = [
        "| Task | Method | " + " | ".join(metrics) + " | images |",
        "|---|---|" + "---:|" * (len(metrics) + 1),
    ]
    for task, row, place in _rows(folder):
        if paths := sorted(_names(place)):
            scores = [score(read_image(place / name)) for name in paths]
            means = " | ".join(f"{np.mean([s[m] for s in scores]):.4f}" for m in metrics)
            lines.append(f"| {task} | {row} | {means} | {len(paths)} |")
    if len(lines) == 2:
        raise UserError(f"No row below {folder} has saved images; score with save_images=true.")
    return "Means of pyiqa's metrics without a reference.\n\n" + "\n".join(lines)


def _rows(folder: str | Path):
    """(task, label, folder) of every scored row."""
    read_records(folder)  # UserError where there is nothing
    for file, run in {file.parent: (file, run) for file, run in record_files(folder)}.values():
        if records := read_records(file):
            label = records[0]["row"].replace("|", "\\|") + (f" [{run}]" if run else "")
            yield records[0]["task"], label, file.parent


def _names(folder: Path) -> set[str]:
    return (
        {p.name for p in list_images(folder)}
        if folder.is_dir() and any(folder.glob("*.png"))
        else set()
    )
