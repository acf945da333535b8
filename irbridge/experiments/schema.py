"""The settings of the commands, typed: one class a group of keys, the keys as in the YAML files.

:func:`checked` makes the object of a command from its composed config. What a bridge, an adapter or
another part takes stands in that part's own class, and the part checks it.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, ClassVar, get_type_hints

from irbridge.errors import UserError
from irbridge.experiments.instantiate import check_part, instantiate
from irbridge.models.loss_options import LossOptions
from irbridge.ranges import (
    FALLING,
    FRACTION,
    POSITIVE,
    Options,
    Range,
    each,
    joined,
    one_of,
    option,
    whole,
)
from irbridge.samplers import make
from irbridge.training.options import TrainerOptions

COUNT = whole(1)
# more do not help, and thousands cannot be had
THREADS = whole(1, max(16, 4 * (os.cpu_count() or 1)))
PARTS = "bridge", "timesteps", "task.degradation", "task.protocol"  # built at once to be checked
LATER = "adapter", "backbone"  # need a network, which is loaded later
# what parts of runs of earlier versions lack, and what these did
PARTS_ADDED = {
    "adapter.masked": False,
    "adapter.trunk": "unet",
    "backbone._target_": "irbridge.backbones.pixel.load_backbone",
    "backbone.dtype": "float32",
    "task.degradation.scale": 1.0,
}


@dataclass
class SamplerOptions(Options):
    """The fields of a sampler that differ from what the task, the bridge or the run says."""

    KEY: ClassVar[str] = "sampler"

    steps: int | None = option(None, whole(0))
    nfe: int | None = option(None, whole(0))
    rule: str | None = None
    eta: float | None = None
    churn: float | None = None
    noise: bool | None = None
    spacing: str | None = None
    rho: float | None = None
    boot: float | None = None
    times: list[float] | None = option(None, FALLING)

    def __post_init__(self):
        super().__post_init__()
        given = {key: value for key, value in vars(self).items() if value is not None}
        make().changed(**given)  # the samplers have the ranges


@dataclass
class DataOptions(Options):
    """Which images a run is trained on and scored on."""

    KEY: ClassVar[str] = "data"

    mix: Any = None
    exclude: str | None = None
    validation: int | str | None = option(
        None,
        Range(
            lambda v: v if isinstance(v, str) else whole(2).fits(v),
            "a whole number, 2 or more, or a folder",
        ),
    )
    people: bool = option(False, added=True)
    benchmark: str | None = None
    root: str | None = None
    test_benchmark: str | None = None
    test_root: str | None = None
    masks: str | None = None
    resize: int | None = option(None, COUNT)
    stand_in: bool = option(False, added=True)
    on_device: bool = option(False, free=True, added=True)
    cache_latents: bool = option(False, added=True)
    folder: str | None = option(None, free=True)
    train: str | None = None
    test: str | None = None
    clean: str | None = None
    degraded: str | None = None
    test_clean: str | None = None
    test_degraded: str | None = None
    hold_out: int = option(10, whole(2))


@dataclass
class ScoringOptions(Options):
    """How a trained run is scored."""

    KEY: ClassVar[str] = "evaluate"

    enabled: bool = True
    size: int | None = option(160, COUNT)
    limit: int | None = option(None, COUNT)
    all_rows: bool = True
    save_images: bool = False
    kid: bool = option(False, added=True)
    real: str | None = None
    metrics: list[str] = option([])


@dataclass
class ObjectiveOptions(Options):
    """What a network of its own is trained for (``recipe=bridge``); None: as it was published."""

    KEY: ClassVar[str] = "objective"

    target: str | None = None
    loss: str | None = None


@dataclass
class TaskOptions(Options):
    """A task: its name, its degradation, and what it suggests to the other groups."""

    KEY: ClassVar[str] = "task"

    name: str | None = None
    level: float = option(30.0, POSITIVE)
    masked: bool = option(False, added=True)
    bridge: Any = None
    degradation: Any = None
    timesteps: Any = None
    sampler: Any = None
    protocol: Any = None


@dataclass
class Experiment(Options):
    """The settings of the train command: all that a run is made of."""

    bridge: dict
    adapter: dict
    timesteps: dict
    backbone: dict
    logger: dict = option(free=True)
    task: TaskOptions
    sampler: SamplerOptions
    loss: LossOptions
    trainer: TrainerOptions
    data: DataOptions
    evaluate: ScoringOptions = option(free=True)
    objective: ObjectiveOptions
    method: str = "irbridge"
    endpoint: str = "anchor"
    seed: int = option(0, whole(0))
    threads: int | None = option(None, THREADS, free=True)
    name: str = option("", free=True)
    run_root: str = option("runs", free=True)
    run: str = option("", free=True)
    reuse: str | None = None
    overwrite: bool = option(False, free=True)
    start: str | None = option(None, free=True)
    baseline: bool = option(True, free=True)
    ship: Any = option(None, free=True)  # what experiment=ship makes data.mix of
    paper: Any = option(None, free=True)  # what the rows of the paper make their names of


@dataclass
class BenchmarkOptions(Options):
    """What the stopwatch measures."""

    KEY: ClassVar[str] = "benchmark"

    steps: int = option(10, COUNT)
    warmup: int = option(3, COUNT)
    size: int = option(256, COUNT)
    batch: int = option(1, COUNT)
    restore: str | None = None
    sizes: list[int] = option([512, 1024], each(COUNT))
    calls: int | None = option(None, whole(0))
    runs: int = option(3, COUNT)
    against: str | None = None


@dataclass
class Benchmark(Experiment):
    """The settings of the benchmark command: those of a run, and what is measured of it."""

    benchmark: BenchmarkOptions | None = None
    output: str | None = None


@dataclass
class FrozenOptions(Options):
    """Where the frozen model of a trained run is now; None: as it was trained."""

    KEY: ClassVar[str] = "backbone"

    pretrained: str | None = option(None, free=True)
    vae: str | None = option(None, free=True)
    dtype: str | None = option(None, one_of("float32", "bfloat16", "float16"))
    anchor: str | None = None


@dataclass
class PairOptions(Options):
    """Pairs of one's own, or a public set, that are scored."""

    KEY: ClassVar[str] = "data"

    clean: str | None = None
    degraded: str | None = None
    root: str | None = None
    split: str | None = option(None, one_of("test", "train"))
    resize: int | None = option(None, COUNT)
    masks: str | None = None


