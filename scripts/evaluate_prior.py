"""PSNR of one call of the prior: ``evaluate_prior.py images=data/samples/test``."""

import sys

from irbridge.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "prior")
    main()
