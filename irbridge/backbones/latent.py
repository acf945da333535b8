"""Frozen text-to-image models as backbones: the bridge lives in the latents of a VAE (IRBridge,
Sec. 4).
"""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from irbridge.backbones import pretrained_files
from irbridge.backbones.base import Backbone, block_types, number_type
from irbridge.backbones.prompts import Prompt, embeddings
from irbridge.errors import UserError
from irbridge.files import read_json
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.priors.base import Prior
from irbridge.priors.from_diffusers import prior_from_config
from irbridge.ranges import NOT_NEGATIVE, check_values

NETWORKS = {"unet": ("UNet2DConditionModel",), "transformer": ("SD3Transformer2DModel",)}
VAES = "AutoencoderKL", "AutoencoderTiny"


class Context(nn.Module):
    """What a text encoder says of one prompt, (1, ...) each, under the names of the network's
    arguments.
    """

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value, persistent=False)

    def expanded(self, batch: int) -> dict[str, Tensor]:
        return {name: value.expand(batch, *value.shape[1:]) for name, value in self.named_buffers()}


class LatentBackbone(Backbone):
    """A ``UNet2DConditionModel`` or ``SD3Transformer2DModel`` on the latents of an
    ``AutoencoderKL`` or ``AutoencoderTiny``. A state is (latent - shift) * scale, as the network
    was trained on.

    Adapters return a dict of arguments of the network's forward; "input" in it is added to what its
    first convolution, ``first``, gives.

    Args: contexts: of the prompt; with ``guidance`` other than 1 of the negative prompt and the
        prompt (classifier-free
            guidance, Ho and Salimans 2021); IRBridge uses the empty prompt alone.
    """

    bounded = False

    def __init__(
        self,
        network: nn.Module,
        vae: nn.Module,
        prior: Prior,
        contexts: list[dict[str, Tensor]],
        guidance: float = 1.0,
        name: str = "",
        digest: str = "",
        scheduler: dict | None = None,
    ):
        super().__init__(network, prior, name, digest, scheduler)
        self.vae = vae.requires_grad_(False).eval()
        # one image at a time, so that an encoding does not depend on its batch
        self.vae.enable_slicing()
        self.contexts, self.guidance = nn.ModuleList(Context(c) for c in contexts), guidance
        config = vae.config
        self.factor = 2 ** (
            len(config.get("encoder_block_out_channels") or config.block_out_channels) - 1
        )
        self.stride = self.factor * _even(network.config)
        # of AutoencoderTiny's tiles; diffusers takes 8 for granted
        if hasattr(vae, "spatial_scale_factor"):
            vae.spatial_scale_factor = self.factor
        self.shift, self.scale = config.get("shift_factor") or 0.0, config.scaling_factor

    @property
    def first(self) -> nn.Conv2d:
        """The network's first convolution."""
        return (
            self.network.conv_in
            if hasattr(self.network, "conv_in")
            else self.network.pos_embed.proj
        )

    @torch.no_grad()
    def encode(self, image: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """The posterior's mode, (B, C, H / factor, W / factor)."""
        with self._tiled(tiles), torch.autocast(image.device.type, enabled=False):
            encoded = self.vae.encode(image.to(self.vae.dtype))
            latent = (
                encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
            )
        return (latent.float() - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, state: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        with self._tiled(tiles), torch.autocast(state.device.type, enabled=False):
            return self.vae.decode(
                (state / self.scale + self.shift).to(self.vae.dtype)
            ).sample.float()

    @contextmanager
    def _tiled(self, tiles: Tiles):
        """Within the block the VAE goes tile by tile over images larger than a tile; diffusers
        blends a quarter.
        """
        if tiles.size is not None:
            step = 8 * self.factor
            self.vae.tile_overlap_factor = 0.25
            self.vae.tile_sample_min_size = max(min(tiles.sides) // step * step, step)
            self.vae.tile_latent_min_size = self.vae.tile_sample_min_size // self.factor
            self.vae.enable_tiling()
        try:
            yield
        finally:
            self.vae.disable_tiling()

    def signature(self) -> list[float]:
        """A few values of the prompt's embeddings, to tell them apart: zeros, another prompt,
        another encoder.
        """
        values = [
            value.float().flatten() for context in self.contexts for value in context.buffers()
        ]
        return [
            round(float(v), 4) for value in values for v in value[:: max(1, len(value) // 4)][:4]
        ]

    def predict(self, inputs: Tensor, time: Tensor, residuals: Callable | None) -> Tensor:
        known = self.network.config.get("pos_embed_max_size")  # positions of SD3's patches
        if known and max(inputs.shape[-2:]) > known * self.network.config.patch_size:
            side = known * self.stride
            raise UserError(
                f"An image of {inputs.shape[-2] * self.factor} x {inputs.shape[-1] * self.factor}"
                f" pixels is larger than the {side} x {side} that this transformer knows; give"
                f" tile={side} or less, in training trainer.crop."
            )
        outputs = [
            self._call(inputs, time, c.expanded(len(inputs)), residuals) for c in self.contexts
        ]
        return (
            outputs[0]
            if len(outputs) == 1
            else outputs[0] + self.guidance * (outputs[1] - outputs[0])
        )

    def _call(
        self, inputs: Tensor, time: Tensor, context: dict[str, Tensor], residuals: Callable | None
    ) -> Tensor:
        given = residuals(inputs, time, **context) if residuals else {}
        given = {key: _cast(value, inputs.dtype) for key, value in given.items()}
        added = given.pop("input", None)
        handle = added is not None and self.first.register_forward_hook(
            lambda module, args, output: output + added
        )
        try:
            return self.network(
                inputs, timestep=time, **{"encoder_hidden_states": None} | context, **given
            ).sample
        finally:
            if handle:
                handle.remove()


def _even(config) -> int:
    """What the sides of a state must divide by: of a UNet 1, as it interpolates, but for blocks
    that cannot.
    """
    if "down_block_types" not in config:
        return config.patch_size
    fixed = (
        any(t.startswith(("SimpleCrossAttn", "Resnet")) for t in block_types(config))
        or config.downsample_padding == 0
    )
    return 2 ** (len(config.down_block_types) - 1) if fixed else 1


def _cast(value, dtype: torch.dtype):
    return value.to(dtype) if torch.is_tensor(value) else [v.to(dtype) for v in value]


def load_latent(
    pretrained: str,
    dtype: torch.dtype | str = torch.float32,
    vae: str | None = None,
    prompt: str = "",
    negative: str = "",
    guidance: float = 1.0,
    skip: list[str] = (),
) -> LatentBackbone:
    """Load a text-to-image pipeline's network, VAE, scheduler config and the prompt's embedding.

    Args: pretrained: a diffusers pipeline's folder or hub id, with ``unet`` or ``transformer``,
        ``vae`` and ``scheduler``. dtype: of the frozen weights, such as "bfloat16". vae: a folder
        or hub id of another VAE of the same latents, such as a tiny one; None: the pipeline's.
        prompt, negative, guidance: guidance 1 asks the network once a step, of ``prompt`` alone.
        skip: text encoders and tokenizers of the pipeline to do without, such as
        ``text_encoder_3``.

    The text encoders are loaded only where the prompt's embedding is not in the cache, see
    ``prompts``. UserError where a part is missing, of a class that is not covered, gated, or the
    hub is out of reach.
    """
    dtype = number_type(dtype)
    folder = pretrained_files.fetched(pretrained, [*NETWORKS, "vae", "scheduler"])
    part = next((p for p in NETWORKS if (folder / p / "config.json").is_file()), None)
    if part is None and Path(pretrained).is_dir():
        raise UserError(
            f"{folder} has neither unet/config.json nor transformer/config.json; give the folder of"
            " a whole text-to-image pipeline, or for a pixel model backbone=embedded"
            " backbone.pretrained=FOLDER."
        )
    needed = [
        f"{part or 'unet'}/config.json",
        "scheduler/scheduler_config.json",
        *["vae/config.json"] * (not vae),
    ]
    pretrained_files.complete(pretrained, folder, needed)
    scheduler = pretrained_files.scheduler_config(folder)
    network = _covered(pretrained_files.load(folder / part, NETWORKS[part], dtype), folder / part)
    vae_folder = folder / "vae"
    if vae:
        vae_folder = pretrained_files.fetched(vae, ["", "vae"], key="backbone.vae")
        vae_folder = vae_folder / "vae" if (vae_folder / "vae").is_dir() else vae_folder
    overflows = read_json(vae_folder / "config.json").get("force_upcast", True)
    coder = pretrained_files.load(
        vae_folder, VAES, torch.float32 if dtype == torch.float16 and overflows else dtype
    )
    if (coder.config.in_channels, coder.config.out_channels) != (3, 3):
        raise UserError(
            f"The VAE in {vae_folder} is not one of images of 3 channels; choose another backbone."
        )
    if coder.config.latent_channels != network.config.in_channels:
        raise UserError(
            f"The VAE in {vae_folder} has {coder.config.latent_channels} latent channels and the"
            f" network in {folder / part} takes {network.config.in_channels}; give a backbone.vae"
            " of the same latents."
        )
    check_values({"guidance": NOT_NEGATIVE}, {"guidance": guidance}, "backbone")
    prompts = [prompt] if guidance == 1 else [negative, prompt]
    own, digest = pretrained_files.digests(folder / part, vae_folder)
    contexts = embeddings(Prompt(pretrained, folder, own, tuple(skip)), prompts, network)
    return LatentBackbone(
        network,
        coder,
        prior_from_config(scheduler),
        contexts,
        guidance,
        pretrained,
        digest,
        scheduler,
    )


def _covered(network: nn.Module, folder: Path) -> nn.Module:
    config = network.config
    wrong = [
        f"{key}={config[key]}"
        for key in (
            "class_embed_type",
            "num_class_embeds",
            "addition_embed_type",
            "encoder_hid_dim_type",
            "dual_cross_attention",
        )
        if config.get(key)
    ]
    if "down_block_types" in config:
        wrong += [t for t in block_types(config) if t.startswith("K")]
    if wrong:
        raise UserError(
            f"The network in {folder} needs {wrong[0]}, which is not covered (SDXL and"
            " class-conditional models are not); choose another backbone."
        )
    return network
