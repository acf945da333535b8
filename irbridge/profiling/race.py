"""How fast this checkout restores and trains, beside another one on the same machine."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from irbridge.assets import CHECKOUT, ROOT
from irbridge.environment import machine
from irbridge.errors import UserError
from irbridge.experiments.config import composed
from irbridge.experiments.schema import Benchmark, BenchmarkOptions
from irbridge.files import read_json
from irbridge.images.io import read_image, write_image
from irbridge.own_files import write_text_result

PARTS = {
    "whole": "whole command, s",
    "start": "to the first network call, s",
    "adapter": "adapter, s",
    "prior": "frozen network, s",
    "decode": "decoding, s",
    "encode": "encoding, s",
    "peak": "peak memory, GB",
}


def race(options: BenchmarkOptions, output: str | None, threads: int | None = None) -> None:
    """Print how long ``irbridge restore`` takes as a whole, and its parts.

    Args:
        options: what is measured.
        output: a .json file for the numbers, or None.
        threads: of the commands; None: as each chooses.

    Raises:
        UserError: the other checkout is none, or a command fails.
    """
    checkouts = _checkouts(options.against)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            photo = _photograph(Path(folder), size)
            runs = {name: [] for name in checkouts}
            # in turn, so that what else the machine does meets both
            for _ in range(options.runs + 1):
                for name, root in checkouts.items():
                    runs[name].append(_run(root, options, photo, Path(folder), threads))
            # the first run, which reads from a cold disk, does not count
            found[size] = {
                name: min(laps[1:], key=lambda lap: lap["whole"]) for name, laps in runs.items()
            }
    print(
        f"irbridge restore task={options.restore}; {machine()}; the fastest of {options.runs}"
        " runs\n"
    )
    print(table(found))
    if output:
        _write(output, {"machine": machine(), "options": asdict(options), "found": found})


def race_training(settings: Benchmark, overrides: list[str], threads: int) -> None:
    """Print how many images a second this checkout and another train, in turn.

    Args:
        settings: of the command; ``benchmark.against`` is the other checkout.
        overrides: the command line's words. The other checkout gets those that it knows, and the
            heading names the rest.
        threads: of the commands.

    Raises:
        UserError: the other checkout is none, or a command fails.
    """
    options = settings.benchmark
    checkouts = _checkouts(options.against)
    words = _training_words(settings, overrides)
    given = {name: _known(root, words) for name, root in checkouts.items()}
    speeds = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.runs):
            for name, root in checkouts.items():
                seconds = _step_seconds(root, given[name], threads, Path(folder) / f"{name}.json")
                speeds[name].append(settings.trainer.batch_size / seconds)
    best = {name: max(found) for name, found in speeds.items()}
    # Older checkouts have one trunk, a U-Net, and no key for it.
    unknown = [
        word for word in words if word not in given["there"] and word != "adapter.trunk=unet"
    ]
    apart = (
        f"; there does not know {' '.join(unknown)}, so the networks or their trainings differ"
        if unknown
        else ""
    )
    print(
        f"training {' '.join(words)}; {machine()}, {threads} thread(s); the fastest step of"
        f" {options.runs} runs{apart}\n"
    )
    print("| | images/s |\n| --- | ---: |")
    for name, speed in best.items():
        print(f"| {name} | {speed:.1f} |")
    print(f"| ratio | {best['here'] / best['there']:.2f} |")
    if settings.output:
        record = {"machine": machine(), "words": words, "images_per_second": speeds}
        _write(settings.output, record)


def _write(output: str, record: dict) -> None:
    write_text_result(output, json.dumps(record, indent=2) + "\n")
    print(f"\nWrote: {output}")


def _training_words(settings: Benchmark, overrides: list[str]) -> list[str]:
    """The words of the benchmark command of a training: these settings', then the overrides."""
    options, trainer = settings.benchmark, settings.trainer
    words = [
        f"task={settings.task.name}",
        f"trainer.batch_size={trainer.batch_size}",
        f"trainer.crop={trainer.crop}",
        f"trainer.device={trainer.device}",
        *(f"benchmark.{key}={getattr(options, key)}" for key in ("steps", "warmup", "size")),
    ]
    if trunk := settings.adapter.get("trunk"):
        words.append(f"adapter.trunk={trunk}")
    # of this command, not of those that it starts
    own = {"benchmark.against", "benchmark.runs", "output", "threads"}
    said = {_key(word) for word in words} | own
    return words + [word for word in overrides if _key(word) not in said]


def _step_seconds(root: Path, words: list[str], threads: int, file: Path) -> float:
    """Seconds of the fastest step of a training.

    Args:
        root: the checkout that trains.
        words: of its benchmark command.
        threads: of the command.
        file: where the command writes its numbers.

    Raises:
        UserError: the command fails.
    """
    program = _script(root)
    ran = subprocess.run(
        [sys.executable, str(program), *words, f"output={file}"],
        cwd=file.parent,
        env=_environment(root, threads),
        text=True,
        capture_output=True,
        check=False,
    )
    if ran.returncode:
        said = (ran.stderr.strip() or ran.stdout).splitlines()[-1]
        raise UserError(f"The command of {root} failed: {said}")
    laps = read_json(file)["training"]["laps"]
    return min(sum(lap.values()) for lap in laps)


