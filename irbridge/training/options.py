"""How a model is trained."""

from dataclasses import dataclass
from typing import ClassVar

from irbridge.ranges import (
    BATCH,
    CROP,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    PROCESSES,
    SHARE,
    Options,
    each,
    number,
    one_of,
    option,
    whole,
)
from irbridge.training.growth import check_growth

COUNT = whole(1)


@dataclass
class TrainerOptions(Options):
    """The settings of a training; ``configs/trainer`` has sets of them.

    Attributes:
        steps: optimizer steps.
        minutes: how long to train, instead of steps: the first steps tell how many fit.
        stop: leave after so many steps, saved; the same command goes on.
        batch_size: images of one optimizer step, over all processes.
        accumulate: forward passes that one optimizer step takes its images in.
        crop: pixels a side of the training crops.
        grow: from which steps on crops and batches have another size, as a list of entries with
            step, crop and batch_size; None: they stay.
        lr: the highest learning rate.
        betas: AdamW's.
        weight_decay: AdamW's.
        warmup: steps in which the rate rises from 0.
        schedule: of the rate after that.
        flat: share of the steps before a cosine begins to fall.
        last: share of the rate that a cosine ends at.
        clip: the norm that gradients are cut to.
        ema_decay: of the averaged weights, which are the ones that are saved.
        optimizer: adamw8bit is that of bitsandbytes, a quarter of the memory.
        checkpointing: gradient checkpointing: less memory, more time.
        compile: torch.compile of the networks, minutes at the start.
        precision: auto: bf16 where a trial on this machine is faster in it; no: float32.
        device: auto: a GPU where there is one.
        channels_last: the memory format of the networks.
        workers: processes that make crops ahead of the step.
        log_every: steps between lines of metrics.jsonl.
        sample_every: steps between pictures.
        save_every: steps between checkpoints.
        validate_every: steps between scores of the validation images; None: none.
        save_seconds: the longest time between checkpoints.
    """

    KEY: ClassVar[str] = "trainer"

    steps: int = option(1500, COUNT, free=True)
    minutes: float | None = option(None, number(lambda v: v > 0, "of minutes above 0"), free=True)
    stop: int | None = option(None, COUNT, free=True)
    batch_size: int = option(16, whole(1, BATCH))
    accumulate: int = option(1, whole(1, BATCH), free=True)
    crop: int = option(64, whole(1, CROP))
    grow: list | None = option(None, added=True)
    lr: float = option(2e-3, POSITIVE)
    betas: list[float] = option([0.9, 0.99], each(FRACTION, count=2))
    weight_decay: float = option(1e-4, NOT_NEGATIVE)
    warmup: int = option(50, whole(0))
    schedule: str = option("cosine", one_of("cosine", "constant"))
    flat: float = option(0.0, FRACTION, added=True)
    last: float = option(0.01, SHARE, added=True)
    clip: float = option(1.0, POSITIVE)
    ema_decay: float = option(0.995, FRACTION)
    optimizer: str = option("adamw", one_of("adamw", "adamw8bit"), added=True)
    checkpointing: bool = option(False, free=True)
    compile: bool = option(False, free=True)
    precision: str = option("auto", one_of("auto", "no", "bf16", "fp16"))
    device: str = option("auto", one_of("auto", "cpu"), free=True)
    channels_last: bool = option(True)
    workers: int = option(1, whole(0, PROCESSES), free=True)
    log_every: int = option(20, COUNT, free=True)
    sample_every: int = option(300, COUNT, free=True)
    save_every: int = option(300, COUNT, free=True)
    validate_every: int | None = option(None, COUNT, free=True)
    save_seconds: float = option(60.0, POSITIVE, free=True)

    def __post_init__(self):
        super().__post_init__()
        check_growth(self.grow, self.minutes)
