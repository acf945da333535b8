"""Draw docs/images/<task>.jpg and print the degraded PSNR of every synthetic task."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["data", "tasks", "--output", "docs/images"]
    main()
