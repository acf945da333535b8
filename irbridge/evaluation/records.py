"""Records."""

import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from irbridge.errors import UserError
from irbridge.evaluation.metrics import bootstrap_interval

REQUIRED = "name", "task", "row", "protocol", "psnr", "ssim"
# Name, digits, whether higher is better.
CLEAN = {"psnr": ("PSNR", 2, True), "ssim": ("SSIM", 4, True), "lpips": ("LPIPS", 4, False)}
# Those of protocol.reference=vae come after the ones against the clean image, which every record
# has.
SCORES = CLEAN | {f"{key}_vae": (f"{name} to VAE", *rest) for key, (name, *rest) in CLEAN.items()}
TASKS = "derain", "dehaze", "desnow", "raindrop", "lowlight", "inpaint", "deblur", "denoise", "sr"
# The records' "method" and its name, in the order of a table's rows; unknown ones come before the
# last two.
METHODS = {
    "identity": "Degraded input",
    "classical": "Classical",
    "regression": "Plain regression",
    "bridge": "Bridge from scratch",
    "anchor": "Anchor g(y) alone",
    "ddim_noise": "DDIM from noise",
    "ddim": "DDIM",
    "dpmpp": "DPM-Solver++(2M)",
    "irbridge_y": "IRBridge, end y",
    "irbridge": "IRBridge",
}
HELD_BACK = "held-back images"


@dataclass(frozen=True)
class Row:
    """Means over one method's images, several draws (seeds) of one averaged first; None where one
    lacks the score.

    task, row, protocol, method (a short key) and nfe (network calls) are the records'; ``run`` is
    the run's folder below a folder of runs; ``setting`` is what else must agree for a comparison,
    the records' data and size; ``images`` are names; ``scores`` the means under the keys of
    ``SCORES``, PSNR in dB; ``intervals`` the 95 % bootstrap intervals of the means over images,
    likewise.
    """

    task: str
    row: str
    protocol: str
    run: str
    setting: tuple
    nfe: int | None
    images: frozenset[str]
    scores: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    seconds: float | None
    method: str | None = None

    psnr = property(lambda self: self.scores["psnr"])
    ssim = property(lambda self: self.scores["ssim"])
    lpips = property(lambda self: self.scores["lpips"])

    @property
    def label(self) -> str:
        calls = "" if self.nfe is None or f" {self.nfe} call" in self.row else f", {self.nfe} calls"
        return f"{self.row}{calls}" + (f" [{self.run}]" if self.run else "")

    @property
    def name(self) -> str:
        """The method's name without its settings; the row's label for "outputs" (anyone's images)
        and for none.
        """
        return (
            self.row if self.method in (None, "outputs") else METHODS.get(self.method, self.method)
        )

    def about(self, key: str) -> str | None:
        """The setting's "data" or "size"."""
        return dict(s.split(" ", 1) for s in self.setting).get(key)

    def bounds(self, score: str) -> tuple[float, float] | None:
        return self.intervals[score]


def record_files(path: str | Path) -> list[tuple[Path, str]]:
    """Every ``records*.jsonl`` (one per process of a shared evaluation) below a folder, with its
    run's folder or "".
    """
    path, files = Path(path), []
    for file in sorted(path.rglob("records*.jsonl")):
        parts = file.relative_to(path).parts
        depth = next((i for i, part in enumerate(parts) if part in ("results", "evaluations")), 0)
        files.append((file, "/".join(parts[:depth])))
    return files


def read_records(path: str | Path) -> list[dict]:
    """Records of one ``records*.jsonl`` or of all below a folder, each once; a last line cut short
    by a kill is dropped. Below a folder of runs, each record also gets its run's folder as "run".
    UserError if there are no records, or for a corrupt line (names file and line).
    """
    path = Path(path)
    files = [(path, "")] if path.is_file() else record_files(path)
    records = [
        record | ({"run": run} if run else {}) for file, run in files for record in _read(file)
    ]
    if not records and not path.is_file():
        raise UserError(f"There are no records below {path}; give the folder of a scored run.")
    once: dict[str, dict] = {}
    for r in records:
        same = [
            r.get(k) for k in (*REQUIRED, *SCORES, "run", "data", "size", "seed", "nfe", "weights")
        ]
        once.setdefault(json.dumps(same), r)
    return list(once.values())


def _read(path: Path) -> list[dict]:
    records, lines = [], path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line) if line.strip() else None
            if record is not None:
                if missing := [k for k in REQUIRED if record.get(k) is None]:
                    raise ValueError(f"no {missing[0]}")
                if wrong := [
                    k for k in SCORES if record.get(k) is not None and not isfinite(record[k])
                ]:
                    raise ValueError(f"{wrong[0]} is no number")
                records.append(record)
        except (ValueError, TypeError, AttributeError) as error:
            if number < len(lines):  # the last piece has no newline: it was being written
                raise UserError(
                    f"{path}, line {number}, is no record ({error}); delete that line."
                ) from None
    return records


def aggregate(records: list[dict]) -> list[Row]:
    """One :class:`Row` per (task, row, protocol) of each run, data, size and nfe; by task, then
    PSNR upwards. UserError if an image has two different scores for one row and seed (two settings
    behind one name).
    """
    groups: dict[tuple, dict[str, dict]] = {}
    methods: dict[tuple, str | None] = {}
    for r in records:
        setting = tuple(f"{k} {r[k]}" for k in ("data", "size") if r.get(k) is not None)
        key = r["task"], r["row"], r["protocol"], r.get("run", ""), setting, r.get("nfe")
        methods[key] = methods.get(key) or r.get("method")
        draws = groups.setdefault(key, {}).setdefault(r["name"], {})
        if draws.setdefault(r.get("seed"), r)["psnr"] != r["psnr"]:
            raise UserError(
                f"{r['task']}, {r['row']!r} has two different scores of {r['name']} for one "
                "seed; make the table from one of the results folders."
            )
    rows = []
    for key, images in groups.items():
        values = {
            k: [_mean([d.get(k) for d in draws.values()]) for draws in images.values()]
            for k in (*SCORES, "seconds")
        }
        means = {k: _mean(v) for k, v in values.items()}
        bounds = {k: None if None in values[k] else bootstrap_interval(values[k]) for k in SCORES}
        rows.append(Row(*key, frozenset(images), means, bounds, means.pop("seconds"), methods[key]))
    return sorted(rows, key=lambda row: (row.task, row.protocol, row.setting, row.psnr))


def _mean(values: list) -> float | None:
    return None if None in values else float(np.mean(values))
