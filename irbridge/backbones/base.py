"""What every frozen pretrained denoiser is.

Together with ``priors`` this chapter holds all that knows what networks predict.

A new backbone is a subclass of :class:`Backbone` and a function that loads one, in a module of its
own, and a file ``configs/backbone/NAME.yaml`` whose ``_target_`` is the function's dotted name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from irbridge.errors import UserError
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.priors.base import Prior
from irbridge.ranges import shown


class Later(NamedTuple):
    """A frozen network that is loaded where it is first asked for.

    Args:
        config: its config.
        dtype: of its weights.
        load: what loads it.
    """

    config: SimpleNamespace
    dtype: torch.dtype
    load: Callable[[], nn.Module]


class Backbone(nn.Module, ABC):
    """A frozen network in eval mode and the prior that it was trained on, behind one convention.

    Attributes:
        stride: what image sides must divide by; set by the constructor of a subclass.
        factor: image pixels a side for each pixel of a state.
        channels: of a state.
        bounded: states lie in [-1, 1].
        vae: what encodes images as states; None: states are images.
        dtype: of the frozen weights.

    Args:
        network: the frozen network, or :class:`Later`.
        prior: the noise levels and the prediction that it was trained on.
        name: where the weights came from, for checkpoints.
        digest: SHA-256 of the weights, or a function that computes it when it is asked for.
        scheduler: the diffusers config that the prior was read from.
    """

    stride: int
    factor: int = 1
    bounded: bool = True

    def __init__(
        self,
        network: nn.Module | Later,
        prior: Prior,
        name: str = "",
        digest: str | Callable[[], str] = "",
        scheduler: dict | None = None,
    ):
        super().__init__()
        self.later = network if isinstance(network, Later) else None
        # what is to be done once it is loaded
        self.moves: list[Callable] = []
        self.checks: list[Callable[[], None]] = []
        if self.later is None:
            self._keep(network)
        self.prior, self.name, self._digest, self.scheduler = prior, name, digest, scheduler
        self.config, self.channels, self.vae = network.config, network.config.in_channels, None
        # of the frozen weights; an adapter may add others to the network
        self.dtype = network.dtype

    def _keep(self, network: nn.Module) -> None:
        # eval also in training: nothing may drift
        self._modules["network"] = network.requires_grad_(False).eval()

    @property
    def network(self) -> nn.Module:
        """The frozen network, loaded here where it is :class:`Later`."""
        if self.later is not None:
            # weights are no inference tensors, wherever they are first needed
            with torch.inference_mode(False):
                network = self.later.load()
                for check in self.checks:
                    check()
                for move in self.moves:
                    network._apply(move)
            self.later = None
            self._keep(network)
        return self._modules["network"]

    def when_loaded(self, check: Callable[[], None]) -> None:
        """Call ``check()`` once the weights are there, which may be now."""
        if self.later is None:
            check()
        else:
            self.checks.append(check)

    def _apply(self, move, recurse: bool = True):
        if self.later is not None:  # where it goes is known before it comes
            self.moves.append(move)
        return super()._apply(move, recurse)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        if callable(self._digest):
            self._digest = self._digest()
        return self._digest

    def train(self, mode: bool = True):
        """Stay in eval mode also while an adapter trains."""
        return super().train(False)

    def encode(self, image: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """The state of an image (B, 3, H, W) in [-1, 1], sides divisible by ``factor``; float32."""
        return image

    def decode(self, state: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """The image (B, 3, H, W) of a state; float32, about [-1, 1]."""
        return state

    def denoise(self, z: Tensor, tau: Tensor, residuals: Callable | None = None) -> Tensor:
        """The clean estimate x0 of a state; gradients pass through the frozen weights.

        Args:
            z: (B, C, H, W).
            tau: the prior's timestep, () or (B,), float64 on the CPU.
            residuals: ``residuals(inputs, time, **context)`` is given what the network is given and
                returns what an adapter adds.

        Returns:
            (B, C, H, W), float32. A learned variance is dropped.
        """
        inputs, time = self.prior.network_input(z, tau.expand(len(z)))
        output = self.predict(inputs.to(self.dtype), time.to(torch.float32).to(z.device), residuals)
        return self.prior.clean(z.float(), output[:, : self.channels].float(), tau)

    @abstractmethod
    def predict(self, inputs: Tensor, time: Tensor, residuals: Callable | None) -> Tensor:
        """The network's output for its own input and timestep.

        Args:
            inputs: (B, C, H, W), in the dtype of the frozen weights.
            time: (B,), float32.
            residuals: see :meth:`denoise`.

        Returns:
            (B, C or more, H, W); channels behind C are a learned variance.
        """

    def signature(self) -> list[float]:
        """What besides the weights an adapter relies on, in a few numbers; none for pixels."""
        return []


def block_types(config) -> list[str]:
    """Of a UNet's levels, down and up."""
    return [*config.down_block_types, *config.up_block_types]


def number_type(name: torch.dtype | str) -> torch.dtype:
    """float32, bfloat16 or float16 by name; UserError lists them."""
    found = {str(t).split(".")[1]: t for t in (torch.float32, torch.bfloat16, torch.float16)}
    if name in found.values():
        return name
    if not isinstance(name, str) or name not in found:
        raise UserError(
            f"backbone.dtype={shown(name)} is unknown; choose one of {', '.join(found)}."
        )
    return found[name]


def alike(a: list[float] | None, b: list[float] | None) -> bool:
    """Whether two backbones' signatures agree up to rounding; runs of older versions have none."""
    return not a or not b or (len(a) == len(b) and np.allclose(a, b, rtol=0.02, atol=0.02))
