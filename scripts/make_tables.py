"""Tables, pictures and plots from scored runs: ``python scripts/make_tables.py runs/derain format=latex output=t.tex``;
every option is in irbridge/tables_command.py."""

import os
import sys

from irbridge.errors import UserError
from irbridge.tables_command import main

if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        if os.environ.get("IRBRIDGE_DEBUG") == "1":
            raise
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
