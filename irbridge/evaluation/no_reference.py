"""No reference."""

import contextlib
import io
import socket
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from irbridge.errors import UserError
from irbridge.evaluation.records import read_records, record_files
from irbridge.images.io import list_images, read_image


def judge(
    names: list[str], device: str | torch.device = "cpu"
) -> Callable[[np.ndarray], dict[str, float]]:
    """A function of one float (H, W, 3) in [0, 1] that gives its scores by pyiqa's metrics without
    a reference, such as niqe, musiq, clipiqa, piqe. The network is closed meanwhile, so that
    missing weights are an error and not a download.

    UserError if pyiqa is missing, a name is not one of its metrics without a reference, or its
    weights are not here.
    """
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


def iqa_table(folder: str | Path, metrics: list[str]) -> str:
    """Markdown: the mean of each metric over every row's saved images. UserError as :func:`judge`,
    or if there are no metrics or no images.
    """
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


# pyiqa lists them, but they score sets or need a text
OF_SETS = {"fid", "fid_dinov2", "inception_score", "clipscore"}
