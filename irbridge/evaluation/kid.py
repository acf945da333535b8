"""Kernel distance of two sets of images, on the features that LPIPS compares. Nothing downloads.

KID (Binkowski et al., ICLR 2018) is the squared maximum mean discrepancy of the cubic kernel on
features of an Inception network. The same discrepancy is measured here on the AlexNet trunk of
LPIPS, whose weights the project has, and so it is called ``kid_lpips``: its numbers compare among
themselves, and never with a published KID.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from irbridge.assets import remedy
from irbridge.errors import UserError
from irbridge.evaluation.metrics import Metric
from irbridge.images.arrays import to_bytes
from irbridge.images.io import list_images, read_image
from irbridge.models.perceptual import LPIPS_SIDE, TRUNK, lpips_network

LEAST = 50  # images a side: with fewer the number is mostly chance
SUBSETS, SUBSET = 100, 1000  # for the std: how many, and of how many images at most
BATCH, BLOCK = 64, 2000  # images in one call of the network, rows of a kernel matrix at once


class Kid(NamedTuple):
    """A kernel distance of two sets.

    Attributes:
        value: the unbiased estimate of the squared discrepancy, which may be slightly negative.
        std: of the same estimate over random subsets.
        images: of each side.
        subset: images of a subset.
    """

    value: float
    std: float
    images: tuple[int, int]
    subset: int

    def in_words(self) -> str:
        """The value a thousandfold with its std, and what of."""
        counts = " and ".join(map(str, self.images))
        return (
            f"{1000 * self.value:.2f} ± {1000 * self.std:.2f} x 1e-3 (kid_lpips of {counts} images;"
            f" ± the std of {SUBSETS} subsets of {self.subset})"
        )


@dataclass(frozen=True)
class KidLPIPS(Metric):
    """``kid_lpips`` of all restored images of a row against their clean ones, once a row."""

    name: str = "kid_lpips"
    digits: int = 4
    higher_is_better: bool = False
    luma: bool = False
    whole: bool = True
    smallest: int = LPIPS_SIDE

    def ready(self) -> None:
        """UserError where the trunk is missing or not the known one."""
        _network()

    @override
    def check_row(self, images: int, saved: bool) -> None:
        check_count(images, "The row")
        if not saved:
            raise UserError(
                "kid_lpips compares a row's saved images; give save_images=true with it, in train"
                " evaluate.save_images=true."
            )

    @override
    def of_set(self, restored: Sequence[Path], clean: Sequence[Path], seed: int = 0) -> float:
        return kid_of_files(restored, clean, "The row", "Its clean half", seed, paired=True).value


def kid_of_folders(one: str | Path, other: str | Path, seed: int = 0) -> Kid:
    """The distance of two folders of images of one size.

    Args:
        one: a folder, at least 50 images.
        other: another one.
        seed: of the subsets that the std is of.

    Raises:
        UserError: fewer than 50 images, images of other sizes, or LPIPS's trunk is missing.
    """
    return kid_of_files(list_images(one), list_images(other), str(one), str(other), seed)


def kid_of_files(
    one: Sequence[Path],
    other: Sequence[Path],
    name: str,
    other_name: str,
    seed: int = 0,
    paired: bool = False,
) -> Kid:
    """The distance of two lists of image files; errors as :func:`kid_of_folders`.

    Args:
        one: the files of one set.
        other: those of the other.
        name: what errors call the first set.
        other_name: what they call the second.
        seed: of the subsets that the std is of.
        paired: the i-th images of both show the same; see :func:`mmd`.
    """
    for files, called in ((one, name), (other, other_name)):
        check_count(len(files), called)
    sizes, found = [], []
    for files, called in ((one, name), (other, other_name)):
        images = [to_bytes(read_image(path)) for path in files]
        sizes.append({image.shape[:2] for image in images})
        _check_sides(sizes[-1], called)
        found.append(features(images))
    if sizes[0] != sizes[1]:
        first, second = (min(shapes) for shapes in sizes)
        raise UserError(
            f"{name} and {other_name} hold images of other sizes, such as {first[1]} x {first[0]}"
            f" and {second[1]} x {second[0]}; kid_lpips compares images of the same sizes."
        )
    return kid(*found, seed=seed, paired=paired)


def check_count(count: int, called: str) -> None:
    """UserError below 50 images."""
    if count < LEAST:
        raise UserError(
            f"{called} has {count} images; kid_lpips needs {LEAST} or more on each side, and"
            " hundreds to tell much."
        )


def _check_sides(shapes: set[tuple[int, int]], called: str) -> None:
    smallest = min(min(shape) for shape in shapes)
    if smallest < LPIPS_SIDE:
        raise UserError(
            f"{called} has an image of {smallest} pixels a side; kid_lpips needs {LPIPS_SIDE}."
        )


def features(images: Sequence[np.ndarray]) -> np.ndarray:
    """What kid_lpips compares of images.

    As in LPIPS the activations of five layers are scaled to unit length at each place. Their means
    over all places follow one another, each layer's times the root of its channels, so that the
    squared length of the whole is at most its number of entries.

    Args:
        images: uint8 (H, W, 3), at least 31 pixels a side.

    Returns:
        (N, 1152), float64.

    Raises:
        UserError: the trunk is missing, or not the known one.
    """
    network, found = _network(), [None] * len(images)
    for indices in _of_one_shape(images):
        stack = np.stack([images[i] for i in indices])
        pixels = torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            layers = network.net(network.scaling_layer(pixels))
            described = torch.cat([_described(layer) for layer in layers], 1)
        for i, vector in zip(indices, described.double().numpy(), strict=True):
            found[i] = vector
    return np.stack(found)


def _network():
    """LPIPS's network; UserError where its trunk is missing or another."""
    if not Path(TRUNK).is_file():
        raise UserError(
            f"{TRUNK} is missing, without which there is no kid_lpips; {remedy('data/metrics')}."
        )
    return lpips_network(TRUNK)


