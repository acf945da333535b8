"""Scores of held-back images: one JSON record per image as it goes, never scored twice."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from irbridge.checkpoint import append_line, locked, write_atomically
from irbridge.config import commit, machine
from irbridge.data import split_mask
from irbridge.direct import BridgeNetwork
from irbridge.errors import UserError
from irbridge.images import pad, to_image, to_tensor, write_image
from irbridge.metrics import LPIPS, Protocol, score
from irbridge.restorer import Regression, Restorer, image_seed
from irbridge.samplers import Sampler
from irbridge.tables import read_records

# (Pair.seen, image name) -> restored HxWx3 in [0, 1]
Method = Callable[[np.ndarray, str], np.ndarray]


CALLS = 3  # of the rows beside an anchor alone


class Row(NamedTuple):
    """One method of a table: what the table calls it, its short key (see ``scoring.METHODS``), its
    sampler's network calls."""

    label: str
    method: str
    restore: Method
    nfe: int | None = None
    weights: str | None = None  # a hash of what the scores come from

    def about(self) -> dict:
        """What each of its records says of it."""
        return {"row": self.label, "method": self.method, "nfe": self.nfe, "weights": self.weights}


IDENTITY = Row("Degraded input", "identity", lambda image, name: image[..., :3])


class RoundTrip:
    """The second reference of ``protocol.reference=vae``: an image as the VAE of a model's backbone
    gives it back, so that the VAE's own loss does not count (IRBridge, Sec. 4). It is a function of
    the image alone. UserError if the model has no VAE."""

    def __init__(self, model: Restorer):
        self.backbone = getattr(model, "backbone", None)
        if getattr(self.backbone, "vae", None) is None:
            raise UserError(
                "protocol.reference=vae compares with the round trip through the backbone's VAE,"
                " and this model has none; give task.protocol.reference=clean (evaluate.py:"
                " protocol.reference=clean)."
            )
        self.name = self.backbone.digest[:8]

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Float (H, W, 3) in [0, 1] to the same."""
        height, width = image.shape[:2]
        padded = pad(
            to_tensor(image)[None].to(next(self.backbone.parameters()).device), self.backbone.stride
        )
        return to_image(self.backbone.decode(self.backbone.encode(padded))[0])[:height, :width]


def methods(model: Restorer, seed: int, weights: str | None = None, **options) -> list[Row]:
    """The rows that a trained model gives, itself the last: before it the baselines with the same
    adapter, which for an anchor alone (``nfe=0``) are those of ``CALLS`` calls. ``options`` are
    fields of its sampler."""

    def by(path: Callable, **fixed) -> Method:
        def restore(seen: np.ndarray, name: str) -> np.ndarray:
            image, mask = split_mask(seen)
            return model.restore(
                image, path=path, mask=mask, seeds=[image_seed(seed, name)], **fixed
            )

        return restore

    if isinstance(model, Regression):
        return [Row("Plain regression", "regression", by(model.path), None, weights)]
    # a mistake must not come up after the other rows
    sampler = model.sampler.changed(**options).check(model.bridge)
    # the anchor is the default; what the calls would make of it is shown all the same
    alone = sampler.nfe == 0
    sampler = sampler.changed(nfe=CALLS) if alone else sampler
    settings, nfe = f"{sampler.describe()}, {sampler.nfe} calls", sampler.nfe
    bridge = type(model.bridge).__name__
    if isinstance(model, BridgeNetwork):
        return [
            Row(
                f"Bridge from scratch ({bridge}, {settings})",
                "bridge",
                by(model.path, **options),
                nfe,
                weights,
            )
        ]
    rows = [
        Row(
            f"{label}, {nfe} calls",
            key,
            by(model.path, sampler=Sampler(how, nfe), start=start),
            nfe,
            weights,
        )
        for label, key, how, start in (
            ("DDIM from noise, same adapter", "ddim_noise", "ddim", "noise"),
            ("DDIM, same adapter and start", "ddim", "ddim", "end"),
            ("DPM-Solver++(2M), same adapter and start", "dpmpp", "dpmpp", "end"),
        )
    ]
    key = "irbridge_y" if model.endpoint == "y" else "irbridge"
    label = f"IRBridge ({bridge}, end {model.endpoint}, {settings})"
    bridged = Row(label, key, by(model.path, sampler=sampler), nfe, weights)
    if model.endpoint == "y":
        return [*rows, bridged]
    anchor = Row("Anchor g(y) alone", "anchor", by(model.coarse), None, weights)
    return [*rows, bridged, anchor] if alone else [*rows, anchor, bridged]


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
            on; without it that protocol is the one with the clean image alone."""
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
    left. UserError if settings differ."""
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
