"""Frozen text-to-image models: the bridge lives in the latents of a VAE (IRBridge, Sec. 4)."""

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
    """What a text encoder says of one prompt.

    Args:
        tensors: (1, ...) each, under the names of the network's arguments.
    """

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value, persistent=False)

    def expanded(self, batch: int) -> dict[str, Tensor]:
        """The same for each of ``batch`` images."""
        return {name: value.expand(batch, *value.shape[1:]) for name, value in self.named_buffers()}


class LatentBackbone(Backbone):
    """A network on the latents of a VAE; a state is (latent - shift) * scale, as it was trained on.

    Adapters return a dict of arguments of the network's forward; "input" in it is added to what its
    first convolution, ``first``, gives.

    Args:
        network: a ``UNet2DConditionModel`` or ``SD3Transformer2DModel``.
        vae: an ``AutoencoderKL`` or ``AutoencoderTiny``.
        prior: see :class:`~irbridge.backbones.base.Backbone`.
        contexts: of the prompt; with ``guidance`` other than 1 of the negative prompt and the
            prompt. IRBridge uses the empty prompt alone.
        guidance: of classifier-free guidance (Ho and Salimans, 2021); 1 is none.
        name: see :class:`~irbridge.backbones.base.Backbone`, as ``digest`` and ``scheduler``.
        digest: see there.
        scheduler: see there.
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

    def decode(self, state: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """The image (B, 3, H, W) of a state; float32, about [-1, 1].

        Gradients pass where the state asks for them.
        """
        asked = torch.set_grad_enabled(torch.is_grad_enabled() and state.requires_grad)
        with self._tiled(tiles), asked, torch.autocast(state.device.type, enabled=False):
            return self.vae.decode(
                (state / self.scale + self.shift).to(self.vae.dtype)
            ).sample.float()

    @contextmanager
    def _tiled(self, tiles: Tiles):
        """Within the block the VAE goes tile by tile over images larger than a tile.

        Its tiles overlap by a quarter, in which diffusers blends them.
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
        """A few values of the prompt's embeddings.

        They tell zeros, another prompt and another encoder apart.
        """
        values = [
            value.float().flatten() for context in self.contexts for value in context.buffers()
        ]
        return [
            round(float(v), 4) for value in values for v in value[:: max(1, len(value) // 4)][:4]
        ]

    def predict(self, inputs: Tensor, time: Tensor, residuals: Callable | None) -> Tensor:
        """The network's output, guided where there are two prompts.

        Raises:
            UserError: the image has more patches than an SD3 transformer has positions.
        """
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
        if len(outputs) == 1:
            return outputs[0]
        return outputs[0] + self.guidance * (outputs[1] - outputs[0])

    def _call(
        self, inputs: Tensor, time: Tensor, context: dict[str, Tensor], residuals: Callable | None
    ) -> Tensor:
        """One call of the network with the context of one prompt."""
        given = (residuals(inputs, time, **context) if residuals else None) or {}
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
    """What the sides of a state must divide by.

    It is 1 for a UNet, which interpolates, but for blocks that cannot.
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

    The text encoders are loaded only where the prompt's embedding is not in the cache, see
    ``prompts``.

    Args:
        pretrained: a diffusers pipeline's folder or hub id, with ``unet`` or ``transformer``,
            ``vae`` and ``scheduler``.
        dtype: of the frozen weights, such as "bfloat16".
        vae: a folder or hub id of another VAE of the same latents, such as a tiny one; None: the
            pipeline's.
        prompt: what the network is asked for.
        negative: what it is guided away from, where ``guidance`` is not 1.
        guidance: 1 asks the network once a step, of ``prompt`` alone.
        skip: text encoders and tokenizers of the pipeline to do without, such as
            ``text_encoder_3``.

    Raises:
        UserError: a part is missing, gated or of a class that is not covered, or the hub is out of
            reach.
    """
    dtype = number_type(dtype)
    folder, part = _pipeline(pretrained, vae)
    scheduler = pretrained_files.scheduler_config(folder)
    network = _covered(pretrained_files.load(folder / part, NETWORKS[part], dtype), folder / part)
    vae_folder, coder = _coder(folder, vae, dtype)
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
    prior = prior_from_config(scheduler)
    return LatentBackbone(network, coder, prior, contexts, guidance, pretrained, digest, scheduler)


def _pipeline(pretrained: str, vae: str | None) -> tuple[Path, str]:
    """A pipeline's folder and which of ``NETWORKS`` it has; UserError unless it is complete."""
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
    return folder, part


def _coder(folder: Path, vae: str | None, dtype: torch.dtype) -> tuple[Path, nn.Module]:
    """The VAE ``vae``, or that of a pipeline's folder, and the folder that it is in."""
    at = folder / "vae"
    if vae:
        at = pretrained_files.fetched(vae, ["", "vae"], key="backbone.vae")
        at = at / "vae" if (at / "vae").is_dir() else at
    # of float16 some overflow
    if dtype == torch.float16 and read_json(at / "config.json").get("force_upcast", True):
        dtype = torch.float32
    coder = pretrained_files.load(at, VAES, dtype)
    if (coder.config.in_channels, coder.config.out_channels) != (3, 3):
        raise UserError(
            f"The VAE in {at} is not one of images of 3 channels; choose another backbone."
        )
    return at, coder


def _covered(network: nn.Module, folder: Path) -> nn.Module:
    """The network itself; UserError if it needs what no backbone gives it."""
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
