"""Embeddings of prompts, computed once and kept on disk.

So no text encoder is loaded in training or restoring.
"""

import gc
import hashlib
import json
import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from irbridge.assets import cache_folder
from irbridge.backbones import pretrained_files
from irbridge.errors import UserError
from irbridge.files import write_atomically
from irbridge.weights import load_weights

# What the frozen networks call the outputs of a pipeline's encode_prompt, by the number of these:
# 2 of SD 1 and 2, 4 of SD 3.
# What a pipeline's index may name: by the beginnings of its keys, the library and its classes. None
# of these loads code from the folder.
PIPELINE = re.compile(r"StableDiffusion\w*Pipeline")
CLASSES = {
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast"),
}
NAMES = {2: {"encoder_hidden_states": 0}, 4: {"encoder_hidden_states": 0, "pooled_projections": 2}}


class Prompt(NamedTuple):
    """Whose text encoders answer.

    Args:
        name: the pipeline's, a folder or a name on the hub.
        folder: where it is.
        digest: of its frozen network.
        skip: its parts to do without.
    """

    name: str
    folder: Path
    digest: str
    skip: tuple[str, ...] = ()


def embeddings(source: Prompt, prompts: list[str], network: nn.Module) -> list[dict[str, Tensor]]:
    """Each prompt's embedding, read from the cache or else computed and written there.

    The cache is ``prompts``, see ``environment.cache_folder``; the pipeline's own
    ``encode_prompt`` computes. A pipeline without a text encoder gives zeros, with a warning.

    Returns:
        A prompt's tensors (1, tokens, channels) under the network's names, on the CPU, in its
        dtype.

    Raises:
        UserError: transformers is not installed, or the encoders cannot be loaded.
    """
    paths = [_cached(source, prompt) for prompt in prompts]
    if not all(path.is_file() for path in paths):
        folder = _with_encoders(source)
        if folder is None:
            warnings.warn(
                f"{source.name} has no text encoder; the network is given zeros instead of a"
                " prompt's embedding.",
                stacklevel=2,
            )
            return [_zeros(network) for _ in prompts]
        for path, tensors in zip(paths, _encode(source, folder, prompts, network), strict=True):
            write_atomically(path, lambda p, tensors=tensors: save_file(tensors, p))
    wanted = _zeros(network)
    found = [{k: v.to(network.dtype) for k, v in load_weights(path).items()} for path in paths]
    for path, tensors in zip(paths, found, strict=True):
        shapes = ({k: v.shape[-1] for k, v in t.items()} for t in (tensors, wanted))
        if len({json.dumps(s, sort_keys=True) for s in shapes}) > 1:
            raise UserError(f"{path} does not fit the network of {source.name}; delete that file.")
    return found


def _cached(source: Prompt, prompt: str) -> Path:
    key = hashlib.sha256(
        json.dumps([source.digest, sorted(source.skip), prompt]).encode()
    ).hexdigest()
    return cache_folder("prompts") / f"{key}.safetensors"


def _with_encoders(source: Prompt) -> Path | None:
    """The pipeline's folder with its text encoders, or None where it has none."""
    index = source.folder / "model_index.json"
    if not index.is_file() and (
        not Path(source.name).is_dir() or any(source.folder.glob("text_encoder*"))
    ):
        raise UserError(
            f"{index} is missing, which names the pipeline's text encoders; download it too, or"
            " save the whole pipeline with its save_pretrained."
        )
    kept = pretrained_files.plain_config(index) if index.is_file() else {}
    parts = [
        key
        for key, value in kept.items()
        if key.startswith(("text_encoder", "tokenizer"))
        and isinstance(value, list)
        and value
        and value[0]
        and key not in source.skip
        and (not Path(source.name).is_dir() or (source.folder / key).is_dir())
    ]
    if not any(part.startswith("text_encoder") for part in parts):
        return None
    folder = pretrained_files.fetched(source.name, parts)
    pretrained_files.complete(
        source.name,
        folder,
        [f"{part}/config.json" for part in parts if part.startswith("text_encoder")],
    )
    return folder


