"""diffusers' ``UNet2DModel`` in a tenth of the time of an ordinary import.

diffusers imports transformers, peft, torch._dynamo and more wherever they are installed, seconds
for classes that a pixel network never touches. Here it is imported as if none of them were
installed; its modules are then forgotten, so that an ordinary ``import diffusers`` later in the
process, as for Stable Diffusion, finds everything.
"""

import importlib.metadata
import logging
import sys
import threading
from contextlib import contextmanager, suppress
from functools import cache
from importlib.abc import Loader

# Optional packages that diffusers imports, or looks for, where they are installed; but for these it
# is imported as it is.
OPTIONAL = {
    "accelerate",
    "auto_round",
    "bitsandbytes",
    "bs4",
    "cv2",
    "flash_attn",
    "flash_attn_3",
    "flashinfer",
    "ftfy",
    "gguf",
    "imageio",
    "kernels",
    "kornia",
    "librosa",
    "matplotlib",
    "modelopt",
    "nltk",
    "onnxruntime",
    "optimum",
    "peft",
    "sageattention",
    "scipy",
    "sentencepiece",
    "tensorboard",
    "timm",
    "torchao",
    "torchsde",
    "torchvision",
    "transformers",
    "wandb",
    "xformers",
}
# Packages that import all of their modules; each module that is needed is imported by its name.
BARE = {"diffusers.models.transformers", "diffusers.models.unets"}


class _Empty(Loader):
    def exec_module(self, module) -> None:
        pass


class _Finder:
    """Finds what the finders before it found, but for what is optional.

    To other threads it hides nothing.
    """

    def __init__(self, finders: list):
        self.finders, self.thread = finders, threading.get_ident()

    def find_spec(self, name: str, path=None, target=None):
        mine = threading.get_ident() == self.thread
        if mine and (name.split(".")[0] in OPTIONAL or name == "torch._dynamo"):
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        spec = next((spec for spec in found if spec is not None), None)
        if mine and spec and name in BARE:
            spec.loader = _Empty()
        return spec

    def find_distributions(self, context):
        for finder in self.finders:
            if hasattr(finder, "find_distributions"):
                yield from finder.find_distributions(context)

    def invalidate_caches(self) -> None:
        importlib.invalidate_caches()


@contextmanager
def _without_optional():
    finders, listing = sys.meta_path[:], importlib.metadata.packages_distributions
    sys.meta_path[:] = [_Finder(finders)]
    importlib.metadata.packages_distributions = dict  # which reads every installed file's name
    try:
        yield
    finally:
        sys.meta_path[:], importlib.metadata.packages_distributions = finders, listing
        for name in [name for name in sys.modules if name.split(".")[0] == "diffusers"]:
            del sys.modules[name]
        logging.getLogger("diffusers").handlers.clear()  # which an ordinary import adds again


@cache
def unet_class() -> type:
    """``UNet2DModel``, without the rest of diffusers where that is possible.

    It is the ordinary class where diffusers has been imported or cannot be imported so. Else it is
    one that is equal in all but its identity, to be made by its constructor alone.
    """
    if "diffusers" not in sys.modules:
        with suppress(Exception), _without_optional():  # whatever another version raises
            return importlib.import_module("diffusers.models.unets.unet_2d").UNet2DModel
    from diffusers import UNet2DModel

    return UNet2DModel
