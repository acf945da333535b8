"""Scores of held-back images: one JSON record per image as it goes, never scored twice."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from irbridge.environment import commit, machine
from irbridge.errors import UserError
from irbridge.evaluation.metrics import LPIPS, score
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import read_records
from irbridge.evaluation.vae_reference import RoundTrip
from irbridge.files import append_line, locked, write_atomically
from irbridge.images.io import write_image

# (Pair.seen, image name) -> restored HxWx3 in [0, 1]
Method = Callable[[np.ndarray, str], np.ndarray]


def evaluate(
    method: Method,
    pairs,
    protocol: Protocol,
    folder: Path,
    record: dict,
    lpips: LPIPS | None = None,
    save_images: bool = False,
    limit: int | None = None,
    share: tuple[int, int] = (0, 1),
    reference: RoundTrip | None = None,
) -> Iterator[dict]:
    """Score a method on (the first ``limit``) pairs, yielding one record per image, those of an
    earlier run included.

    Args: folder: where ``records.jsonl`` (appended and flushed per image) and, on request, the
        restored PNGs go, the
            clean ones beside it in ``clean/``. It is locked; UserError if another process has it.
        record: what each record says besides scores: task, row, seed, settings. UserError if the
            folder holds others.
        share: (rank, world): this process takes every world-th image, beginning with its rank.
            Meanwhile its records are in ``records-RANK.jsonl``; the first process puts them
            together when all are done.
        reference: of ``protocol.reference=vae``, scored besides the clean image as psnr_vae and so
            on; without it that protocol is the one with the clean image alone.
    """
    rank, world = share
    protocol = replace(protocol, reference="vae" if reference else "clean")
    about = record | {"protocol": protocol.describe(reference.name if reference else "")}
    path = folder / ("records.jsonl" if rank == 0 else f"records-{rank}.jsonl")
    with ExitStack() as stack:
        done = agreed(
            lambda: stack.enter_context(locked(folder)) or _gathered(folder, about, pairs.names),
            share,
        )
        for index, name in list(enumerate(pairs.names[:limit]))[rank::world]:
            wanted = save_images and (name not in done or not (folder / f"{name}.png").exists())
            if name not in done or wanted:
                pair = pairs[index]
                started = time.perf_counter()
                restored = method(pair.seen, name)
                seconds = time.perf_counter() - started
                second = reference(pair.clean) if reference else None
                if wanted:
                    write_image(folder / f"{name}.png", restored)
                    write_image(folder.parent / "clean" / f"{name}.png", pair.clean)
                    if reference:
                        write_image(folder.parent / "vae" / f"{name}.png", second)
            if name not in done:
                scores = score(restored, pair.clean, protocol, lpips)
                if reference:
                    again = score(restored, second, protocol, lpips)
                    scores |= {f"{key}_vae": value for key, value in again.items()}
                done[name] = about | {
                    "name": name,
                    **scores,
                    "seconds": round(seconds, 4),
                    "commit": commit(),
                    "machine": machine(),
                }
                _append(path, done[name])
            yield done[name]
        if world > 1:
            PartialState().wait_for_everyone()
            agreed(lambda: _gathered(folder, about, pairs.names), share)


def agreed(work: Callable, share: tuple[int, int]):
    """What ``work()`` gives in the first process, or its UserError, in every process."""
    result = [None]
    if share[0] == 0:
        try:
            result = [work()]
        except UserError as error:
            result = [error]
    if share[1] > 1:
        broadcast_object_list(result)
    if isinstance(result[0], UserError):
        raise result[0]
    return result[0]


def _gathered(folder: Path, about: dict, names: list[str]) -> dict[str, dict]:
    """The folder's records of these weights by image, those of all processes put together in
    ``records.jsonl``. Records of other weights go, and the half-written line that a kill may have
    left. UserError if settings differ.
    """
    files = sorted(folder.glob("records*.jsonl"))
    records = [record for path in files for record in read_records(path)]
    for old in records:
        changed = [k for k in about if k in old and old[k] != about[k] and k != "weights"]
        if changed:
            raise UserError(
                f"{folder / 'records.jsonl'} was scored with {changed[0]}={old[changed[0]]!r}, not "
                f"{about[changed[0]]!r}; delete the folder."
            )
    order = {name: index for index, name in enumerate(names)}
    records.sort(key=lambda r: order.get(r["name"], len(order)))
    done = {r["name"]: r for r in records if r.get("weights") == about.get("weights")}
    if files:
        lines = "".join(json.dumps(r) + "\n" for r in done.values())
        write_atomically(folder / "records.jsonl", lambda p: p.write_text(lines))
    for path in files:
        if path.name != "records.jsonl":
            path.unlink()
    return done


def _append(path: Path, record: dict) -> None:
    try:
        append_line(path, record)
    except OSError as error:
        raise RuntimeError(
            f"{path} could not be written ({error.strerror or error}); make room and run the same"
            " command again: finished images are kept."
        ) from error
