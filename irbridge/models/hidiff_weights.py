"""HI-Diff's released weights under this project's names.

The authors keep each network in a file of its own (``net_g.pth``, ``net_le_dm.pth``,
``net_d.pth``), as a pickle, which is read as tensors alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from irbridge.adapters.hidiff.network import HIDiffNetwork, HIDiffOptions
from irbridge.errors import UserError
from irbridge.weights import load_weights, shown

MIXER = (r"\btokens\.(\d)", r"patch_mixer.\1"), (r"\bchannels\.(\d)", r"channel_mixer.\1")
TRANSFORMER = (
    (r"^shorten\.(\d)\.tokens", lambda m: f"down_{int(m[1]) + 1}.1"),
    (r"^shorten\.(\d)\.channels", lambda m: f"down_{int(m[1]) + 1}.3"),
    (r"^down\.(\d)", lambda m: f"down{int(m[1]) + 1}_{int(m[1]) + 2}.body.0"),
    (r"^up\.(\d)", lambda m: f"up{int(m[1]) + 2}_{int(m[1]) + 1}.body.0"),
    (r"^fuse\.(\d)", lambda m: f"reduce_chan_level{int(m[1]) + 1}"),
    (r"^(en|de)coder\.(\d)", lambda m: f"{m[1]}coder_level{int(m[2]) + 1}"),
    (r"^stem", "patch_embed.proj"),
    (r"^bottom", "latent"),
    (r"\.integration\.norm\.", ".him.norm1.body."),
    (r"\.integration\.token_norm\.", ".him.norm2.body."),
    (r"\.integration\.query", ".him.q"),
    (r"\.integration\.key_value", ".him.kv"),
    (r"\.integration\.project", ".him.proj"),
    (r"(blocks\.\d+\.norm\d)", r"\1.body"),
    (r"\.modulation\.scale", ".ln1"),
    (r"\.modulation\.shift", ".ln2"),
    (r"\.attention\.widen", ".attn.qkv"),
    (r"\.attention\.depthwise", ".attn.qkv_dwconv"),
    (r"\.attention\.project", ".attn.project_out"),
    (r"\.attention\.", ".attn."),
    (r"\.feedforward\.widen", ".ffn.project_in"),
    (r"\.feedforward\.depthwise", ".ffn.dwconv"),
    (r"\.feedforward\.project", ".ffn.project_out"),
    (r"\.feedforward\.", ".ffn."),
)
ENCODER = (
    (r"^stem", "conv1"),
    (r"^head", "end"),
    (r"^tail", "conv2"),
    (r"^mixer\.", "mlp."),
    *MIXER,
)
# of the GoPro variant a single convolution
PLAIN_ENCODER = (*ENCODER, (r"^conv2\.0", "conv2"))
DENOISERS = {
    "gopro": (
        (r"^time_scale", "time_mlp"),
        (r"^first", "first_layer.0"),
        (r"^last", "final_layer.0"),
        (r"^mixers\.(\d+)", r"blocks.\1.0"),
        *MIXER,
    ),
    "realblur": (
        (r"^first", "resmlp.0"),
        (r"^layers\.(\d+)", lambda m: f"resmlp.{int(m[1]) + 2}.resmlp.0"),
    ),
}
"""What turns our names into the authors', one rule after the other."""

# of a dictionary that holds another; "params" first, as the authors' own test reads it
CONTAINERS = "params", "params_ema", "state_dict"
NETWORKS = "net_g", "net_le_dm", "net_le", "net_d"
PREFIX = re.compile(rf"^((module|{'|'.join(CONTAINERS)})\.)+")
# a name by which each network is known
KNOWN_BY = {
    "patch_embed.proj.weight": "transformer",
    "conv1.0.weight": "encoder",
    "first_layer.0.weight": "denoiser",
    "resmlp.0.weight": "denoiser",
}
PUBLISHED = {
    "gopro": {},
    "realblur": {
        "expansion": 2.0,
        "encoder_blocks": 5,
        "denoiser_blocks": 4,
        "steps": 16,
    },
}
"""The sizes of the two published variants, where they differ from those of the options' class."""


def published(variant: str) -> HIDiffOptions:
    """The sizes of a published variant, "gopro" or "realblur"."""
    return HIDiffOptions(variant=variant, **PUBLISHED[variant])


def official(part: str, name: str, variant: str) -> str:
    """What the authors call a weight.

    Args:
        part: "transformer", "encoder" or "denoiser", the network that it is of.
        name: ours, within that network.
        variant: "gopro" or "realblur".
    """
    encoder = PLAIN_ENCODER if variant == "gopro" else ENCODER
    rules = {"transformer": TRANSFORMER, "encoder": encoder, "denoiser": DENOISERS[variant]}
    for pattern, theirs in rules[part]:
        name = re.sub(pattern, theirs, name)
    return name


def read_official(path: Path) -> Iterator[dict[str, Tensor]]:
    """The networks in a file of the authors, each as tensors by their names.

    Args:
        path: a ``.pth``, of which nothing but tensors is read, or a ``.safetensors``.

    Raises:
        UserError: it is missing, or holds anything else.
    """
    read = load_weights if path.suffix.lower() == ".safetensors" else _unpickled
    yield from _split(read(path), path)


