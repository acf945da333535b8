"""The command ``irbridge restore``: photographs of one's own."""

import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from irbridge.assets import find, shipped
from irbridge.commands.options import LARGEST, RestoreOptions
from irbridge.data.degradations import Downsample
from irbridge.environment import device, set_threads
from irbridge.errors import Failure, UserError, unknown
from irbridge.experiments.build import from_pretrained, sampler_fields
from irbridge.experiments.names import import_own
from irbridge.experiments.saved import read_settings
from irbridge.files import locked, sha256
from irbridge.images.tiles import Tiles
from irbridge.models.restorer import Restorer
from irbridge.restoration.jobs import Job, Report, passed_over, plan, said_of, sweep
from irbridge.restoration.memory import Plan, footprint, keep_pages
from irbridge.restoration.restore import Restoring, restore_all, sampler_record


class ByAdapter:
    """Restoration by a trained adapter on its frozen model.

    Attributes:
        label: what the names of the results end with, the task.
        run: the adapter's folder.
        fields: of its sampler, those that are given.
        degradation: none that is known.
        enlarge: how many times as large photographs are made first.

    Args:
        options: of the command.

    Raises:
        UserError: no adapter is named, or a word is for ``method=zeroshot``.
    """

    degradation = None

    def __init__(self, options: RestoreOptions):
        _check_words(options)
        self.options, self.fields = options, sampling(options)
        self.folder, self.label = chosen(options.task, options.run)
        self.run = os.path.realpath(self.folder)
        self.enlarge = enlargement(self.folder) if options.enlarge is None else options.enlarge

    def check(self, jobs: list[Job], label: str) -> None:
        """UserError where the photographs are given masks, and the adapter fills no holes."""
        if self.options.mask and not masked(self.folder):
            raise _without_masks(self.options.mask, self.label, label)
        if self.enlarge > 1 and masked(self.folder):
            raise UserError(
                f"enlarge={self.enlarge} is not for {self.label}, whose masks are of the"
                " photographs' own size; leave it out."
            )

    def load(self) -> Restorer:
        """The adapter, ready to restore."""
        frozen = asdict(self.options.backbone)
        del frozen["more"]
        return from_pretrained(
            self.folder,
            device(self.options.device),
            frozen=frozen,
            precision=self.options.precision,
            **self.fields,
        )

    def about(self, model: Restorer) -> dict:
        """What a report says of the adapter, by which a photograph counts as finished."""
        return {
            "weights": sha256(self.folder / "model.safetensors"),
            "config": sha256(self.folder / "config.json"),
            "enlarge": self.enlarge if self.enlarge > 1 else None,
        }


def restore_run(options: RestoreOptions) -> None:
    """Restore the photographs that the options name.

    Raises:
        UserError: the command is wrong.
        RuntimeError: in the end, where a photograph failed.
    """
    set_threads(options.threads)
    keep_pages()
    if options.config_dir:
        import_own([Path(options.config_dir).expanduser()])
    way = _way(options)
    label = options.suffix or way.label
    if label != Path(label).name:
        raise UserError(f"suffix={label!r} must be a part of a file's name.")
    jobs = plan(
        options.input,
        label,
        output=options.output,
        mask=options.mask,
        compare=options.compare,
        save_path=options.save_path,
    )
    skipped = passed_over(options.input, label, jobs)
    # a mistake shows before the model is loaded
    way.check(jobs, label)
    Tiles(options.tile, options.overlap, options.batch)
    model = way.load()
    model.check_fixed(**way.fields)
    model.average(options.samples, **way.fields)
    settings = _settings(options, model, way.fields) | way.about(model)
    measured = footprint(model, **way.fields)
    cuts = Plan(model, measured, options.tile, options.memory, options.overlap, options.batch)
    if options.tile is not None and cuts.tile != options.tile:
        print(
            f"tile={options.tile} is raised to {cuts.tile}, the smallest of which this network,"
            " as far as it looks, makes what it makes of the whole photograph; smaller photographs"
            " are not cut."
        )
    restoring = Restoring(model, way.fields, cuts, settings, way.run, way.degradation, way.enlarge)
    with ExitStack() as stack:
        folders = sorted({job.output.parent for job in jobs})
        for folder in folders:
            stack.enter_context(locked(folder))
        reports = {folder: Report(folder, label) for folder in folders}
        for job in jobs:
            reports[job.output.parent].check(job, way.run, settings["weights"])
        sweep(jobs, reports.values())
        left = [job for job in jobs if not reports[job.output.parent].finished(job, settings)]
        ends = restore_all(left, restoring, reports)
    paths = [report.path for report in reports.values()]
    _tell(dict(zip(left, ends, strict=True)), len(jobs), paths, model.precision, skipped)


def _way(options: RestoreOptions):
    """How the options restore: :class:`ByAdapter`, or by the frozen model alone."""
    if options.method is None:
        return ByAdapter(options)
    from irbridge.commands.zero_shot import ByFrozenModel  # late: adapters need none of it

    return ByFrozenModel(options)


