"""The web page: ``python scripts/demo.py port=7860 task=derain``."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "demo")
    main()
