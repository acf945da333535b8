"""Scores of one restored image beside its reference, under a stated protocol.

Each score is a :class:`Metric`, which also says how tables show it. A metric of your own is a
subclass with one method, ``measure``, and a file ``configs/metric/NAME.yaml`` that names the class
(docs/evaluation.md). Nothing here downloads.
"""

import hashlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import ClassVar

import numpy as np

from irbridge.errors import UserError
from irbridge.evaluation.protocol import Protocol
from irbridge.images.arrays import to_bytes
from irbridge.models.perceptual import LPIPS_SIDE, TRUNK, lpips_network

MAX_PSNR = 100.0  # dB; stands for identical images too, so that every score is finite
SSIM_WINDOW = 11
LARGEST = 1e100  # of any score; beyond, means and tables could not be made
LOOKED_AT = 200  # test images that are read before a training; of a large set only the first


@dataclass(frozen=True)
class Metric:
    """A number for a restored image beside a reference, and how tables show it.

    Args:
        name: what headings call it.
        digits: decimals in tables.
        higher_is_better: which way tables rank it.
        luma: whether ``protocol.space=y`` has it look at the luma alone; otherwise it always sees
            8-bit RGB.
        unit: behind its name on the axis of a plot.
        reference: what it compares with: "clean", or "vae", the VAE's round trip of the clean
            image.
        whole: it is one number for all images of a row, not for each; :meth:`of_set` measures it
            once the row's images are there.
        smallest: least side in pixels of an image that it can score.

    A plain ``Metric`` only describes: that is how tables are made of records whose class is not
    here. Subclasses measure.

    Example:
        >>> from dataclasses import dataclass
        >>> import numpy as np
        >>> from irbridge.evaluation.metrics import Metric
        >>> from irbridge.evaluation.protocol import Protocol
        >>> @dataclass(frozen=True)
        ... class Worst(Metric):
        ...     name: str = "Worst"
        ...     digits: int = 1
        ...     higher_is_better: bool = False
        ...
        ...     def measure(self, restored, reference):
        ...         return float(np.abs(restored - reference).max())
        >>> Worst()(np.zeros((8, 8, 3)), np.ones((8, 8, 3)), Protocol())
        255.0
    """

    name: str
    digits: int
    higher_is_better: bool
    luma: bool = True
    unit: str = ""
    reference: str = "clean"
    whole: bool = False
    smallest: int = 1
    packages: ClassVar[tuple[str, ...]] = ()  # whose release the score depends on

    @property
    def key(self) -> str:
        """Under which records hold it, such as "psnr" or "psnr_vae"."""
        word = re.sub(r"\W+", "_", self.name.lower()).strip("_")
        return word if self.reference == "clean" else f"{word}_{self.reference}"

    @property
    def title(self) -> str:
        """Name and reference: "PSNR", "PSNR to VAE"."""
        return self.name if self.reference == "clean" else f"{self.name} to VAE"

    @property
    def arrow(self) -> str:
        """Points where the better scores are."""
        return "↑" if self.higher_is_better else "↓"

    def heading(self, protocol: str) -> str:
        """Of a table's column, such as "PSNR (Y) ↑"; ``protocol``: as the records describe it."""
        space = " (Y)" if self.luma and protocol.startswith("y,") else ""
        return f"{self.title}{space} {self.arrow}"

    def against_vae(self) -> "Metric":
        """The description of the same score against the VAE's round trip of the clean image."""
        return Metric(
            self.name, self.digits, self.higher_is_better, self.luma, self.unit, reference="vae"
        )

    def format(self, value: float, digits: int | None = None) -> str:
        """A value with the metric's decimals, or with at most ``digits``."""
        places = self.digits if digits is None else min(self.digits, digits)
        return f"{value:.{places}f}"

    def identity(self) -> str:
        """A short hash of what measures: the class's code and fields, and its packages' releases.

        A score that another one measured is not taken for this one's.
        """
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "path"}
        parts = [repr(said), *(release(name) for name in self.packages), _code(type(self))]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def ready(self) -> None:
        """Load what it needs, so that what is missing shows before the first image is restored."""

    def check(self, shape: tuple[int, ...], protocol: Protocol) -> None:
        """Refuse images of this shape, (H, W, 3), where the protocol's crop leaves too little.

        Raises:
            UserError: it does.
        """
        if min(shape[:2]) - 2 * protocol.crop < self.smallest:
            raise UserError(
                f"An image of shape {shape} with crop {protocol.crop} leaves less than the "
                f"{self.smallest} x {self.smallest} pixels to score; use larger images or a"
                " smaller crop."
            )

    def measure(self, restored: np.ndarray, reference: np.ndarray) -> float | None:
        """The score of two images; None where it cannot be had of these.

        Args:
            restored: float64 on 0 to 255, (H, W, 3), or (H, W) where only the luma is compared.
            reference: likewise, of the same shape.
        """
        raise NotImplementedError(f"{self.name} of older records is described, but not computed.")

    def check_row(self, images: int, saved: bool) -> None:
        """UserError where a row of so many images, saved or not, cannot be scored as a whole."""

    def of_set(self, restored: Sequence[Path], clean: Sequence[Path], seed: int = 0) -> float:
        """The score of a row as a whole, where ``whole`` says so.

        Args:
            restored: the files of the restored images.
            clean: those of the clean ones, in the same order.
            seed: of what the metric draws.
        """
        raise NotImplementedError(f"{self.name} of older records is described, but not computed.")

    def __call__(
        self, restored: np.ndarray, reference: np.ndarray, protocol: Protocol
    ) -> float | None:
        """The score under a protocol.

        Args:
            restored: float (H, W, 3) in [0, 1].
            reference: likewise, of the same shape.
            protocol: how the two are compared.

        Raises:
            UserError: if shapes differ, an image is not float (H, W, 3) or not finite, or the
                protocol's crop leaves too little.
        """
        seen = protocol if self.luma else replace(protocol, space="rgb", quantise=True)
        images = _prepared(restored, reference, seen)
        self.check(reference.shape, protocol)
        found = self.measure(*images)
        # not finite is no score: no mean could be made of it
        if found is None or not isfinite(found) or abs(found) > LARGEST:
            return None
        return float(found)


