"""Tables, pages and plots of scored runs: ``python scripts/make_tables.py runs/derain``."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "table")
    main()
