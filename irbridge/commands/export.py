"""The command ``irbridge export``: a finished run as a folder to hand on."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image

from irbridge.assets import find
from irbridge.commands.options import ExportOptions
from irbridge.data.pair import spread
from irbridge.environment import set_threads
from irbridge.errors import UserError
from irbridge.evaluation.records import read_records
from irbridge.evaluation.rows import aggregate
from irbridge.experiments.build import from_pretrained
from irbridge.experiments.names import import_own
from irbridge.experiments.run_folder import contradiction
from irbridge.experiments.saved import read_settings
from irbridge.experiments.task_data import held_back_every, test_pairs, validation_pairs
from irbridge.files import (
    locked,
    read_json,
    remove_leftovers,
    sha256,
    write_atomically,
    write_json,
)
from irbridge.images.arrays import to_bytes
from irbridge.models.precision import deviation
from irbridge.models.restorer import Restorer
from irbridge.own_files import check_writable, is_own, remember, write_result, write_text_result
from irbridge.reports.model_card import PICTURE, _parameters, card, history, private, without_paths
from irbridge.reports.pictures import cases, picture
from irbridge.reports.table import by_comparison, render
from irbridge.weights import load_into, load_weights, rounded, save_weights

FILES = "README.md", "config.json", "model.safetensors", "restored.jpg", "run.json"
"""What an export writes."""
EXPORTED = {"exported": True}
"""What its ``run.json`` says besides the run's, by which it is known for an export."""

CARD = "results", "weights", "machine", "weak", "experimental", "shipped"
"""Options of what an export says and holds, beside its picture."""


def export_run(options: ExportOptions) -> None:
    """Write a folder to hand on: weights, configs, a card and its picture.

    Raises:
        UserError: the run has no weights or metrics, a folder of results no records, or the output
            is a run's folder or a file.
    """
    run = find(options.run)
    if options.redraw:
        return redraw(run, options)
    if options.output is None:
        raise UserError("output= is not given; name the folder to write.")
    output = Path(options.output)
    check_output(run, output)
    model, dtype = loaded(run, options), getattr(torch, options.weights)
    settings = read_settings(run / "run.json")
    about = private(settings) | EXPORTED
    check_output(run, output, about)
    if not (run / "metrics.jsonl").exists() and is_export(run):
        raise UserError(
            f"run={run} was converted or exported, and is a folder to hand on already, which run="
            " takes as it is; copy it, or give the folder of a training."
        )
    done = history(run)
    weights = load_weights(run / "model.safetensors")
    # what is measured and drawn is what is handed on
    load_into(model.trainable(), rounded(weights, dtype), str(run))
    # both restore many images, which takes minutes
    print("Comparing half precision with float32 on validation images ...", flush=True)
    config = without_paths(read_settings(run / "config.json")) | {
        "bf16_error": round(half_precision(model, settings), 3)
    }
    config |= {"experimental": options.experimental} if options.experimental else {}
    tables = "\n\n".join(
        render(by_comparison(aggregate(read_records(folder))), "markdown")
        for folder in options.results
    )
    print("Restoring the pictures of the card ...", flush=True)
    image = drawn(model, settings, options.size)
    text = card(settings, config, done, _parameters(model), tables, asdict(options))
    with locked(output):
        check_output(run, output, about)  # nobody has changed it meanwhile
        remove_leftovers(output, below=False)
        # first away and last there: what a kill leaves is no adapter, never one of mixed parts
        (output / "config.json").unlink(missing_ok=True)
        write_result(output / "run.json", lambda p: write_json(p, about))
        write_result(output / "model.safetensors", lambda p: save_weights(p, weights, dtype))
        write_result(output / "restored.jpg", jpeg(image))
        write_text_result(output / "README.md", text)
        write_result(output / "config.json", lambda p: write_json(p, config))
    print(f"Wrote: {output}")


def loaded(run: Path, options: ExportOptions) -> Restorer:
    """The model of a folder, with the threads, own classes and backbone of the options."""
    set_threads(options.threads)
    if options.config_dir:
        import_own([Path(options.config_dir).expanduser()])
    return from_pretrained(run, frozen=asdict(options.backbone))


