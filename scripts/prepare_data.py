"""Public sets and what goes where: ``python scripts/prepare_data.py list``."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "data")
    main()
