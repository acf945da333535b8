"""What a trained run says of itself when it is handed on: the model card."""

import math
from pathlib import Path
from typing import NamedTuple

from irbridge.adapters.pretrained_anchor import PREFIX
from irbridge.assets import find
from irbridge.bridges import LinearOU
from irbridge.data.image_source import ImageSource
from irbridge.errors import UserError
from irbridge.experiments.saved import read_settings
from irbridge.files import read_json
from irbridge.models.refinement import CALLS
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.growth import phases_of
from irbridge.training.metrics_log import last_line
from irbridge.training.pace import planned_steps

# of the trainer's machine, of no use to others
PRIVATE = "run", "run_root", "name", "logger", "start", "ship"
ON_PRIOR = "irbridge", "distill"  # methods that call a frozen prior


class Done(NamedTuple):
    """A training.

    Args:
        crops: that it saw, in words.
        core: minutes of one core.
        clock: minutes by the clock.
        precision: of its networks, None: not recorded.
    """

    crops: str
    core: float
    clock: float
    precision: str | None = None


def history(run: Path, after: tuple[Path, ...] = ()) -> Done:
    """A run's training and those whose weights it started from, up to its weights.

    An exported folder has no metrics: it is named, and its minutes are not counted.

    Args:
        run: the folder.
        after: those of the trainings that started from it.

    Raises:
        UserError: A file of a run is missing or damaged, or a run started from itself.
    """
    if run.resolve() in after:
        raise UserError(f"{run / 'run.json'}: start={run} is the run itself; copy it again.")
    settings = read_settings(run / "run.json")
    trainer, last, before = settings["trainer"], _last(run), Done("", 0.0, 0.0)
    if settings.get("start"):
        start = find(settings["start"])
        before = Done(f"the weights of {start.name}", 0.0, 0.0)
        if (start / "metrics.jsonl").exists():
            before = history(start, (*after, run.resolve()))
        before = before._replace(crops=f"{before.crops}, then ")
    done = [phase for phase in phases_of(trainer) if phase.step < max(last["step"], 1)]
    planned = planned_steps(run, trainer.get("steps", math.inf), trainer.get("minutes"))
    steps = f"{last['step']}"
    if last["step"] < planned < math.inf:
        steps += f" of {planned}"  # it was stopped
    words = f"{steps} steps of {trainer['batch_size']} crops of {trainer['crop']} px"
    for phase in done[1:]:
        words += f" (from step {phase.step} on {phase.batch_size} of {phase.crop} px)"
    words += f": {done[-1].images_before(last['step'])} crops"
    return Done(
        before.crops + words,
        before.core + last["cpu_seconds"] / 60,
        before.clock + last["seconds"] / 60,
        last.get("precision"),
    )


PICTURE = (
    "![From above a good, a middling and a bad case: degraded, each network call, restored,"
    " clean](restored.jpg)"
)
"""How a card shows its picture."""


def card(
    settings: dict, config: dict, done: Done, parameters: int, tables: str, options: dict
) -> str:
    """The model card, Markdown.

    Args:
        settings: the run's ``run.json``.
        config: its ``config.json``.
        done: the :func:`history` of the run.
        parameters: that it trained.
        tables: scores with their protocol.
        options: of the export: "weak", what the model is bad at; "machine", what it was trained on;
            "output" and "shipped", where it goes.
    """
    task = settings["task"]["name"]
    command = f"irbridge restore task={task} input=photo.jpg"
    if not options["shipped"]:
        command = f"irbridge restore run={without_paths(options['output'])} input=photo.jpg"
    facts = _facts(settings, config, done, f"{parameters / 1e6:.2f} M parameters")
    facts["Trained"] += f", stored as {options['weights']}"
    facts["Machine"] = options["machine"]
    if reason := config.get("experimental"):
        facts = {"Experimental": reason} | facts
    lines = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return f"""# {task}: {_method_in_words(config, parameters)}

{PICTURE}

Use: `{command}`. Every key is in `run.json`.

| | |
|---|---|
{lines}

## Scores

{tables or "None were given."}

## What it is bad at

{options["weak"]}

For research use, as the photographs and the prior it was trained on. Restored images are \
estimates: they are no evidence.
"""


def _method_in_words(config: dict, parameters: int) -> str:
    """The method, with the bridge where it has one, and the size where it comes in several."""
    if config["method"] == "regression":
        return "plain regression"
    if config["method"] == "hidiff":
        size = f"{parameters / 1e6:.2f} M parameters"
        return f"HI-Diff of {size}, {config['hidiff']['variant']} variant, stage {config['stage']}"
    bridge = config["bridge"]["_target_"].rsplit(".", 1)[-1]
    bridge = LinearOU.title() if bridge == LinearOU.__name__ else bridge
    if config["method"] == "refine":
        return f"stochastic refinement, {bridge} around g(y)"
    return f"{config['method']}, {bridge} bridge, end {config['endpoint']}"


