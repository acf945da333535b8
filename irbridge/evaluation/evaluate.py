"""Scores of held-back images: one record an image as it goes, and none is scored twice."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from irbridge.data.pair import Pair
from irbridge.environment import commit, machine
from irbridge.errors import UserError
from irbridge.evaluation.methods import Method, Restore
from irbridge.evaluation.metrics import STANDARD, Metric, score
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import (
    About,
    Content,
    Record,
    RecordStore,
    fingerprint,
    png_hash,
    read_lines,
    slug,
    write_whole,
)
from irbridge.evaluation.share import ALONE, Share
from irbridge.evaluation.vae_reference import RoundTrip
from irbridge.images.io import write_image


def evaluate(
    restore: Restore,
    pairs,
    protocol: Protocol,
    folder: Path,
    about: About,
    metrics: tuple[Metric, ...] = STANDARD,
    settings: str = "",
    save_images: bool = False,
    limit: int | None = None,
    share: Share = ALONE,
    reference: RoundTrip | None = None,
) -> Iterator[Record]:
    """Score a method on pairs, yielding a record an image, those of an earlier run included.

    A score of an earlier run stands if both images, the weights and the settings are still the
    same, by their hashes; any other image is scored anew.

    Args:
        restore: the method.
        pairs: ``names`` and ``pairs[i]``, a :class:`~irbridge.data.pair.Pair`.
        protocol: how images are compared.
        folder: where ``records.jsonl`` goes and, on request, the restored PNGs, the clean ones
            beside it in ``clean/``. It is locked meanwhile.
        about: what each record says besides scores.
        metrics: what is scored.
        settings: hash of all that changes a pixel besides the weights and the images.
        save_images: whether PNGs are written.
        limit: so many pairs are scored; None: all.
        share: this process's part of the images.
        reference: of ``protocol.reference=vae``, scored besides the clean image as psnr_vae and so
            on; without it that protocol is the one with the clean image alone.

    Raises:
        UserError: if another process has the folder, or it holds records of other settings.
    """
    protocol = replace(protocol, reference="vae" if reference else "clean")
    about = replace(about, protocol=protocol.describe(reference.name if reference else ""))
    scorer = _Scorer(restore, protocol, about, metrics, settings, folder, save_images, reference)
    with RecordStore(folder, share) as store:
        done = _still_good(store, scorer, pairs)
        for index, name in share.of(list(enumerate(pairs.names[:limit]))):
            record = done.get((about.row, name))
            if record is None:
                record = scorer(pairs[index])
                store.append(record)
            yield record
        store.gather(pairs.names)


class _Scorer:
    """Restores and scores one pair after the other.

    Args: as those of :func:`evaluate`.
    """

    def __init__(
        self,
        restore: Restore,
        protocol: Protocol,
        about: About,
        metrics: tuple[Metric, ...],
        settings: str,
        folder: Path,
        save_images: bool,
        reference: RoundTrip | None,
    ):
        self.restore, self.protocol, self.about, self.metrics = restore, protocol, about, metrics
        self.settings, self.folder, self.save_images = settings, folder, save_images
        self.reference = reference
        against = [metric.against_vae() for metric in metrics] if reference else []
        self.shown = (*metrics, *against)

    def __call__(self, pair: Pair) -> Record:
        """Restore the pair, save the image or remove an older one, and score it."""
        started = time.perf_counter()
        restored = self.restore(pair.seen, pair.name)
        seconds = time.perf_counter() - started
        scores = score(restored, pair.clean, self.protocol, self.metrics)
        second = self.reference(pair.clean) if self.reference else None
        if second is not None:
            again = score(restored, second, self.protocol, self.metrics)
            scores |= {metric.against_vae().key: again[metric.key] for metric in self.metrics}
        return Record(
            self.about,
            pair.name,
            scores,
            self.shown,
            round(seconds, 4),
            self.content(pair),
            self._saved(pair, restored, second),
            commit(),
            machine(),
        )

    def content(self, pair: Pair) -> Content:
        """The hashes of what the pair's score is made of."""
        return Content(fingerprint(pair.clean), fingerprint(pair.seen), self.settings)

    def image(self, name: str) -> Path:
        """Where the restored image is saved."""
        return self.folder / f"{name}.png"

    def _saved(self, pair: Pair, restored: np.ndarray, second: np.ndarray | None) -> str | None:
        """The hash of the written PNG; None where none is wanted: an older one is then removed."""
        path = self.image(pair.name)
        if not self.save_images:
            path.unlink(missing_ok=True)
            return None
        write_image(path, restored)
        write_image(self.folder.parent / "clean" / path.name, pair.clean)
        if second is not None:
            write_image(self.folder.parent / "vae" / path.name, second)
        return png_hash(path)

    def fits(self, record: Record) -> bool:
        """Whether a record has this row's weights and scores, and its image where one is wanted.

        Raises:
            UserError: if the record is of other settings that tables show.
        """
        _refuse_others(record, self.about, self.folder)
        if record.about.weights != self.about.weights or record.content is None:
            return False
        if not {metric.key for metric in self.shown} <= record.scores.keys():
            return False
        if not self.save_images:
            return True
        return record.png is not None and record.png == png_hash(self.image(record.name))


