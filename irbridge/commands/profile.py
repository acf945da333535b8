"""Where the time and memory of training and restoring go."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from irbridge.environment import device, machine, peak_memory, reset_peak, set_threads
from irbridge.experiments.build import build_model, trainer_options
from irbridge.experiments.config import given_words
from irbridge.experiments.schema import Benchmark, made
from irbridge.models.restorer import Restorer
from irbridge.own_files import check_writable, write_text_result
from irbridge.profiling.clock import NETWORKS, PARTS, Clock, watched
from irbridge.profiling.flops import cost, in_words
from irbridge.profiling.race import race, race_training
from irbridge.profiling.throughput import Step, Timing, fit, report
from irbridge.ranges import LARGEST, MOST
from irbridge.training.options import TrainerOptions
from irbridge.training.trainer import Trainer


class _Crops(Dataset):
    """One pair of random crops at every draw: reading and degrading images is not measured."""

    def __init__(self, crop: int, masked: bool):
        self.pair = (
            torch.rand(2, 3 + masked, crop, crop, generator=torch.Generator().manual_seed(0)) * 2
            - 1
        )

    def __getitem__(self, draw: int) -> dict:
        return {"clean": self.pair[0, :3], "degraded": self.pair[1], "draw": draw}


class _Enough(Exception):
    pass


def time_training(
    model: Restorer,
    options: TrainerOptions,
    steps: int,
    warmup: int = 1,
    seed: int = 0,
    now: Callable[[], float] = time.perf_counter,
) -> list[dict[str, float]]:
    """Seconds of each part in each of ``steps`` steps of a training after ``warmup`` others.

    Args:
        model: to train.
        options: of the training. Crops are random. Nothing is saved: the loop is left by an
            exception.
        steps: that are timed.
        warmup: others before them.
        seed: of the noise.
        now: the clock that is read.
    """
    options = replace(
        options,
        steps=warmup + steps + 1,
        stop=None,
        grow=None,
        workers=0,
        save_every=MOST,
        sample_every=MOST,
        log_every=MOST,
        save_seconds=LARGEST,
    )
    clock, laps = Clock(device(options.device), now), []

    @contextmanager
    def watch(part):
        with clock(part):
            yield
        if part == "optimizer":
            laps.append(clock.lap())
            if len(laps) == warmup + steps:
                raise _Enough

    with tempfile.TemporaryDirectory() as folder, watched(model, clock), suppress(_Enough):
        Trainer(
            model,
            _Crops(options.crop, model.masked),
            options,
            seed,
            Path(folder),
            watch=watch,
        ).run()
    return laps[warmup:]


def time_restoring(
    model: Restorer, size: int, batch: int, times: int, warmup: int = 1
) -> list[dict[str, float]]:
    """Seconds of each part of restorations, with all of their network calls.

    Args:
        model: that restores.
        size: pixels a side of the random images.
        batch: how many images at once.
        times: how many restorations are measured.
        warmup: how many others come before.

    Returns:
        Of each restoration, the seconds by part.
    """
    at = next(model.parameters()).device
    clock, laps = Clock(at), []
    images = (
        torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ).to(at)
    model.eval()
    with watched(model, clock):
        clock.lap()
        for _ in range(warmup + times):
            mask = images[:, :1] > 0 if model.masked else None
            model.restore(images, mask=mask, **model.told(images))
            laps.append(clock.lap())
    return laps[warmup:]


def summary(laps: list[dict[str, float]], images: int, peak: int, gflops: dict[str, float]) -> dict:
    """Means over laps of ``images`` images each.

    Returns:
        Seconds and shares of the parts, the bridge's share of the networks' time, images a second,
        the peak memory in MiB, GFLOPs a lap.
    """
    seconds = {part: sum(lap.get(part, 0.0) for lap in laps) / len(laps) for part in PARTS}
    total, networks = sum(seconds.values()), sum(seconds[part] for part in NETWORKS)
    return {
        "seconds": seconds,
        "share": {part: s / total for part, s in seconds.items()},
        "total": total,
        "rest_of_networks": seconds["rest"] / networks,
        "images_per_second": images / total,
        "images": images,
        "peak_mib": peak / 2**20,
        "gflops": gflops,
        "laps": laps,
    }


def benchmark(config: dict) -> dict:
    """Measure a model as the config of the benchmark command says.

    Returns:
        ``training`` and ``restoring``, each a :func:`summary`, ``cost`` in words and ``machine``.
    """
    options, trainer = config["benchmark"], trainer_options(config)
    at = device(trainer.device)
    # without the anchor's own first phase
    whole = config | {"loss": config["loss"] | {"anchor_first": 0.0}}
    model = build_model(whole).to(at)
    small, large = cost(model, trainer.crop), cost(model, options["size"])
    result = {
        "cost": in_words(type(model.trainable()).__name__, small),
        "machine": f"{machine()}, {at.type}, {torch.get_num_threads()} thread(s)",
        "torch": torch.__version__,
    }
    reset_peak(at)
    laps = time_training(model, trainer, options["steps"], options["warmup"], config["seed"])
    batch = trainer.batch_size
    result["training"] = summary(laps, batch, peak_memory(at), _work(small, batch))
    reset_peak(at)
    laps = time_restoring(
        model, options["size"], options["batch"], options["steps"], options["warmup"]
    )
    # whose pass is no call
    batch, anchored = options["batch"], getattr(model, "endpoint", None) == "anchor"
    return result | {
        "restoring": summary(
            laps, batch, peak_memory(at), _work(large, batch, model.passes() - anchored)
        )
    }


def _work(c: dict, images: int, calls: int = 1) -> dict[str, float]:
    once = 1 if c["frozen"] else calls
    return {
        "adapter": images * (once * c["condition"] + calls * c["residuals"]),
        "network": images * calls * c["network"],
    }


def table(result: dict, headings: dict[str, str]) -> str:
    """A :func:`benchmark` as Markdown; ``headings`` of "training" and "restoring"."""
    sides = [result[side] for side in headings]
    rows = [["", *(cell for heading in headings.values() for cell in (f"{heading}, s", "share"))]]
    for part, label in PARTS.items():
        if any(side["seconds"][part] for side in sides):
            rows.append(
                [
                    label,
                    *(
                        cell
                        for s in sides
                        for cell in (f"{s['seconds'][part]:.4f}", f"{s['share'][part]:.1%}")
                    ),
                ]
            )
    rows.append(["all", *(cell for s in sides for cell in (f"{s['total']:.4f}", ""))])
    for label, value in (
        ("images/s", lambda s: f"{s['images_per_second']:.3g}"),
        ("peak memory, MiB", lambda s: f"{s['peak_mib']:.0f}"),
        ("GFLOPs, adapter, forward", lambda s: f"{s['gflops']['adapter']:.3g}"),
        ("GFLOPs, frozen network, forward", lambda s: f"{s['gflops']['network']:.3g}"),
        ("bridge and loop : networks", lambda s: f"{s['rest_of_networks']:.2%}"),
    ):
        rows.append([label, *(cell for s in sides for cell in (value(s), ""))])
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def time_grid(config: dict) -> tuple[list[Timing], str]:
    """Time training steps of every width, crop and batch that the config asks for.

    Where one thread computes, its own processor seconds are counted: what else runs on the machine
    takes none of them. Else it is the time that passes.

    Returns:
        The timings, and in words how their seconds were measured.
    """
    options, trainer = config["benchmark"], trainer_options(config)
    at = device(trainer.device)
    own = at.type == "cpu" and torch.get_num_threads() == 1
    now = time.process_time if own else time.perf_counter
    began, worked, timings = time.perf_counter(), time.process_time(), []
    for width in options["widths"] or [None]:
        changed = {} if width is None else {"adapter": config["adapter"] | {"width": width}}
        # without the anchor's own first phase
        loss = config["loss"] | {"anchor_first": 0.0}
        model = build_model(config | changed | {"loss": loss}).to(at)
        for crop in options["crops"]:
            spent = cost(model, crop)
            # backward: a gradient of the weights and one of the input, which is all that a frozen
            # network has
            gflops = 3 * (spent["condition"] + spent["residuals"]) + 2 * spent["network"]
            for batch in options["batches"]:
                step = Step(spent["trainable"] / 1e6, gflops, crop, batch)
                chosen = replace(trainer, crop=crop, batch_size=batch)
                laps = time_training(
                    model, chosen, options["steps"], options["warmup"], config["seed"], now
                )
                seconds = statistics.median(sum(lap.values()) for lap in laps)
                name = f"{step.weights:.2f} M weights"
                timings.append(Timing(name, step, seconds))
    if not own:
        return timings, "seconds as they pass"
    share = (time.process_time() - worked) / (time.perf_counter() - began)
    return timings, f"seconds of its own processor time; it had {share:.0%} of a core"


def throughput(config: dict, output: str | None) -> None:
    """Fit images a second to timed training steps, and print that."""
    timings, how = time_grid(config)
    steps = config["benchmark"]["steps"]
    print(
        f"{machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}; medians of"
        f" {steps} steps, {how}\n\n{report(timings)}"
    )
    if output:
        record = {
            "machine": machine(),
            "how": how,
            "fit": asdict(fit(timings)),
            "timings": [
                {"network": name, "seconds": seconds, **step._asdict()}
                for name, step, seconds in timings
            ],
        }
        write_text_result(output, json.dumps(record | {"config": config}, indent=2) + "\n")
        print(f"\nWrote: {output}")


def profile_run(config: dict) -> None:
    """The command ``irbridge profile``."""
    settings = made(Benchmark, config)
    if settings.output:  # before hours of measuring
        check_writable(settings.output)
    if settings.benchmark.restore:
        return race(settings.benchmark, settings.output, settings.threads)
    threads = set_threads(config["threads"])
    if settings.benchmark.against:
        return race_training(settings, given_words(), threads)
    if settings.benchmark.throughput:
        return throughput(config, settings.output)
    result, trainer, options = benchmark(config), config["trainer"], config["benchmark"]
    print(result["cost"] + "\n" + f"{result['machine']}, torch {result['torch']}\n")
    print(
        table(
            result,
            {
                "training": f"training {trainer['batch_size']} x {trainer['crop']} px",
                "restoring": f"restoring {options['batch']} x {options['size']} px",
            },
        )
    )
    if output := config["output"]:
        write_text_result(output, json.dumps(result | {"config": config}, indent=2) + "\n")
        print(f"\nWrote: {output}")