@dataclass
class Evaluation(Options):
    """The settings of the evaluate command."""

    data: PairOptions
    sampler: SamplerOptions
    backbone: FrozenOptions
    protocol: dict
    task: dict = option({})
    method: str | None = None
    run: str | None = None
    run_root: str = "runs"
    benchmark: str | None = None
    split: str = option("test", one_of("test", "validation"))
    outputs: str | None = None
    row: str | None = None
    metrics: list[str] = option([])
    results: str | None = None
    all_rows: bool = True
    size: int | None = option(160, COUNT)
    limit: int | None = option(None, COUNT)
    save_images: bool = False
    seed: int = option(0, whole(0))
    threads: int | None = option(None, THREADS)
    device: str = "auto"


@dataclass
class Comparison(Options):
    """The settings of the compare command."""

    run: str
    backbone: FrozenOptions
    bridges: list[str] = option([])
    samplers: list[str] = option([])
    spacings: list[str] = option(["time"], each(one_of("time", "logsnr", "karras")))
    starts: list[float] = option(
        [None],
        each(
            Range(lambda v: v is None or POSITIVE.fits(v), "a timestep above 0, or null"),
        ),
    )
    nfe: list[int] = option([3], each(whole(0)))
    split: str = option("test", one_of("test", "validation"))
    size: int | None = option(80, COUNT)
    limit: int | None = option(6, COUNT)
    results: str | None = None
    seed: int = option(0, whole(0))
    threads: int | None = option(None, THREADS)
    device: str = "auto"


@dataclass
class LevelOptions(Options):
    """The law of noise / clean that a prior is trained on."""

    KEY: ClassVar[str] = "levels"

    median: float = option(0.25, POSITIVE)
    spread: float = option(1.1, POSITIVE)
    wide: float = option(0.1, FRACTION)


@dataclass
class PhotographOptions(Options):
    """The photographs that a prior is trained on."""

    KEY: ClassVar[str] = "data"

    train: list[str]
    exclude: str | None = None
    on_device: bool = option(False, free=True)


