"""Where pretrained weights come from: a folder, or the Hugging Face hub and its cache."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from irbridge.backbones.lean import unet_class
from irbridge.errors import UserError, full_disk
from irbridge.files import read_json
from irbridge.ranges import (
    DEPTH,
    NOT_NEGATIVE,
    WIDTH,
    Range,
    check_values,
    each,
    finite,
    shown,
    whole,
)

LARGEST_OF_NETWORKS = 1_000_000  # positions, words of a vocabulary

# Copies in other precisions and formats, which would double or triple the download.
VARIANTS = [
    "*.fp16*",
    "*.bf16*",
    "*non_ema*",
    "*onnx*",
    "*flax*",
    "*openvino*",
    "*.msgpack",
    "*.bin",
    "*.ckpt",
]
WEIGHTS = "diffusion_pytorch_model*.safetensors"
# Of a bare model's folder; by name, as a pipeline's may hold whole checkpoints beside its parts.
TOP = ["config.json", "scheduler_config.json", WEIGHTS, WEIGHTS + ".index.json"]
KINDS = "*.json", "*.safetensors", "*.txt", "*.model"
# Keys by which a library would load other code or other weights than those of the folder.
FOREIGN = (
    "auto_map",
    "custom_pipelines",
    "quantization_config",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "trust_remote_code",
)
SCHEDULER = re.compile(r"[A-Z]\w*Scheduler")
_FINITE = Range(lambda v: NOT_NEGATIVE.fits(v) and v < 1e6, "a number from 0 to below 1e6")
_WORD = Range(lambda v: isinstance(v, str), "a word")
OF_SCHEDULER = {
    "_class_name": Range(
        lambda v: isinstance(v, str) and bool(SCHEDULER.fullmatch(v)), "the name of a scheduler"
    ),
    "num_train_timesteps": whole(1, 100_000),
    "trained_betas": each(_FINITE),
    **dict.fromkeys(("prediction_type", "beta_schedule", "timestep_type"), _WORD),
    **dict.fromkeys(
        ("beta_start", "beta_end", "shift", "flow_shift", "sigma_min", "sigma_max", "sigma_data"),
        _FINITE,
    ),
}
"""What the keys of a scheduler's config are."""


def fetched(name: str, parts: list[str], key: str = "backbone.pretrained") -> Path:
    """The folder of a pretrained pipeline or model, downloaded where the hub's cache lacks it.

    Args:
        name: a folder, or a name on the hub.
        parts: the subfolders that are needed; "" is the top.
        key: of the config, for the error.

    Raises:
        UserError: it is neither; it says what to download and where to put it.
    """
    if Path(name).is_dir():
        return Path(name)
    patterns = ["model_index.json"]
    for part in parts:
        patterns += [f"{part}/{kind}" for kind in KINDS] if part else TOP
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=VARIANTS))
    except Exception as error:
        if full_disk(error):
            raise
        raise UserError(_refusal(name, error, key)) from error


def complete(name: str, folder: Path, needed: list[str], key: str = "backbone.pretrained") -> None:
    """UserError unless the folder that ``name`` was fetched to has these files.

    A cache may hold a part of a model.
    """
    missing = [file for file in needed if not (folder / file).is_file()]
    if missing and not Path(name).is_dir():
        raise UserError(
            f"{key}={name!r} is not completely in the cache ({missing[0]} is missing); run once"
            f" with a connection, or use {_elsewhere(name, key)}."
        )
    if missing:
        raise UserError(
            f"{folder / missing[0]} is missing; give the folder of a whole pipeline or model as"
            " diffusers saves it."
        )


def _elsewhere(name: str, key: str) -> str:
    wanted = " ".join(
        f'--include "{pattern}"'
        for pattern in (
            "*.json",
            "*.txt",
            "*diffusion_pytorch_model.safetensors",
            "text_encoder*/model.safetensors",
        )
    )
    return (
        f"`hf download {name} --local-dir DIR {wanted}` on a connected machine and {key}=DIR, or"
        " set HF_HOME to a cache that holds it"
    )


def _refusal(name: str, error: Exception, key: str) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return (
            f"{key}={name!r} is neither a folder here nor a name of the hub such as owner/model;"
            " check the path, or give a name whose download HF_HOME's cache holds."
        )
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{key}={name!r} is gated: accept its terms on https://huggingface.co/{name} and run"
            f" `hf auth login`, or use {_elsewhere(name, key)}."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{key}={name!r} is neither a folder here nor a model of the hub that you may see;"
            " check the spelling, run `hf auth login` if it is private, or give a folder."
        )
    return (
        f"{key}={name!r} is neither a folder here nor in the cache, and the hub is out of reach "
        f"({type(error).__name__}); use {_elsewhere(name, key)}."
    )


def check_config(folder: Path) -> dict:
    """The config of a network's folder.

    diffusers makes what it says before it looks at the weights, so a number of it must not ask for
    more than any network has.

    Raises:
        UserError: it is missing, or a number of it is out of range.
    """
    path = folder / "config.json"
    config = plain_config(path)
    check_network(config, str(path))
    return config


