"""Restoring one's own photographs: the command. ``jobs`` says which files, ``photos`` what they keep."""

import json
import os
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch.nn import functional as F
from tqdm import tqdm

from irbridge import __version__
from irbridge.build import find, from_pretrained
from irbridge.checkpoint import locked, read_json, sha256
from irbridge.config import ROOT, device, plain
from irbridge.direct import BridgeNetwork
from irbridge.errors import UserError
from irbridge.images import read_header, to_image, write_image
from irbridge.jobs import Job, Report, plan, sweep
from irbridge.photos import Photo, read_photo, write_photo
from irbridge.restorer import Restorer, image_seed
from irbridge.tiles import Tiles
from irbridge.viz import grid

ADAPTERS = ROOT / "data" / "adapters"
THUMBNAIL = 512   # pixels of the longest side in the strip of a trajectory, which would else outgrow memory


def restore_run(cfg: DictConfig) -> None:
    """Restore the photographs that ``input`` names. UserError where the command is wrong; RuntimeError in the end where
    a photograph failed."""
    options = plain(cfg)
    run, task = chosen(options["shipped"], options["run"])
    label = options["suffix"] or task
    if label != Path(label).name:
        raise UserError(f"suffix={label!r} must be a part of a file's name.")
    jobs = plan(options, label)
    tiles = Tiles(options["tile"], options["overlap"], options["batch"])
    model = from_pretrained(run, device(options["device"]), frozen=options["backbone"])
    fields = options["sampler"] | ({"nfe": options["steps"]} if options["steps"] is not None else {})
    settings = {"seed": options["seed"], **_sampling(model, fields), "tile": options["tile"],
                "overlap": options["overlap"], "weights": sha256(run / "model.safetensors"),
                "config": sha256(run / "config.json")}
    folders = sorted({job.output.parent for job in jobs})
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(locked(folder))
        reports = {folder: Report(folder, label) for folder in folders}
        for job in jobs:
            reports[job.output.parent].check(job)
        sweep(jobs)
        left = [job for job in jobs if not reports[job.output.parent].finished(job, settings)]
        failed = restore_all(left, model, fields, tiles, settings, reports)
    earlier = f" {len(jobs) - len(left)} were finished before." if len(left) < len(jobs) else ""
    print(f"Restored {len(left) - len(failed)} of {len(jobs)} photographs.{earlier}")
    wrote = [p for job in jobs[: 3 * (len(jobs) <= 3)] for p in (job.output, job.compare, job.path) if p and p.exists()]
    print("Wrote: " + "  ".join(str(p) for p in (*wrote, *(report.path for report in reports.values()))))
    if failed:
        told = "  ".join(str(r.path) for r in reports.values())
        many = f"{len(failed)} of {len(jobs)} photographs could not be restored; {told} says why."
        raise RuntimeError(failed[0] if len(left) == 1 else many)


def chosen(task: str | None, run: str | None) -> tuple[Path, str]:
    """The folder of the trained model, and the name of its task."""
    adapters = shipped()
    if run and task:
        raise UserError(f"task={task} and run={run} both name a model; give one of them.")
    if run:
        folder = find(os.path.expanduser(run))
        return folder, (read_json(folder / "config.json").get("task") or {}).get("name") or folder.name
    if task not in adapters:
        wrong = f"task={task!r} has no shipped adapter" if task else "No model is named"
        raise UserError(f"{wrong}; give task={' or task='.join(adapters)}, or run=FOLDER of a training of your own.")
    return adapters[task], task


def shipped() -> dict[str, Path]:
    """Task -> folder of the adapters that come with the project."""
    return {p.parent.name: p.parent for p in sorted(ADAPTERS.glob("*/model.safetensors"))}


