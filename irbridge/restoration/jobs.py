"""Which photographs a command restores, under which names, and by which report it goes on."""

import errno
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from irbridge.errors import Failure, UserError
from irbridge.files import read_json, remove_leftovers_of, sha256, write_json
from irbridge.images.formats import READ, SUFFIXES
from irbridge.images.holes import mask_file
from irbridge.images.io import is_image
from irbridge.own_files import known

NAMED = 5  # files of each reason that are named where they are passed over


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
        files = {"output": self.output, "compare": self.compare, "path": self.path}
        return {key: os.path.abspath(file) for key, file in files.items() if file}


def plan(
    inputs: Sequence[str],
    label: str,
    *,
    output: str | None = None,
    mask: str | None = None,
    compare: bool = False,
    save_path: bool = False,
) -> list[Job]:
    """The jobs of a command, none of which writes to another's names or to any input.

    Args:
        inputs: photographs, folders and globs.
        label: what the names of the results end with, such as the task.
        output: a folder, or for one photograph a name; None: beside each photograph.
        mask: an image, or a folder of them, that says what is to be filled.
        compare: whether degraded and restored are also written side by side.
        save_path: whether the estimates of all network calls are also written.

    Raises:
        UserError: names clash, an input would be overwritten, or something is not there.
    """
    photographs = list(dict.fromkeys(p for given in inputs for p in sources(given, label)))
    place = Path(output).expanduser() if output else None
    named = place is not None and _is_file(place)
    if named and len(photographs) > 1:
        raise UserError(
            f"output={place} is one file, but input={' '.join(inputs)} names {len(photographs)} "
            "photographs; give a folder."
        )
    extra = ["compare"] * compare + ["path"] * save_path
    stems, jobs = _Stems(label), []
    # whose name each file is; None: an input, which nobody may write to
    taken: dict[Path, Path | None] = {p.resolve(): None for p in photographs}
    for source in photographs:
        holes = mask_file(source, mask) if mask else None
        if holes:
            taken[holes.resolve()] = None
        path = place if named else (place or source.parent) / f"{stems.of(source)}.png"
        beside = {kind: path.with_name(f"{path.stem}-{kind}.png") for kind in extra}
        job = Job(source, path, **beside, mask=holes)
        _take(job, taken)
        jobs.append(job)
    return jobs


def _is_file(output: Path) -> bool:
    """Whether an output names a file, not a folder; UserError where it could not be a PNG."""
    if output.is_dir() or output.suffix.lower() not in SUFFIXES | {".gif", ".heic", ".avif"}:
        return False
    if output.suffix.lower() != ".png":
        raise UserError(
            f"Restored photographs are written as PNG, so output={output} must end in .png, or be a"
            " folder."
        )
    return True


class _Stems:
    """Names of results, told apart where a.jpg lies beside a.png."""

    def __init__(self, label: str):
        self.label = label
        self.counts: dict[Path, Counter] = {}

    def of(self, source: Path) -> str:
        """The name, without its ending, of what a photograph becomes."""
        folder = source.parent
        if folder not in self.counts:
            self.counts[folder] = Counter(p.stem for p in folder.iterdir() if is_image(p))
        if self.counts[folder][source.stem] > 1:
            return f"{source.stem}-{source.suffix[1:]}-{self.label}"
        return f"{source.stem}-{self.label}"


def _take(job: Job, taken: dict[Path, Path | None]) -> None:
    """Note the names that a job writes; UserError where one is an input's or another job's."""
    for name in map(Path, job.names.values()):
        other = taken.setdefault(name.resolve(), job.source)
        # os.path, as pathlib raises of names that are too long for the system
        if other is None or (os.path.exists(name) and os.path.samefile(name, job.source)):
            raise UserError(f"{name} is an input, which is never overwritten; give another output.")
        if other != job.source:
            raise UserError(
                f"{other} and {job.source} would both be written to {name}; restore them into"
                " folders of their own."
            )


def sources(given: str, label: str) -> list[Path]:
    """The photographs that one input names, sorted.

    Args:
        given: a file, a folder or a glob.
        label: of this command; of a folder or a glob only those are taken that are no outputs of
            earlier runs.

    Raises:
        UserError: there is none.
    """
    found = _sorted_out(given, label)
    kept = [path for path, reason in found.items() if reason is None]
    if not kept:
        reasons = {path: reason for path, reason in found.items() if reason}
        told = "; passed over " + said_of(reasons) if reasons else ""
        if not reasons and any(map(is_image, _named(given))):
            told = " but restored ones"
        raise UserError(
            f"input={given} holds no photographs{told}; name a photograph, a folder of them, or a"
            " glob in quotes."
        )
    return kept