def _facts(settings: dict, config: dict, done: Done, trained: str) -> dict[str, str]:
    """The card's lines about the model and its training."""
    facts = {}
    if config["method"] in ON_PRIOR:
        facts = _prior_facts(settings, config)
    elif config["method"] == "refine":
        facts = {"Predictor g(y)": _predictor_in_words(config["refine"])}
        calls, draws = config["sampler"].get("nfe") or CALLS, config["refine"]["samples"]
        facts["Calls of the denoiser"] = f"{calls} a draw, {draws} draw{'s' * (draws > 1)}"
    facts["Half precision"] = f"at most {config.get('bf16_error', 0):.2f} of 255 off"
    facts["Trained"] = trained
    facts["Data"] = data_in_words(settings)
    computed = f"in {'float32' if done.precision == 'no' else done.precision}; "
    shown = computed if done.precision else ""
    facts["Training"] = f"{done.crops}; {shown}seed {settings['seed']}"
    facts["Time"] = f"{done.core:.0f} core minutes, {done.clock:.0f} minutes by the clock"
    return facts


def _prior_facts(settings: dict, config: dict) -> dict[str, str]:
    """The card's lines about the frozen prior and how it is called."""
    facts = {"Frozen prior": _prior_in_words(config["backbone"])}
    anchor = config["adapter"].get("anchor")
    if isinstance(anchor, str):
        digest = config["adapter"]["anchor_digest"][:12]
        facts["Anchor g(y)"] = f"{anchor.removeprefix(PREFIX)}, pretrained, SHA-256 {digest}"
    facts["Calls of it"] = calls_in_words(config)
    starts = [c["timesteps"].get("start") for c in (config, settings)]
    if None not in starts:
        facts["Prior's timesteps"] = f"from {starts[0]:g}, trained from {starts[1]:g}"
    return facts


def _predictor_in_words(refine: dict) -> str:
    """What gives the initial estimate of a stochastic refinement."""
    given = refine["predictor"]
    if given and given.startswith(PREFIX):
        return f"{given.removeprefix(PREFIX)}, pretrained, SHA-256 {refine['digest'][:12]}"
    if refine["joint"]:
        return "trained jointly with the denoiser"
    return "a regression, as it was trained before"


def _prior_in_words(backbone: dict) -> str:
    name = backbone["pretrained"] or "the embedded prior (`data/prior`)"
    if digest := backbone.get("digest"):
        return f"{name}, SHA-256 {digest[:12]}"
    return f"{name}; g(y) alone was trained, without it"


def calls_in_words(config: dict) -> str:
    """How often the frozen network is called, and why not where it is not."""
    asked = config["sampler"].get("nfe"), config["task"]["sampler"]["nfe"]
    if calls := next(number for number in asked if number is not None):
        return str(calls)
    if config["loss"].get("anchor_first") == 1:
        return "none: g(y) alone; `steps=3` asks for three, without trained features"
    return "none: the anchor alone, which validation images prefer; `steps=3` asks for three"


def data_in_words(settings: dict) -> str:
    """Every source of training images with its share, and how it is degraded.

    It never has a path of the trainer's machine.
    """
    data, own = settings["data"], (settings["task"].get("degradation") or {}).get("_target_")
    held = ""
    if data.get("validation"):
        held = f"; every {data['validation']}th scene held back for validation"
        if isinstance(data["validation"], str):
            held = "; validation images of their own"
    if data.get("mix"):
        sources = [
            f"{entry['weight']:.0%} {_called(entry)} ({_degraded(entry, own)})"
            for entry in data["mix"]
        ]
        return "; ".join(sources) + held
    if data.get("root"):
        return f"the training half of {data['benchmark']}"
    source = data.get("train") or data.get("clean")
    count = f"{len(ImageSource(find(source)))} photographs of " if find(source).exists() else ""
    how = f"degraded on the fly by `{own}`" if own else "pairs of photographs"
    return f"{count}`{without_paths(source)}`, {how}{held}"


def _degraded(entry: dict, own: str | None) -> str:
    """How the images of a source are degraded; ``own``: the task's degradation."""
    made = (entry.get("degradation") or {}).get("_target_", own)
    parts = [f"degraded on the fly by `{made}`"] if made and not _paired(entry) else ["pairs"]
    if entry.get("lighter"):
        parts.append(f"{entry['lighter']:.0%} mixed back towards the clean image")
    if entry.get("same"):
        parts.append(f"{entry['same']:.0%} left clean")
    if entry.get("jpeg"):
        parts.append(f"{entry['jpeg']:.0%} then saved as JPEG")
    return ", ".join(parts)


def _paired(entry: dict) -> bool:
    return any(entry.get(key) for key in ("pairs", "degraded", "benchmark"))


def _called(entry: dict) -> str:
    """The name of a source: its own, or that of its files without their folders."""
    if entry.get("name"):
        return entry["name"]
    places = (entry.get(key) for key in ("pairs", "degraded", "benchmark", "clean"))
    where = next((place for place in places if place), None)
    return ", ".join(Path(p).name for p in (where if isinstance(where, list) else [where]))


def without_paths(value):
    """Settings, or a part of them, whose absolute paths are reduced to their last part.

    The rest is of the trainer's machine.
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
    """The settings without what names the trainer's machine: its folders, and a mix's paths."""
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
    """The counters that belong to a run's weights.

    They are those of the newest checkpoint, with which the weights are written, or where there is
    none those of the last line of its metrics.
    """
    try:
        last = last_line(run / "metrics.jsonl")
    except UserError:
        raise UserError(
            f"{run / 'metrics.jsonl'} is missing or damaged, so the card could not say what was"
            " trained; give the run's own folder."
        ) from None
    newest = Checkpoints(run).latest()
    return last | (read_json(newest / "state.json") if newest else {})


def _parameters(model) -> int:
    return sum(p.numel() for p in model.trainable().parameters())
