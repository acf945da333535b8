"""Restoring one's own photographs one after another; :mod:`.jobs` says which, and their names."""

import json
import math
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from irbridge.assets import __version__
from irbridge.environment import machine
from irbridge.errors import Failure, UserError
from irbridge.files import LONGEST_NAME, sha256
from irbridge.gaussian.noise import image_seed
from irbridge.images.arrays import to_bytes, to_image
from irbridge.images.grid import grid
from irbridge.images.holes import holes_of
from irbridge.images.io import write_bytes, write_image
from irbridge.images.photo import Photo, read_photo, write_photo
from irbridge.images.samples import read_header
from irbridge.images.tiles import Tiles
from irbridge.models.restorer import Restorer
from irbridge.own_files import remember
from irbridge.restoration.degradation import Degradation, check_result
from irbridge.restoration.jobs import Job, Report
from irbridge.restoration.memory import Plan

# pixels of the longest side in the strip of a trajectory, which would else outgrow memory
THUMBNAIL = 512
TOGETHER = 2_000_000  # pixels: of photographs up to so large three are in memory at once


class Read(NamedTuple):
    """A photograph that was read."""

    photo: Photo
    holes: np.ndarray | None  # what is to be filled of it, (H, W) bool
    hashes: dict[str, str]  # SHA-256 of the files, by the keys of a record
    seconds: float  # that reading took


class Restored(NamedTuple):
    """What is to be written of a photograph."""

    photo: Photo
    pixels: np.ndarray  # float, (H, W, 3) in [0, 1]
    shots: list[np.ndarray]  # the estimates of the calls, where they are asked for
    about: dict  # what the report says so far


class Restoring(NamedTuple):
    """With what photographs are restored.

    Attributes:
        model: that restores.
        fields: of its sampler, None where they are its own.
        cuts: how large photographs are cut into tiles.
        settings: what a report says of all this, by which a photograph counts as finished.
        run: the model's folder, or what else a report calls it.
        degradation: that is undone, where it is known.
        enlarge: how many times as large the photographs are made first.
    """

    model: Restorer
    fields: dict
    cuts: Plan
    settings: dict
    run: str
    degradation: Degradation | None = None
    enlarge: int = 1

    @property
    def masked(self) -> bool:
        """Whether photographs have holes that are to be filled."""
        return self.model.masked if self.degradation is None else self.degradation.masked

    def check(self, job: Job) -> None:
        """UserError where a photograph cannot be restored, as far as its header says."""
        if self.degradation is not None:
            self.degradation.check(job)
        if self.enlarge > 1:
            check_result(job, self.enlarge, "enlarge")

    def keeping(self, photo: Photo) -> Photo:
        """A photograph with what the file of the restored one keeps of it."""
        if self.degradation is not None and self.degradation.coloured:
            photo = photo.coloured()
        return photo if self.degradation is None else photo.enlarged(self.degradation.factor)


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
    jobs: list[Job], restoring: Restoring, reports: dict[Path, Report]
) -> list[str | None]:
    """Restore under one progress bar, a record after each.

    While the networks work on a photograph the next one is read and the one before is written, each
    by one thread; not so of large ones, three of which take more memory than one may.

    Args:
        jobs: the photographs.
        restoring: with what.
        reports: by the folder of the outputs.

    Returns:
        Of each photograph None, or a sentence where it failed.

    Raises:
        RuntimeError: the user or the system stopped the command.
    """
    sizes = _sizes(jobs, restoring)
    counts, alone = _counts(sizes, restoring), _alone(sizes, restoring)
    writer = _Writer(restoring, reports, several=len(jobs) > 1)
    total, idle = sum(counts.values()), not jobs
    try:
        with tqdm(
            total=total, desc="restoring", unit="call", dynamic_ncols=True, disable=idle
        ) as bar:
            ahead = None
            for job, following in zip_longest(jobs, jobs[1:]):
                if job in alone:
                    writer.wait()
                before = bar.n
                read = (ahead or Background(_caught, _read, job, restoring)).result()
                together = following is not None and not {job, following} & alone
                ahead = Background(_caught, _read, following, restoring) if together else None
                bar.set_postfix_str(job.source.name)
                restored = _caught(_restored, job, read, restoring, bar.update)
                bar.update(before + counts[job] - bar.n)
                writer.write(job, restored)
                if job in alone:
                    writer.wait()
                del read, restored  # the next one needs the room
            writer.wait()
    except KeyboardInterrupt:
        writer.wait()
        raise Failure(
            f"Interrupted; {writer.ends.count(None)} of {len(jobs)} photographs are restored, and"
            " the same command goes on."
        ) from None
    # also where something else ends the command: nothing is cut in the middle, and no folder
    # released before
    finally:
        writer.wait()
    return writer.ends


