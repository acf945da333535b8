"""Bridges, step rules and call counts: ``compare_samplers.py run=data/adapters/derain``."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "compare")
    main()
