"""Scores of held-back images: one record an image as it goes, and none is scored twice."""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from irbridge.data.pair import Pair
from irbridge.environment import commit, machine
from irbridge.errors import UserError
from irbridge.evaluation.meter import Meter
from irbridge.evaluation.methods import Method, Restore
from irbridge.evaluation.metrics import STANDARD, Metric, score
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import (
    EARLIER,
    About,
    Content,
    Record,
    RecordStore,
    fingerprint,
    read_lines,
    slug,
    write_whole,
)
from irbridge.evaluation.saved_images import (
    check_images,
    is_own,
    places,
    png,
    short_hash,
    write_images,
)
from irbridge.evaluation.share import ALONE, Share
from irbridge.evaluation.vae_reference import RoundTrip


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
    keep_others: bool = False,
    meter: Meter | None = None,
) -> Iterator[Record]:
    """Score a method on pairs, yielding a record an image, those of an earlier run included.

    A score of an earlier run stands if both images, the weights, the settings and what measured it
    are still the same, by their hashes; any other image is scored anew.

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
        keep_others: whether scores of the same images by other weights or settings are kept, as a
            row of its own ("Earlier ..."), in a folder beside this one; else they are removed.
        meter: what ``restore`` measures itself by; records then have its counts and its seconds.

    Raises:
        UserError: if another process has the folder, it holds records of other settings, or an
            image file that no evaluation made is in the way.
    """
    protocol = replace(protocol, reference="vae" if reference else "clean")
    about = replace(about, protocol=protocol.describe(reference.name if reference else ""))
    scorer = _Scorer(
        restore, protocol, about, metrics, settings, folder, save_images, reference, meter
    )
    with RecordStore(folder, share) as store:
        done, removed = _still_good(store, scorer, pairs, keep_others)
        replaced = places(folder.parent, {store.path: removed})
        for index, name in share.of(list(enumerate(pairs.names[:limit]))):
            record = done.get((about.row, name))
            if record is None:
                record, images = scorer(pairs[index])
                check_images(images, folder.parent, replaced)
                # before its images: a kill leaves none that no record speaks of
                store.append(record)
                write_images(images)
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
        meter: Meter | None,
    ):
        self.restore, self.protocol, self.about, self.metrics = restore, protocol, about, metrics
        self.settings, self.folder, self.save_images = settings, folder, save_images
        self.reference, self.meter = reference, meter
        against = [metric.against_vae() for metric in metrics] if reference else []
        self.shown = (*metrics, *against, *(meter.metrics if meter else ()))
        self.scored_by = {metric.key: metric.identity() for metric in metrics}

    def __call__(self, pair: Pair) -> tuple[Record, dict[Path, bytes]]:
        """Restore and score the pair; the record, and the content of the PNGs by their paths."""
        started = time.perf_counter()
        restored = self.restore(pair.seen, pair.name)
        seconds = time.perf_counter() - started
        second = self.reference(pair.clean) if self.reference else None
        try:
            scores = self._scores(restored, pair.clean, second)
        except UserError as error:
            raise UserError(f"The image {pair.name} cannot be scored: {error}") from None
        if self.meter:
            seconds, scores = self.meter.seconds, scores | self.meter.scores
        record = Record(
            self.about,
            pair.name,
            scores,
            self.shown,
            round(seconds, 4),
            self.content(pair),
            scored_by=self.scored_by,
            commit=commit(),
            machine=machine(),
            subtask=pair.task,
        )
        if not self.save_images:
            return record, {}
        images = {self.image(pair.name): png(restored), self.beside(pair.name): png(pair.clean)}
        if second is not None:
            images[self.beside(pair.name, "vae")] = png(second)
        own, *others = images.items()
        compared = {path.parent.name: short_hash(data) for path, data in others}
        return replace(record, png=short_hash(own[1]), beside=compared), images

    def _scores(
        self, restored: np.ndarray, clean: np.ndarray, second: np.ndarray | None
    ) -> dict[str, float | None]:
        scores = score(restored, clean, self.protocol, self.metrics)
        if second is not None:
            again = score(restored, second, self.protocol, self.metrics)
            scores |= {metric.against_vae().key: again[metric.key] for metric in self.metrics}
        return scores

    def content(self, pair: Pair) -> Content:
        """The hashes of what the pair's score is made of."""
        return Content(fingerprint(pair.clean), fingerprint(pair.seen), self.settings)

    def image(self, name: str) -> Path:
        """Where the restored image is saved."""
        return self.folder / f"{name}.png"

    def beside(self, name: str, kind: str = "clean") -> Path:
        """Where what it is compared with is saved, which all rows share."""
        return self.folder.parent / kind / f"{name}.png"

    def fits(self, record: Record, moved: bool) -> bool:
        """Whether a record has this row's weights and scores, and its image where one is wanted.

        Args:
            record: of an earlier command.
            moved: its images are the same ones, wherever they were then.

        Raises:
            UserError: if the record is of other settings that tables show.
        """
        _refuse_others(record, self.about, self.folder, moved)
        if record.about.weights != self.about.weights or record.content is None:
            return False
        if not {metric.key for metric in self.shown} <= record.scores.keys():
            return False
        if any(record.scored_by.get(key) != what for key, what in self.scored_by.items()):
            return False
        if not self.save_images:
            return True
        own = is_own(record, self.image(record.name))
        return own and is_own(record, self.beside(record.name), "clean")


