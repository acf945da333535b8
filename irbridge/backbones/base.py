"""Frozen pretrained denoisers as ``denoise(z, tau) -> x0``; with ``priors``, all that knows what
networks predict. Here those of pixels; ``latent`` has those of a VAE's latents.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from irbridge.errors import UserError
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.priors.base import Prior


class Later(NamedTuple):
    """A frozen network that is loaded where it is first asked for: its config, the dtype of its
    weights, and what loads it.
    """

    config: SimpleNamespace
    dtype: torch.dtype
    load: Callable[[], nn.Module]


class Backbone(nn.Module):
    """A frozen network in eval mode and the prior that it was trained on, behind one convention.
    ``network`` may be given as :class:`Later`.

    ``channels`` of a state, ``factor`` image pixels per pixel of it, ``stride`` by which image
    sides must divide; ``bounded``: states lie in [-1, 1]. ``name`` and ``digest``, recorded in
    checkpoints, are where the weights came from and their SHA-256; ``scheduler`` is the diffusers
    config that the prior was read from.
    """

    factor = 1
    bounded = True

    def __init__(
        self,
        network: nn.Module | Later,
        prior: Prior,
        name: str = "",
        digest: str | Callable[[], str] = "",
        scheduler: dict | None = None,
    ):
        super().__init__()
        self.later, self.moves, self.checks = (
            (network, [], []) if isinstance(network, Later) else (None, [], [])
        )
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
        """The frozen network."""
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
        return super().train(False)

    def encode(self, image: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """The state of an image (B, 3, H, W) in [-1, 1], sides divisible by ``factor``; float32."""
        return image

    def decode(self, state: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """The image (B, 3, H, W) of a state; float32, about [-1, 1]."""
        return state

    def denoise(self, z: Tensor, tau: Tensor, residuals: Callable | None = None) -> Tensor:
        """The clean estimate x0 of a state z (B, C, H, W); float32. tau is float64 on the CPU, ()
        or (B,). ``residuals(inputs, time, **context)``, given what the network is given, returns
        what an adapter adds. Gradients pass through the frozen weights. A learned variance is
        dropped.
        """
        inputs, time = self.prior.network_input(z, tau.expand(len(z)))
        output = self.predict(inputs.to(self.dtype), time.to(torch.float32).to(z.device), residuals)
        return self.prior.clean(z.float(), output[:, : self.channels].float(), tau)

    def predict(self, inputs: Tensor, time: Tensor, residuals: Callable | None) -> Tensor:
        """The network's output."""
        raise NotImplementedError

    def signature(self) -> list[float]:
        """What besides the weights an adapter relies on, in a few numbers; none for pixels."""
        return []


def block_types(config) -> list[str]:
    """Of a UNet's levels, down and up."""
    return [*config.down_block_types, *config.up_block_types]


def number_type(name: torch.dtype | str) -> torch.dtype:
    """float32, bfloat16 or float16 by name; UserError lists them."""
    found = {str(t).split(".")[1]: t for t in (torch.float32, torch.bfloat16, torch.float16)}
    if isinstance(name, str) and name not in found:
        raise UserError(f"backbone.dtype={name} is unknown; choose one of {', '.join(found)}.")
    return found.get(name, name)


def alike(a: list[float] | None, b: list[float] | None) -> bool:
    """Whether two backbones' signatures are one, up to rounding; runs of older versions have
    none.
    """
    return not a or not b or (len(a) == len(b) and np.allclose(a, b, rtol=0.02, atol=0.02))