def _still_good(store: RecordStore, scorer: _Scorer, pairs) -> dict[tuple[str, str], Record]:
    """The records of earlier runs that stand; the images of those that do not are removed."""
    places = {name: index for index, name in enumerate(pairs.names)}

    def usable(record: Record) -> bool:
        if not scorer.fits(record) or record.name not in places:
            return False
        return record.content == scorer.content(pairs[places[record.name]])

    kept, dropped = store.resume(usable, pairs.names)
    if store.share.first and dropped:
        for record in dropped:
            scorer.image(record.name).unlink(missing_ok=True)
        tqdm.write(
            f"{store.folder}: {len(dropped)} scores of other images, weights or settings, or of an"
            " earlier version, are made anew."
        )
    return kept


def _refuse_others(record: Record, about: About, folder: Path) -> None:
    """UserError if a record of the folder is of a row, task, seed or the like that is not ours."""
    old = dict(record.about.items())
    for key, value in about.items():
        # What an older version did not write cannot differ.
        unsaid = record.content is None and old.get(key) is None
        if unsaid or key == "weights" or old.get(key) == value:
            continue
        remedy = "delete the folder"
        if key == "outputs":
            remedy = "give row=NAME or results=DIR, or delete the folder"
        raise UserError(
            f"{folder / 'records.jsonl'} was scored with {key}={old.get(key)!r}, not {value!r};"
            f" {remedy}."
        )


def score_rows(
    methods: Iterable[Method],
    pairs,
    protocol: Protocol,
    results: Path,
    about: About,
    metrics: tuple[Metric, ...] = STANDARD,
    save_images: bool = False,
    limit: int | None = None,
    share: Share = ALONE,
    reference: RoundTrip | None = None,
) -> None:
    """Score every method into ``results/<row>/records.jsonl``, under a progress bar.

    Args:
        methods: the rows.
        about: what the records of all of them say; each method adds its own.
        pairs: and the others: as those of :func:`evaluate`.
        protocol: likewise.
        results: the folder of the rows' folders.
        metrics: likewise.
        save_images: likewise.
        limit: likewise.
        share: likewise.
        reference: likewise.
    """
    methods, names = list(methods), pairs.names[:limit]
    for metric in metrics:
        metric.ready()
    whole = [metric for metric in metrics if metric.whole]
    metrics = tuple(metric for metric in metrics if not metric.whole)
    for metric in whole:
        metric.check(len(names), save_images)
    total = len(methods) * len(share.of(names))
    with tqdm(
        total=total, desc="scoring", unit="image", disable=not share.first, dynamic_ncols=True
    ) as bar:
        for method in methods:
            for _ in evaluate(
                method.restore,
                pairs,
                protocol,
                results / slug(method.label),
                method.about(about),
                metrics,
                method.settings,
                save_images,
                limit,
                share,
                reference,
            ):
                bar.update()
            if whole and share.first:
                _score_whole(results / slug(method.label), whole, about.seed or 0)


def _score_whole(folder: Path, metrics: list[Metric], seed: int) -> None:
    """Score a finished row as a whole, by its saved images and the clean ones beside it."""
    records = read_lines(folder / "records.jsonl")
    restored = [folder / f"{record.name}.png" for record in records]
    clean = [folder.parent / "clean" / path.name for path in restored]
    scores = {metric: metric.of_set(restored, clean, seed) for metric in metrics}
    write_whole(folder, records, scores)
