"""The known degradation of photographs of any size, as a command names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from irbridge.errors import UserError, unknown
from irbridge.files import sha256
from irbridge.images.formats import max_pixels
from irbridge.images.holes import check_mask_size
from irbridge.images.samples import read_header
from irbridge.operators.base import Operator
from irbridge.operators.catalog import OPERATORS, operator
from irbridge.operators.kernels import KERNELS, kernel_of, read_kernel
from irbridge.operators.super_resolution import FACTOR as FACTORS
from irbridge.ranges import SIDE, check_values, shown
from irbridge.restoration.jobs import Job

# whose measurement is a photograph; others (compressed sensing, CT) measure something else
WORDS = "inpaint", "sr", "blur", "colour", "denoise", "jpeg", "hdr"
BLUR = "padding", "threshold"  # settings of a blur that are not its kernel's
FACTOR = 4  # of sr where it is not given
# pixels of a side at which an operator is tried out: of the restored image, and at least
ENOUGH, SMALLEST = 256, 8


class Degradation:
    """A known degradation, without the size of the images.

    Args:
        name: of the operator, one of :data:`WORDS`.
        settings: of the operator, by name; JSON. The kernel of a blur is a word of
            :data:`~irbridge.operators.kernels.KERNELS`, or the path of a file.

    Raises:
        UserError: the word is unknown, a setting does not fit, or the kernel cannot be read.
    """

    def __init__(self, name: str, settings: dict):
        if name in OPERATORS and name not in WORDS:
            raise UserError(
                f"operator={name} measures no photograph, so there is none to restore; use it in"
                " Python, by irbridge.zeroshot."
            )
        if name not in WORDS:
            fault = f"operator={shown(name)} is unknown"
            raise unknown(fault, name, WORDS, f"choose one of {', '.join(WORDS)}")
        if name == "inpaint" and settings:
            raise UserError(
                f"operator=inpaint has no setting {next(iter(settings))}; give mask=FILE, white"
                " where the photograph is to be filled."
            )
        if name == "sr":
            settings = {"factor": FACTOR} | settings
            check_values({"factor": FACTORS}, settings, "operator")
        self.name, self.given, self.settings = name, settings, settings
        self.digest = None  # of a kernel's file
        self.passed: set[tuple[int, int]] = set()  # sides at which it was tried out
        if name == "blur":
            self.settings = self._blurring(dict(settings))
        self.tried()

    def _blurring(self, settings: dict) -> dict:
        """The settings of a blur with its kernel, which is made or read once."""
        word = settings.pop("kernel", None)
        if word is None:
            raise UserError(
                "operator=blur must be told its kernel; give kernel=FILE, or"
                f" kernel={' or kernel='.join(KERNELS)}."
            )
        numbers = {key: settings[key] for key in settings if key not in BLUR}
        kept = {key: settings[key] for key in settings if key in BLUR}
        path = Path(str(word)).expanduser()
        if str(word) not in KERNELS and (path.suffix or path.is_file()) and not numbers:
            kernel, self.digest = read_kernel(path), sha256(path)
        else:
            kernel = kernel_of(str(word), **numbers)
        return kept | {"kernel": kernel}

    @property
    def masked(self) -> bool:
        """Whether it leaves holes, which a mask names."""
        return self.name == "inpaint"

    @property
    def coloured(self) -> bool:
        """Whether a grey photograph becomes one of colours."""
        return self.name == "colour"

    @property
    def factor(self) -> int:
        """How many times as large the sides of the restored photograph are."""
        return self.settings["factor"] if self.name == "sr" else 1

    def of(self, height: int, width: int, holes: Tensor | np.ndarray | None = None) -> Operator:
        """The operator of photographs of these sides, in pixels.

        Args:
            height: of the photograph as it is read.
            width: of it.
            holes: bool (H, W), True where it is to be filled, where it has holes.
        """
        size = 3, height * self.factor, width * self.factor
        own = {"holes": holes} if self.masked else {}
        return operator(self.name, size, **self.settings, **own)

    def __call__(self, image: Tensor, mask: Tensor | None) -> Operator:
        """The operator of an image (B, 3, H, W) as it is read, with one mask (B, 1, H, W)."""
        return self.of(*image.shape[-2:], None if mask is None else mask[0, 0])

    def tried(self) -> Operator:
        """The operator of a small photograph, for what does not depend on its size."""
        sides = self._small(SIDE, SIDE)
        return self.of(*sides, np.zeros(sides, bool))

    def _small(self, height: int, width: int) -> tuple[int, int]:
        """The sides of a photograph, or smaller ones at which an operator refuses the same.

        So nothing large is computed to find out.
        """
        kernel = self.settings.get("kernel")
        enough = max(ENOUGH // self.factor, SMALLEST, *getattr(kernel, "shape", ()))
        return min(height, enough), min(width, enough)

    def check(self, job: Job) -> None:
        """UserError where it cannot be of a photograph, as far as its header says.

        That is where the kernel is larger, the mask of another size, or the result too large.
        """
        (width, height), _ = read_header(job.source)
        if self.masked and job.mask:
            check_mask_size(read_header(job.mask)[0], (width, height), job.mask, job.source)
        check_result(job, self.factor, "operator.factor")
        small = self._small(height, width)
        if small in self.passed:
            return
        try:
            self.of(*small, np.zeros(small, bool))
        except UserError:
            self.of(height, width, np.zeros((height, width), bool))  # names the whole size
            raise
        self.passed.add(small)

    def record(self) -> dict:
        """What a report says of it; JSON. A kernel's file counts by what it holds."""
        found = {"name": self.name, **self.given}
        if self.digest:
            found["kernel"] = self.digest
        return found


def check_result(job: Job, factor: int, word: str) -> None:
    """UserError where a photograph of ``factor`` times the sides is larger than an image may be.

    Args:
        job: the photograph, of which the header is read.
        factor: how many times as large.
        word: of the command, which says the factor.
    """
    width, height = (side * factor for side in read_header(job.source)[0])
    if max(width, height) > SIDE or width * height > max_pixels():
        raise UserError(
            f"{job.source.name} would become {width} x {height} pixels, more than an image may have"
            f" here; give a smaller {word} than {factor}, or cut it into parts."
        )
