"""Restore."""

import os
from contextlib import ExitStack
from pathlib import Path

from irbridge.assets import find, shipped
from irbridge.environment import device, set_threads
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained, sampler_fields
from irbridge.files import locked, read_json, sha256
from irbridge.images.tiles import Tiles
from irbridge.restoration.jobs import Report, plan, sweep
from irbridge.restoration.memory import Plan, footprint, keep_pages
from irbridge.restoration.restore import _sampling, restore_all


def restore_run(options: dict) -> None:
    """Restore the photographs that ``input`` names. UserError where the command is wrong;
    RuntimeError in the end where a photograph failed.
    """
    set_threads(options["threads"])
    keep_pages()
    run, task = chosen(options["shipped"], options["run"])
    label = options["suffix"] or task
    if label != Path(label).name:
        raise UserError(f"suffix={label!r} must be a part of a file's name.")
    jobs = plan(options, label)
    if options["mask"] and not masked(run):
        why = (
            "this adapter was trained without masks"
            if task == "inpaint"
            else (
                f"it is for task=inpaint and other models that fill holes, and {label} restores the"
                " whole photograph"
            )
        )
        raise UserError(f"mask={options['mask']} tells nothing here: {why}; leave it out.")
    # a mistake shows before the model is loaded
    Tiles(options["tile"], options["overlap"], options["batch"])
    fields = sampler_fields(options["sampler"]) | (
        {"nfe": options["steps"]} if options["steps"] is not None else {}
    )
    model = from_pretrained(
        run,
        device(options["device"]),
        frozen=options["backbone"],
        precision=options["precision"],
        **fields,
    )
    settings = {
        "seed": options["seed"],
        **_sampling(model, fields),
        "precision": model.precision,
        **{key: options[key] for key in ("tile", "overlap", "memory")},
        "weights": sha256(run / "model.safetensors"),
        "config": sha256(run / "config.json"),
    }
    cuts = Plan(
        model,
        footprint(model, **fields),
        *(options[k] for k in ("tile", "memory", "overlap", "batch")),
    )
    folders = sorted({job.output.parent for job in jobs})
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(locked(folder))
        reports = {folder: Report(folder, label) for folder in folders}
        for job in jobs:
            reports[job.output.parent].check(job)
        sweep(jobs)
        left = [job for job in jobs if not reports[job.output.parent].finished(job, settings)]
        failed = restore_all(left, model, fields, cuts, settings, reports)
    wrote = [
        p
        for job in jobs[: 3 * (len(jobs) <= 3)]
        for p in (job.output, job.compare, job.path)
        if p and p.exists()
    ]
    print(
        "Wrote: "
        + "  ".join(str(p) for p in (*wrote, *(report.path for report in reports.values())))
    )
    earlier = f" {len(jobs) - len(left)} were finished before." if len(left) < len(jobs) else ""
    print(
        f"Restored {len(left) - len(failed)} of {len(jobs)} photographs in"
        f" {model.precision}.{earlier}"
    )
    if failed:
        told = "  ".join(str(r.path) for r in reports.values())
        many = f"{len(failed)} of {len(jobs)} photographs could not be restored; {told} says why."
        raise RuntimeError(failed[0] if len(left) == 1 else many)


def chosen(task: str | None, run: str | None) -> tuple[Path, str]:
    """The folder of the trained model, and the name of its task."""
    adapters = shipped()
    if run and task:
        raise UserError(f"task={task} and run={run} both name a model; give one of them.")
    if run:
        folder = find(os.path.expanduser(run))
        return (
            folder,
            (read_json(folder / "config.json").get("task") or {}).get("name") or folder.name,
        )
    if task not in adapters:
        wrong = f"task={task!r} has no shipped adapter" if task else "No model is named"
        raise UserError(
            f"{wrong}; give task={' or task='.join(adapters)}, or run=FOLDER of a training of your"
            " own."
        )
    return adapters[task], task


def masked(run: Path) -> bool:
    """Whether the model of a folder fills holes."""
    return bool((read_json(run / "config.json").get("adapter") or {}).get("masked"))
