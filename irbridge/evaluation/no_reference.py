"""Scores without a reference (pyiqa's), and photographs that have no clean version."""

import contextlib
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from irbridge.assets import find
from irbridge.data.image_source import ImageSource
from irbridge.errors import UserError
from irbridge.evaluation.methods import IDENTITY, Method
from irbridge.evaluation.metrics import Metric, release
from irbridge.evaluation.records import (
    About,
    Content,
    Record,
    RecordStore,
    fingerprint,
    slug,
)
from irbridge.evaluation.saved_images import is_own, png_hash, saved_rows
from irbridge.images.io import read_image, write_image
from irbridge.images.resize import centre_crop

# pyiqa lists them, but they score sets or need a text
OF_SETS = {"fid", "fid_dinov2", "inception_score", "clipscore"}
SCORES = "scores.jsonl"

Judge = Callable[[np.ndarray], dict[str, float | None]]


def judge(names: list[str], device: str | torch.device = "cpu") -> Judge:
    """A function that scores an image without a reference, by metrics of pyiqa.

    The network is closed meanwhile, so that missing weights are an error and not a download.

    Args:
        names: such as niqe, musiq, clipiqa, piqe.
        device: where they compute.

    Returns:
        A function of a float (H, W, 3) in [0, 1] that gives the scores by name.

    Raises:
        UserError: if pyiqa is missing, a name is not one of its metrics without a reference, or
            its weights are not here.
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
        with _local_weights(name):
            metrics[name] = pyiqa.create_metric(name, device=torch.device(device))

    @torch.inference_mode()
    def scores(image: np.ndarray) -> dict[str, float]:
        pixels = torch.from_numpy(image.clip(0, 1).astype(np.float32))
        batch = pixels.permute(2, 0, 1)[None].to(device)
        found = {}
        for name, metric in metrics.items():
            with _local_weights(name):
                value = float(metric(batch))
            found[name] = value if isfinite(value) else None  # no mean could be made of it
        return found

    scores.identities = {name: _identity(metric) for name, metric in metrics.items()}
    return scores


def _identity(metric) -> str:
    """A short hash of what measures: pyiqa's release and the metric's weights."""
    state = hashlib.sha256(release("pyiqa").encode())
    weights = metric.state_dict() if hasattr(metric, "state_dict") else {}
    for name, value in sorted(weights.items()):
        state.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        state.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return state.hexdigest()[:16]


def identities(score: Judge) -> dict[str, str]:
    """By metric, the hash of what measured the scores of a function of :func:`judge`."""
    return getattr(score, "identities", {})


# keeping a library offline

_refused: ContextVar[list[str] | None] = ContextVar("refused", default=None)
NETWORK = "socket.connect", "socket.getaddrinfo", "socket.gethostbyname"


@cache
def _watch() -> None:
    """Have Python tell of every network call from now on; a hook cannot be taken away again."""

    # Python clears a module's names as it ends, while the hook is still called
    def hook(event: str, _args: tuple, watched=NETWORK, state=_refused) -> None:
        if event in watched and (refused := state.get()) is not None:
            refused.append(event)
            raise ConnectionRefusedError("irbridge downloads nothing")

    sys.addaudithook(hook)


@contextlib.contextmanager
def network_closed() -> Iterator[list[str]]:
    """Within the block Python's sockets connect to nothing, in this thread.

    Yields:
        The list of what was refused, which grows.
    """
    _watch()
    before = _refused.set([])
    try:
        yield _refused.get()
    finally:
        _refused.reset(before)


@contextlib.contextmanager
def _hub_offline() -> Iterator[None]:
    """Within the block Hugging Face's hub client looks at its cache alone, and does not try again.

    The variable HF_HUB_OFFLINE, which says so, is read once, when the client is imported.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _local_weights(name: str) -> Iterator[None]:
    """The block runs with the network closed; UserError where it asks for weights over it."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    said = io.StringIO()  # pyiqa prints which file it would fetch
    asked: list[str] = []
    try:
        with contextlib.redirect_stdout(said), _hub_offline(), network_closed() as asked:
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


# the saved images of scored rows


class RowQuality(NamedTuple):
    """The means of metrics over a row's ``images`` saved images; None where one has no score."""

    task: str
    label: str
    means: dict[str, float | None]
    images: int


def quality_of_rows(folder: str | Path, metrics: list[str]) -> list[RowQuality]:
    """The mean of each metric over every row's saved images below a folder.

    Raises:
        UserError: as :func:`judge`, or if there are no metrics or no images.
    """
    if not metrics:
        raise UserError(
            "format=iqa needs the names of metrics; give metrics=niqe,musiq or others of pyiqa."
        )
    score = judge(metrics)
    found = []
    for row in saved_rows(folder):
        if row.images:
            scores = [score(read_image(row.folder / name)) for name in sorted(row.images)]
            means = {m: mean([s[m] for s in scores]) for m in metrics}
            found.append(RowQuality(row.task, row.label, means, len(scores)))
    if not found:
        raise UserError(f"No row below {folder} has saved images; score with save_images=true.")
    return found


def mean(values: list[float | None]) -> float | None:
    """The mean; None where a value is missing."""
    return None if None in values else float(np.mean(values))


