"""Where the time and memory of training and restoring go.

``python scripts/benchmark.py task=derain backbone=sd15``
"""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "benchmark")
    main()
