"""Half precision (bfloat16) where it is faster and does not show.

A trial of the networks themselves on this machine says so, once; processors that list the same
instructions differ tenfold in them.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import torch

from irbridge.assets import cache_folder
from irbridge.data.pair import split_mask
from irbridge.environment import machine_key
from irbridge.errors import UserError
from irbridge.files import read_json, write_json

CHOICES = "auto", "float32", "bf16"
VISIBLE = 1.5  # of 255: what half precision may change a pixel by
ACCEPTED = 0.5  # of 255, on the trial's image; photographs deviated up to 2.2 times as much
SIDE = 128  # pixels of the trial's image
# of the frozen network in a trial, however many are asked for: what more of them change is less
CALLS = 3


def faster(functions: Sequence[Callable[[], object]], rounds: int = 2) -> int:
    """The index of the function whose fastest of ``rounds`` runs is the fastest.

    They run in turn, so that what else the machine does meets all of them.
    """
    best = [math.inf] * len(functions)
    for _ in range(rounds):
        for index, function in enumerate(functions):
            started = time.perf_counter()
            function()
            best[index] = min(best[index], time.perf_counter() - started)
    return best.index(min(best))


def remembered(key: dict, measure: Callable[[], dict]) -> dict:
    """What ``measure()`` gives, or gave before for the same key.

    It counts for this machine, this torch and this version of irbridge. Where nothing can be
    written it is measured every time.

    Args:
        key: JSON that says what is measured.
        measure: what measures it; its answer is JSON.
    """
    key = key | machine_key()
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache_folder("precision") / f"{name}.json"
    with suppress(UserError, OSError):
        found = read_json(path)
        if found.get("key") == key and isinstance(found.get("result"), dict):
            return found["result"]
    result = measure()
    with suppress(OSError):
        write_json(path, {"key": key, "result": result})
    return result


def frozen_parts(model) -> dict:
    """What a model's frozen networks are, as far as it decides their speed and memory.

    Returns:
        JSON: the network's config and dtype, those of a VAE, and hashes of pretrained anchors;
        empty for a model without a backbone.
    """
    if (backbone := getattr(model, "backbone", None)) is None:
        return {}

    def kind(config, dtype: torch.dtype) -> list:
        values = dict(config) if hasattr(config, "keys") else vars(config)
        # "_": where it is from
        return [str(dtype), {k: v for k, v in values.items() if not k.startswith("_")}]

    vae, anchors = backbone.vae, getattr(getattr(model, "adapter", None), "pretrained", ())
    found = {
        "network": kind(backbone.config, backbone.dtype),
        "anchors": [anchor.digest for anchor in anchors],
        "vae": vae and [type(vae).__name__, *kind(vae.config, vae.dtype)],
    }
    return json.loads(json.dumps(found, default=str))


def trial(run: Callable[[bool], None], key: dict | None = None, rounds: int = 3) -> bool:
    """Whether something is faster here in bfloat16 than in float32.

    Args:
        run: ``run(True)`` does it in bfloat16, ``run(False)`` in float32.
        key: JSON that says what is run: the answer is remembered; None: it is not.
        rounds: of each, in turn.
    """

    def measure() -> dict:
        return {"bf16": bool(faster([lambda: run(False), lambda: run(True)], rounds))}

    return (measure() if key is None else remembered(key, measure))["bf16"]


def chosen(requested: str, model, about: dict, limit: float | None = None, **options) -> str:
    """The precision to restore in, "float32" or "bf16".

    Args:
        requested: "float32", "bf16", or "auto": bf16 where a trial on this machine finds it faster
            and nowhere more than ``ACCEPTED`` of 255 off. MPS has float32 alone.
        model: on its device.
        about: JSON that tells its weights from others.
        limit: the largest deviation, of 255, that was measured for it before; above ``VISIBLE`` it
            is float32.
        options: fields of its sampler.

    Raises:
        UserError: the precision is unknown, or not for this device.
    """
    if requested not in CHOICES:
        raise UserError(f"precision={requested!r} is unknown; choose one of {', '.join(CHOICES)}.")
    device = next(model.parameters()).device
    if requested == "bf16" and device.type == "mps":
        raise UserError("precision=bf16 is not for MPS; use float32 or auto.")
    if requested != "auto":
        return requested
    if device.type == "mps" or (limit is not None and limit > VISIBLE):
        return "float32"
    sampler = getattr(model, "sampler", None)
    if sampler is not None:
        sampler = sampler.changed(**options)
        options = options | {"nfe": CALLS} if sampler.nfe and sampler.times is None else options
    key = about | {
        "side": SIDE,
        "device": device.type,
        "frozen": frozen_parts(model),
        "sampler": sampler and sampler.changed(**options).record(),
    }
    found = remembered(json.loads(json.dumps(key)), lambda: _measured(model, options))
    return "bf16" if found["bf16"] and found["deviation"] <= ACCEPTED else "float32"


def _measured(model, options: dict) -> dict:
    image, results = picture(SIDE, masked=model.masked), {}

    def run(precision: str) -> None:
        with changed(model, precision):
            results[precision] = _restored(model, image, options)

    fast = faster([lambda: run("float32"), lambda: run("bf16")])
    return {"bf16": bool(fast), "deviation": _distance(results["float32"], results["bf16"])}


def deviation(model, images: Sequence[np.ndarray], **options) -> float:
    """The largest deviation of images restored in bfloat16 from the same in float32, of 255.

    Args:
        model: that restores.
        images: float (H, W, 3) in [0, 1], or (H, W, 4) with a mask.
        options: those of ``model.restore``.
    """
    worst = 0.0
    for image in images:
        with changed(model, "float32"):
            full = _restored(model, image, options)
        with changed(model, "bf16"):
            worst = max(worst, _distance(full, _restored(model, image, options)))
    return worst


def _restored(model, seen: np.ndarray, options: dict) -> np.ndarray:
    image, mask = split_mask(seen)
    return model.restore(image, mask=mask, **options)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max()) * 255


@contextmanager
def changed(model, precision: str) -> Iterator[None]:
    """Within the block the model restores in ``precision``."""
    before, model.precision = model.precision, precision
    try:
        yield
    finally:
        model.precision = before


def picture(side: int, seed: int = 0, masked: bool = False) -> np.ndarray:
    """Something like a photograph: smooth shades, edges, fine texture, a dark and a bright part.

    Args:
        side: in pixels.
        seed: that all of it follows from.
        masked: a fourth channel, 1 in a square hole.

    Returns:
        float32 (side, side, 3 or 4) in [0, 1].
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side] / side
    image = np.full((side, side, 3), 0.45)
    for waves in (1, 2, 4, 8, 16):  # falls with the frequency as photographs do
        for channel in range(3):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            along = rows * np.cos(angle) + columns * np.sin(angle)
            image[..., channel] += 0.25 / waves * np.sin(2 * np.pi * waves * along + phase)
    for _ in range(12):  # edges of every direction, in colours of their own
        (top, left), (angle, width) = rng.uniform(0, 1, 2), rng.uniform((0, 0.02), (np.pi, 0.2))
        inside = np.abs((rows - top) * np.cos(angle) + (columns - left) * np.sin(angle)) < width
        inside &= np.hypot(rows - top, columns - left) < 0.25
        image[inside] = 0.3 * image[inside] + 0.7 * rng.uniform(0, 1, 3)
    image += rng.normal(0, 0.08, image.shape) * (columns > 0.5)[..., None]
    image *= np.where(rows < 0.35, 0.15, 1)[..., None]
    image = (
        np.where((rows > 0.8)[..., None], 0.75 + 0.3 * image, image).clip(0, 1).astype(np.float32)
    )
    if masked:
        hole = (np.abs(rows - 0.5) < 0.15) & (np.abs(columns - 0.5) < 0.15)
        image = np.concatenate([image, hole[..., None].astype(np.float32)], axis=2)
    return image