def _unpickled(path: Path):
    """What a pickle of tensors holds; nothing in it is run."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the files of HI-Diff's released weights.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises of damaged bytes
        raise UserError(
            f"{path} is damaged, or holds more than tensors, which is not read; give HI-Diff's"
            " released files, downloaded again."
        ) from error


def _split(content, path: Path) -> Iterator[dict[str, Tensor]]:
    """The networks of what a file holds, out of their containers and without prefixes."""
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds no weights by name; give HI-Diff's released files.")
    inner = (content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping))
    if inside := next(filter(None, inner), None):
        yield from _split(inside, path)
        return
    if any(isinstance(content.get(key), Mapping) for key in NETWORKS):
        for key in NETWORKS:
            if key in content:
                yield from _split(content[key], path)
        return
    # beside them may be what a training notes, such as its steps
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(
            f"{path} holds no tensor, only such as {str(next(iter(content)))[:60]!r}; give"
            " HI-Diff's released files."
        )
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        name = PREFIX.sub("", str(name))
        first = name.partition(".")[0]
        network = first if first in NETWORKS else ""
        name = PREFIX.sub("", name.removeprefix(f"{network}.") if network else name)
        groups.setdefault(network, {})[name] = tensor
    yield from groups.values()


def gather(files: Iterable[Path]) -> tuple[str, int, dict[str, Tensor]]:
    """The weights of a whole model from the authors' files.

    Args:
        files: those of the Transformer, and of stage 2 the encoder of blurred images and the
            denoiser, of stage 1 the encoder of both.

    Returns:
        The variant, the stage, and the tensors by our names.

    Raises:
        UserError: a file holds another network, a network is missing or there twice, or it is of no
            published size.
    """
    found: dict[str, tuple[Path, dict[str, Tensor]]] = {}
    for path in files:
        for tensors in read_official(path):
            part = _part(tensors, path)
            if part in found:
                raise UserError(
                    f"{path} and {found[part][0]} both hold HI-Diff's {part}; give one of them."
                )
            found[part] = path, tensors
    stage = _stage(found)
    variant = _variant(found, stage)
    parts = {"transformer": "transformer", "encoder": f"encoder of stage {stage}"}
    if stage == 2:
        parts["denoiser"] = "denoiser"
    with torch.device("meta"):
        network = HIDiffNetwork(published(variant), stage)
    weights: dict[str, Tensor] = {}
    for ours, kind in parts.items():
        path, tensors = found[kind]
        own = _named(getattr(network, ours), ours, variant, tensors, path)
        weights |= {f"{ours}.{name}": tensor for name, tensor in own.items()}
    return variant, stage, weights


def _part(tensors: dict[str, Tensor], path: Path) -> str:
    """Which network these tensors are of; UserError where it is none of HI-Diff's."""
    part = next((part for name, part in KNOWN_BY.items() if name in tensors), None)
    if part is None:
        raise UserError(
            f"{path} holds no network of HI-Diff: {next(iter(tensors))[:60]!r} is none of its"
            " names; give net_g.pth, net_le_dm.pth and net_d.pth."
        )
    if part != "encoder":
        return part
    # 16 pixels are folded into channels: of the blurred image, or of the sharp one as well
    return f"encoder of stage {1 if tensors['conv1.0.weight'].shape[1:2] == (96,) else 2}"


def _stage(found: Mapping) -> int:
    """The stage that these networks are of; UserError where one is missing."""
    if "transformer" in found and "encoder of stage 1" in found and len(found) == 2:
        return 1
    files = {"transformer": "net_g", "encoder of stage 2": "net_le_dm", "denoiser": "net_d"}
    for part, name in files.items():
        if part not in found:
            raise UserError(
                f"HI-Diff's {part} is missing; give {name}.pth too (of stage 1 alone: net_g.pth"
                " and net_le.pth)."
            )
    return 2


def _variant(found: Mapping, stage: int) -> str:
    """The variant that the networks are of, by the one that tells it best."""
    if stage == 2:
        return "realblur" if "resmlp.0.weight" in found["denoiser"][1] else "gopro"
    return "gopro" if "conv2.weight" in found["encoder of stage 1"][1] else "realblur"


def _named(
    module: nn.Module, part: str, variant: str, tensors: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The tensors by our names; UserError names the first that is missing, unknown or too large."""
    known = {official(part, name, variant): name for name in module.state_dict()}
    shapes = {official(part, name, variant): v.shape for name, v in module.state_dict().items()}
    for name in sorted(known.keys() | tensors.keys()):
        there = tuple(tensors[name].shape) if name in tensors else "missing"
        wanted = tuple(shapes[name]) if name in shapes else "unknown"
        if there != wanted:
            raise UserError(
                f"{path} is not of HI-Diff's {variant} variant: {shown(name)[:80]} is {there} in"
                f" the file and {wanted} in the published {part}; give the files of one variant."
            )
    return {known[name]: tensor.float() for name, tensor in tensors.items()}
