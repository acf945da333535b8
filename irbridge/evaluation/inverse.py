"""Inverse problems made from clean images, and those who solve them.

A :class:`Contender` restores a :class:`Measurement`: a zero-shot solver on a frozen prior, a
classical method that knows the operator, or a trained model that is shown the measurement as an
image. All of them are given the very same measurements.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irbridge.backbones.base import Backbone
from irbridge.data.pair import Pair, with_mask
from irbridge.data.problems import measured, operator_of
from irbridge.errors import UserError
from irbridge.evaluation.classical import classical
from irbridge.evaluation.evaluate import evaluate
from irbridge.evaluation.meter import Meter
from irbridge.evaluation.methods import Trained
from irbridge.evaluation.metrics import STANDARD, Metric
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import About, Record, fingerprint, slug
from irbridge.gaussian.noise import image_seed, name_rng
from irbridge.images.arrays import to_image
from irbridge.images.resize import centre_crop
from irbridge.models.restorer import Restorer
from irbridge.models.zero_shot import ZeroShot
from irbridge.operators.base import Operator
from irbridge.operators.blur import Blur
from irbridge.operators.inpaint import Inpaint
from irbridge.operators.super_resolution import SuperResolution
from irbridge.solvers.base import solver as named_solver

# of the Wiener filter, chosen on validation images: its balance is WIENER noise^2, or the least
WIENER, WIENER_LEAST = 40.0, 1e-7


@dataclass(frozen=True)
class Measurement:
    """What a contender is given.

    Args:
        problem: a key of :data:`~irbridge.data.problems.PROBLEMS`.
        noise: std of the measurement's noise, where white is 1.
        name: of the image.
        operator: the known degradation.
        m: the measurement, (1, ...), for images in [-1, 1]; neither clipped nor rounded.
    """

    problem: str
    noise: float
    name: str
    operator: Operator
    m: Tensor

    @cached_property
    def image(self) -> np.ndarray:
        """The measurement as an image to look at, float32 (H, W, 3), clipped to [0, 1]."""
        with torch.no_grad():
            return to_image(self.operator.view(self.m)[0])

    @property
    def mask(self) -> np.ndarray | None:
        """Its holes, bool (H, W), or None."""
        if not isinstance(self.operator, Inpaint):
            return None
        return ~self.operator.known.numpy()

    def seed(self, seed: int) -> int:
        """Of the noise that a contender draws."""
        return image_seed(seed, f"{self.problem} {self.name}")


class Measurements:
    """The measurements of clean images: pairs to score, ``len`` and ``[i]``.

    Holes, kernels and noise are a function of (seed, problem, name of the image) alone.

    Args:
        images: a source of clean images, with ``names``.
        problem: a key of :data:`~irbridge.data.problems.PROBLEMS`.
        noise: std of the noise, where white is 1.
        seed: of all that is random.
        size: side of the centre crop that is measured; None: whole images.
    """

    def __init__(self, images, problem: str, noise: float, seed: int = 0, size: int | None = None):
        self.images, self.problem, self.noise = images, problem, noise
        self.seed, self.size, self.names = seed, size, images.names

    @property
    def task(self) -> str:
        """What records call the problem with its noise."""
        return f"{self.problem}, noise {self.noise:g}"

    def __len__(self) -> int:
        return len(self.names)

    def clean(self, i: int) -> np.ndarray:
        """Image i as it is measured, float32 (H, W, 3) in [0, 1]."""
        return centre_crop(self.images[i], self.size)

    def measurement(self, i: int) -> Measurement:
        """The measurement of image i."""
        return self._of(self.clean(i), self.names[i])

    def _of(self, image: np.ndarray, name: str) -> Measurement:
        """The measurement of a clean image of a name."""
        rng = name_rng(self.seed, f"{self.problem} {name}")
        operator = operator_of(self.problem, image.shape[:2], rng)
        m = measured(operator, image, self.noise, rng)
        return Measurement(self.problem, self.noise, name, operator, m)

    def __getitem__(self, i: int) -> Pair:
        clean, name = self.clean(i), self.names[i]
        given = self._of(clean, name)
        return Pair(name, clean, given.image, given.mask)


@dataclass(frozen=True)
class Contender:
    """One row of the comparison.

    Args:
        label: what tables call it.
        restore: ``restore(measurement, seed)`` gives the image, (H, W, 3) in [0, 1].
        check: ``check(measurement)`` raises UserError where it cannot serve such a measurement.
        warm: called once before the first restoration, so that none pays for what is made once.
        network: whose calls count; None: it has none.
        key: its short name, see :data:`irbridge.evaluation.rows.METHODS`.
        weights: hash of its weights.
        settings: hash of all else that changes a pixel.
        device: where it computes; None: on the CPU.
        more: what else its records say.
    """

    label: str
    restore: Callable[[Measurement, int], np.ndarray]
    check: Callable[[Measurement], None] = lambda given: None
    warm: Callable[[Measurement], object] | None = None
    network: nn.Module | None = None
    key: str | None = None
    weights: str | None = None
    settings: str = ""
    device: torch.device | None = None
    more: dict[str, object] = field(default_factory=dict)

    def about(self, shared: About, given: Measurements) -> About:
        """What each of its records says, those of all rows' included."""
        more = {"problem": given.problem, "noise": given.noise, **self.more}
        named = {"row": self.label, "method": self.key, "weights": self.weights}
        return replace(shared, task=given.task, more=shared.more | more, **named)


