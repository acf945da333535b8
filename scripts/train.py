"""Train a restoration model, score it on held-back images and draw it.

``python scripts/train.py task=derain``; the same command again resumes. ``--cfg job`` prints every
key.
"""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
