"""Scores of held-back images: one JSON record per image as it goes, never scored twice."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from irbridge.checkpoint import write_atomically
from irbridge.config import commit
from irbridge.direct import BridgeNetwork
from irbridge.errors import UserError
from irbridge.images import write_image
from irbridge.metrics import LPIPS, Protocol, score
from irbridge.model import Regression, Restorer, image_seed
from irbridge.samplers import Sampler
from irbridge.tables import read_records

Method = Callable[[np.ndarray, str], np.ndarray]   # (degraded HxWx3 in [0, 1], image name) -> restored, alike


def methods(model: Restorer, seed: int, regression: Restorer | None = None, **options) -> dict[str, Method]:
    """The rows of a table: the model, its baselines with the same adapter, and the degraded input itself."""
    def by(path: Callable, **fixed) -> Method:
        return lambda image, name: model.restore(image, path=path, seeds=[image_seed(seed, name)], **fixed)

    rows: dict[str, Method] = {"Degraded input": lambda image, name: image}
    if regression is not None:
        rows["Plain regression"] = lambda image, name: regression.restore(image)
    if isinstance(model, Regression):
        return rows | {"Plain regression": by(model.path)}
    sampler = model.sampler.changed(**options).check(model.bridge)   # a mistake must not come up after the other rows
    settings = f"{sampler.describe()}, {sampler.nfe} calls"
    if isinstance(model, BridgeNetwork):
        return rows | {f"Bridge from scratch ({type(model.bridge).__name__}, {settings})": by(model.path, **options)}
    for label, how, start in (("DDIM from noise, same adapter", "ddim", "noise"),
                              ("DDIM, same adapter and start", "ddim", "end"),
                              ("DPM-Solver++(2M), same adapter and start", "dpmpp", "end")):
        rows[f"{label}, {sampler.nfe} calls"] = by(model.path, sampler=Sampler(how, sampler.nfe), start=start)
    if model.endpoint == "anchor":
        rows["Anchor g(y) alone"] = by(model.coarse)
    settings = f"{type(model.bridge).__name__}, end {model.endpoint}, {settings}"
    return rows | {f"IRBridge ({settings})": by(model.path, **options)}


def evaluate(method: Method, pairs, protocol: Protocol, folder: Path, record: dict, lpips: LPIPS | None = None,
             save_images: bool = False, limit: int | None = None) -> Iterator[dict]:
    """Score a method on (the first ``limit``) pairs, yielding one record per image, those of an earlier run included.

    Args:
        folder: where ``records.jsonl`` (appended and flushed per image) and, on request, the restored PNGs go.
        record: what each record says besides scores: task, row, seed, settings. UserError if the folder holds others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "records.jsonl"
    done = {r["name"]: r for r in read_records(path)} if path.exists() else {}
    about = record | {"protocol": protocol.describe()}
    for old in done.values():
        if changed := [k for k in about if old.get(k) != about[k] and k != "weights"]:
            raise UserError(f"{path} was scored with {changed[0]}={old.get(changed[0])!r}, not {about[changed[0]]!r}; "
                            "delete the folder.")
    done = {name: r for name, r in done.items() if r.get("weights") == about.get("weights")}   # those of these weights
    if path.exists():   # drop the half-written line that a kill may have left
        write_atomically(path, lambda p: p.write_text("".join(json.dumps(r) + "\n" for r in done.values())))
    for index, name in enumerate(pairs.names[:limit]):
        wanted = save_images and (name not in done or not (folder / f"{name}.png").exists())
        if name not in done or wanted:
            pair = pairs[index]
            started = time.perf_counter()
            restored = method(pair.degraded, name)
            seconds = time.perf_counter() - started
            if wanted:
                write_image(folder / f"{name}.png", restored)
        if name not in done:
            done[name] = about | {"name": name, **score(restored, pair.clean, protocol, lpips),
                                  "seconds": round(seconds, 4), "commit": commit(), "machine": machine()}
            with open(path, "a") as handle:
                handle.write(json.dumps(done[name]) + "\n")
                handle.flush()
                os.fsync(handle.fileno())
        yield done[name]


def machine() -> str:
    """The machine in a few words: the GPU, or the processor's architecture and its cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
