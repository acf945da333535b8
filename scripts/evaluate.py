"""Score methods: ``python scripts/evaluate.py run=runs/derain-brownian sampler.nfe=10``; the same
command again goes on.

``python scripts/evaluate.py -m task=derain,dehaze method=irbridge,ddim,classical`` scores the
shipped adapters.
"""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate")
    main()