def redraw(run: Path, options: ExportOptions) -> None:
    """Draw the picture of an exported folder anew, and leave all else as it is.

    Raises:
        UserError: the folder is no export, or something else of it is to change.
    """
    plain = ExportOptions(run=options.run)
    changes = [name for name in CARD if getattr(options, name) != getattr(plain, name)]
    if changes:
        raise UserError(
            f"{changes[0]}= does not go with redraw=, which leaves all but the picture as it is;"
            " leave it out, or export the run anew."
        )
    if not is_export(run) or (options.output and Path(options.output).resolve() != run.resolve()):
        raise UserError(
            f"redraw= draws the picture of an exported folder in its place, and run={run} is none,"
            " or output= is another; give run=FOLDER of an export alone."
        )
    model = loaded(run, options)
    image = drawn(model, read_settings(run / "run.json"), options.size)
    text = (run / "README.md").read_text("utf-8")
    shown = re.sub(r"^!\[.*\]\(restored\.jpg\)$", lambda _: PICTURE, text, count=1, flags=re.M)
    with locked(run):
        for name, write in (
            ("restored.jpg", jpeg(image)),
            ("README.md", lambda p: p.write_text(shown, encoding="utf-8")),
        ):
            place = Path(os.path.realpath(run / name))
            ours = is_own(place)  # a card that was changed by hand stays so, and is no export's
            write_atomically(place, write)
            if ours:
                remember(place, sha256(place))
    print(f"Wrote: {run / 'restored.jpg'}")


def drawn(model: Restorer, settings: dict, size: int | None) -> Image.Image:
    """A good, a middling and a bad case among the test images, as a picture."""
    chosen = cases(model, test_pairs(settings, size), settings["seed"])
    return Image.fromarray(to_bytes(picture(model, chosen, settings["seed"], len(chosen))))


def jpeg(image: Image.Image) -> Callable[[Path], None]:
    """A function that writes a card's picture to a path."""
    return lambda path: image.save(path, format="JPEG", quality=88)


def check_output(run: Path, output: Path, about: dict | None = None) -> None:
    """Refuse an output that an export would spoil.

    Args:
        run: that is exported.
        output: the folder to write.
        about: the ``run.json`` to write, once it is known; the export of another training stays.

    Raises:
        UserError: it is a file, the folder of a training, the export of another one, or holds what
            no export wrote or a user changed since.
    """
    there = next(p for p in (output, *output.absolute().parents) if p.exists())
    if not there.is_dir():
        raise UserError(
            f"output={output} cannot be a folder, as {there} is a file; give another output."
        )
    if run.resolve() in (output.resolve(), *output.resolve().parents):
        raise UserError(f"output={output} is run= itself or lies in it; give another output.")
    if any((output / name).exists() for name in ("checkpoints", "metrics.jsonl")):
        raise UserError(
            f"output={output} is the folder of a training, which an export would overwrite; give"
            " another output."
        )
    for name in FILES:
        check_writable(output / name)
    if about is None or not (output / "run.json").exists():
        return
    if fault := contradiction(read_json(output / "run.json"), about):
        raise UserError(
            f"output={output} is the export of another training, whose {fault}; give another"
            " output, or delete that folder."
        )


def is_export(folder: Path) -> bool:
    """Whether an export has made a folder, or began to before it was killed."""
    for name, mark in ("run.json", "exported"), ("config.json", "bf16_error"):
        with suppress(UserError):
            if mark in read_json(folder / name):
                return True
    return False


def half_precision(model: Restorer, settings: dict, size: int = 160, most: int = 24) -> float:
    """The largest deviation of a pixel, of 255, that bfloat16 makes.

    Args:
        model: that restores.
        settings: of its run; its validation images are taken, or its test images where none were
            held back.
        size: of the centre crops, in pixels.
        most: so many images, spread over all sources.

    Raises:
        UserError: the images are not there.
    """
    pairs = (validation_pairs if held_back_every(settings["data"]) else test_pairs)(settings, size)
    return deviation(model, [pair.seen for pair in spread(pairs, most)])