class _Writer:
    """Writes what came of photographs, one at a time, in a thread of its own."""

    def __init__(self, restoring: Restoring, reports: dict[Path, Report], several: bool):
        self.reports, self.several, self.run = reports, several, restoring.run
        self.about = {
            **restoring.settings,
            "machine": machine(),
            "device": str(next(restoring.model.parameters()).device),
            "irbridge": __version__,
        }
        self.ends: list[str | None] = []  # of each that is recorded: why it failed
        self._writing: Background | None = None

    def write(self, job: Job, restored: Restored | Exception) -> None:
        """Begin to write, when the photograph before is recorded."""
        self.wait()
        record = {"input": os.path.abspath(job.source), **job.names, **self.about}
        record["run"] = self.run
        report = self.reports[job.output.parent]
        self._writing = Background(_recorded, job, restored, record, report, self.several)

    def wait(self) -> None:
        """Until what is being written is recorded."""
        if self._writing is not None:
            self.ends.append(self._writing.result())
            self._writing = None


def _caught(function: Callable, *args):
    """What the call gives, or the exception that keeps one photograph from being restored.

    Whatever it is: the other photographs go on.
    """
    try:
        return function(*args)
    except Exception as error:
        return error


def _read(job: Job, restoring: Restoring) -> Read:
    """Read one photograph, and what is to be filled of it where it has holes."""
    started = time.perf_counter()
    restoring.check(job)
    hashes, photo, holes = {"input_sha256": sha256(job.source)}, read_photo(job.source), None
    if restoring.masked:
        holes = holes_of(photo, job.source, job.mask)
        photo = photo if job.mask else replace(photo, alpha=None)  # what was transparent is filled
    photo = photo.interpolated(restoring.enlarge)
    if job.mask:
        hashes["mask_sha256"] = sha256(job.mask)
    _check_room(job, photo, restoring.model.sides(*photo.pixels.shape[:2]))
    return Read(photo, holes, hashes, time.perf_counter() - started)


def restore_one(
    job: Job,
    restoring: Restoring,
    progress: Callable[[int, int], None],
    shown: Callable[[np.ndarray], None],
) -> Restored:
    """Restore one photograph and write it as :func:`restore_all` does, and show it as it goes.

    Args:
        job: the photograph.
        restoring: with what.
        progress: called with (done, all) tiles that went through the networks.
        shown: called with a small picture of the estimate after every call, (H, W, 3) in [0, 1].

    Raises:
        UserError: the photograph cannot be read, restored so, or written.
    """
    done, total = 0, _counts(_sizes([job], restoring), restoring)[job]
    read = _read(job, restoring)
    photo = restoring.keeping(read.photo)

    def step(tiles: int) -> None:
        nonlocal done
        done += tiles
        progress(min(done, total), total)

    restored = _restored(job, read, restoring, step, lambda shot: shown(photo.shown(shot)))
    _write(job, *restored[:3])
    return restored


@torch.inference_mode()
def _restored(
    job: Job,
    read: Read | Exception,
    restoring: Restoring,
    progress: Callable[[int], None],
    shown: Callable[[np.ndarray], None] | None = None,
) -> Restored:
    """Restore one photograph; ``progress`` is told of tiles that went through the networks.

    Where it is given, ``shown`` is called with a small picture of each estimate.
    """
    if isinstance(read, Exception):
        raise read
    started, photo, model = time.perf_counter(), read.photo, restoring.model
    height, width = model.sides(*photo.pixels.shape[:2])
    tiles = replace(restoring.cuts.tiles(height, width), progress=progress)
    shots: list[np.ndarray] = []
    shown = shown or (shots.append if job.path else None)
    pixels = model.restore(
        photo.visible,
        trajectory=_watched(model, tiles, (height, width), shown) if shown else model.trajectory,
        mask=read.holes,
        seeds=[image_seed(restoring.settings["seed"], job.source.stem)],
        tiles=tiles,
        **restoring.fields,
    )
    if read.holes is not None and model.keeps_known:  # bit for bit, also under alpha 0
        pixels = np.where(read.holes[..., None], pixels, photo.pixels)
    whole = tiles.count(height, width, model.stride) == 1
    about = {
        "size": [width, height],
        "bits": photo.bits,
        "tiles": None if whole else list(tiles.sides),
        **read.hashes,
        "seconds": read.seconds + time.perf_counter() - started,
    }
    return Restored(restoring.keeping(photo), pixels, shots, about)


