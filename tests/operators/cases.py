"""Operators of all kinds and sizes, for the tests of this folder."""

import torch

from irbridge.operators.catalog import operator
from irbridge.operators.kernels import motion

SIZES = {"even": (3, 16, 24), "odd": (3, 37, 53), "grey": (1, 17, 22)}


def seeded(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype) * 2 - 1


def holes(size, share=0.5):
    return seeded(*size[1:], seed=5) > 1 - 2 * share


def uneven(rows, columns):
    """A kernel without symmetry, so that a flip of it shows."""
    return torch.arange(1.0, rows * columns + 1).view(rows, columns) ** 2


def spectral(size):
    found = {
        "inpaint": operator("inpaint", size, holes=holes(size)),
        "blur": operator("blur", size, kernel=motion(7, seed=3), threshold=0),
        "blur even": operator("blur", size, kernel=uneven(4, 6), threshold=0),
        "blur cut": operator("blur", size, kernel="gaussian", std=1.5),
        "colour": operator("colour", size),
        "denoise": operator("denoise", size),
        "cs": operator("cs", size, rate=0.3, seed=2),
    }
    for factor in (2, 3, 4):
        if size[1] % factor == size[2] % factor == 0:
            for kernel in ("average", "bicubic"):
                name = f"sr {factor} {kernel}"
                found[name] = operator("sr", size, factor=factor, kernel=kernel)
    return found


def linear(size):
    found = spectral(size)
    for padding in ("reflect", "replicate"):
        found[f"blur {padding}"] = operator("blur", size, kernel=uneven(3, 5), padding=padding)
        found[f"even {padding}"] = operator("blur", size, kernel=uneven(4, 6), padding=padding)
    return found | {"ct": operator("ct", size, angles=7)}


def every(size):
    return linear(size) | {"jpeg": operator("jpeg", size), "hdr": operator("hdr", size)}
