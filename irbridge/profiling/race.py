"""How long the command ``irbridge restore`` takes as a whole, and its parts, beside another
checkout's on the same machine.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from PIL import Image

from irbridge.assets import ROOT
from irbridge.environment import machine
from irbridge.errors import UserError
from irbridge.experiments.config import composed
from irbridge.files import read_json, write_json
from irbridge.images.io import read_image, write_image

PARTS = {
    "whole": "whole command, s",
    "start": "to the first network call, s",
    "adapter": "adapter, s",
    "prior": "frozen network, s",
    "decode": "decoding, s",
    "encode": "encoding, s",
    "peak": "peak memory, GB",
}


def race(options: dict, output: str | None, threads: int | None = None) -> None:
    """Print a table of the ``benchmark`` config ``options``; ``output``: a .json file for the
    numbers; ``threads``: of the commands, None: as each chooses. UserError if the other checkout is
    none, or a command fails.
    """
    checkouts, found = _checkouts(options["against"]), {}
    with tempfile.TemporaryDirectory() as folder:
        for size in options["sizes"]:
            photo = _photograph(Path(folder), size)
            runs = {name: [] for name in checkouts}
            # in turn, so that what else the machine does meets both
            for _ in range(options["runs"] + 1):
                for name, root in checkouts.items():
                    runs[name].append(_run(root, options, photo, Path(folder), threads))
            found[size] = {
                name: min(laps[1:], key=lambda lap: lap["whole"]) for name, laps in runs.items()
            }
    print(
        f"irbridge restore task={options['restore']}; {machine()}; the fastest of {options['runs']}"
        " runs\n"
    )
    print(table(found))
    if output:
        write_json(Path(output), {"machine": machine(), "options": options, "found": found})
        print(f"\nWrote: {output}")


def race_training(config: dict, overrides: list[str], threads: int) -> None:
    """Print how many images a second this checkout and ``benchmark.against`` train, in turn, as the
    command line's ``overrides`` say. The other gets those that it knows, and the heading names the
    rest. UserError if it is no checkout, or a command fails.
    """
    options, trainer, checkouts = (
        config["benchmark"],
        config["trainer"],
        _checkouts(config["benchmark"]["against"]),
    )
    words = [
        f"task={config['task']['name']}",
        f"method={config['method']}",
        f"trainer.batch_size={trainer['batch_size']}",
        f"trainer.crop={trainer['crop']}",
        f"trainer.device={trainer['device']}",
        *(f"benchmark.{key}={options[key]}" for key in ("steps", "warmup", "size")),
    ]
    if trunk := config["adapter"].get("trunk"):
        words.append(f"adapter.trunk={trunk}")
    said = {_key(word) for word in words} | {
        "benchmark.against",
        "benchmark.runs",
        "output",
        "threads",
    }
    words += [word for word in overrides if _key(word) not in said]
    given = {name: _known(root, words) for name, root in checkouts.items()}
    speeds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options["runs"]):
            for name, root in checkouts.items():
                file = Path(folder) / f"{name}.json"
                command = [
                    sys.executable,
                    str(_script(root)),
                    *given[name],
                    f"output={file}",
                ]
                ran = subprocess.run(
                    command,
                    cwd=folder,
                    env=_environment(root, threads),
                    text=True,
                    capture_output=True,
                    check=False,
                )
                if ran.returncode:
                    raise UserError(
                        f"The command of {root} failed:"
                        f" {(ran.stderr.strip() or ran.stdout).splitlines()[-1]}"
                    )
                laps = read_json(file)["training"]["laps"]
                speeds.setdefault(name, []).append(
                    trainer["batch_size"] / min(sum(lap.values()) for lap in laps)
                )
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
        f" {options['runs']} runs{apart}\n"
    )
    print(
        "| | images/s |\n| --- | ---: |\n"
        + "\n".join(f"| {name} | {speed:.1f} |" for name, speed in best.items())
    )
    print(f"| ratio | {best['here'] / best['there']:.2f} |")
    if config["output"]:
        write_json(
            Path(config["output"]),
            {"machine": machine(), "words": words, "images_per_second": speeds},
        )
        print(f"\nWrote: {config['output']}")


def _checkouts(against: str | None) -> dict[str, Path]:
    """This checkout, "here", and the one beside it, "there", where it is given."""
    if not against:
        return {"here": ROOT}
    other = Path(against).expanduser().resolve()
    if not (other / "irbridge" / "cli.py").is_file():
        raise UserError(
            f"benchmark.against={against} is no checkout of irbridge; give the folder above its"
            " folder irbridge."
        )
    return {"here": ROOT, "there": other}


def _script(root: Path) -> Path:
    """The script of a checkout that measures the training; older ones call it benchmark."""
    present = root / "scripts" / "profile_speed.py"
    return present if present.is_file() else root / "scripts" / "benchmark.py"


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _known(root: Path, words: list[str]) -> list[str]:
    """The words that a checkout's benchmark command knows: keys of its config, and files of its
    groups of configs.
    """
    configs = root / "configs"
    files = [
        word
        for word in words
        if (configs / _key(word) / f"{word.partition('=')[2]}.yaml").is_file()
    ]
    keys = OmegaConf.to_container(composed("benchmark", *files, folder=configs), resolve=False)

    def has(word: str) -> bool:
        at = keys
        for part in _key(word).split("."):
            if not isinstance(at, dict) or part not in at:
                return False
            at = at[part]
        return not (configs / _key(word)).is_dir()

    return [word for word in words if word in files or word[0] in "+~" or has(word)]


def _environment(root: Path, threads: int | None) -> dict[str, str]:
    """What a command of a checkout runs in; older ones have no threads=."""
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return (
        os.environ | {"PYTHONPATH": path} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    )


def _photograph(folder: Path, size: int) -> Path:
    """A photograph of ``size`` x ``size`` pixels, larger ones enlarged, with fine texture as
    cameras give it.
    """
    source = read_image(next(iter(sorted((ROOT / "data" / "samples" / "test").glob("*.jpg")))))
    large = np.asarray(
        Image.fromarray((source * 255).astype(np.uint8)).resize((size, size), Image.BICUBIC),
        np.float32,
    )
    grain = np.random.default_rng(0).normal(0, 4, large.shape)
    path = folder / f"photo{size}.png"
    write_image(path, (large + grain) / 255)
    return path


def _run(root: Path, options: dict, photo: Path, folder: Path, threads: int | None) -> dict:
    """One command in a process of its own: its seconds, what it used, and its peak of physical
    memory.
    """
    with tempfile.TemporaryDirectory(dir=folder) as made:
        words = [f"task={options['restore']}", f"input={photo}", f"output={made}"]
        words += [f"steps={options['calls']}"] * (options["calls"] is not None)
        clock, started = Path(made) / "clock.json", time.time()
        child = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("stopwatch.py")),
                str(started),
                str(clock),
                *words,
            ],
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
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
        tile = record["tiles"] if "tiles" in record else record.get("tile")
        return {
            "whole": whole,
            **json.loads(clock.read_text()),
            "peak": peak,
            "tile": tile,
            "precision": record.get("precision", "float32"),
        }


def table(found: dict[int, dict[str, dict]]) -> str:
    """Size -> checkout ("here", "there") -> numbers, as Markdown, with the ratios of the two."""
    rows = [
        [
            "",
            *(
                f"{size} px, {name}"
                for size, runs in found.items()
                for name in (*runs, *["ratio"] * (len(runs) > 1))
            ),
        ]
    ]
    for part, label in PARTS.items():
        cells = []
        for runs in found.values():
            values = [lap.get(part) for lap in runs.values()]
            cells += ["-" if value is None else f"{value:.2f}" for value in values]
            if len(values) > 1:
                cells.append(f"{values[1] / values[0]:.1f}" if all(values) else "-")
        rows.append([label, *cells])
    for key in ("precision", "tile"):
        rows.append(
            [
                key,
                *(
                    cell
                    for runs in found.values()
                    for cell in (
                        *(_word(lap[key]) for lap in runs.values()),
                        *[""] * (len(runs) > 1),
                    )
                ),
            ]
        )
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _word(value) -> str:
    return (
        "whole"
        if value is None
        else " x ".join(map(str, value))
        if isinstance(value, list)
        else str(value)
    )
