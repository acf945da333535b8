"""Frozen pretrained denoisers as ``denoise(z, tau) -> x0``; with ``priors``, all that knows what
networks predict. Here those of pixels; ``latent`` has those of a VAE's latents."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from irbridge import hub
from irbridge.checkpoint import read_json
from irbridge.errors import UserError
from irbridge.precision import keep_ends
from irbridge.priors import Prior, prior_from_config
from irbridge.tiles import WHOLE, Tiles

EMBEDDED = Path(__file__).resolve().parents[1] / "data" / "prior"


@contextmanager
def inject(unet: nn.Module, residuals: list[Tensor] | None):
    """While active, add ``residuals``, ordered as :func:`skip_layout`, to a UNet2DModel's skips and
    mid block output. Skips reach the up blocks as their second positional argument, so the
    network's own forward is never copied; the up blocks consume them from the end. Not for
    ``Skip*Block2D`` networks."""
    with ExitStack() as stack:
        if residuals is not None:
            left = list(residuals[:-1])

            def add_skips(block, args):
                hidden, skips, *rest = args
                mine = [left.pop() for _ in skips][::-1]
                return hidden, tuple(s + r.to(s.dtype) for s, r in zip(skips, mine)), *rest

            for block in unet.up_blocks:
                stack.callback(block.register_forward_pre_hook(add_skips).remove)
            stack.callback(
                unet.mid_block.register_forward_hook(
                    lambda block, args, out: out + residuals[-1].to(out.dtype)
                ).remove
            )
        yield


def skip_layout(unet) -> list[tuple[int, int]]:
    """(channels, stride) of every skip tensor in the encoder's order, then of the mid block's
    output; of a UNet2DModel, or of anything that has its ``config``."""
    channels = unet.config.block_out_channels
    layout = [(channels[0], 1)]
    for level, c in enumerate(channels):
        layout += [(c, 2**level)] * unet.config.layers_per_block
        layout += [(c, 2 ** (level + 1))] * (level < len(channels) - 1)
    return layout + [(channels[-1], 2 ** (len(channels) - 1))]


class Later(NamedTuple):
    """A frozen network that is loaded where it is first asked for: its config, the dtype of its
    weights, and what loads it."""

    config: SimpleNamespace
    dtype: torch.dtype
    load: Callable[[], nn.Module]


class Backbone(nn.Module):
    """A frozen network in eval mode and the prior that it was trained on, behind one convention.
    ``network`` may be given as :class:`Later`.

    ``channels`` of a state, ``factor`` image pixels per pixel of it, ``stride`` by which image
    sides must divide; ``bounded``: states lie in [-1, 1]. ``name`` and ``digest``, recorded in
    checkpoints, are where the weights came from and their SHA-256; ``scheduler`` is the diffusers
    config that the prior was read from."""

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
        dropped."""
        inputs, time = self.prior.network_input(z, tau.expand(len(z)))
        output = self.predict(inputs.to(self.dtype), time.to(torch.float32).to(z.device), residuals)
        return self.prior.clean(z.float(), output[:, : self.channels].float(), tau)

    def predict(self, inputs: Tensor, time: Tensor, residuals: Callable | None) -> Tensor:
        """The network's output."""
        raise NotImplementedError

    def signature(self) -> list[float]:
        """What besides the weights an adapter relies on, in a few numbers; none for pixels."""
        return []


class PixelBackbone(Backbone):
    """A diffusers ``UNet2DModel`` on pixels in [-1, 1]. Adapters return a list of residuals, see
    :func:`inject`."""

    def __init__(self, unet: nn.Module, *described, **description):
        super().__init__(unet, *described, **description)
        self.stride = 2 ** (len(unet.config.block_out_channels) - 1)

    def _keep(self, network: nn.Module) -> None:
        super()._keep(network)
        keep_ends(network.conv_in, network.conv_out)

    def predict(self, inputs: Tensor, time: Tensor, residuals: Callable | None) -> Tensor:
        given = residuals(inputs, time) if residuals else None
        with inject(self.network, given):
            return self.network(inputs, time).sample


def load_backbone(
    pretrained: str | None = None, dtype: torch.dtype | str = torch.float32, lazy: bool = False
) -> PixelBackbone:
    """Load a UNet2DModel and its scheduler's config from a folder or hub id; ``None`` is this
    repository's own prior.

    Both layouts of diffusers are read: a pipeline (``unet/`` and ``scheduler/``) and a bare model
    folder with ``scheduler_config.json`` beside ``config.json``. dtype: of the frozen weights, such
    as "bfloat16". lazy: the weights are read when the network is first called, where its config
    says enough. UserError if nothing is there, the hub is out of reach, it is no UNet2DModel, or
    the scheduler is not covered."""
    if not EMBEDDED.is_dir() and not pretrained:
        raise UserError(
            f"The embedded prior is missing at {EMBEDDED}; restore it with `git checkout"
            " data/prior` or give backbone.pretrained=FOLDER."
        )
    folder = hub.fetched(str(pretrained or EMBEDDED), ["", "unet", "scheduler"])
    unet_folder = folder / "unet" if (folder / "unet").is_dir() else folder
    dtype, classes = number_type(dtype), ("UNet2DModel",)
    unet = _sketch(unet_folder, classes, dtype) if lazy else None
    unet = unet or hub.load(unet_folder, classes, dtype)
    scheduler, config = hub.scheduler_config(folder), unet.config
    unlike = {
        "3 channels": config.in_channels == 3,
        "no classes": not (config.class_embed_type or config.num_class_embeds),
        "no Skip or K blocks": not any(
            t.startswith("K") or "Skip" in t for t in block_types(config)
        ),
        "a middle block": getattr(config, "mid_block_type", "") is not None,
        "sinusoidal times": config.time_embedding_type == "positional",
    }
    if missing := [what for what, fits in unlike.items() if not fits]:
        raise UserError(
            f"The network in {unet_folder} cannot be driven, for want of {', '.join(missing)};"
            " choose another backbone."
        )
    return PixelBackbone(
        unet,
        prior_from_config(scheduler),
        str(pretrained or "embedded"),
        lambda: hub.digest(unet_folder),
        scheduler,
    )


def _sketch(folder: Path, classes: tuple[str, ...], dtype: torch.dtype) -> Later | None:
    """The network of a folder, to be loaded later; None where its config, of an older diffusers,
    leaves to defaults what is asked of it."""
    config = read_json(folder / "config.json")
    asked = (
        "in_channels",
        "block_out_channels",
        "layers_per_block",
        "down_block_types",
        "up_block_types",
        "class_embed_type",
        "num_class_embeds",
        "mid_block_type",
        "time_embedding_type",
    )
    if config.get("_class_name") not in classes or not all(key in config for key in asked):
        return None
    return Later(SimpleNamespace(**config), dtype, lambda: hub.load(folder, classes, dtype))


def block_types(config) -> list[str]:
    """Of a UNet's levels, down and up."""
    return [*config.down_block_types, *config.up_block_types]


def number_type(name: torch.dtype | str) -> torch.dtype:
    """float32, bfloat16 or float16 by name; UserError lists them."""
    found = {str(t).split(".")[1]: t for t in (torch.float32, torch.bfloat16, torch.float16)}
    if isinstance(name, str) and name not in found:
        raise UserError(f"backbone.dtype={name} is unknown; choose one of {', '.join(found)}.")
    return found.get(name, name)