@dataclass
class Pretraining(Options):
    """The settings of the pretrain command."""

    trainer: TrainerOptions
    levels: LevelOptions
    data: PhotographOptions
    unet: dict
    scheduler: dict
    logger: dict = option(free=True)
    seed: int = option(0, whole(0))
    threads: int | None = option(None, THREADS, free=True)
    name: str = option("prior", free=True)
    run_root: str = option("runs", free=True)
    run: str = option("", free=True)
    start: str | None = option(None, free=True)


@dataclass
class DrawOptions(Options):
    """How many draws of a prior are compared with real images, and how they are made."""

    KEY: ClassVar[str] = "kid"

    samples: int = option(0, whole(0))
    size: int = option(64, COUNT)
    calls: int = option(25, COUNT)
    against: str | None = None
    output: str | None = None
    precision: str = option("float32", one_of("float32", "bf16"))


@dataclass
class PriorScores(Options):
    """The settings of the command that scores a prior as a denoiser, or as a generator."""

    backbone: dict
    kid: DrawOptions
    images: str
    stds: list[float] = option([25], each(POSITIVE))
    classical: bool = True
    seed: int = option(0, whole(0))


COMMANDS = {
    "train": Experiment,
    "benchmark": Benchmark,
    "evaluate": Evaluation,
    "compare": Comparison,
    "pretrain": Pretraining,
    "prior": PriorScores,
}
"""The class of settings of each file in configs/."""


def _classes() -> Iterator[type[Options]]:
    """The classes of settings that a run is described by."""
    for kind in (Experiment, Pretraining, FrozenOptions):
        yield kind
        hints = get_type_hints(kind)
        groups = (_group(hints[at.name]) for at in fields(kind))
        yield from (group for group in groups if is_dataclass(group))


@cache
def free_keys() -> frozenset[str]:
    """The keys that a resumed run may change, as it trains the same."""
    return frozenset(
        joined(kind.KEY, at.name)
        for kind in _classes()
        for at in fields(kind)
        if at.metadata.get("free")
    )


@cache
def added_keys() -> dict[str, Any]:
    """The keys that runs of earlier versions lack, and what these did."""
    return PARTS_ADDED | {
        joined(kind.KEY, at.name): at.default
        for kind in _classes()
        for at in fields(kind)
        if at.metadata.get("added")
    }


def checked(command: str, config: Mapping) -> Options:
    """The settings of a command, typed.

    Args:
        command: a key of :data:`COMMANDS`.
        config: the composed config as plain data. Keys that the class does not know are left
            out: an experiment may have some of its own, from which it makes others.

    Raises:
        UserError: A value has another type or is out of range; the sentence names its key.
    """
    options = made(COMMANDS[command], config)
    for key in PARTS:
        part = _at(config, key)
        if isinstance(part, Mapping) and "_target_" in part:
            instantiate(part, of=key.rpartition(".")[2])
    for key in LATER:
        if isinstance(part := config.get(key), Mapping) and "_target_" in part:
            check_part(part, key)
    return options


def made(kind: type[Options], config: Mapping) -> Options:
    """An object of a class of settings from plain data, its groups made first."""
    hints, given = get_type_hints(kind), {}
    for at in fields(kind):
        key = joined(kind.KEY, at.name)
        if at.name not in config:
            if at.default is MISSING and at.default_factory is MISSING:
                raise UserError(f"{key} has no value; give {key}=... on the command line.")
            continue
        value, group = config[at.name], _group(hints[at.name])
        if group is not None and not isinstance(value, Mapping):
            names = [f"{key}.{name}" for name in _names(group)]
            such = f"; set one of {', '.join(names)}" if names else ""
            raise UserError(f"{key}={value!r} is a group of keys{such}.")
        given[at.name] = made(group, value) if is_dataclass(group) else value
    return kind(**given)


def _group(hint) -> type | None:
    """The class of a group of keys; None of a single value."""
    kinds = getattr(hint, "__args__", None) or (hint,)
    return next((kind for kind in kinds if kind is dict or is_dataclass(kind)), None)


def _names(group: type) -> list[str]:
    return [at.name for at in fields(group)] if is_dataclass(group) else []


def _at(config: Mapping, key: str):
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config
