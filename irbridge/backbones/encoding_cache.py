"""VAE encodings on disk, so that a fixed data set is encoded once.

They are keyed by what was encoded and by what encodes it.
"""

import hashlib
import json
import warnings
import zlib
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from irbridge.assets import cache_folder
from irbridge.errors import UserError
from irbridge.files import write_atomically


class LatentCache:
    """``cache(images)`` is ``backbone.encode(images)``, bit by bit, from disk where it is known.

    A key is the SHA-256 of the image's float32 bytes and shape and of all that encodes it: the
    VAE's class, config, weights, dtype, memory layout and kind of device. A file that is damaged is
    computed and written again. Where the folder cannot be written, a full disk included, one
    warning says so and states are computed from then on.

    Args:
        folder: of the files ``<key[:2]>/<key>.safetensors``, one for each image; None:
            ``cache_folder("latents")``. Any number of processes may share it.
        backbone: with ``vae`` and ``encode``, which treats every image of a batch alone.

    Raises:
        UserError: the backbone has no VAE.
    """

    def __init__(self, folder: str | Path | None, backbone: nn.Module):
        if getattr(backbone, "vae", None) is None:
            raise UserError(
                "data.cache_latents=true needs a backbone with a VAE, such as backbone=sd15; leave"
                " it out."
            )
        self.folder, self.backbone = Path(folder or cache_folder("latents")), backbone
        self.writable = True

    @cached_property
    def _vae(self) -> str:
        """What the VAE is, once: its weights are frozen."""
        vae = self.backbone.vae
        config = {k: v for k, v in dict(vae.config).items() if not k.startswith("_")}
        state = hashlib.sha256(
            json.dumps([type(vae).__name__, config], sort_keys=True, default=str).encode()
        )
        for name, tensor in sorted(vae.state_dict().items()):
            state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            state.update(
                tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
        return state.hexdigest()

    def _keys(self, images: Tensor) -> list[str]:
        # channels_last
        last = any(p.dim() == 4 and not p.is_contiguous() for p in self.backbone.vae.parameters())
        about = f"{self._vae} {images.device.type} {last} {tuple(images.shape[1:])}"
        return [
            hashlib.sha256(about.encode() + image.numpy().tobytes()).hexdigest()
            for image in images.detach().float().cpu()
        ]

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.folder / key[:2] / f"{key}.safetensors"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> states (B, C, h, w), float32, on the images' device."""
        keys = self._keys(images)
        states = [_read(self.path(key)) for key in keys]
        missing = [i for i, state in enumerate(states) if state is None]
        if missing:
            for i, state in zip(missing, self.backbone.encode(images[missing]), strict=True):
                states[i] = state
                self._write(self.path(keys[i]), state)
        return torch.stack([state.to(images.device) for state in states])

    def _write(self, path: Path, state: Tensor) -> None:
        if not self.writable:
            return
        state = state.cpu().contiguous().clone()
        try:
            write_atomically(
                path, lambda p: save_file({"state": state}, p, {"crc32": _checksum(state)})
            )
        except OSError as error:
            self.writable = False
            warnings.warn(
                f"The encodings can no longer be kept in {self.folder} ({error.strerror}) and are"
                " computed at every step; make room there, or set IRBRIDGE_CACHE to another"
                " folder.",
                stacklevel=2,
            )


def _checksum(state: Tensor) -> str:
    return f"{zlib.crc32(state.numpy().tobytes()):08x}"


def _read(path: Path) -> Tensor | None:
    """The state in a file, None where there is none or not the one that was written."""
    try:
        with safe_open(path, "pt") as file:
            state, wanted = file.get_tensor("state"), (file.metadata() or {}).get("crc32")
    except (OSError, SafetensorError):
        return None
    return state if _checksum(state) == wanted else None
