"""Which numbers and words of a config make sense. Their types come from the YAML files, see
``config.check_types``.
"""

import math
import os
from itertools import pairwise

from irbridge.errors import UserError


def _whole(low: int, null: bool = False):
    wanted = f"a whole number, {low} or more" + (", or null" if null else "")
    return lambda v: null if v is None else type(v) is int and v >= low, wanted


def _number(fits, wanted: str, null: bool = False):
    return (
        lambda v: null if v is None else type(v) in (int, float) and math.isfinite(v) and fits(v),
        wanted,
    )


def _each(check, count: int | None = None):
    fits, wanted = check
    return (
        lambda v: isinstance(v, list) and len(v) == (count or len(v)) > 0 and all(map(fits, v)),
        f"a list of {count or 'one or more'}, each {wanted}",
    )


def _descending(v) -> bool:
    numbers = isinstance(v, list) and all(type(u) in (int, float) and math.isfinite(u) for u in v)
    return v is None or (
        numbers and len(v) > 1 and all(a > b for a, b in pairwise(v)) and v[-1] >= 0
    )


def _one_of(*words: str):
    return lambda v: v in words, f"one of {', '.join(words)}"


POSITIVE = _number(lambda v: v > 0, "a number above 0")
NOT_NEGATIVE = _number(lambda v: v >= 0, "a number, 0 or more")
THREADS = max(16, 4 * (os.cpu_count() or 1))  # more do not help, and thousands cannot be had
FRACTION = _number(lambda v: 0 <= v < 1, "a number from 0 to below 1")
CHECKS = {
    "seed": _whole(0),
    **{
        f"trainer.{key}": _whole(1)
        for key in (
            "steps",
            "batch_size",
            "accumulate",
            "crop",
            "log_every",
            "sample_every",
            "save_every",
        )
    },
    "trainer.minutes": _number(lambda v: v > 0, "a number of minutes above 0, or null", null=True),
    **{f"trainer.{key}": _whole(1, null=True) for key in ("stop", "validate_every")},
    "data.validation": _whole(2, null=True),
    "trainer.lr": POSITIVE,
    "trainer.betas": _each(FRACTION, count=2),
    "trainer.weight_decay": NOT_NEGATIVE,
    "trainer.warmup": _whole(0),
    "trainer.schedule": _one_of("cosine", "constant"),
    "trainer.clip": POSITIVE,
    "trainer.ema_decay": FRACTION,
    "trainer.precision": _one_of("auto", "no", "bf16", "fp16"),
    "trainer.device": _one_of("auto", "cpu"),
    "trainer.optimizer": _one_of("adamw", "adamw8bit"),
    "trainer.workers": _whole(0),
    "backbone.dtype": (
        lambda v: v in (None, "float32", "bfloat16", "float16"),
        "float32, bfloat16 or float16",
    ),
    "backbone.guidance": _number(lambda v: v >= 0, "a number, 0 or more"),
    "adapter.hint": _one_of("image", "latent"),
    "adapter.rank": _whole(1),
    "data.resize": _whole(1, null=True),
    "trainer.save_seconds": POSITIVE,
    "adapter.channels": (lambda v: v is None or _each(_whole(1))[0](v), _each(_whole(1))[1]),
    "adapter.layers": _whole(1, null=True),
    "adapter.trunk": _one_of("nafnet", "unet"),
    **{f"adapter.{key}": _whole(1) for key in ("width", "middle")},
    **{f"adapter.{key}": _each(_whole(1)) for key in ("encoder", "decoder")},
    **{
        f"bridge.{key}": POSITIVE
        for key in (
            "lam",
            "sigma",
            "max_var",
            "rate",
            "gamma",
            "beta_max",
            "beta_min",
            "kappa",
            "min_noise",
            "power",
            "sum_scale",
            "alpha",
            "k",
        )
    },
    **{f"bridge.{key}": NOT_NEGATIVE for key in ("beta_d", "delta_end", "start_noise")},
    "bridge.mean": _number(lambda v: 0 <= v <= 1, "a number from 0 to 1"),
    **{
        f"bridge.{key}": _number(lambda v: 0 < v < 1, "a number between 0 and 1")
        for key in ("eps", "end")
    },
    **{f"sampler.{key}": _whole(0, null=True) for key in ("steps", "nfe")},
    "sampler.eta": _number(lambda v: 0 <= v <= 1, "a number from 0 to 1", null=True),
    **{
        f"sampler.{key}": _number(
            lambda v: 0 <= v < 1, "a number from 0 to below 1, or null", null=True
        )
        for key in ("churn", "boot")
    },
    "sampler.rho": _number(lambda v: v > 0, "a number above 0", null=True),
    "sampler.noise": (lambda v: v in (None, True, False), "true, false or null"),
    "sampler.times": (
        _descending,
        "a list of two or more falling numbers, the last 0 or more, or null",
    ),
    "loss.weight": _one_of("x0", "eps", "v"),
    "loss.norm": _one_of("l1", "l2"),
    "loss.trunk_lr": NOT_NEGATIVE,
    "loss.anchor": NOT_NEGATIVE,
    "loss.anchor_first": _number(lambda v: 0 <= v <= 1, "a number from 0 to 1"),
    "data.hold_out": _whole(2),
    "split": _one_of("test", "validation"),
    "data.split": (lambda v: v in (None, "test", "train"), "test, train or null"),
    **{
        key: _whole(1, null=True)
        for key in ("evaluate.size", "evaluate.limit", "size", "limit", "tile")
    },
    "steps": _whole(0, null=True),
    "nfe": _each(_whole(0)),
    "spacings": _each(_one_of("time", "logsnr", "karras")),
    "starts": _each(_number(lambda v: v > 0, "a timestep above 0, or null", null=True)),
    **{f"benchmark.{key}": _whole(1) for key in ("steps", "size", "batch", "warmup", "runs")},
    "benchmark.sizes": _each(_whole(1)),
    "benchmark.calls": _whole(0, null=True),
    "overlap": _whole(0),
    "batch": _whole(1),
    "memory": _number(lambda v: v > 0, "a number of GB above 0, or null", null=True),
    "threads": (
        lambda v: v is None or (type(v) is int and 1 <= v <= THREADS),
        f"a whole number from 1 to {THREADS}, or null",
    ),
    "precision": _one_of("auto", "float32", "bf16"),
    **{key: POSITIVE for key in ("task.level", "levels.median")},
    "levels.spread": POSITIVE,
    "levels.wide": FRACTION,
    "stds": _each(POSITIVE),
}


def check_values(config: dict) -> None:
    """Refuse values of a plain config that no command can work with; keys that it lacks are not
    looked at. UserError names the key, its value and what it should be.
    """
    for key, (fits, wanted) in CHECKS.items():
        *groups, name = key.split(".")
        at = config
        for group in groups:
            at = at.get(group) or {}
            at = at if isinstance(at, dict) else {}  # benchmark=NAME is a word elsewhere
        if name in at and not fits(at[name]):
            raise UserError(f"{key}={at[name]} must be {wanted}.")