def _still_good(
    store: RecordStore, scorer: _Scorer, pairs, keep_others: bool
) -> tuple[dict[tuple[str, str], Record], list[Record]]:
    """The records of earlier runs that stand, and those that do not.

    The saved images of the latter are removed, or kept with them as a row of its own.
    """
    places = {name: index for index, name in enumerate(pairs.names)}
    others: list[Record] = []  # of the same images
    subtasks: dict[str, str] = {}  # by the image's name

    def usable(record: Record) -> bool:
        content = None
        if record.name in places and record.content is not None:
            pair = pairs[places[record.name]]
            content = scorer.content(pair)
            subtasks[record.name] = pair.task
        same = content is not None and record.content == content
        fits = scorer.fits(record, moved=same)
        if content and keep_others and _by_another(record, content, scorer.about):
            others.append(record)
        return fits and same

    def clear(removed: list[Record]) -> None:
        set_aside(others, scorer.folder)
        for record in removed:
            if is_own(record, path := scorer.image(record.name)):
                path.unlink()

    kept, removed = store.resume(usable, pairs.names, clear)
    kept = _renamed(store, kept, scorer.about, subtasks)
    if store.share.first and len(removed) > len(others):
        tqdm.write(
            f"{store.folder}: {len(removed) - len(others)} scores of other images, weights or"
            " settings, or of an earlier version, are made anew."
        )
    return kept, removed


def _renamed(
    store: RecordStore,
    kept: dict[tuple[str, str], Record],
    about: About,
    subtasks: dict[str, str],
) -> dict[tuple[str, str], Record]:
    """The records, under what their images are called now.

    These may have moved since, and older versions did not write which of several tasks one has.
    """
    moved = {}
    for key, record in kept.items():
        called = replace(record.about, data=about.data)
        now = replace(record, about=called, subtask=subtasks[record.name])
        if now != record:
            moved[key] = now
    if moved and store.share.first:
        store.add(list(moved.values()))
    return kept | moved


def _by_another(record: Record, content: Content, about: About) -> bool:
    """Whether a record is of the very images, by other weights or settings."""
    if record.about.weights is None or "outputs" in about.more:
        return False
    if record.content != replace(content, settings=record.content.settings):
        return False
    return (record.about.weights, record.content.settings) != (about.weights, content.settings)


def set_aside(records: list[Record], folder: Path) -> None:
    """Keep records that others take the place of, with their images, as rows of their own.

    Args:
        records: of a row's folder.
        folder: of the row; theirs are beside it, "earlier-" with a hash of weights and settings.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        key = fingerprint([record.about.weights, record.content.settings])[:6]
        about = record.about
        more = about.more | {EARLIER: key}
        named = replace(about, row=f"Earlier {about.row}, {key}", method=None, more=more)
        groups.setdefault(named.row, []).append(replace(record, about=named))
    for row, group in groups.items():
        place = folder.parent / slug(row)
        with RecordStore(place) as store:
            store.add(group)
            for record in group:
                path = folder / f"{record.name}.png"
                if is_own(record, path):
                    os.replace(path, place / path.name)
        tqdm.write(f"{folder}: {len(group)} scores of other weights or settings are now in {place}")


def _refuse_others(record: Record, about: About, folder: Path, moved: bool) -> None:
    """UserError if a record of the folder is of a row, task, seed or the like that is not ours."""
    old = dict(record.about.items())
    for key, value in about.items():
        # What an older version did not write cannot differ.
        unsaid = record.content is None and old.get(key) is None
        free = key == "weights" or (moved and key == "data")
        if unsaid or free or old.get(key) == value:
            continue
        remedy = "delete the folder, or give another results=DIR"
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
    keep_others: bool = False,
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
        keep_others: likewise.
    """
    methods, names = list(methods), pairs.names[:limit]
    for metric in metrics:
        metric.ready()
    whole = [metric for metric in metrics if metric.whole]
    metrics = tuple(metric for metric in metrics if not metric.whole)
    for metric in whole:
        metric.check_row(len(names), save_images)
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
                keep_others,
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
