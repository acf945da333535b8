"""Restore photographs: ``python scripts/restore.py task=derain input=photo.jpg``."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "restore")
    main()
