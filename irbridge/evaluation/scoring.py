"""Scoring."""

import zlib
from pathlib import Path

from tqdm import tqdm

from irbridge.evaluation.evaluate import evaluate
from irbridge.evaluation.methods import Row
from irbridge.evaluation.metrics import LPIPS
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import aggregate, read_records
from irbridge.evaluation.vae_reference import RoundTrip
from irbridge.files import sha256
from irbridge.reports.table import to_markdown


def score_rows(
    rows: list[Row],
    pairs,
    protocol: Protocol,
    results: Path,
    about: dict,
    options: dict,
    share: tuple[int, int] = (0, 1),
    reference: RoundTrip | None = None,
) -> str:
    """Score every row into ``results/<row>/records.jsonl`` under a progress bar; prints and returns
    the table of all that is scored there. ``share`` and ``reference``: see
    :func:`~irbridge.evaluation.evaluate.evaluate`.
    """
    lpips, (rank, world) = LPIPS.load(), share
    total = len(rows) * len(pairs.names[: options["limit"]][rank::world])
    with tqdm(
        total=total, desc="scoring", unit="image", disable=rank > 0, dynamic_ncols=True
    ) as bar:
        for row in rows:
            for _ in evaluate(
                row.restore,
                pairs,
                protocol,
                results / slug(row.label),
                about | row.about(),
                lpips,
                options["save_images"],
                options["limit"],
                share,
                reference,
            ):
                bar.update()
    if rank > 0:
        return ""
    table = to_markdown(aggregate(read_records(results)))
    print("\n" + table + "\n")
    return table


def weights_hash(folder: Path) -> str:
    """A short hash of what was trained, so that scores of older weights are not taken for these."""
    return sha256(folder / "model.safetensors")[:12]


def slug(text: str, longest: int = 150) -> str:
    """Text as the name of a folder."""
    name = "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
    return name if len(name) <= longest else f"{name[:longest]}-{zlib.crc32(name.encode()):08x}"
