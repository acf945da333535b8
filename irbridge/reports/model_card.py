"""A trained run as a folder to hand on: half-precision weights, both configs, a picture and a model
card.
"""

import json
from pathlib import Path
from typing import NamedTuple

from irbridge.adapters.pretrained_anchor import PREFIX
from irbridge.assets import find
from irbridge.data.image_source import ImageSource
from irbridge.errors import UserError
from irbridge.files import read_json
from irbridge.training.checkpoint import Checkpoints

# of the trainer's machine, of no use to others
PRIVATE = "run", "run_root", "name", "logger", "start", "ship"


class Done(NamedTuple):
    """A training: its crops in words, its minutes of one core and by the clock, and its precision,
    None: not recorded.
    """

    crops: str
    core: float
    clock: float
    precision: str | None = None


def history(run: Path) -> Done:
    """A run's training and those whose weights it started from, up to its weights. An exported
    folder has no metrics: it is named, and its minutes are not counted.
    """
    settings = read_json(run / "run.json")
    trainer, last, before = settings["trainer"], _last(run), Done("", 0.0, 0.0)
    if settings.get("start"):
        start = find(settings["start"])
        before = (
            history(start)
            if (start / "metrics.jsonl").exists()
            else Done(f"the weights of {start.name}", 0.0, 0.0)
        )
        before = before._replace(crops=f"{before.crops}, then ")
    words = (
        f"{last['step']} steps of {trainer['batch_size']} crops of {trainer['crop']} px: "
        f"{last['step'] * trainer['batch_size']} crops"
    )
    return Done(
        before.crops + words,
        before.core + last["cpu_seconds"] / 60,
        before.clock + last["seconds"] / 60,
        last.get("precision"),
    )


def card(
    settings: dict, config: dict, done: Done, parameters: int, tables: str, options: dict
) -> str:
    """The model card, Markdown. ``done``: the :func:`history` of the run; ``tables``: scores with
    their protocol; ``options["weak"]``: what it is bad at; ``options["machine"]``: what it was
    trained on.
    """
    task, anchor = settings["task"]["name"], config["adapter"].get("anchor")
    prior, digest = (
        config["backbone"]["pretrained"] or "the embedded prior (`data/prior`)",
        config["backbone"].get("digest"),
    )
    prior += f", SHA-256 {digest[:12]}" if digest else "; g(y) alone was trained, without it"
    own = ""
    if isinstance(anchor, str):
        digest = config["adapter"]["anchor_digest"]
        own = (
            f"| Anchor g(y) | {anchor.removeprefix(PREFIX)}, pretrained, SHA-256 {digest[:12]} |\n"
        )
    command = (
        f"irbridge restore task={task} input=photo.jpg"
        if options["shipped"]
        else f"irbridge restore run={without_paths(options['output'])} input=photo.jpg"
    )
    starts = [c["timesteps"].get("start") for c in (config, settings)]
    level = (
        f"| Prior's timesteps | from {starts[0]:g}, trained from {starts[1]:g} |\n"
        if None not in starts
        else ""
    )
    computed = (
        f"in {'float32' if done.precision == 'no' else done.precision}; " if done.precision else ""
    )
    bridge = config["bridge"]["_target_"].rsplit(".", 1)[-1]
    return f"""# {task}: {config["method"]}, {bridge} bridge, end {config["endpoint"]}

![degraded, each network call, restored, clean](restored.jpg)

Use: `{command}`. Every key is in `run.json`.

| | |
|---|---|
| Frozen prior | {prior} |
{own}| Calls of it | {calls_in_words(config)} |
| Half precision | at most {config.get("bf16_error", 0):.2f} of 255 off |
{level}| Trained | {parameters / 1e6:.2f} M parameters, stored as float16 |
| Data | {data_in_words(settings)} |
| Training | {done.crops}; {computed}seed {settings["seed"]} |
| Time | {done.core:.0f} core minutes, {done.clock:.0f} minutes by the clock |
| Machine | {options["machine"]} |

## Scores

{tables or "None were given."}

## What it is bad at

{options["weak"]}

For research use, as the photographs and the prior it was trained on. Restored images are \
estimates: they are no evidence.
"""


