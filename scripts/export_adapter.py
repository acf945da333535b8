"""Turn a finished run into a folder to hand on, with a model card; see configs/export.yaml."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "export")
    main()
