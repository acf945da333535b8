"""Score methods: ``python scripts/evaluate.py run=runs/derain-brownian sampler.nfe=10``."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate")
    main()