def calls_in_words(config: dict) -> str:
    """How often the frozen network is called, and why not where it is not."""
    calls = next(
        n for n in (config["sampler"].get("nfe"), config["task"]["sampler"]["nfe"]) if n is not None
    )
    alone = (
        "g(y) alone; `steps=3` asks for three, without trained features"
        if config["loss"].get("anchor_first") == 1
        else "the anchor alone, which validation images prefer; `steps=3` asks for three"
    )
    return str(calls or f"none: {alone}")


def data_in_words(settings: dict) -> str:
    """Every source of training images with its share, and how it is degraded; never a path of the
    trainer's machine.
    """
    data, own = settings["data"], (settings["task"].get("degradation") or {}).get("_target_")

    def degraded(entry: dict) -> str:
        made = (entry.get("degradation") or {}).get("_target_", own)
        parts = [f"degraded on the fly by `{made}`"] if made and not _paired(entry) else ["pairs"]
        parts += [
            f"{entry[key]:.0%} {words}"
            for key, words in (
                ("lighter", "mixed back towards the clean image"),
                ("same", "left clean"),
            )
            if entry.get(key)
        ]
        return ", ".join(parts)

    held = (
        f"; every {data['validation']}th scene held back for validation"
        if data.get("validation")
        else ""
    )
    if data.get("mix"):
        return (
            "; ".join(
                f"{entry['weight']:.0%} {_called(entry)} ({degraded(entry)})"
                for entry in data["mix"]
            )
            + held
        )
    if data.get("root"):
        return f"the training half of {data['benchmark']}"
    source = data.get("train") or data.get("clean")
    count = f"{len(ImageSource(find(source)))} photographs of " if find(source).exists() else ""
    return (
        f"{count}`{without_paths(source)}`, "
        + (f"degraded on the fly by `{own}`" if own else "pairs of photographs")
        + held
    )


def _paired(entry: dict) -> bool:
    return any(entry.get(key) for key in ("pairs", "degraded", "benchmark"))


def _called(entry: dict) -> str:
    """The name of a source: its own, or that of its files without their folders."""
    where = (
        entry.get("pairs") or entry.get("degraded") or entry.get("benchmark") or entry.get("clean")
    )
    return entry.get("name") or ", ".join(
        Path(p).name for p in (where if isinstance(where, list) else [where])
    )


def without_paths(value):
    """Settings, or a part of them, whose absolute paths are reduced to their last part: the rest is
    the trainer's machine.
    """
    if isinstance(value, dict):
        return {key: without_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_paths(part) for part in value]
    if not isinstance(value, str):
        return value
    path = Path(value.removeprefix(PREFIX))
    return PREFIX * value.startswith(PREFIX) + path.name if path.is_absolute() else value


def private(settings: dict) -> dict:
    """The settings without what names the trainer's machine: its folders, and the paths of a
    mix.
    """
    data = dict(settings["data"])
    if data.get("mix"):
        places = "pairs", "clean", "degraded", "root"
        data["mix"] = [
            {k: v for k, v in entry.items() if k not in places} | {"name": _called(entry)}
            for entry in data["mix"]
        ]
    kept = {k: v for k, v in settings.items() if k not in PRIVATE}
    return without_paths(kept | {"data": {k: v for k, v in data.items() if k != "folder"}})


def _last(run: Path) -> dict:
    """The counters that belong to a run's weights: of the newest checkpoint, with which they are
    written, or where it has none of the last line of its metrics.
    """
    try:
        last, newest = (
            json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]),
            Checkpoints(run).latest(),
        )
        return last | (read_json(newest / "state.json") if newest else {})
    except (OSError, IndexError, ValueError):
        raise UserError(
            f"{run / 'metrics.jsonl'} is missing or damaged, so the card could not say what was"
            " trained; give the run's own folder."
        ) from None


def _parameters(model) -> int:
    return sum(p.numel() for p in model.trainable().parameters())
