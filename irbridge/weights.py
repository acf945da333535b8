"""Weights on disk, as safetensors alone."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from irbridge.errors import UserError
from irbridge.files import open_regular, write_atomically

SCALE = ".scale"
"""What the name of a tensor's scales ends in, where it is stored as int8."""
SMALL = 1024  # numbers of a tensor that int8 would save next to nothing of
LEVELS = 127  # the largest of int8 whose negative is one too
REAL = torch.float16, torch.bfloat16, torch.float32, torch.float64


def save_weights(path: Path, tensors: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write tensors atomically.

    Args:
        path: of the file.
        tensors: by name.
        dtype: as in :func:`rounded`; None: each keeps its own.
    """
    stored = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in _stored(tensors, dtype).items()
    }
    write_atomically(path, lambda p: save_file(stored, p))


def rounded(tensors: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """What is left of tensors that are stored in another type.

    Args:
        tensors: by name.
        dtype: that floating ones are cast to. With int8 each row of a tensor, such as the kernel
            of one output channel, is whole numbers from -127 to 127 times a scale of its own in
            bfloat16; tensors of fewer than :data:`SMALL` numbers become float16.
    """
    return _plain(_stored(tensors, dtype), "")


def _stored(tensors: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors of a file, scales among them."""
    found = {}
    for name, tensor in tensors.items():
        if dtype is None or not tensor.is_floating_point():
            found[name] = tensor
        elif dtype is not torch.int8:
            found[name] = tensor.to(dtype)
        elif tensor.ndim < 2 or tensor.numel() < SMALL:
            found[name] = tensor.half()
        else:
            found[name], found[name + SCALE] = _int8(tensor)
    return found


def _int8(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The whole numbers that a tensor's rows are closest to, and their scales (rows,)."""
    rows = tensor.float().flatten(1)
    scales = (rows.abs().amax(1) / LEVELS).bfloat16()
    # a row of zeros has scale 0
    whole = rows / scales.float().clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    return whole.round().clamp(-LEVELS, LEVELS).to(torch.int8).view_as(tensor), scales


def _plain(stored: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of a file, those of int8 times their scales in float32.

    Raises:
        UserError: an int8 tensor has no scale for each row.
    """
    found = {}
    scales = {name + SCALE for name, tensor in stored.items() if tensor.dtype == torch.int8}
    for name, tensor in stored.items():
        if name in scales:
            continue
        if tensor.dtype == torch.int8:
            scale = stored.get(name + SCALE)
            scaled = scale is not None and scale.dtype in REAL and tensor.ndim
            if not scaled or scale.shape != tensor.shape[:1]:
                raise UserError(
                    f"{source} is damaged: {shown(name)} is int8 without a scale for each row;"
                    " copy it again."
                )
            tensor = tensor * scale.float().view(-1, *[1] * (tensor.ndim - 1))
        found[name] = tensor
    return found


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, int8 as the numbers that it stands for.

    Raises:
        UserError: it is missing or corrupt.
    """
    try:
        open_regular(path).close()  # a pipe would be waited for
        return _plain(load_file(path), str(path))
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
            raise UserError(
                f"{source} does not fit the configured model: {shown(name)} is {there} in the file"
                f" and {here} in the model; use the configuration that it was trained with."
            )
    for name, tensor in tensors.items():
        fits = tensor.dtype in REAL or tensor.dtype == own[name].dtype
        if not fits or not torch.isfinite(tensor).all():
            raise UserError(
                f"{source} is damaged: {shown(name)} holds values that are no real numbers (NaN,"
                " infinite or of another type); copy it again, or train again."
            )
    module.load_state_dict(tensors)


def shown(name: str) -> str:
    """A name from a file, without signs that would do something to a terminal."""
    return name if name.isprintable() else repr(name)
