"""Restoring one's own photographs: the command. ``jobs`` says which files, ``photos`` what they
keep.
"""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from irbridge import __version__
from irbridge.assets import ROOT
from irbridge.environment import machine
from irbridge.errors import UserError
from irbridge.files import sha256
from irbridge.gaussian.noise import image_seed
from irbridge.images.arrays import to_image
from irbridge.images.grid import grid
from irbridge.images.holes import holes_of
from irbridge.images.io import read_header, write_image
from irbridge.images.photo import Photo, read_photo, write_photo
from irbridge.models.restorer import Restorer
from irbridge.restoration.jobs import Job, Report
from irbridge.restoration.memory import Plan

ADAPTERS = ROOT / "data" / "adapters"
# of one photograph, after which the others go on
FAILURES = UserError, RuntimeError, MemoryError, OSError
# pixels of the longest side in the strip of a trajectory, which would else outgrow memory
THUMBNAIL = 512


def shipped() -> dict[str, Path]:
    """Task -> folder of the adapters that come with the project."""
    return {p.parent.name: p.parent for p in sorted(ADAPTERS.glob("*/model.safetensors"))}


class Read(NamedTuple):
    """A photograph, read, what is to be filled of it, (H, W) bool, hashes of the files, and the
    seconds that it took.
    """

    photo: Photo
    holes: np.ndarray | None
    hashes: dict[str, str]
    seconds: float


class Restored(NamedTuple):
    """What is to be written of a photograph: float pixels (H, W, 3) in [0, 1], the estimates of the
    calls, and what the report says of it so far.
    """

    photo: Photo
    pixels: np.ndarray
    shots: list[np.ndarray]
    about: dict


class Background:
    """A call in a thread of its own, which does not keep the process alive."""

    def __init__(self, function: Callable, *args):
        self._value, self._error = None, None
        self._thread = threading.Thread(target=self._run, args=(function, args), daemon=True)
        self._thread.start()

    def _run(self, function: Callable, args: tuple) -> None:
        try:
            self._value = function(*args)
        except BaseException as error:
            self._error = error

    def result(self):
        """What the call gives or raises, when it has ended."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value


def restore_all(
    jobs: list[Job],
    model: Restorer,
    fields: dict,
    cuts: Plan,
    settings: dict,
    reports: dict[Path, Report],
) -> list[str]:
    """Restore under one progress bar, a record after each; returns a sentence for each that failed.
    While the networks work on a photograph the next one is read and the one before is written, each
    by one thread.
    """
    about = {
        "machine": machine(),
        "device": str(next(model.parameters()).device),
        "irbridge": __version__,
    }
    counts, ends = _counts(jobs, cuts, model.passes(**fields)), []
    readers = (Background(_caught, _read, job, model.masked) for job in jobs)
    writing: list[Background] = []

    def wait() -> None:
        """Until what is being written is recorded."""
        if writing:
            ends.append(writing[0].result())
            writing.clear()

    try:
        with tqdm(
            total=sum(counts.values()),
            desc="restoring",
            unit="tile",
            dynamic_ncols=True,
            disable=not jobs,
        ) as bar:
            ahead = next(readers, None)
            for job in jobs:
                before, read = bar.n, ahead.result()
                ahead = next(readers, None)
                bar.set_postfix_str(job.source.name)
                restored = _caught(
                    _restored, job, read, model, fields, cuts, settings["seed"], bar.update
                )
                bar.update(before + counts[job] - bar.n)
                wait()
                record = {"input": os.path.abspath(job.source), **job.names, **settings, **about}
                writing.append(
                    Background(
                        _recorded, job, restored, record, reports[job.output.parent], len(jobs) > 1
                    )
                )
            wait()
    except KeyboardInterrupt:
        wait()
        raise RuntimeError(
            f"Interrupted; {ends.count(None)} of {len(jobs)} photographs are restored, and the same"
            " command goes on."
        ) from None
    # also where something else ends the command: nothing is cut in the middle, and no folder
    # released before
    finally:
        wait()
    return [end for end in ends if end]


def _caught(function: Callable, *args):
    """What the call gives, or the exception that keeps one photograph from being restored."""
    try:
        return function(*args)
    except FAILURES as error:
        return error


def _read(job: Job, masked: bool) -> Read:
    started = time.perf_counter()
    hashes, photo, holes = {"input_sha256": sha256(job.source)}, read_photo(job.source), None
    if masked:
        holes = holes_of(photo, job.source, job.mask)
        photo = photo if job.mask else replace(photo, alpha=None)  # what was transparent is filled
    if job.mask:
        hashes["mask_sha256"] = sha256(job.mask)
    _check_room(job, photo)
    return Read(photo, holes, hashes, time.perf_counter() - started)


@torch.inference_mode()
def _restored(
    job: Job,
    read: Read | Exception,
    model: Restorer,
    fields: dict,
    cuts: Plan,
    seed: int,
    progress: Callable[[int], None],
) -> Restored:
    """Restore one photograph."""
    if isinstance(read, Exception):
        raise read
    started, photo, shots = time.perf_counter(), read.photo, []
    height, width = photo.pixels.shape[:2]
    tiles = replace(cuts.tiles(height, width), progress=progress)
    factor = max(1, -(-max(height, width) // THUMBNAIL))

    def watched(y, **options):
        for state in model.trajectory(y, **options):
            if job.path:
                size = max(1, height // factor), max(1, width // factor)
                shot = model.image(state.x0, tiles)[..., :height, :width]
                shots.append(to_image(F.interpolate(shot, size=size, mode="area")[0]))
            yield state

    seeds = [image_seed(seed, job.source.stem)]
    pixels = model.restore(
        photo.pixels, trajectory=watched, mask=read.holes, seeds=seeds, tiles=tiles, **fields
    )
    used = list(tiles.sides) if tiles.count(height, width, model.stride) > 1 else None
    return Restored(
        photo,
        pixels,
        shots,
        {
            "size": [width, height],
            "bits": photo.bits,
            "tiles": used,
            **read.hashes,
            "seconds": read.seconds + time.perf_counter() - started,
        },
    )


def _recorded(
    job: Job, restored: Restored | Exception, record: dict, report: Report, several: bool
) -> str | None:
    """Write what came of a photograph, and the report; returns a sentence where it failed."""
    sentence, started = None, time.perf_counter()
    try:
        if isinstance(restored, Exception):
            raise restored
        record |= restored.about | {"output_sha256": _write(job, *restored[:3])}
        seconds = record["seconds"] + time.perf_counter() - started
        record |= {"seconds": round(seconds, 3), "status": "done", "error": None}
    except FAILURES as error:
        sentence = _sentence(job, error)
        if several:
            tqdm.write(sentence, file=sys.stderr)
        record |= {"status": "failed", "error": sentence}
    report.add(record)
    return sentence


def _write(job: Job, photo: Photo, restored: np.ndarray, shots: list[np.ndarray]) -> str:
    """Write all that a job asks for; returns the SHA-256 of the restored photograph's file."""
    if job.compare:
        write_image(
            job.compare, grid([[photo.pixels, photo.shown(restored)]], ["degraded", "restored"])
        )
    if job.path:
        write_image(
            job.path,
            grid([list(map(photo.shown, shots))], [f"call {i + 1}" for i in range(len(shots))]),
        )
    write_photo(job.output, photo, restored)
    return sha256(job.output)