def passed_over(inputs: Sequence[str], label: str, jobs: list[Job]) -> dict[Path, str]:
    """What lies in the inputs and is not restored, with the reason.

    Left out is what nobody expects there: hidden files, and what this program wrote by its reports.

    Args:
        inputs: as of :func:`plan`.
        label: as of :func:`plan`.
        jobs: what is restored.
    """
    used = {path.resolve() for job in jobs for path in (job.source, job.mask) if path}
    used |= {Path(name).resolve() for job in jobs for name in job.names.values()}
    found: dict[Path, str] = {}
    for given in inputs:
        for path, reason in _sorted_out(given, label).items():
            if reason and path.resolve() not in used:
                found[path] = reason
    return found


def said_of(reasons: dict[Path, str]) -> str:
    """Which files are passed over and why, as a part of a sentence: some names for each reason."""
    files: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        files.setdefault(reason, []).append(path.name)
    parts = []
    for reason, names in files.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        parts.append(f"{', '.join(names[:NAMED])}{more} ({reason})")
    return "; ".join(parts)


def _sorted_out(given: str, label: str) -> dict[Path, str | None]:
    """What one input names, sorted, with the reason why it is no photograph to restore, or None."""
    found = _named(given)
    if found == [Path(given).expanduser()] and found[0].is_file():
        return {found[0]: None}
    made = {folder: outputs(folder, label) for folder in {path.parent for path in found}}
    known = [path for path in sorted(found) if not _expected(path, made[path.parent])]
    return {path: _reason(path, label) for path in known}


def _named(given: str) -> list[Path]:
    """The files and folders that one input names.

    Raises:
        UserError: it is empty, is not there, or is a pipe or a device.
    """
    if not given:  # which Path takes for the current folder
        raise UserError(
            "input= is empty; name a photograph, a folder of them, or a glob in quotes."
        )
    at = Path(given).expanduser()
    if os.path.isfile(at):
        return [at]
    if os.path.isdir(at):
        return _inside(at)
    if os.path.exists(at):
        raise UserError(f"input={given} is a pipe or a device; give a file.")
    if glob.has_magic(given):
        return matching(at)
    try:
        os.stat(at)
    except ValueError:
        pass
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise UserError(f"input={given} does not exist; check the path.") from None
        # such as a folder above it that one may not enter
        raise UserError(
            f"input={given} cannot be read ({error.strerror or error}); check the path, and who may"
            " read it."
        ) from error
    raise UserError(f"input={given} does not exist; check the path.")


def _expected(path: Path, made: set[str]) -> bool:
    """Whether nobody takes it for a photograph to restore.

    That is what is hidden, what this program wrote, and a folder without photographs, unless it
    is named like one.
    """
    if path.name.startswith(".") or path.name in made or fnmatch(path.name, "restored-*.json"):
        return True
    if not path.is_dir() or is_image(path):
        return False
    try:
        inside = list(path.iterdir())
    except OSError:
        return True
    ours = any(fnmatch(inner.name, "restored-*.json") for inner in inside)
    return ours or not any(map(is_image, inside))


def _reason(path: Path, label: str) -> str | None:
    """Why a file of a folder or a glob is not restored; None where it is."""
    if path.is_dir():
        return "folders are not entered"
    if not is_image(path):
        return f"read are {READ}"
    if not path.is_file():
        return "no file"
    if re.fullmatch(rf".+-{re.escape(label)}(-compare|-path)?\.png", path.name):
        return "named like a result of this command"
    return None


