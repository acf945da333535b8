"""Where time and memory go: ``python scripts/profile_speed.py task=derain``."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "profile")
    main()
