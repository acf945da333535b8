"""The settings of the commands, typed: one class a group of keys, the keys as in the YAML files.

:func:`checked` makes the object of a command from its composed config. What a bridge, an adapter or
another part takes stands in that part's own class, and the part checks it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, ClassVar, get_type_hints

from irbridge.assets import CONFIGS
from irbridge.errors import UserError, unknown
from irbridge.experiments.instantiate import check_part, instantiate
from irbridge.models.loss_options import LossOptions
from irbridge.models.refine_options import RefineOptions
from irbridge.ranges import (
    BATCH,
    CALLS,
    CROP,
    FALLING,
    FRACTION,
    HORIZON,
    NAME,
    PLACE,
    POSITIVE,
    SAMPLES,
    SEED,
    SIDE,
    THREADS,
    WIDTH,
    Options,
    Range,
    check_values,
    each,
    joined,
    one_of,
    option,
    whole,
)
from irbridge.samplers import make
from irbridge.training.options import TrainerOptions

ADDED = re.compile(r"\+{1,2}([\w.]+)=")  # a word that adds a key
COUNT = whole(1)
EDGE = whole(1, SIDE)  # of an image, in pixels
NFE = whole(0, CALLS)
PARTS = "bridge", "timesteps", "task.degradation", "task.protocol"  # built at once to be checked
LATER = "adapter", "backbone"  # need a network, which is loaded later
# what parts of runs of earlier versions lack, and what these did
PARTS_ADDED = {
    "adapter.masked": False,
    "adapter.trunk": "unet",
    "backbone._target_": "irbridge.backbones.pixel.load_backbone",
    "backbone.dtype": "float32",
    "task.degradation.each_step": False,
    "task.degradation.scale": 1.0,
    "task.degradation.noise": [0.0, 0.0],
}


@dataclass
class SamplerOptions(Options):
    """The fields of a sampler that differ from what the task, the bridge or the run says."""

    KEY: ClassVar[str] = "sampler"

    steps: int | None = option(None, NFE)
    nfe: int | None = option(None, NFE)
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
    each_step: bool = option(False, added=True)
    exclude: str | None = option(None, PLACE)
    validation: int | str | None = option(
        None,
        Range(
            lambda v: PLACE.fits(v) if isinstance(v, str) else whole(2).fits(v),
            "a whole number, 2 or more, or a folder",
        ),
    )
    people: bool = option(False, added=True)
    benchmark: str | None = None
    root: str | None = option(None, PLACE)
    test_benchmark: str | None = None
    test_root: str | None = option(None, PLACE)
    masks: str | None = option(None, PLACE)
    resize: int | None = option(None, EDGE)
    stand_in: bool = option(False, added=True)
    on_device: bool = option(False, free=True, added=True)
    cache_latents: bool = option(False, added=True)
    folder: str | None = option(None, PLACE, free=True)
    train: str | None = option(None, PLACE)
    test: str | None = option(None, PLACE)
    clean: str | None = option(None, PLACE)
    degraded: str | None = option(None, PLACE)
    test_clean: str | None = option(None, PLACE)
    test_degraded: str | None = option(None, PLACE)
    hold_out: int = option(10, whole(2))


@dataclass
class ScoringOptions(Options):
    """How a trained run is scored."""

    KEY: ClassVar[str] = "evaluate"

    enabled: bool = True
    size: int | None = option(160, EDGE)
    limit: int | None = option(None, COUNT)
    all_rows: bool = True
    save_images: bool = False
    kid: bool = option(False, added=True)
    real: str | None = option(None, PLACE)
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

    name: str | None = option(None, NAME)
    level: float = option(30.0, POSITIVE)
    # a suggestion to bridge=ebridge, whose own horizon says how a run trains
    horizon: float = option(0.9, HORIZON, free=True)
    # a suggestion to trainer, of several tasks that share each step
    batch_size: int | None = option(None, whole(1, BATCH), free=True)
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
    refine: RefineOptions | None = None  # of recipe=refine
    method: str = "irbridge"
    endpoint: str = "anchor"
    teacher: str | None = option(None, PLACE, added=True)
    stage: int | None = option(None, whole(1, 2), added=True)
    stage1: str | None = option(None, PLACE, added=True)
    hidiff: Any = option(None, added=True)  # the sizes of method=hidiff
    seed: int = option(0, SEED)
    threads: int | None = option(None, THREADS, free=True)
    name: str = option("none", NAME, free=True)
    run_root: str = option("runs", PLACE, free=True)
    run: str = option("", free=True)
    reuse: str | None = option(None, PLACE)
    overwrite: bool = option(False, free=True)
    start: str | None = option(None, PLACE, free=True)
    baseline: bool = option(True, free=True)
    ship: Any = option(None, free=True)  # what experiment=ship makes data.mix of
    paper: Any = option(None, free=True)  # what the rows of the paper make their names of


@dataclass
class BenchmarkOptions(Options):
    """What the stopwatch measures."""

    KEY: ClassVar[str] = "benchmark"

    steps: int = option(10, COUNT)
    warmup: int = option(3, COUNT)
    size: int = option(256, EDGE)
    batch: int = option(1, whole(1, BATCH))
    restore: str | None = option(None, PLACE)
    sizes: list[int] = option([512, 1024], each(EDGE))
    calls: int | None = option(None, NFE)
    runs: int = option(3, COUNT)
    against: str | None = option(None, PLACE)
    throughput: bool = option(False)
    crops: list[int] = option([32, 64, 96], each(whole(1, CROP)))
    batches: list[int] = option([2, 4, 8], each(whole(1, BATCH)))
    widths: list[int] | None = option(None, each(whole(1, WIDTH)))


@dataclass
class Benchmark(Experiment):
    """The settings of the benchmark command: those of a run, and what is measured of it."""

    benchmark: BenchmarkOptions | None = None
    output: str | None = option(None, PLACE)


@dataclass
class FrozenOptions(Options):
    """Where the frozen model of a trained run is now; None: as it was trained."""

    KEY: ClassVar[str] = "backbone"

    pretrained: str | None = option(None, PLACE, free=True)
    vae: str | None = option(None, PLACE, free=True)
    dtype: str | None = option(None, one_of("float32", "bfloat16", "float16"))
    anchor: str | None = option(None, PLACE)


@dataclass
class PairOptions(Options):
    """Pairs of one's own, or a public set, that are scored."""

    KEY: ClassVar[str] = "data"

    clean: str | None = option(None, PLACE)
    degraded: str | None = option(None, PLACE)
    root: str | None = option(None, PLACE)
    split: str | None = option(None, one_of("test", "train"))
    resize: int | None = option(None, EDGE)
    masks: str | None = option(None, PLACE)