def _of_one_shape(images: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """The indices of images that go through the network together."""
    by_shape: dict[tuple, list[int]] = {}
    for i, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(i)
    for indices in by_shape.values():
        for begun in range(0, len(indices), BATCH):
            yield indices[begun : begun + BATCH]


def _described(layer: Tensor) -> Tensor:
    """A layer's activations (B, C, H, W) as a vector each, (B, C)."""
    return F.normalize(layer, dim=1, eps=1e-10).mean((2, 3)) * layer.shape[1] ** 0.5


def kid(one: np.ndarray, other: np.ndarray, seed: int = 0, paired: bool = False) -> Kid:
    """The distance of two sets of features, with its std over subsets.

    Args:
        one: (N, D).
        other: (M, D).
        seed: of the subsets.
        paired: as of :func:`mmd`; a subset then has the same images of both.
    """
    rng = np.random.default_rng([seed])
    size = min(len(one), len(other), 2 * SUBSET) // 2
    values = []
    for _ in range(SUBSETS):
        chosen = rng.permutation(len(one))[:size]
        others = chosen if paired else rng.permutation(len(other))[:size]
        values.append(mmd(one[chosen], other[others], paired))
    counts = len(one), len(other)
    return Kid(mmd(one, other, paired), float(np.std(values, ddof=1)), counts, size)


def mmd(one: np.ndarray, other: np.ndarray, paired: bool = False) -> float:
    """The unbiased estimate of the squared discrepancy (Gretton et al., JMLR 2012, lemma 6).

    The mean kernel between different images of a set, of both sets, less twice that across them.

    Args:
        one: (N, D), N at least 2.
        other: (M, D), M at least 2.
        paired: row i of both is of the same scene, as of restored and clean images, so that the
            two are not independent. Those terms are then left out across the sets too: the
            estimate stays unbiased, and is 0 of equal sets.

    Returns:
        0 in the mean if both are draws of one law.
    """
    within = sum(_mean_kernel(x, x, distinct=True) for x in (one, other))
    return within - 2 * _mean_kernel(one, other, distinct=paired)


def _mean_kernel(one: np.ndarray, other: np.ndarray, distinct: bool) -> float:
    """The mean of (x . y / D + 1)^3 over all rows x and y.

    Args:
        one: (N, D).
        other: (M, D).
        distinct: over the rows of different indices only; N and M are then equal.
    """
    total, width = 0.0, one.shape[1]
    for begun in range(0, len(one), BLOCK):
        total += ((one[begun : begun + BLOCK] @ other.T / width + 1) ** 3).sum()
    count = len(one) * len(other)
    if distinct:
        total -= ((np.einsum("nd,nd->n", one, other) / width + 1) ** 3).sum()
        count -= len(one)
    return float(total / count)
