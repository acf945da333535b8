"""Pretrained restoration networks as anchors: ``adapter.anchor=spandrel:FILE``.

FILE may be of any architecture that spandrel knows by its weights (NAFNet, SwinIR, ...).
"""

import os
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from irbridge.errors import UserError
from irbridge.files import sha256

PREFIX = "spandrel:"
KEY = "adapter.anchor"
# of the environment: a config, which may be someone else's, must not be able to insist
INSIST = "IRBRIDGE_ALLOW_PICKLE"


class PretrainedAnchor(nn.Module):
    """A frozen network g that maps images (B, 3, H, W) in [-1, 1] to the same, of any size.

    ``digest`` is the SHA-256 of its file.

    Args:
        path: of the weights.
        key: the setting that names it, for sentences.

    Raises:
        UserError: spandrel is missing, or the file is no restoration network of three channels and
            scale 1.
    """

    stride = 1  # spandrel pads to what the network needs, and crops again

    def __init__(self, path: str | Path, key: str = KEY):
        super().__init__()
        path = Path(path).expanduser()
        if not path.is_file():
            raise UserError(
                f"{key}={PREFIX}{path} does not exist; give the file of the network's"
                f" weights (of a trained adapter: backbone.anchor={PREFIX}FILE)."
            )
        if path.suffix.lower() != ".safetensors" and os.environ.get(INSIST) != "1":
            raise UserError(
                f"{path} is no .safetensors file, and a pickle may run code; convert it, or set"
                f" {INSIST}=1 if you trust where it comes from."
            )
        self.network = _loaded(path, key)
        self.network.model.requires_grad_(False).eval()
        self.name, self.digest = f"{PREFIX}{path.resolve()}", sha256(path)
        self.architecture = self.network.architecture.name

    @property
    def weights(self) -> list[Tensor]:
        """Of the network, which spandrel wraps, so that this module has none of its own."""
        return [*self.network.model.parameters(), *self.network.model.buffers()]

    def to(self, *where):
        """Move the network, which is no submodule, and return the anchor itself."""
        self.network.to(*where)
        return self

    @torch.no_grad()
    def forward(self, y: Tensor) -> Tensor:
        """g(y) (B, 3, H, W) of y alike, in [-1, 1]."""
        return self.network(y.float().clamp(-1, 1) / 2 + 0.5).float() * 2 - 1


def _loaded(path: Path, key: str):
    """Spandrel's descriptor of the network; UserError where it cannot serve as an anchor."""
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError:
        raise UserError(
            f'{key}=spandrel:FILE needs spandrel; pip install -e ".[spandrel]".'
        ) from None
    with suppress(ImportError):  # networks of other licences, which are the user's to install
        import spandrel_extra_arches

        spandrel_extra_arches.install(ignore_duplicates=True)
    try:
        network = ModelLoader().load_from_file(path)
    # whatever the architectures raise on weights that are not theirs
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise UserError(
            f"{path} is not the weights of a network that spandrel knows ({reason}); give another."
        ) from error
    fits = (
        isinstance(network, ImageModelDescriptor)
        and network.scale == 1
        and network.input_channels == network.output_channels == 3
    )
    if not fits:
        raise UserError(
            f"{path} does not map an image to one of its size and channels; give a network of "
            "restoration, not of super-resolution or masks."
        )
    return network


def load_anchor(given: str, digest: str | None = None, key: str = KEY) -> PretrainedAnchor:
    """The anchor that a setting names.

    Args:
        given: "spandrel:FILE".
        digest: SHA-256 of the file that the adapter was trained with; None: it is not trained yet.
        key: the setting.

    Raises:
        UserError: it names none, or another than the one of ``digest``.
    """
    if not given.startswith(PREFIX):
        raise UserError(f"{key}={given} must be true, false or {PREFIX}FILE.")
    anchor = PretrainedAnchor(given.removeprefix(PREFIX), key)
    if digest and digest != anchor.digest:
        raise UserError(
            f"{given} has other weights than the anchor that the adapter was trained with (SHA-256 "
            f"{anchor.digest[:12]}, not {digest[:12]}); give backbone.anchor={PREFIX}FILE."
        )
    return anchor
