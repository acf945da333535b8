"""``python -m irbridge`` is the command ``irbridge``."""

from irbridge.cli import main

if __name__ == "__main__":
    main()
