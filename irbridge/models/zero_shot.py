"""Restoration by a frozen prior and a known operator: nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from irbridge.backbones.base import Backbone
from irbridge.backbones.pixel import load_backbone
from irbridge.errors import UserError
from irbridge.gaussian.noise import Noise
from irbridge.images.arrays import pad
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.restorer import Restorer, State
from irbridge.operators.base import Operator
from irbridge.ranges import NOISE, shown
from irbridge.solvers.base import Problem, Solver
from irbridge.solvers.base import solver as named_solver


@dataclass
class Kind:
    """Operators of one kind, made for each image by its size.

    Args:
        name: the operator's word.
        make: the operator of an image (B, 3, H, W) in [-1, 1] as it was read, and of its mask
            (B, 1, H, W), True in the holes, or None.
        factor: sides of the restored image by those of the one that was read.
        settings: what else makes it, by name; JSON.
    """

    name: str
    make: Callable[[Tensor, Tensor | None], Operator]
    factor: int = 1
    settings: dict = field(default_factory=dict)


class Decoded(Operator):
    """An operator on the image that a latent state decodes to: ``A(decode(z))``.

    It is not linear, so that only solvers which ask for gradients alone can serve it.

    Args:
        operator: on images.
        backbone: that encodes and decodes them.
        tiles: by which it does so.
    """

    linear, spectral = False, False

    def __init__(self, operator: Operator, backbone: Backbone, tiles: Tiles):
        _, height, width = operator.size
        factor = backbone.stride
        sides = (-(-side // factor) * factor // backbone.factor for side in (height, width))
        super().__init__((backbone.channels, *sides))
        self.image, self.backbone, self.tiles = operator, backbone, tiles
        self.name, self.differentiable = operator.name, operator.differentiable

    def decode(self, state: Tensor) -> Tensor:
        """The image of a state, of the operator's own size."""
        _, height, width = self.image.size
        return self.backbone.decode(state, self.tiles)[..., :height, :width]

    @override
    def __call__(self, x: Tensor) -> Tensor:
        return self.image(self.decode(x))

    @override
    def inverse(self, m: Tensor) -> Tensor:
        image = self.image.inverse(m).clamp(-1, 1)
        return self.backbone.encode(pad(image, self.backbone.stride), self.tiles).clone()