@dataclass
class Evaluation(Options):
    """The settings of the evaluate command."""

    data: PairOptions
    sampler: SamplerOptions
    backbone: FrozenOptions
    protocol: dict
    task: dict = option({})
    method: str | None = None
    run: str | None = option(None, PLACE)
    run_root: str = option("runs", PLACE)
    benchmark: str | None = None
    split: str = option("test", one_of("test", "validation"))
    jpeg: int | None = option(None, whole(1, 100))
    outputs: str | None = option(None, PLACE)
    row: str | None = None
    samples: int | None = option(None, SAMPLES)
    metrics: list[str] = option([])
    results: str | None = option(None, PLACE)
    all_rows: bool = True
    size: int | None = option(160, EDGE)
    limit: int | None = option(None, COUNT)
    save_images: bool = False
    seed: int = option(0, SEED)
    threads: int | None = option(None, THREADS)
    device: str = "auto"


@dataclass
class Comparison(Options):
    """The settings of the compare command."""

    run: str = option(fits=PLACE)
    backbone: FrozenOptions
    bridges: list[str] = option([])
    samplers: list[str] = option([])
    spacings: list[str] = option(["time"], each(one_of("time", "logsnr", "karras")))
    starts: list[float | None] = option(
        [None],
        each(
            Range(lambda v: v is None or POSITIVE.fits(v), "a timestep above 0, or null"),
        ),
    )
    nfe: list[int] = option([3], each(NFE))
    split: str = option("test", one_of("test", "validation"))
    size: int | None = option(80, EDGE)
    limit: int | None = option(6, COUNT)
    results: str | None = option(None, PLACE)
    seed: int = option(0, SEED)
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

    train: list[str] = option(fits=each(PLACE))
    exclude: str | None = option(None, PLACE)
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
    seed: int = option(0, SEED)
    threads: int | None = option(None, THREADS, free=True)
    name: str = option("prior", NAME, free=True)
    run_root: str = option("runs", PLACE, free=True)
    run: str = option("", free=True)
    start: str | None = option(None, PLACE, free=True)


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
    images: str = option(fits=PLACE)
    stds: list[float] = option([25], each(POSITIVE))
    classical: bool = True
    seed: int = option(0, SEED)


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
    if isinstance(backbone := config.get("backbone"), Mapping):
        check_values(dict.fromkeys(("pretrained", "vae"), PLACE), backbone, "backbone")
    return options


def check_added(command: str, words: Iterable[str]) -> None:
    """Refuse ``+key=value`` of a key that the command does not read.

    Hydra takes it, and nothing would come of it. Groups that hold what a class outside takes, such
    as ``unet`` or a sampler, may have any keys, as may those of an experiment of one's own.

    Args:
        command: a key of :data:`COMMANDS`.
        words: of the command line.

    Raises:
        UserError: it names the key, and the nearest one where one is close.
    """
    for word in words:
        if not (added := ADDED.match(word)):
            continue
        kind, names = COMMANDS[command], added[1].split(".")
        for depth, name in enumerate(names):
            known = [] if kind in (None, SamplerOptions) else _names(kind)
            if not known or name in known:
                kind = _group(get_type_hints(kind)[name]) if known else None
            elif depth or (len(names) == 1 and not (CONFIGS / name).is_dir()):
                of = ".".join(names[:depth]) or "The command"
                raise unknown(f"{of} has no {name}", name, known, "see the keys with --cfg job")
            else:
                break


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
