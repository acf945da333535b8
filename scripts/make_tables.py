"""Tables from scored runs: ``python scripts/make_tables.py runs/derain format=latex output=table.tex``.

The folder is a run, its results, or a folder of runs; format is md (the default), latex or csv; the table is
printed where no output is named.
"""

import os
import sys
from pathlib import Path

from irbridge.errors import UserError
from irbridge.tables import aggregate, read_records, to_csv, to_latex, to_markdown

FORMATS = {"md": to_markdown, "latex": to_latex, "csv": to_csv}


def main(words: list[str]) -> None:
    folders = [w for w in words if "=" not in w]
    options = dict(w.split("=", 1) for w in words if "=" in w)
    unknown = sorted(options.keys() - {"format", "output"})
    if unknown:
        raise UserError(f"{unknown[0]!r} is not a key; the keys are format and output.")
    if len(folders) != 1:
        raise UserError("Give one folder: make_tables.py FOLDER [format=md|latex|csv] [output=FILE].")
    form = options.get("format", "md")
    if form not in FORMATS:
        raise UserError(f"format={form!r} is not known; use {', '.join(FORMATS)}.")
    text = FORMATS[form](aggregate(read_records(folders[0])))
    if "output" not in options:
        print(text)
        return
    try:
        Path(options["output"]).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        reason = f"output={options['output']!r} cannot be written ({error.strerror})"
        raise UserError(f"{reason}; choose a writable place.") from error


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        if os.environ.get("IRBRIDGE_DEBUG") == "1":
            raise
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
