"""Frozen pretrained denoisers as ``denoise(z, tau) -> x0``; with ``priors``, all that knows what networks predict."""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from irbridge.checkpoint import read_json
from irbridge.errors import UserError
from irbridge.priors import Prior, prior_from_config

EMBEDDED = Path(__file__).resolve().parents[1] / "data" / "prior"


@contextmanager
def inject(unet: nn.Module, residuals: list[Tensor] | None):
    """While active, add ``residuals``, ordered as :func:`skip_layout`, to a UNet2DModel's skips and mid block output.
    Skips reach the up blocks as their second positional argument, so the network's own forward is never copied; the up
    blocks consume them from the end. Not for ``Skip*Block2D`` networks."""
    with ExitStack() as stack:
        if residuals is not None:
            left = list(residuals[:-1])

            def add_skips(block, args):
                hidden, skips, *rest = args
                mine = [left.pop() for _ in skips][::-1]
                return hidden, tuple(s + r for s, r in zip(skips, mine)), *rest

            for block in unet.up_blocks:
                stack.callback(block.register_forward_pre_hook(add_skips).remove)
            stack.callback(unet.mid_block.register_forward_hook(lambda block, args, out: out + residuals[-1]).remove)
        yield


def skip_layout(unet: nn.Module) -> list[tuple[int, int]]:
    """(channels, stride) of every skip tensor in the encoder's order, then of the mid block's output."""
    channels = unet.config.block_out_channels
    layout = [(channels[0], 1)]
    for level, c in enumerate(channels):
        layout += [(c, 2**level)] * unet.config.layers_per_block
        layout += [(c, 2 ** (level + 1))] * (level < len(channels) - 1)
    return layout + [(channels[-1], 2 ** (len(channels) - 1))]


class PixelBackbone(nn.Module):
    """A diffusers ``UNet2DModel`` on pixels in [-1, 1], frozen and in eval mode, and the prior that it was trained on.
    ``name`` and ``digest``, recorded in checkpoints, are where the weights came from and their SHA-256; ``scheduler`` is
    the diffusers config that the prior was read from."""

    def __init__(self, unet: nn.Module, prior: Prior, name: str = "", digest: str = "",
                 scheduler: dict | None = None):
        super().__init__()
        self.unet = unet.requires_grad_(False).eval()   # eval also in training: nothing of it may drift
        self.prior, self.name, self.digest, self.scheduler = prior, name, digest, scheduler
        self.channels = unet.config.in_channels
        self.stride = 2 ** (len(unet.config.block_out_channels) - 1)

    def train(self, mode: bool = True):
        return super().train(False)

    def denoise(self, z: Tensor, tau: Tensor, residuals: Callable | None = None) -> Tensor:
        """The clean estimate x0 of z, (B, C, H, W) with H and W divisible by ``stride``; float32. tau is float64 on the
        CPU, () or (B,). ``residuals(inputs, time)``, given what the network is given, returns an adapter's residuals.
        Gradients pass through the frozen weights. A learned variance is dropped."""
        inputs, time = self.prior.network_input(z, tau.expand(len(z)))
        time = time.to(torch.float32).to(z.device)
        with inject(self.unet, residuals(inputs, time) if residuals else None):
            output = self.unet(inputs, time).sample[:, : self.channels]
        return self.prior.clean(z.float(), output.float(), tau)


def load_backbone(pretrained: str | None = None, dtype: torch.dtype = torch.float32) -> PixelBackbone:
    """Load a UNet2DModel and its scheduler's config from a folder or hub id; ``None`` is this repository's own prior.

    Both layouts of diffusers are read: a pipeline (``unet/`` and ``scheduler/``) and a bare model folder with
    ``scheduler_config.json`` beside ``config.json``. UserError if nothing is there, the hub is out of reach, it is no
    UNet2DModel, or the scheduler is not covered."""
    from diffusers import UNet2DModel
    folder = Path(pretrained or EMBEDDED)
    if not folder.is_dir() and not pretrained:
        raise UserError(f"The embedded prior is missing at {EMBEDDED}; restore it with `git checkout data/prior` or "
                        "give backbone.pretrained=FOLDER.")
    if not folder.is_dir():
        folder = _download(pretrained)
    unet_folder = folder / "unet" if (folder / "unet").is_dir() else folder
    config = read_json(unet_folder / "config.json")
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise UserError(f"{unet_folder} holds a {config['_class_name']}, not a UNet2DModel; choose a pixel model.")
    scheduler = next((p for p in (folder / "scheduler", folder) if (p / "scheduler_config.json").is_file()), folder)
    scheduler = read_json(scheduler / "scheduler_config.json")
    prior = prior_from_config(scheduler)
    try:
        unet, found = UNet2DModel.from_pretrained(unet_folder, torch_dtype=dtype, local_files_only=True,
                                                  output_loading_info=True)
        if unet.config.in_channels != 3 or unet.config.class_embed_type or any("Skip" in t for t in unet.config.up_block_types):
            raise ValueError("only unconditional networks of 3 channels without Skip blocks are supported")
        if found["missing_keys"]:
            raise ValueError(f"{found['missing_keys'][0]} is missing")
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"The weights in {unet_folder} cannot be loaded ({reason}); save the model again with "
                        "save_pretrained.") from error
    return PixelBackbone(unet, prior, str(pretrained or "embedded"), _digest(unet_folder), scheduler)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*/*.json", "*/*.safetensors"]))
    except Exception as error:
        raise UserError(f"backbone.pretrained={name!r} is neither a folder here nor reachable on the hub "
                        f"({type(error).__name__}); download the model on a connected machine and give its folder, or "
                        "set HF_HOME to a cache that holds it.") from error


def _digest(folder: Path) -> str:
    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.glob("*.safetensors")))).hexdigest()
