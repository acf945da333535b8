"""A finished run as a folder to hand on; ``--help`` says how."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "export")
    main()
