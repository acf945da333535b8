"""Frozen denoisers of images: diffusers' ``UNet2DModel``."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from irbridge.assets import CHECKOUT, ROOT, find, remedy
from irbridge.backbones import pretrained_files
from irbridge.backbones.base import Backbone, Later, block_types, number_type
from irbridge.backbones.half_precision import keep_ends
from irbridge.errors import UserError
from irbridge.priors.from_diffusers import prior_from_config

EMBEDDED = ROOT / "data" / "prior"
FACES = "data/prior_faces"  # of a checkout alone: the wheel would be too large with it


@contextmanager
def inject(unet: nn.Module, residuals: list[Tensor] | None):
    """Within the block, add residuals to a UNet2DModel's skips and to its middle block's output.

    Skips reach the up blocks as their second positional argument, and the up blocks consume them
    from the end. So hooks do, and the network's own forward is never copied. Not for networks of
    ``Skip*Block2D``.

    Args:
        unet: the network.
        residuals: ordered as :func:`skip_layout`; None adds nothing.
    """
    if residuals is None:
        yield
        return
    left = list(residuals[:-1])

    def add_to_skips(block, args):
        hidden, skips, *rest = args
        own = [left.pop() for _ in skips][::-1]
        summed = tuple(s + r.to(s.dtype) for s, r in zip(skips, own, strict=True))
        return hidden, summed, *rest

    def add_to_middle(block, args, output):
        return output + residuals[-1].to(output.dtype)

    with ExitStack() as stack:
        for block in unet.up_blocks:
            stack.callback(block.register_forward_pre_hook(add_to_skips).remove)
        stack.callback(unet.mid_block.register_forward_hook(add_to_middle).remove)
        yield


def skip_layout(unet) -> list[tuple[int, int]]:
    """(channels, stride) of every skip in the encoder's order, then of the middle block's output.

    Args:
        unet: a UNet2DModel, or anything that has its ``config``.
    """
    channels = unet.config.block_out_channels
    layout = [(channels[0], 1)]
    for level, c in enumerate(channels):
        layout += [(c, 2**level)] * unet.config.layers_per_block
        layout += [(c, 2 ** (level + 1))] * (level < len(channels) - 1)
    return [*layout, (channels[-1], 2 ** (len(channels) - 1))]


class PixelBackbone(Backbone):
    """A diffusers ``UNet2DModel`` on pixels in [-1, 1].

    Adapters return a list of residuals, see :func:`inject`. The arguments are
    :class:`~irbridge.backbones.base.Backbone`'s.
    """

    def __init__(self, unet: nn.Module, *described, **description):
        super().__init__(unet, *described, **description)
        self.stride = 2 ** (len(unet.config.block_out_channels) - 1)

    def _keep(self, network: nn.Module) -> None:
        super()._keep(network)
        keep_ends(network.conv_in, network.conv_out)

    def predict(self, inputs: Tensor, time: Tensor, residuals: Callable | None) -> Tensor:
        """The network's output, with an adapter's residuals injected."""
        given = residuals(inputs, time) if residuals else None
        with inject(self.network, given):
            return self.network(inputs, time).sample


def load_backbone(
    pretrained: str | None = None, dtype: torch.dtype | str = torch.float32, lazy: bool = False
) -> PixelBackbone:
    """Load a UNet2DModel and its scheduler's config.

    Both layouts of diffusers are read: a pipeline (``unet/`` and ``scheduler/``) and a bare model
    folder with ``scheduler_config.json`` beside ``config.json``.

    Args:
        pretrained: a folder or hub id; None: this repository's own prior.
        dtype: of the frozen weights, such as "bfloat16".
        lazy: the weights are read when the network is first called, where its config says enough.

    Raises:
        UserError: nothing is there, the hub is out of reach, it is no UNet2DModel, or the scheduler
            is not covered.
    """
    if not EMBEDDED.is_dir() and not pretrained:
        raise UserError(
            f"The embedded prior is missing at {EMBEDDED}; {remedy('data/prior')}, or give"
            " backbone.pretrained=FOLDER."
        )
    place = find(pretrained or EMBEDDED)
    if pretrained == FACES and not place.is_dir():
        how = f"{remedy(FACES)}" if CHECKOUT else "clone the repository, as the wheel has it not"
        raise UserError(
            f"The prior of faces is missing at {FACES}; {how}, or give backbone.pretrained=FOLDER."
        )
    folder = pretrained_files.fetched(str(place), ["", "unet", "scheduler"])
    unet_folder = folder / "unet" if (folder / "unet").is_dir() else folder
    dtype, classes = number_type(dtype), ("UNet2DModel",)
    unet = _sketch(unet_folder, classes, dtype) if lazy else None
    unet = unet or pretrained_files.load(unet_folder, classes, dtype)
    scheduler, config = pretrained_files.scheduler_config(folder), unet.config
    skipping = [kind for kind in block_types(config) if kind.startswith("K") or "Skip" in kind]
    unlike = {
        "3 channels": config.in_channels == 3,
        "no classes": not (config.class_embed_type or config.num_class_embeds),
        "no Skip or K blocks": not skipping,
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
        lambda: pretrained_files.digest(unet_folder),
        scheduler,
    )


def _sketch(folder: Path, classes: tuple[str, ...], dtype: torch.dtype) -> Later | None:
    """The network of a folder, to be loaded later.

    None where its config, of an older diffusers, leaves to defaults what is asked of it.
    """
    config = pretrained_files.check_config(folder)
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
    return Later(
        SimpleNamespace(**config), dtype, lambda: pretrained_files.load(folder, classes, dtype)
    )