# photographs without clean versions


def check_photographs(folder: str | None, metrics: list[str], masked: bool = False) -> None:
    """Whether photographs can be scored here, before anything is trained or restored.

    Args:
        folder: of the photographs, ``evaluate.real``; None where none are to be scored.
        metrics: by which, ``evaluate.metrics``.
        masked: whether the model must be told of holes, and so cannot restore them.

    Raises:
        UserError: if they cannot be scored.
    """
    if folder and not metrics:
        raise UserError(
            "evaluate.real=DIR is scored without a reference; give evaluate.metrics=[niqe,musiq] or"
            " others of pyiqa."
        )
    if metrics and not folder:
        raise UserError(
            "evaluate.metrics score photographs that have no clean version; give their folder, "
            "evaluate.real=DIR."
        )
    if folder and masked:
        raise UserError(
            "evaluate.real=DIR holds photographs without masks, and this task must know its holes;"
            " leave it out, and fill them afterwards, irbridge restore with mask=DIR."
        )
    if folder:
        ImageSource(find(folder))
        judge(metrics)


def score_photographs(
    method: Method,
    source: ImageSource,
    metrics: list[str],
    results: Path,
    about: About,
    limit: int | None = None,
    all_rows: bool = False,
    device: str | torch.device = "cpu",
) -> tuple[Path, list[Record]]:
    """Restore and score photographs, centre-cropped as test pairs are; the same again goes on.

    Args:
        method: that restores them.
        source: the photographs.
        metrics: names of pyiqa's.
        results: where a folder of the PNGs and ``scores.jsonl`` goes, with a line per photograph
            and row.
        about: what each record says; its ``size`` is that of the crop.
        limit: so many photographs are scored.
        all_rows: also score the photographs as they are.
        device: where the metrics compute.

    Returns:
        The folder, and the records of this command's photographs.

    Raises:
        UserError: as :func:`judge`.
    """
    settings = (about.data, about.size, *about.more.values(), about.seed)
    words = *settings, method.label, method.weights
    folder = results / slug(" ".join(f"{word}" for word in words if word is not None))
    names = source.names[:limit]
    score = judge(metrics, device)
    rows = [*([IDENTITY] if all_rows else []), method]
    with (
        RecordStore(folder, file=SCORES) as store,
        tqdm(
            total=len(rows) * len(names), desc="photographs", unit="image", dynamic_ncols=True
        ) as bar,
    ):
        work = _Photographs(method, source, about, folder)
        done = work.resume(store, metrics, score)
        for name in names:
            for row in rows:
                if (row.label, name) not in done:
                    record = work.scored(row, name, score)
                    store.append(record)
                    done[record.key] = record
                bar.update()
    return folder, [record for record in done.values() if record.name in set(names)]


class _Photographs:
    """The rows of photographs in one folder: the input as it is, and the restored one, saved.

    Args: as those of :func:`score_photographs`.
    """

    def __init__(self, method: Method, source: ImageSource, about: About, folder: Path):
        self.method, self.source, self.about, self.folder = method, source, about, folder
        self.rows = {row.label: row for row in (IDENTITY, method)}
        self.places = {name: index for index, name in enumerate(source.names)}
        self.saved: set[str] = set()  # names whose restored image is there and still right

    def resume(
        self, store: RecordStore, metrics: list[str], score: Judge
    ) -> dict[tuple[str, str], Record]:
        """The records of these photographs, metrics, weights and settings; the others go.

        A restored image that is still right stays, whatever metrics it was scored by.
        """

        def usable(record: Record) -> bool:
            if not self._still_good(record):
                return False
            if record.png:
                self.saved.add(record.name)
            return list(record.scores) == metrics and record.scored_by == identities(score)

        def clear(dropped: list[Record]) -> None:
            for record in dropped:
                path = self._image(record.name)
                if record.name not in self.saved and is_own(record, path):
                    path.unlink()

        return store.resume(usable, before=clear)[0]

    def scored(self, row: Method, name: str, score: Judge) -> Record:
        """The record of a photograph; where it is restored, the image is saved first."""
        image = self._photograph(name)
        content, png = self._content(row, image), None
        if row is self.method:
            path = self._image(name)
            if name not in self.saved:
                write_image(path, row.restore(image, name))
            image, png = read_image(path), png_hash(path)  # as it is seen
        scores = score(image)
        shown = tuple(Metric(key, 3, True) for key in scores)
        return Record(
            row.about(self.about),
            name,
            scores,
            shown,
            content=content,
            png=png,
            scored_by=identities(score),
        )

    def _still_good(self, record: Record) -> bool:
        row = self.rows.get(record.about.row)
        if row is None or record.name not in self.places or record.content is None:
            return False
        wanted = png_hash(self._image(record.name)) if row is self.method else None
        if record.about != row.about(self.about) or record.png != wanted:
            return False
        return record.content == self._content(row, self._photograph(record.name))

    def _photograph(self, name: str) -> np.ndarray:
        return centre_crop(self.source[self.places[name]], self.about.size)

    def _image(self, name: str) -> Path:
        return self.folder / f"{name}.png"

    def _content(self, row: Method, image: np.ndarray) -> Content:
        return Content("", fingerprint(image), row.settings)