def _watched(
    model: Restorer, tiles: Tiles, size: tuple[int, int], shown: Callable[[np.ndarray], None]
) -> Callable:
    """The model's trajectory that also shows a small picture of each estimate.

    Args:
        model: that restores.
        tiles: by which a latent estimate is decoded.
        size: height and width of the photograph, in pixels.
        shown: called with each picture.
    """
    height, width = size
    factor = max(1, -(-max(size) // THUMBNAIL))
    small = max(1, height // factor), max(1, width // factor)

    def trajectory(y, **options):
        for state in model.trajectory(y, **options):
            shot = model.image(state.x0, tiles)[..., :height, :width]
            shown(to_image(F.interpolate(shot, size=small, mode="area")[0]))
            yield state

    return trajectory


def _recorded(
    job: Job, restored: Restored | Exception, record: dict, report: Report, several: bool
) -> str | None:
    """Write what came of a photograph, and the report; returns a sentence where it failed."""
    sentence, started = None, time.perf_counter()
    try:
        if isinstance(restored, Exception):
            raise restored
        report.begin(record)
        record |= restored.about | _write(job, *restored[:3])
        seconds = record["seconds"] + time.perf_counter() - started
        record |= {"seconds": round(seconds, 3), "status": "done", "error": None}
    except Exception as error:
        sentence = _sentence(job, error)
        if several:
            tqdm.write(sentence, file=sys.stderr)
        record = report.hashes(record) | record | {"status": "failed", "error": sentence}
    report.add(record)
    return sentence


def _write(job: Job, photo: Photo, restored: np.ndarray, shots: list[np.ndarray]) -> dict:
    """Write all that a job asks for.

    Returns:
        The SHA-256 of each file, by the keys of a record.
    """
    if job.compare:
        degraded = to_bytes(photo.pixels)
        for axis in (0, 1):  # of a smaller one each pixel is shown as a square
            degraded = degraded.repeat(restored.shape[axis] // degraded.shape[axis], axis)
        pair = [degraded, to_bytes(photo.shown(restored))]
        write_bytes(job.compare, grid([pair], ["degraded", "restored"]))
    if job.path:
        write_image(
            job.path,
            grid([list(map(photo.shown, shots))], [f"call {i + 1}" for i in range(len(shots))]),
        )
    write_photo(job.output, photo, restored)
    hashes = {key: sha256(Path(name)) for key, name in job.names.items()}
    for key, digest in hashes.items():
        remember(Path(os.path.realpath(job.names[key])), digest)
    return {f"{key}_sha256": digest for key, digest in hashes.items()}


def sampler_record(model: Restorer, fields: dict) -> dict:
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
    if os.environ.get("IRBRIDGE_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, OSError):
        return (
            f"{job.source} cannot be restored ({error.strerror or error}); check the file and its"
            " folder."
        )
    reason = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, (MemoryError, RuntimeError)):
        reason = reason or "memory ran out"
        remedy = "where memory is short, give memory=1"
    else:
        reason = f"{type(error).__name__}: {reason}"
        remedy = "this is a fault of irbridge or of the model, please report it"
    return f"{job.source} cannot be restored ({reason}); {remedy}."


def _check_room(job: Job, photo: Photo, sides: tuple[int, int]) -> None:
    """UserError, before any network call, where the result could not be written.

    Its name is too long, or the disk could not hold it uncompressed, of such sides.
    """
    for name in map(os.path.basename, job.names.values()):
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise UserError(
                f"The result of {job.source} would be named {name}, longer than the"
                f" {LONGEST_NAME} bytes that a file's name may have; rename the photograph, or give"
                " output=NAME.png."
            )
    pixels = math.prod(sides)
    needed = pixels * photo.channels * photo.bits // 8 + pixels * 6 * bool(job.compare)
    free = shutil.disk_usage(job.output.parent).free
    if free < needed:
        raise UserError(
            f"{job.output} may need {needed / 2**20:.1f} MB where {free / 2**20:.1f} MB are free;"
            " make room, or give output=DIR on another disk."
        )


def _sizes(jobs: list[Job], restoring: Restoring) -> dict[Job, tuple[int, int] | None]:
    """Height and width that each photograph is restored at; None where its header is no image's."""
    sizes = {}
    for job in jobs:
        sizes[job] = None
        with suppress(UserError):  # it comes up again where its turn comes
            (width, height), _ = read_header(job.source)
            sides = (side * restoring.enlarge for side in (height, width))
            sizes[job] = restoring.model.sides(*sides)
    return sizes


def _counts(sizes: dict[Job, tuple[int, int] | None], restoring: Restoring) -> dict[Job, int]:
    """Tiles that each photograph sends through the networks.

    Raises:
        UserError: memory is too little for every one.
    """
    counts, refused = dict.fromkeys(sizes, 0), []
    passes = restoring.model.passes(**restoring.fields) * restoring.model.samples
    for job, size in sizes.items():
        if size is None:
            continue
        try:
            tiles = restoring.cuts.tiles(*size)
        except UserError as error:
            refused.append(error)
            continue
        counts[job] = passes * tiles.count(*size, restoring.model.stride)
    if refused and len(refused) == len(sizes):
        raise refused[0]
    return counts


def _alone(sizes: dict[Job, tuple[int, int] | None], restoring: Restoring) -> set[Job]:
    """The photographs that are read, restored and written before anything is done of another."""
    if restoring.cuts.device.type != "cpu":  # whose memory is not theirs
        return set()
    return {job for job, size in sizes.items() if size and math.prod(size) > TOGETHER}