def _inside(folder: Path) -> list[Path]:
    """What a folder holds; UserError where it cannot be looked into."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"input={folder} cannot be read ({error.strerror or error}); check who may read it."
        ) from error


def matching(pattern: Path) -> list[Path]:
    """The files that a glob names.

    Folders that exist under the very name that stands there are meant as they are, so that a glob
    works in a folder with brackets in its name.
    """
    *above, last = pattern.parts
    fixed = Path()
    for k, part in enumerate(above):
        if not (fixed / part).is_dir():
            above = above[k:]
            break
        fixed = fixed / part
    else:
        above = []
    start = glob.escape(str(fixed))
    for name in (last, last.replace("[", "[[]")):
        found = glob.glob(os.path.join(start, *above, name), recursive=True)
        if found:
            return list(map(Path, found))
    return []


def outputs(folder: Path, label: str) -> set[str]:
    """Names in a folder that its reports say a run has written.

    Those with this label count, and those of photographs beside them.
    """
    names: set[str] = set()
    for report in folder.glob("restored-*.json"):
        ours = report.name == f"restored-{label}.json"
        for record in _records(report):
            if ours or Path(record["input"]).parent == Path(record["output"]).parent:
                made = (record.get(key) for key in ("output", "compare", "path"))
                names |= {Path(name).name for name in made if name}
    return names


class Report:
    """What was made from what, by which the same command goes on.

    ``restored-<label>.json`` in the folder of the outputs holds ``{"label", "files"}``, a record
    for each photograph, and is written anew and at once after every one.
    """

    def __init__(self, folder: Path, label: str):
        self.path, self.label = folder / f"restored-{label}.json", label
        self.files = {Path(r["output"]).name: r for r in _records(self.path)}

    def finished(self, job: Job, settings: dict) -> bool:
        """Whether all that this job would write is there, untouched.

        It must have been made of this very photograph, with these settings.
        """
        record = self.files.get(job.output.name, {})
        made = {key: os.path.basename(record.get(key) or "") for key in job.names}
        if made != {key: os.path.basename(path) for key, path in job.names.items()}:
            return False
        if record.get("status") != "done":
            return False
        if any(record.get(key) != value for key, value in settings.items()):
            return False
        if not all(map(os.path.isfile, job.names.values())):
            return False
        files = {"input": job.source, "output": job.output, "mask": job.mask}
        try:
            return all(record.get(f"{k}_sha256") == (p and sha256(p)) for k, p in files.items())
        except UserError:  # what cannot be read fails where its turn comes
            return False

    def check(self, job: Job, run: str, weights: str) -> None:
        """Refuse to overwrite what this program did not make of this photograph by this model.

        Args:
            job: what is to be written.
            run: the folder of the model.
            weights: the SHA-256 of its file.

        Raises:
            UserError: a user's own file is there, one that was changed since, the result of another
                photograph, or that of another model.
        """
        record = self.files.get(job.output.name, {})
        for key, name in job.names.items():
            if os.path.lexists(name) and not self._made(record, key, name):
                raise UserError(
                    f"{name} is there and is not what irbridge wrote, which alone is replaced; move"
                    " it, or give another output=PATH or suffix=TEXT."
                )
        other = record.get("input")
        if not other or not os.path.exists(job.output):
            return
        if os.path.exists(other) and not os.path.samefile(other, job.source):
            raise UserError(
                f"{job.output} is the restored {other}; give another output for {job.source}."
            )
        if record.get("run") != run and record.get("weights") != weights:
            raise UserError(
                f"{job.output} was restored by another model"
                f" ({record.get('run') or 'of other weights'}); give suffix=TEXT or output=PATH to"
                " keep both, or move it."
            )

    def begin(self, record: dict) -> None:
        """Note what is about to be written, so that a kill in the middle leaves it known as ours.

        What the record before says of the file that is still there stays.
        """
        self.add(self.hashes(record) | record | {"status": "begun"})

    def hashes(self, record: dict) -> dict:
        """Of the files that an earlier command wrote under the names of a record."""
        before = self.files.get(Path(record["output"]).name, {})
        return {key: before[key] for key in before if key.endswith("_sha256")}

    @staticmethod
    def _made(record: dict, key: str, name: str) -> bool:
        """Whether a file is what the record tells of, unchanged."""
        if not os.path.isfile(name) or os.path.islink(name):
            return False
        digest = sha256(Path(name))
        if digest in known(Path(os.path.realpath(name))):  # also where the report was lost
            return True
        told = record.get(key)
        if not isinstance(told, str) or Path(told).name != Path(name).name:
            return False
        if record.get("status") == "begun":
            return True
        told = record.get(f"{key}_sha256")
        if told is None and key != "output" and record.get("status") == "done":
            return True  # older versions noted no hash of the pictures beside it
        return told == digest

    def add(self, record: dict) -> None:
        """Write the report with one more record, or with this one in place of an earlier."""
        self.files[Path(record["output"]).name] = record
        try:
            write_json(self.path, {"label": self.label, "files": list(self.files.values())})
        except OSError as error:
            raise Failure(
                f"The report {self.path} cannot be written ({error.strerror or error}); make room "
                "there, and the same command goes on."
            ) from error


def sweep(jobs: list[Job], reports: Iterable[Report]) -> None:
    """Remove the temporary files that a killed run has left of these outputs and reports."""
    for job in jobs:
        for name in job.names.values():
            remove_leftovers_of(Path(name))
    for report in reports:
        remove_leftovers_of(report.path)


def _records(report: Path) -> list[dict]:
    """The records of a report; none where it is missing or not one."""
    try:
        files = read_json(report).get("files")
    except UserError:
        return []
    return [record for record in files if _is_record(record)] if isinstance(files, list) else []


def _is_record(record: object) -> bool:
    """Whether it names files as a report does: input and output, and others where there are."""
    if not isinstance(record, dict):
        return False
    names = [record.get(key) for key in ("input", "output")]
    others = [record[key] for key in ("compare", "path") if record.get(key) is not None]
    return all(isinstance(name, str) and name and "\0" not in name for name in (*names, *others))
