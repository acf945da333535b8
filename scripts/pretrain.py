"""Train an unconditional prior: ``python scripts/pretrain.py data.train=[photos.tar]``."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "pretrain")
    main()