def _checkouts(against: str | None) -> dict[str, Path]:
    """This checkout, "here", and the one beside it, "there", where it is given."""
    if CHECKOUT is None:
        raise UserError(
            "The races of benchmark.restore and benchmark.train run checkouts of the code, and this"
            " is an installed package; run them in a clone of the repository."
        )
    if not against:
        return {"here": CHECKOUT}
    other = Path(against).expanduser().resolve()
    if not (other / "irbridge" / "cli.py").is_file():
        raise UserError(
            f"benchmark.against={against} is no checkout of irbridge; give the folder above its"
            " folder irbridge."
        )
    return {"here": CHECKOUT, "there": other}


def _script(root: Path) -> Path:
    """The script of a checkout that measures the training; older ones call it benchmark."""
    present = root / "scripts" / "profile_speed.py"
    return present if present.is_file() else root / "scripts" / "benchmark.py"


def _key(word: str) -> str:
    """The key that a word of the command line sets."""
    return word.partition("=")[0].lstrip("+~")


def _known(root: Path, words: list[str]) -> list[str]:
    """The words that a checkout's benchmark command knows.

    These are keys of its config, and files of its groups of configs.
    """
    configs = root / "configs"
    files = [
        word
        for word in words
        if (configs / _key(word) / f"{word.partition('=')[2]}.yaml").is_file()
    ]
    config = composed("benchmark", *files, folder=configs, resolve=False)

    def known(word: str) -> bool:
        if word in files or word[0] in "+~":
            return True
        is_group = (configs / _key(word)).is_dir()
        return not is_group and _has(config, _key(word))

    return [word for word in words if known(word)]


def _has(config: Mapping, key: str) -> bool:
    """Whether a config has a dotted key, with or without a value."""
    *groups, last = key.split(".")
    for group in groups:
        # the list, as a config's own ``in`` leaves out keys without a value
        if not isinstance(config, Mapping) or group not in list(config):
            return False
        config = config[group]
    return isinstance(config, Mapping) and last in list(config)


def _environment(root: Path, threads: int | None) -> dict[str, str]:
    """What a command of a checkout runs in; older ones have no threads=."""
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    return environment | {"OMP_NUM_THREADS": str(threads)} if threads else environment


def _photograph(folder: Path, size: int) -> Path:
    """A photograph of ``size`` x ``size`` pixels with fine texture, as cameras give it."""
    source = read_image(min((ROOT / "data" / "samples" / "test").glob("*.jpg")))
    enlarged = Image.fromarray((source * 255).astype(np.uint8)).resize((size, size), Image.BICUBIC)
    large = np.asarray(enlarged, np.float32)
    grain = np.random.default_rng(0).normal(0, 4, large.shape)
    path = folder / f"photo{size}.png"
    write_image(path, (large + grain) / 255)
    return path


def _run(
    root: Path, options: BenchmarkOptions, photo: Path, folder: Path, threads: int | None
) -> dict:
    """One restore command in a process of its own.

    Returns:
        The seconds of ``PARTS`` and the peak of physical memory in GB; ``tile`` and ``precision``
        that the command chose.
    """
    with tempfile.TemporaryDirectory(dir=folder) as made:
        words = [f"task={options.restore}", f"input={photo}", f"output={made}"]
        if options.calls is not None:
            words.append(f"steps={options.calls}")
        program, clock = Path(__file__).with_name("stopwatch.py"), Path(made) / "clock.json"
        started = time.time()
        child = subprocess.Popen(
            [sys.executable, str(program), str(started), str(clock), *words],
            cwd=folder,
            env=_environment(root, threads),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        whole = time.time() - started
        if child.returncode:
            raise UserError(f"The command of {root} failed: {said.strip().splitlines()[-1]}")
        record = read_json(next(Path(made).glob("restored-*.json")))["files"][0]
        return {
            "whole": whole,
            **json.loads(clock.read_text("utf-8")),
            "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9,
            "tile": record["tiles"] if "tiles" in record else record.get("tile"),
            "precision": record.get("precision", "float32"),
        }


def table(found: dict[int, dict[str, dict]]) -> str:
    """The numbers as Markdown, with the ratios of two checkouts.

    Args:
        found: size -> checkout ("here", "there") -> numbers of :func:`_run`.
    """
    heading = [""]
    for size, runs in found.items():
        names = [*runs, "ratio"] if len(runs) > 1 else [*runs]
        heading += [f"{size} px, {name}" for name in names]
    rows = [heading, ["---", *["---:"] * (len(heading) - 1)]]
    for part, label in PARTS.items():
        row = [label]
        for runs in found.values():
            row += _numbers([lap.get(part) for lap in runs.values()])
        rows.append(row)
    for key in ("precision", "tile"):
        row = [key]
        for runs in found.values():
            row += [_word(lap[key]) for lap in runs.values()]
            row += [""] * (len(runs) > 1)
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _numbers(values: list[float | None]) -> list[str]:
    """The cells of one or two checkouts' numbers; of two the ratio as well."""
    cells = ["-" if value is None else f"{value:.2f}" for value in values]
    if len(values) > 1:
        cells.append(f"{values[1] / values[0]:.1f}" if all(values) else "-")
    return cells


def _word(value) -> str:
    """A precision, or a tile: None for a whole image, a side, or [height, width]."""
    if value is None:
        return "whole"
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)
