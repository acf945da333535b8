"""Which photographs a command restores, under which names, and the report by which the same command
goes on.
"""

import glob
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from irbridge.errors import UserError
from irbridge.files import read_json, sha256, write_json
from irbridge.images.holes import mask_file
from irbridge.images.io import SUFFIXES, is_image


@dataclass(frozen=True)
class Job:
    """One photograph and the names of what comes of it."""

    source: Path
    output: Path
    compare: Path | None = None
    path: Path | None = None
    mask: Path | None = None  # a file, read only

    @property
    def names(self) -> dict[str, str]:
        """What a report says of the files that it writes."""
        return {
            k: os.path.abspath(v) for k in ("output", "compare", "path") if (v := getattr(self, k))
        }


def plan(options: dict, label: str) -> list[Job]:
    """The jobs of a command, none of which writes to another's names or to any input."""
    photographs = sources(options["input"], label)
    given = Path(options["output"]).expanduser() if options["output"] else None
    named = (
        given is not None
        and not given.is_dir()
        and given.suffix.lower() in SUFFIXES | {".gif", ".heic", ".avif"}
    )
    if named and given.suffix.lower() != ".png":
        raise UserError(
            f"Restored photographs are written as PNG, so output={given} must end in .png, or be a"
            " folder."
        )
    if named and len(photographs) > 1:
        raise UserError(
            f"output={given} is one file, but input={options['input']} names {len(photographs)} "
            "photographs; give a folder."
        )
    stems: dict[Path, Counter] = {}
    jobs, taken = [], {p.resolve(): None for p in photographs}
    for source in photographs:
        if source.parent not in stems:
            stems[source.parent] = Counter(p.stem for p in source.parent.iterdir() if is_image(p))
        twins = stems[source.parent][source.stem] > 1  # a.jpg beside a.png
        stem = f"{source.stem}-{source.suffix[1:]}-{label}" if twins else f"{source.stem}-{label}"
        mask = mask_file(source, options["mask"]) if options.get("mask") else None
        if mask:
            taken[mask.resolve()] = None
        output = given if named else (given or source.parent) / f"{stem}.png"
        extra = [
            k
            for k, wanted in (("compare", options["compare"]), ("path", options["save_path"]))
            if wanted
        ]
        job = Job(
            source,
            output,
            **{k: output.with_name(f"{output.stem}-{k}.png") for k in extra},
            mask=mask,
        )
        for name in map(Path, job.names.values()):
            other = taken.setdefault(name.resolve(), source)
            if other is None or (name.exists() and os.path.samefile(name, source)):
                raise UserError(
                    f"{name} is an input, which is never overwritten; give another output."
                )
            if other != source:
                raise UserError(
                    f"{other} and {source} would both be written to {name}; restore them into"
                    " folders of their own."
                )
        jobs.append(job)
    return jobs


def sources(given: str, label: str) -> list[Path]:
    """The photographs that ``input`` names, sorted; of a folder or a glob those that are no outputs
    of earlier runs.
    """
    if not given:  # which Path takes for the current folder
        raise UserError(
            "input= is empty; name a photograph, a folder of them, or a glob in quotes."
        )
    at = Path(given).expanduser()
    if at.is_dir():
        found = at.iterdir()
    elif at.is_file():
        return [at]
    elif at.exists():
        raise UserError(f"input={given} is a pipe or a device; give a file.")
    elif glob.has_magic(given):
        found = map(Path, glob.glob(str(at), recursive=True))
    else:
        raise UserError(f"input={given} does not exist; check the path.")
    images = sorted(p for p in found if is_image(p) and p.is_file())
    made = {folder: outputs(folder, label) for folder in {p.parent for p in images}}
    ours = re.compile(rf".+-{re.escape(label)}(-compare|-path)?\.png")
    kept = [p for p in images if p.name not in made[p.parent] and not ours.fullmatch(p.name)]
    if not kept:
        raise UserError(
            f"input={given} holds no photographs"
            + " but restored ones" * bool(images)
            + "; name a photograph, a folder of them, or a glob in quotes."
        )
    return kept


def outputs(folder: Path, label: str) -> set[str]:
    """Names in a folder that its reports say a run has written: with this label, or of photographs
    beside them.
    """
    names = set()
    for report in folder.glob("restored-*.json"):
        for record in _records(report):
            if (
                report.name == f"restored-{label}.json"
                or Path(record["input"]).parent == Path(record["output"]).parent
            ):
                names |= {
                    Path(record[k]).name for k in ("output", "compare", "path") if record.get(k)
                }
    return names


class Report:
    """``restored-<label>.json`` in the folder of the outputs: ``{"label", "files": [a record per
    photograph]}``, written anew and at once after every photograph.
    """

    def __init__(self, folder: Path, label: str):
        self.path, self.label = folder / f"restored-{label}.json", label
        self.files = {Path(r["output"]).name: r for r in _records(self.path)}

    def finished(self, job: Job, settings: dict) -> bool:
        """Whether all that this job would write is there, made of this photograph with these
        settings, untouched.
        """
        record = self.files.get(job.output.name, {})
        names = {k: os.path.basename(record.get(k) or "") for k in job.names}
        if record.get("status") != "done" or names != {
            k: os.path.basename(v) for k, v in job.names.items()
        }:
            return False
        if any(record.get(k) != v for k, v in settings.items()) or not all(
            map(os.path.isfile, job.names.values())
        ):
            return False
        try:
            files = {"input": job.source, "output": job.output, "mask": job.mask}
            return all(record.get(f"{k}_sha256") == (p and sha256(p)) for k, p in files.items())
        except UserError:  # what cannot be read fails where its turn comes
            return False

    def check(self, job: Job) -> None:
        """UserError where the job would overwrite the restored version of another photograph that
        is still there.
        """
        other = self.files.get(job.output.name, {}).get("input")
        if (
            other
            and job.output.exists()
            and os.path.exists(other)
            and not os.path.samefile(other, job.source)
        ):
            raise UserError(
                f"{job.output} is the restored {other}; give another output for {job.source}."
            )

    def add(self, record: dict) -> None:
        self.files[Path(record["output"]).name] = record
        try:
            write_json(self.path, {"label": self.label, "files": list(self.files.values())})
        except OSError as error:
            raise RuntimeError(
                f"The report {self.path} cannot be written ({error.strerror or error}); make room "
                "there, and the same command goes on."
            ) from error


def sweep(jobs: list[Job]) -> None:
    """Remove the temporary files that a killed run has left of these outputs."""
    names = {name for job in jobs for name in job.names.values()}
    for folder in {job.output.parent for job in jobs}:
        for left in folder.glob(".*.*.tmp"):
            if os.path.abspath(left.with_name(left.name[1:].rsplit(".", 2)[0])) in names:
                left.unlink(missing_ok=True)


def _records(report: Path) -> list[dict]:
    """The records of a report; none where it is missing or not one."""
    try:
        return [r for r in read_json(report)["files"] if {"input", "output"} <= r.keys()]
    except (UserError, KeyError, TypeError, AttributeError):
        return []
