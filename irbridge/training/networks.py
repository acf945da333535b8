"""What saves memory or time in every network of a model, without changing what it learns."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from irbridge.adapters.hidiff.transformer import Transformer
from irbridge.adapters.lucid_unet import LucidUNet
from irbridge.adapters.nafnet import NAFNet
from irbridge.adapters.residual_unet import ResidualUNet


def checkpoint_gradients(model: nn.Module) -> None:
    """Turn gradient checkpointing on in the diffusers blocks of every network of the model.

    The blocks, also those of an adapter's copies, recompute in the backward pass what they would
    otherwise keep. Gradients are the same.
    """
    keep = partial(checkpoint, use_reentrant=False)
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = keep


def _of_diffusers(module: nn.Module, *names: str) -> bool:
    """Whether diffusers names a class of the module so.

    By name, for an import of diffusers takes seconds, and a network of ``backbones.lean`` has base
    classes of its own.
    """
    kinds = [kind for kind in type(module).__mro__ if kind.__module__.startswith("diffusers.")]
    return any(kind.__name__ in names for kind in kinds)


def compile_networks(model: nn.Module) -> None:
    """Compile every network of the model in place, so that names of weights stay.

    That is diffusers' and our own. A VAE is left as it is, because it is not called as a module.
    The first steps then take minutes.
    """
    for module in model.modules():
        vae = _of_diffusers(module, "AutoencoderKL", "AutoencoderTiny")
        own = isinstance(module, (NAFNet, LucidUNet, ResidualUNet, Transformer))
        if (own or _of_diffusers(module, "ModelMixin")) and not vae:
            module.compile()