def by_solver(backbone: Backbone, name: str, constants: dict, device: torch.device) -> Contender:
    """A zero-shot solver on a frozen prior.

    Args:
        backbone: the prior, on the device.
        name: of the solver.
        constants: those that are not as published.
        device: where it computes.

    Raises:
        UserError: there is no such solver or constant.
    """
    solver = named_solver(name, **constants)

    def model(given: Measurement) -> ZeroShot:
        return ZeroShot(backbone, given.operator, solver, given.noise)

    def restore(given: Measurement, seed: int) -> np.ndarray:
        return to_image(model(given)(given.m.to(device), given.seed(seed))[0])

    def check(given: Measurement) -> None:
        model(given)  # says so itself

    def warm(given: Measurement) -> None:
        # a call of the network, and where gradients are asked for also the way back
        problem = model(given).problem(given.m.to(device), given.operator, [0])
        z = problem.start().requires_grad_(solver.backward)
        with torch.set_grad_enabled(solver.backward):
            x0 = problem.denoise(z, backbone.prior.timestep(1.0))
            if solver.backward:
                torch.autograd.grad(x0.sum(), z)

    said = " ".join(f"{key}={value}" for key, value in constants.items())
    settings = fingerprint([name, asdict(solver), type(solver).published, str(backbone.dtype)])
    return Contender(
        f"{name} {said}".strip(),
        restore,
        check,
        warm,
        backbone.network,
        weights=backbone.digest[:12],
        settings=fingerprint([settings, device.type]),
        device=device,
        more={"solver": name, "constants": constants, "backbone": Path(backbone.name).name},
    )


def by_model(model: Restorer, trained: Trained, named: str, shipped: bool) -> Contender:
    """A trained model, shown the measurement as an image, with its mask where it takes one.

    Args:
        model: it restores as it was trained to.
        trained: what its records say of its weights.
        named: what it was given as, for sentences.
        shipped: it comes with the project, and was not trained for these problems.
    """
    row = model.rows()[-1]

    def restore(given: Measurement, seed: int) -> np.ndarray:
        mask = given.mask if model.masked else None
        return model.restore(given.image, mask=mask, seeds=[given.seed(seed)], **row.options)

    def check(given: Measurement) -> None:
        if model.masked and given.mask is None:
            raise UserError(f"run={named} fills holes, and problem={given.problem} has none.")

    parts = model.parts()
    return Contender(
        row.label + ", shipped" * shipped,
        restore,
        check,
        lambda given: restore(given, 0),
        parts.get("frozen", parts["trainable"]),
        row.key,
        trained.weights,
        trained.settings,
        next(model.parameters()).device,
    )


DEGRADED = Contender("Degraded input", lambda given, seed: given.image, key="identity")
"""The measurement as an image: holes in middle grey; bicubic enlargement; blurred as it is."""


def _fill(given: Measurement) -> np.ndarray:
    return classical("inpaint")[1](with_mask(given.image, given.mask))


def _enlarge(given: Measurement) -> np.ndarray:
    """Bicubic, a = -0.5, as Pillow's and MATLAB's."""
    sides = given.operator.size[1:]
    larger = F.interpolate(given.m, sides, mode="bicubic", align_corners=False, antialias=True)
    return to_image(larger[0])


def _deconvolve(given: Measurement) -> np.ndarray:
    """The Wiener filter of the known kernel, regularised by the Laplacian."""
    from skimage.restoration import wiener

    balance = max(WIENER_LEAST, WIENER * given.noise**2)
    kernel = given.operator.kernel.numpy()
    planes = (given.m[0] / 2 + 0.5).numpy().astype(np.float64)
    restored = [wiener(plane, kernel, balance, clip=False) for plane in planes]
    return np.stack(restored, axis=2).clip(0, 1).astype(np.float32)


METHODS = {Inpaint: _fill, SuperResolution: _enlarge, Blur: _deconvolve}
CLASSICAL = Contender(
    "Classical (biharmonic, bicubic, Wiener)",
    lambda given, seed: METHODS[type(given.operator)](given),
    warm=lambda given: METHODS[type(given.operator)](given),
    key="classical",
    settings=fingerprint([WIENER, WIENER_LEAST]),
)
"""Without learning: biharmonic inpainting, bicubic enlargement, Wiener with the known kernel."""


def compete(
    contender: Contender,
    given: Measurements,
    protocol: Protocol,
    results: Path,
    about: About,
    metrics: tuple[Metric, ...] = STANDARD,
    save_images: bool = False,
    limit: int | None = None,
) -> Iterator[Record]:
    """Score a contender, a record an image; what is scored already stands.

    Args:
        contender: who restores.
        given: what it restores.
        protocol: how images are compared.
        results: records go to ``results/PROBLEM-NOISE/CONTENDER``.
        about: what all records of the comparison say.
        metrics: what is scored.
        save_images: whether the restored images are kept beside the records.
        limit: so many images are scored; None: all.

    Raises:
        UserError: see :func:`~irbridge.evaluation.evaluate.evaluate`.
    """
    meter = Meter(contender.network, contender.device)
    places = {name: i for i, name in enumerate(given.names)}
    left = [contender.warm] if contender.warm else []

    def restore(seen: np.ndarray, name: str) -> np.ndarray:
        measurement = given.measurement(places[name])
        while left:
            left.pop()(measurement)
        return meter.measured(lambda: contender.restore(measurement, given.seed))

    yield from evaluate(
        restore,
        given,
        protocol,
        results / slug(given.task) / slug(contender.label),
        contender.about(about, given),
        metrics,
        contender.settings,
        save_images,
        limit,
        keep_others=True,
        meter=meter,
    )