class ZeroShot(Restorer):
    """A solver on a frozen prior, for one operator or one kind of it.

    Args:
        backbone: the frozen prior.
        operator: the known degradation, or its kind.
        solver: the method and its constants.
        noise: std of the measurement's noise, in units of images in [0, 1].

    Raises:
        UserError: solver, operator and noise do not go together.

    Example:
        ```python
        import irbridge
        from irbridge.operators import catalog

        operator = catalog.operator("sr", (3, 128, 128), factor=4)
        restored = irbridge.zeroshot(None, operator, "ddrm", noise=0.05)(measurement)
        ```
    """

    def __init__(
        self, backbone: Backbone, operator: Operator | Kind, solver: Solver, noise: float = 0.0
    ):
        super().__init__()
        if not NOISE.fits(noise):
            raise UserError(f"noise={shown(noise)} must be {NOISE.wanted}.")
        if not isinstance(operator, Operator | Kind):
            raise UserError(
                f"operator={shown(operator)} is no operator; give one such as"
                " irbridge.operators.catalog.operator makes."
            )
        self.backbone, self.operator, self.noise = backbone, operator, noise
        self.stride = backbone.stride
        self.nothing = nn.Identity()  # in the place of what other methods train
        self.solver = solver.settled(operator.name)
        if isinstance(operator, Operator):
            self.check(operator)

    def check(self, operator: Operator) -> None:
        """UserError where the solver cannot serve a measurement of an operator on this prior."""
        on = Decoded(operator, self.backbone, WHOLE) if self.latent else operator
        self.solver.check(on, 2 * self.noise)
        _ = self.solver.levels(self.backbone.prior)  # no more than it has timesteps

    @property
    def latent(self) -> bool:
        """Whether the prior's states are latents."""
        return self.backbone.vae is not None

    @override
    def trainable(self) -> nn.Module:
        return self.nothing

    @override
    def parts(self) -> dict[str, nn.Module]:
        parts = {"frozen": self.backbone.network}
        return parts if self.backbone.vae is None else parts | {"vae": self.backbone.vae}

    @property
    @override
    def digest(self) -> str:
        return self.backbone.digest

    @override
    def load(self) -> None:
        _ = self.backbone.network

    @override
    def calls(self, **options) -> int:
        return self.solver.calls

    @override
    def image(self, state: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        return self.backbone.decode(state, tiles)

    def denoise(self, z: Tensor, tau: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """The prior's clean estimate of a state of any sides, tile by tile.

        Args:
            z: (B, C, H, W).
            tau: the prior's timestep, () or (B,).
            tiles: how the state is cut for each call of the network.
        """
        height, width = z.shape[-2:]
        factor = self.backbone.factor
        if tau.dim():  # each image of a call of its own level, so that no tiles are joined
            tiles = replace(tiles, batch=1)

        def called(part: Tensor) -> Tensor:
            with self.networks():
                return self.backbone.denoise(part, tau)

        stride, cut = self.stride // factor, tiles.of_states(factor)
        z = pad(z, stride)
        call = called
        if torch.is_grad_enabled() and cut.count(*z.shape[-2:], stride) > 1:
            # each tile is computed again where its gradient passes: one graph at a time is held
            call = partial(checkpoint, called, use_reentrant=False)
        return cut(call, z, stride=stride)[..., :height, :width]

    def problem(
        self, m: Tensor, operator: Operator, seeds: list[int], tiles: Tiles = WHOLE
    ) -> Problem:
        """What the solver is given for measurements m (B, ...)."""
        drawn = Noise(seeds)
        return Problem(
            lambda z, tau: self.denoise(z, tau, tiles),
            self.backbone.prior,
            Decoded(operator, self.backbone, tiles) if self.latent else operator,
            m,
            2 * self.noise,
            lambda like: drawn(like).to(like),
            self.backbone.network,
            self.backbone.bounded,
        )

    @override
    def fitted(self, y: Tensor) -> Tensor:
        return y  # an operator has the image's own size, and states are padded call by call

    @override
    def sides(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.operator, Operator):
            return self.operator.size[1:]
        return height * self.operator.factor, width * self.operator.factor

    @property
    @override
    def keeps_known(self) -> bool:
        return self.noise == 0

    def operator_of(self, image: Tensor, mask: Tensor | None = None) -> Operator:
        """The operator of an image as it was read, see :class:`Kind`.

        Raises:
            UserError: it does not fit the image, or the solver not it.
        """
        if isinstance(self.operator, Operator):
            return self.operator
        with torch.inference_mode(False):  # a solver may ask it for gradients
            operator = self.operator.make(image, mask)
        self.check(operator)
        return operator

    @override
    def trajectory(
        self, y: Tensor, seeds: list[int] | None = None, tiles: Tiles = WHOLE, **options
    ) -> Iterator[State]:
        image = y[:, :3]
        operator = self.operator_of(image, y[:, 3:] > 0 if y.shape[1] > 3 else None)
        seeds = [*range(len(y))] if seeds is None else seeds
        yield from self.solve(operator.read(image), operator, seeds, tiles)

    def solve(
        self, m: Tensor, operator: Operator, seeds: list[int], tiles: Tiles = WHOLE
    ) -> Iterator[State]:
        """The trajectory of measurements, one :class:`State` for every network call.

        Args:
            m: (B, ...), as the operator gives them for images in [-1, 1].
            operator: of the images' size.
            seeds: of the noise, one per image.
            tiles: how the states are cut for each call of the network.
        """
        with torch.inference_mode(False), torch.no_grad():
            # gradients cannot pass through tensors of inference mode
            steps = self.solver.run(self.problem(m.clone(), operator, seeds, tiles))
        while True:
            # entered for each step, so that it never reaches the caller
            with torch.inference_mode(False), torch.no_grad():
                step = next(steps, None)
            if step is None:
                return
            yield State(float(step.tau.max()), step.z, step.z, step.x0)

    @override
    def forward(self, m, seed: int = 0, tiles: Tiles = WHOLE):
        """Restore measurements.

        Args:
            m: as the operator gives them for images in [-1, 1], (B, ...); or an image array
                (H, W, 3) in [0, 1], from which :meth:`restore` reads one.
            seed: of the noise; image i of a batch has seed + i.
            tiles: how the states are cut for each call of the network.

        Returns:
            Images (B, 3, H, W) in [-1, 1]; an array for an array.

        Raises:
            UserError: the operator is a kind, which has no size.
        """
        if isinstance(m, np.ndarray):
            return self.restore(m, seed, tiles=tiles)
        if not isinstance(self.operator, Operator):
            raise UserError(
                f"operator={self.operator.name} has no size yet; give one of a size, or call"
                " restore(image)."
            )
        self._check_measurement(m)
        for state in self.solve(m, self.operator, [seed + i for i in range(len(m))], tiles):
            last = state.x0
        height, width = self.operator.size[1:]
        return self.image(last, tiles)[..., :height, :width].clamp(-1, 1)

    def _check_measurement(self, m) -> None:
        """UserError unless m is a measurement of the operator's."""
        device = next(self.parameters()).device
        wanted = tuple(self.operator(torch.zeros(1, *self.operator.size, device=device)).shape[1:])
        given = tuple(getattr(m, "shape", ()))
        if not torch.is_tensor(m) or given[1:] != wanted or not given[0]:
            raise UserError(
                f"A measurement of operator={self.operator.name} must be a tensor of shape"
                f" {('B', *wanted)}, not {given or type(m).__name__}.".replace("'B'", "B")
            )
        if not m.is_floating_point() or not torch.isfinite(m).all():
            raise UserError(
                "A measurement must be of floats that are numbers, not NaN or infinite."
            )


def zeroshot(
    backbone: Backbone | str | None,
    operator: Operator | Kind,
    solver: Solver | str,
    noise: float = 0.0,
    **constants,
) -> ZeroShot:
    """A :class:`ZeroShot` by names.

    Args:
        backbone: a frozen prior, or a folder or hub id of a ``UNet2DModel``; None: the embedded.
        operator: the known degradation, or its kind.
        solver: the method, or its word.
        noise: std of the measurement's noise, in units of images in [0, 1].
        constants: of the solver where it is a word.

    Raises:
        UserError: a name is unknown, or the parts do not go together.
    """
    solver = solver if isinstance(solver, Solver) else named_solver(solver, **constants)
    backbone = backbone if isinstance(backbone, Backbone) else load_backbone(backbone)
    return ZeroShot(backbone, operator, solver, noise)