def check_network(config: dict, source: str) -> None:
    """UserError where a number of a network's config is out of range; it names ``source``."""
    for key, value in config.items():
        most = _most(key)
        for item in _numbers(value):
            if not finite(item) or abs(item) > most:
                raise UserError(
                    f"{source}: {key}={shown(value)} is beyond any network that there is; give at"
                    f" most {most}."
                )


def _most(key: str) -> int:
    """The most that a number of a network's config may be."""
    if "layers" in key or "blocks" in key:
        return DEPTH
    return WIDTH if "channels" in key else LARGEST_OF_NETWORKS


def _numbers(value) -> Iterator[float]:
    """The numbers of a value and of its lists, one within another."""
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value + 0


def load(folder: Path, classes: tuple[str, ...], dtype):
    """The diffusers model of a folder, in eval mode. Only safetensors are read, no pickles.

    Args:
        folder: of ``config.json`` and the weights.
        classes: the names of the classes that the config may name.
        dtype: of the weights.

    Raises:
        UserError: it is of another class, or its weights are not complete.
    """
    name = check_config(folder).get("_class_name", classes[0])
    if name not in classes:
        raise UserError(
            f"{folder} holds a {name}, not a {' or '.join(classes)}; choose another backbone."
        )
    if not _weights(folder):
        raise UserError(
            f"{folder} holds no safetensors that are read{_others(folder)}; load the model where it"
            " is complete, and save it with save_pretrained."
        )
    if name == "UNet2DModel" and (model := _plain_unet(folder, dtype)):
        return model.eval()
    import diffusers

    try:
        model, found = getattr(diffusers, name).from_pretrained(
            folder,
            torch_dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        if found["missing_keys"]:
            raise ValueError(f"{found['missing_keys'][0]} is missing")
    except MemoryError:  # which says nothing of the file
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"The weights in {folder} cannot be loaded ({reason}); save the model again with "
            "save_pretrained."
        ) from error
    return model.eval()


def _plain_unet(folder: Path, dtype: torch.dtype):
    """A UNet2DModel whose config and weights are as this version of diffusers writes them.

    None of others, and of weights in several files, which diffusers converts.
    """
    kind, files = unet_class(), _weights(folder)
    if len(files) != 1:
        return None
    try:
        config = plain_config(folder / "config.json")
        options = {key: value for key, value in config.items() if not key.startswith("_")}
        with torch.device("meta"):  # no time for weights that are overwritten
            model = kind(**options)
        weights = {name: value.to(dtype) for name, value in load_file(files[0]).items()}
        model.load_state_dict(weights, assign=True)
        return model
    except MemoryError:
        raise
    except Exception:  # told by diffusers itself
        return None


def _others(folder: Path) -> str:
    if any(folder.glob("*.fp16*")) and not any(folder.glob("*.bin")):
        return ', only the variant "fp16" (load it with variant="fp16")'
    return ", only pickled weights, which are not" if any(folder.glob("*.bin")) else ""


def plain_config(path: Path) -> dict:
    """The config of one part of a pipeline, a JSON file, which names no code and no other weights.

    Raises:
        UserError: It is missing or no JSON, or has a key of :data:`FOREIGN`.
    """
    config = read_json(path)
    parts = [config]
    for part in parts:
        for key, value in part.items():
            if key in FOREIGN and value:
                raise UserError(
                    f"{path}: {key} is not covered, as it would load other code or weights; delete"
                    " the key, and use such a folder only from someone whom you trust."
                )
            parts += _objects(value)
    return config


def _objects(value) -> list[dict]:
    """The JSON objects that a value is, or that its lists hold."""
    if isinstance(value, dict):
        return [value]
    items = value if isinstance(value, list) else []
    return [found for item in items for found in _objects(item)]


def scheduler_config(folder: Path) -> dict:
    """The scheduler's saved config of a pipeline, or of a bare model's folder.

    Raises:
        UserError: It is missing or no JSON, or a value is none of a scheduler.
    """
    own = folder / "scheduler" / "scheduler_config.json"
    path = own if own.is_file() else folder / "scheduler_config.json"
    config = plain_config(path)
    try:
        # null is a value of many keys, and no class
        named = {"_class_name": config.get("_class_name", "DDPMScheduler") or "null"}
        check_values(OF_SCHEDULER, config | named, "")
    except UserError as error:
        raise UserError(f"{path}: {str(error).rstrip('.')}; save the pipeline again.") from None
    return config


def _weights(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.glob(WEIGHTS)) if not any(p.match(v) for v in VARIANTS)]


def digest(folder: Path) -> str:
    """SHA-256 over the weights of a folder."""
    return digests(folder)[0]


def digests(*folders: Path) -> list[str]:
    """SHA-256 over the weights of the first folder, of the first two together, and so on.

    Each is read once, and in pieces, as it may be larger than memory.
    """
    total, found = hashlib.sha256(), []
    for folder in folders:
        for path in _weights(folder):
            with open(path, "rb") as file:
                while piece := file.read(2**24):
                    total.update(piece)
        found.append(total.hexdigest())
    return found