def _zeros(network: nn.Module) -> dict[str, Tensor]:
    config = network.config
    width = config.get("joint_attention_dim") or config.get("cross_attention_dim")
    # one per level, all alike
    width = width if width is None or isinstance(width, int) else width[-1]
    shapes = {"encoder_hidden_states": (1, 1, width)} if width else {}
    if pooled := config.get("pooled_projection_dim"):
        shapes["pooled_projections"] = (1, pooled)
    return {key: torch.zeros(shape, dtype=network.dtype) for key, shape in shapes.items()}


def _checked_index(folder: Path, skip: tuple[str, ...]) -> dict:
    """What ``model_index.json`` names, all of it known classes.

    Raises:
        UserError: It names another class, or the config of a part names code or other weights.
    """
    path = folder / "model_index.json"
    index = pretrained_files.plain_config(path)
    name = index.get("_class_name")
    if not isinstance(name, str) or not PIPELINE.fullmatch(name):
        raise _foreign(path, "_class_name", name)
    for key, value in index.items():
        kind = next((kind for kind in CLASSES if key.startswith(kind)), None)
        if key == "scheduler" and isinstance(value, list):
            known = len(value) == 2 and value[0] == "diffusers" and isinstance(value[1], str)
            if not known or not pretrained_files.SCHEDULER.fullmatch(value[1]):
                raise _foreign(path, key, value)
        if kind is None or not isinstance(value, list) or key in skip or value == [None, None]:
            continue
        if len(value) != 2 or value[0] != "transformers" or value[1] not in CLASSES[kind]:
            raise _foreign(path, key, value)
        for config in sorted((folder / key).glob("*config.json")):
            if config.name == "adapter_config.json":
                raise UserError(
                    f"{config} would load other weights in place of these, which is not covered;"
                    " delete it."
                )
            pretrained_files.plain_config(config)
    return index


def _foreign(path: Path, key: str, value) -> UserError:
    """The error for what is none of the known classes."""
    return UserError(
        f"{path}: {key}={value!r} is no class that irbridge loads; save the pipeline again with"
        " save_pretrained, and use such a folder only from someone whom you trust."
    )


@torch.no_grad()
def _encode(
    source: Prompt, folder: Path, prompts: list[str], network: nn.Module
) -> list[dict[str, Tensor]]:
    try:
        import_module("transformers")
    except ImportError:
        raise UserError(
            f"The empty prompt's embedding of {source.name} is not in {cache_folder('prompts')}"
            ' yet, and its text encoder needs transformers; pip install -e ".[sd]", or copy that'
            " folder."
        ) from None
    import diffusers

    index = _checked_index(folder, source.skip)
    missing = {
        key: None
        for key, value in index.items()
        if isinstance(value, list)
        and (not key.startswith(tuple(CLASSES)) or key in source.skip or value[0] is None)
    }
    missing.pop("scheduler", None)
    # its config is asked for T5's width
    missing |= {key: network for key in ("unet", "transformer") if key in missing}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = getattr(diffusers, index["_class_name"]).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                torch_dtype=torch.float32,
                **missing,
            )
        found = []
        for prompt in prompts:
            kinds = {"prompt_2": None, "prompt_3": None} if "text_encoder_2" in index else {}
            given = pipeline.encode_prompt(
                prompt,
                **kinds,
                device="cpu",
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
            found.append(
                {name: given[at].float().contiguous() for name, at in NAMES[len(given)].items()}
            )
    except (UserError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"The text encoder in {folder} cannot be used ({reason}); save the pipeline again with"
            " save_pretrained, or leave all its encoders out (of SD3, T5 alone: backbone.skip) to"
            " go without a prompt."
        ) from error
    del pipeline
    gc.collect()
    return found