def _check_words(options: RestoreOptions) -> None:
    """UserError where a word of ``method=zeroshot`` is given without it."""
    for key in ("solver", "operator", "kernel", "noise"):
        own = getattr(options, f"{key}_settings", {})
        if getattr(options, key) is not None or own:
            word = key if getattr(options, key) is not None else f"{key}.{next(iter(own))}"
            raise UserError(
                f"{word} is for a frozen model without an adapter; give method=zeroshot as well,"
                f" or leave out {word}."
            )
    if options.backbone.more:
        raise UserError(
            "backbone=NAME is for method=zeroshot, as an adapter names its frozen model itself;"
            " leave it out, or give backbone.pretrained=FOLDER where that was moved."
        )


def _settings(options: RestoreOptions, model: Restorer, fields: dict) -> dict:
    """What a report says of how photographs were restored, by which one counts as finished.

    None is what reports of older versions do not say.
    """
    return {
        "seed": options.seed,
        **sampler_record(model, fields),
        "samples": model.samples if model.samples > 1 else None,
        "precision": model.precision,
        "tile": options.tile,
        "overlap": options.overlap,
        "memory": options.memory,
    }


def sampling(options: RestoreOptions) -> dict:
    """What the model is asked with: the fields of the sampler that are given."""
    fields = asdict(options.sampler)
    fields |= fields.pop("more")
    if fields["nfe"] is None:
        fields["nfe"] = fields["steps"]
    if options.steps is not None:
        fields["nfe"] = options.steps
    return sampler_fields(fields)


def _without_masks(mask: str, task: str, label: str) -> UserError:
    """The error for a mask given to a model that fills no holes."""
    if task == "inpaint":
        why = "this adapter was trained without masks"
    else:
        why = (
            "it is for task=inpaint and other models that fill holes, and"
            f" {label} restores the whole photograph"
        )
    return UserError(f"mask={mask} tells nothing here: {why}; leave it out.")


def _tell(
    ends: dict[Job, str | None],
    total: int,
    reports: list[Path],
    precision: str,
    skipped: dict[Path, str],
) -> None:
    """Print what was written, and what was not.

    Args:
        ends: of the photographs that were not finished before: None, or why one failed.
        total: all photographs.
        reports: files of the reports.
        precision: that the networks computed in.
        skipped: files that were passed over, and why.

    Raises:
        Failure: a photograph failed.
    """
    done = [job for job, end in ends.items() if end is None]
    failed = [end for end in ends.values() if end is not None]
    if ends:
        wrote = [p for job in done for p in (job.output, job.compare, job.path) if p]
        print("Wrote: " + "  ".join(map(str, [*(wrote if total <= 3 else []), *reports])))
    said = f"Restored {len(done)} of {total} photographs in {precision}"
    if before := total - len(ends):
        said += f"; {before} {'was' if before == 1 else 'were'} finished before"
    if failed:
        said += f"; {len(failed)} failed"
    print(said + ".")
    if skipped:
        files = "1 file" if len(skipped) == 1 else f"{len(skipped)} files"
        print(f"Passed over {files}: {said_of(skipped)}.")
    if not failed:
        return
    if len(ends) == 1:
        raise Failure(failed[0])
    told = "  ".join(map(str, reports))
    raise Failure(f"{len(failed)} of {total} photographs could not be restored; {told} says why.")


def chosen(task: str | None, run: str | None) -> tuple[Path, str]:
    """The folder of the trained model, and the name of its task."""
    adapters = shipped()
    if run and task:
        raise UserError(f"task={task} and run={run} both name a model; give one of them.")
    if run:
        folder = find(os.path.expanduser(run))
        name = read_settings(folder / "config.json").get("task", {}).get("name")
        return folder, name or folder.resolve().name
    if task in adapters:
        return adapters[task], task
    # a wheel may have been built without adapters
    choices = f"task={' or task='.join(adapters)}, or " if adapters else ""
    remedy = f"give {choices}run=FOLDER of a training of your own"
    if task:
        raise unknown(f"task={task!r} has no shipped adapter", task, adapters, remedy)
    raise UserError(f"No model is named; {remedy}.")


def masked(run: Path) -> bool:
    """Whether the model of a folder fills holes."""
    return bool(read_settings(run / "config.json").get("adapter", {}).get("masked"))


def enlargement(run: Path) -> int:
    """How many times as large the model of a folder takes photographs to be: 4 of ``sr``, mostly 1.

    A reduction that is no whole number is left to ``enlarge``.
    """
    made = (read_settings(run / "config.json").get("task") or {}).get("degradation") or {}
    if str(made.get("_target_", "")).rsplit(".", 1)[-1] != Downsample.__name__:
        return 1
    scale = made.get("scale", Downsample.scale)
    return int(scale) if scale in range(1, LARGEST + 1) else 1