@dataclass(frozen=True)
class PSNR(Metric):
    """Peak signal-to-noise ratio in dB, peak 255 in either space, at most ``MAX_PSNR``."""

    name: str = "PSNR"
    digits: int = 2
    higher_is_better: bool = True
    unit: str = "dB"
    packages: ClassVar[tuple[str, ...]] = ("scikit-image",)

    def measure(self, restored: np.ndarray, reference: np.ndarray) -> float:
        """In dB; see :meth:`Metric.measure`."""
        from skimage.metrics import peak_signal_noise_ratio

        with np.errstate(divide="ignore"):
            found = peak_signal_noise_ratio(reference, restored, data_range=255)
        return min(float(found), MAX_PSNR)


@dataclass(frozen=True)
class SSIM(Metric):
    """Structural similarity (Wang et al., 2004), mean over channels.

    Its window is Gaussian, 11 x 11, sigma 1.5. Windows that would leave the image do not count.
    """

    name: str = "SSIM"
    digits: int = 4
    higher_is_better: bool = True
    smallest: int = SSIM_WINDOW
    packages: ClassVar[tuple[str, ...]] = ("scikit-image",)

    def measure(self, restored: np.ndarray, reference: np.ndarray) -> float:
        """From -1 to 1; see :meth:`Metric.measure`."""
        from skimage.metrics import structural_similarity

        found = structural_similarity(
            reference,
            restored,
            win_size=SSIM_WINDOW,
            gaussian_weights=True,
            sigma=1.5,
            K1=0.01,
            K2=0.03,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=-1 if reference.ndim == 3 else None,
        )
        return float(found)


@dataclass(frozen=True)
class LPIPS(Metric):
    """LPIPS v0.1 with AlexNet (Zhang et al., CVPR 2018) of the ``lpips`` package, on the CPU.

    It is always of 8-bit RGB images, after the protocol's crop.

    Args:
        path: AlexNet's convolutions under torchvision's names, safetensors. Where the file is
            missing there is no score; a file that is not the one known to give the published
            scores is refused.
    """

    name: str = "LPIPS"
    digits: int = 4
    higher_is_better: bool = False
    luma: bool = False
    path: str | Path = TRUNK
    packages: ClassVar[tuple[str, ...]] = ("lpips",)

    def identity(self) -> str:
        """As of any metric; without the weights' file it measures nothing."""
        return f"{super().identity()}, {'with' if Path(self.path).is_file() else 'no'} weights"

    def ready(self) -> None:
        """Load the network where its weights are; UserError if they are other ones."""
        if Path(self.path).is_file():
            lpips_network(self.path)

    def measure(self, restored: np.ndarray, reference: np.ndarray) -> float | None:
        """0 for identical images; None below 31 pixels a side, or without the weights' file."""
        if min(reference.shape[:2]) < LPIPS_SIDE or not Path(self.path).is_file():
            return None
        import torch

        images = np.stack([restored / 255, reference / 255])
        pair = torch.from_numpy(images).permute(0, 3, 1, 2).float() * 2 - 1
        with torch.inference_mode():
            return lpips_network(self.path)(pair[:1], pair[1:]).item()