def restore_all(jobs: list[Job], model: Restorer, fields: dict, tiles: Tiles, settings: dict,
                reports: dict[Path, Report]) -> list[str]:
    """Restore under one progress bar, a record after each; returns a sentence for each that failed."""
    from irbridge.evaluation import machine
    failed, done, passes = [], 0, model.passes(**fields)
    counts = {job: passes * _count(job.source, tiles, model.stride) for job in jobs}
    about = {"machine": machine(), "device": str(next(model.parameters()).device), "irbridge": __version__}
    try:
        with tqdm(total=sum(counts.values()), desc="restoring", unit="tile", dynamic_ncols=True,
                  disable=not jobs) as bar:
            watched = Tiles(tiles.size, tiles.overlap, tiles.batch, bar.update)
            for job in jobs:
                before, started = bar.n, time.perf_counter()
                bar.set_postfix_str(job.source.name)
                record = {"input": os.path.abspath(job.source), **job.names, **settings, **about}
                try:
                    record |= restore_one(job, model, fields, watched, settings["seed"])
                    record |= {"seconds": round(time.perf_counter() - started, 3), "status": "done", "error": None}
                except (UserError, RuntimeError, MemoryError, OSError) as error:
                    failed.append(_sentence(job, error))
                    if len(jobs) > 1:
                        tqdm.write(failed[-1], file=sys.stderr)
                    record |= {"status": "failed", "error": failed[-1]}
                bar.update(before + counts[job] - bar.n)
                reports[job.output.parent].add(record)
                done += 1
    except KeyboardInterrupt:
        raise RuntimeError(f"Interrupted; {done - len(failed)} of {len(jobs)} photographs are restored, and the same "
                           "command goes on.") from None
    return failed


@torch.no_grad()
def restore_one(job: Job, model: Restorer, fields: dict, tiles: Tiles, seed: int) -> dict:
    """Restore one photograph and write what comes of it; returns what a report says of it."""
    digest, photo, shots = sha256(job.source), read_photo(job.source), []
    height, width = photo.pixels.shape[:2]
    _check_room(job, photo)
    factor = max(1, -(-max(height, width) // THUMBNAIL))

    def watched(y, **options):
        for state in model.path(y, **options):
            if job.path:
                size = max(1, height // factor), max(1, width // factor)
                shot = model.image(state.x0, tiles)[..., :height, :width]
                shots.append(to_image(F.interpolate(shot, size=size, mode="area")[0]))
            yield state

    seeds = [image_seed(seed, job.source.stem)]
    restored = model.restore(photo.pixels, path=watched, seeds=seeds, tiles=tiles, **fields)
    if job.compare:
        write_image(job.compare, grid([[photo.pixels, photo.shown(restored)]], ["degraded", "restored"]))
    if job.path:
        write_image(job.path, grid([list(map(photo.shown, shots))], [f"call {i + 1}" for i in range(len(shots))]))
    write_photo(job.output, photo, restored)
    return {"size": [width, height], "bits": photo.bits, "input_sha256": digest, "output_sha256": sha256(job.output)}


def _sampling(model: Restorer, fields: dict) -> dict:
    """The sampler as a report says it; UserError where these fields do not go together."""
    sampler = getattr(model, "sampler", None)
    if sampler is None:   # regression
        return {"sampler": None}
    sampler = sampler.changed(**fields).check(model.bridge, direct=isinstance(model, BridgeNetwork))
    return {"sampler": json.loads(json.dumps(asdict(sampler)))}   # as JSON gives it back, to compare with


def _sentence(job: Job, error: Exception) -> str:
    """What went wrong with a photograph, in one line that names it."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{job.source} cannot be restored ({error.strerror or error}); check the file and its folder."
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{job.source} cannot be restored ({reason}); where memory is short, give a smaller tile."


def _check_room(job: Job, photo: Photo) -> None:
    """UserError, before any network call, where the disk could not hold the result uncompressed."""
    pixels = photo.pixels[..., 0].size
    needed = pixels * photo.channels * photo.bits // 8 + pixels * 6 * bool(job.compare)
    free = shutil.disk_usage(job.output.parent).free
    if free < needed:
        raise UserError(f"{job.output} may need {needed / 2**20:.1f} MB where {free / 2**20:.1f} MB are free; make "
                        "room, or give output=DIR on another disk.")


def _count(source: Path, tiles: Tiles, stride: int) -> int:
    try:
        (width, height), _ = read_header(source)
        return tiles.count(height, width, stride)
    except UserError:   # comes up again where its turn comes
        return 0