def _sampling(model: Restorer, fields: dict) -> dict:
    """The sampler as a report says it; UserError where these fields do not go together."""
    sampler = model.sampler_with(**fields)
    if sampler is None:  # regression
        return {"sampler": None}
    # as JSON gives it back, to compare with
    return {"sampler": json.loads(json.dumps(sampler.record()))}


def _sentence(job: Job, error: Exception) -> str:
    """What went wrong with a photograph, in one line that names it."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return (
            f"{job.source} cannot be restored ({error.strerror or error}); check the file and its"
            " folder."
        )
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{job.source} cannot be restored ({reason}); where memory is short, give memory=1."


def _check_room(job: Job, photo: Photo) -> None:
    """UserError, before any network call, where the disk could not hold the result uncompressed."""
    pixels = photo.pixels[..., 0].size
    needed = pixels * photo.channels * photo.bits // 8 + pixels * 6 * bool(job.compare)
    free = shutil.disk_usage(job.output.parent).free
    if free < needed:
        raise UserError(
            f"{job.output} may need {needed / 2**20:.1f} MB where {free / 2**20:.1f} MB are free;"
            " make room, or give output=DIR on another disk."
        )


def _counts(jobs: list[Job], cuts: Plan, passes: int) -> dict[Job, int]:
    """Tiles that each photograph sends through the networks; UserError where memory is too little
    for every one.
    """
    counts, refused = {}, []
    for job in jobs:
        try:
            (width, height), _ = read_header(job.source)
        except UserError:  # comes up again where its turn comes
            counts[job] = 0
            continue
        try:
            counts[job] = passes * cuts.tiles(height, width).count(height, width, cuts.model.stride)
        except UserError as error:
            counts[job] = 0
            refused.append(error)
    if refused and len(refused) == len(jobs):
        raise refused[0]
    return counts
