"""Numbers of the official codes, or derived (``status``).

Each file names its repository and commit.
"""

import json
from pathlib import Path

import numpy as np
import torch


def load(name):
    return json.loads((Path(__file__).parent / f"{name}.json").read_text())


def tensor(values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 2, 2)


def inputs(table):
    """The fixed x_t (an arbitrary state), x0, y and eps of a table."""
    return (tensor(table["inputs"][k]) for k in ("x_t", "x0", "y", "eps"))


def assert_close(got, expected, atol=2e-6, rtol=1e-4):
    np.testing.assert_allclose(np.ravel(got), np.ravel(expected), rtol=rtol, atol=atol)
