"""Restore photographs: ``python scripts/restore.py task=derain input=photo.jpg``;
configs/restore.yaml has the keys.
"""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "restore")
    main()
