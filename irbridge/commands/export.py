"""Export."""

from pathlib import Path

import torch
from PIL import Image

from irbridge.assets import find
from irbridge.data.pair import spread
from irbridge.environment import set_threads
from irbridge.errors import UserError
from irbridge.evaluation.records import read_records
from irbridge.evaluation.rows import aggregate
from irbridge.experiments.build import from_pretrained
from irbridge.experiments.saved import read_settings
from irbridge.experiments.task_data import held_back_every, test_pairs, validation_pairs
from irbridge.files import write_atomically, write_json
from irbridge.images.arrays import to_bytes
from irbridge.models.precision import deviation
from irbridge.models.restorer import Restorer
from irbridge.reports.model_card import _parameters, card, history, private, without_paths
from irbridge.reports.pictures import picture
from irbridge.reports.table import by_comparison, render
from irbridge.weights import load_weights, save_weights


def export_run(options: dict) -> None:
    """Write ``output/{model.safetensors,config.json,run.json,README.md,restored.jpg}`` of a
    finished run. UserError if it has no weights or metrics, a folder of results no records, or the
    output is a run's folder or a file.
    """
    run, output = find(options["run"]), Path(options["output"])
    check_output(run, output)
    set_threads(options["threads"])
    model, settings = (
        from_pretrained(run, frozen=options["backbone"]),
        read_settings(run / "run.json"),
    )
    done = history(run)
    config = without_paths(read_settings(run / "config.json")) | {
        "bf16_error": round(half_precision(model, settings), 3)
    }
    tables = "\n\n".join(
        render(by_comparison(aggregate(read_records(folder))), "markdown")
        for folder in options["results"]
    )
    shot = Image.fromarray(
        to_bytes(picture(model, test_pairs(settings, options["size"]), settings["seed"], 3))
    )
    text = card(settings, config, done, _parameters(model), tables, options)
    save_weights(
        output / "model.safetensors", load_weights(run / "model.safetensors"), torch.float16
    )
    write_json(output / "config.json", config)
    write_json(output / "run.json", private(settings))
    write_atomically(output / "restored.jpg", lambda p: shot.save(p, format="JPEG", quality=88))
    write_atomically(output / "README.md", lambda p: p.write_text(text, encoding="utf-8"))
    print(f"Wrote: {output}")


def check_output(run: Path, output: Path) -> None:
    """UserError where an export into ``output`` would overwrite the run, another one's, or a
    file.
    """
    there = next(p for p in (output, *output.absolute().parents) if p.exists())
    if not there.is_dir():
        raise UserError(
            f"output={output} cannot be a folder, as {there} is a file; give another output."
        )
    if output.resolve() == run.resolve() or any(
        (output / name).exists() for name in ("checkpoints", "metrics.jsonl")
    ):
        raise UserError(
            f"output={output} is the folder of a training, which an export would overwrite; give"
            " another output."
        )


def half_precision(model: Restorer, settings: dict, size: int = 160, most: int = 24) -> float:
    """The largest deviation of a pixel, of 255, that bfloat16 makes on validation images, or test
    images where none are held back: the centre crops of at most ``most`` of all sources. UserError
    if the images are not there.
    """
    pairs = (validation_pairs if held_back_every(settings["data"]) else test_pairs)(settings, size)
    return deviation(model, [pair.seen for pair in spread(pairs, most)])