@dataclass(frozen=True)
class MAE(Metric):
    """Mean absolute error of a pixel's channel, of 255."""

    name: str = "MAE"
    digits: int = 2
    higher_is_better: bool = False

    def measure(self, restored: np.ndarray, reference: np.ndarray) -> float:
        """From 0 to 255; see :meth:`Metric.measure`."""
        return float(np.abs(restored - reference).mean())


@cache
def release(package: str) -> str:
    """A package and its release; what is not installed has none."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


@cache
def _code(cls: type) -> str:
    """The code of a class; of one that was typed in, and has none, its name."""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return cls.__qualname__


psnr, ssim = PSNR(), SSIM()
STANDARD: tuple[Metric, ...] = psnr, ssim, LPIPS()
"""The metrics that every table of pairs has."""


def score(
    restored: np.ndarray,
    reference: np.ndarray,
    protocol: Protocol,
    metrics: tuple[Metric, ...] = STANDARD,
) -> dict[str, float | None]:
    """Scores of a restored image by key; arguments and errors as :meth:`Metric.__call__`."""
    return {metric.key: metric(restored, reference, protocol) for metric in metrics}


def check_scorable(
    pairs, protocol: Protocol, metrics: tuple[Metric, ...] = STANDARD, limit: int | None = None
) -> None:
    """Refuse, before anything is trained, what scoring would refuse after it.

    Args:
        pairs: ``names`` and ``pairs[i]``; the first ``LOOKED_AT`` of them are read.
        protocol: how they will be compared.
        metrics: by which they will be scored.
        limit: so many pairs will be scored; None: all.

    Raises:
        UserError: a metric lacks what it needs, or an image cannot be read or scored.
    """
    for metric in metrics:
        metric.ready()
    for index, name in enumerate(pairs.names[:limit][:LOOKED_AT]):
        clean = pairs[index].clean
        try:
            for metric in metrics:
                metric.check(clean.shape, protocol)
            _prepare(clean, protocol)
        except UserError as error:
            raise UserError(f"The test image {name} cannot be scored: {error}") from None


def bootstrap_interval(values, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap interval (low, high) of the mean; one value gives itself twice."""
    values, rng = np.asarray(values, dtype=np.float64), np.random.default_rng([seed])
    at_once = max(1, 10**6 // len(values))  # bounds the memory; the draws are the same in pieces
    means = []
    for begun in range(0, draws, at_once):
        count = min(at_once, draws - begun)
        drawn = rng.integers(0, len(values), (count, len(values)))
        means.append(values[drawn].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(low), float(high)


def _prepared(restored: np.ndarray, reference: np.ndarray, protocol: Protocol) -> list[np.ndarray]:
    """Both images as the protocol compares them: float64 on 0 to 255, (H, W, 3), or (H, W) in y."""
    if restored.shape != reference.shape:
        raise UserError(
            f"The restored image {restored.shape} and its reference {reference.shape} differ in "
            "shape; compare images of one size."
        )
    return [_prepare(restored, protocol), _prepare(reference, protocol)]


def _prepare(image: np.ndarray, protocol: Protocol) -> np.ndarray:
    fits = image.ndim == 3 and image.shape[2] == 3 and image.dtype.kind == "f"
    if not fits or not np.isfinite(image).all():
        raise UserError(
            "An image to score must be finite float (H, W, 3) in [0, 1], not "
            f"{image.dtype} {image.shape} or NaN; read it with irbridge.read_image."
        )
    x = to_bytes(image) if protocol.quantise else image.clip(0, 1).astype(np.float64) * 255
    height, width = x.shape[:2]
    c = protocol.crop
    x = x[c : max(height - c, c), c : max(width - c, c)].astype(np.float64)
    return x if protocol.space == "rgb" else 16 + x @ np.array([65.481, 128.553, 24.966]) / 255
