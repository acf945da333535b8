"""Weights on disk, as safetensors alone."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from irbridge.errors import UserError
from irbridge.files import open_regular, write_atomically


def save_weights(path: Path, tensors: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write tensors atomically.

    Args:
        path: of the file.
        tensors: by name.
        dtype: that floating ones are cast to; None: each keeps its own.
    """

    def plain(tensor: Tensor) -> Tensor:
        if dtype and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        return tensor.detach().cpu().contiguous().clone()

    cast = {name: plain(tensor) for name, tensor in tensors.items()}
    write_atomically(path, lambda p: save_file(cast, p))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; :class:`UserError` where it is missing or corrupt."""
    try:
        open_regular(path).close()  # a pipe would be waited for
        return load_file(path)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; train first, or give the folder of a finished run."
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file ({error}); copy it again or delete it."
        ) from None


def load_into(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Strictly load tensors into a module; UserError names the first name or shape that differs.

    Args:
        module: that gets them.
        tensors: by name.
        source: where they come from, for the error.
    """
    own = module.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        there, here = (tuple(t[name].shape) if name in t else "missing" for t in (tensors, own))
        if there != here:
            called = name if name.isprintable() else repr(name)
            raise UserError(
                f"{source} does not fit the configured model: {called} is {there} in the file and"
                f" {here} in the model; use the configuration that it was trained with."
            )
    for name, tensor in tensors.items():
        if tensor.is_complex() or not torch.isfinite(tensor).all():
            raise UserError(
                f"{source} is damaged: {name} holds values that are no real numbers (NaN, infinite"
                " or complex); copy it again, or train again."
            )
    module.load_state_dict(tensors)
