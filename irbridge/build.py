"""Models and data from a config, and models to and from a folder that describes itself."""

from pathlib import Path

import torch

from irbridge import __version__
from irbridge.adapters import Trunk
from irbridge.backbones import PixelBackbone, load_backbone
from irbridge.checkpoint import load_into, load_weights, read_json, save_weights, write_json
from irbridge.config import ROOT, commit, instantiate
from irbridge.data import CropStream, ImageSource, PairedFolders, SyntheticPairs
from irbridge.direct import BridgeNetwork
from irbridge.errors import UserError
from irbridge.model import IRBridge, Regression, Restorer

MODEL_KEYS = ("method", "endpoint", "backbone", "adapter", "bridge", "timesteps", "sampler", "loss", "task")
METHODS = ("irbridge", "bridge", "regression")


def build_model(config: dict, backbone: PixelBackbone | None = None) -> Restorer:
    """A model from the plain config of a run (the keys ``MODEL_KEYS``), untrained; ``backbone`` where it is there
    already. UserError if the method is unknown or a part cannot be built."""
    method, adapter = config["method"], config["adapter"]
    if method not in METHODS:
        raise UserError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}.")
    with torch.random.fork_rng(devices=[]):   # initial weights are a function of the config's seed alone
        torch.manual_seed(config.get("seed", 0))
        if method == "regression":
            return Regression(Trunk(adapter["channels"], adapter["layers"]))
        if method == "bridge":
            return BridgeNetwork(instantiate(config["bridge"]), adapter["channels"], adapter["layers"],
                                 **config["objective"], sampler=config["sampler"])
        backbone = backbone or load_backbone(config["backbone"]["pretrained"])
        digest = config["backbone"].get("digest")
        if digest and digest != backbone.digest:
            raise UserError(f"The backbone {backbone.name} has other weights than the ones the adapter was trained on "
                            f"(SHA-256 {backbone.digest[:12]}, not {digest[:12]}); give backbone.pretrained=FOLDER.")
        return IRBridge(backbone, instantiate(adapter, backbone), instantiate(config["bridge"]),
                        instantiate(config["timesteps"]), config["endpoint"],
                        config["task"]["sampler"] | {k: v for k, v in config["sampler"].items() if v is not None},
                        config["loss"])


def describe(config: dict, model: Restorer) -> dict:
    """What a folder must say for the model to be built again: its part of the config, the backbone's hash, the code."""
    kept = {k: config[k] for k in (*MODEL_KEYS, "objective") if k in config}
    kept |= {"seed": config["seed"], "irbridge": __version__, "commit": commit()}
    if isinstance(model, IRBridge):
        name = kept["backbone"]["pretrained"]
        kept["backbone"] = {"pretrained": str(Path(name).resolve()) if name and Path(name).is_dir() else name,
                            "digest": model.backbone.digest}
    return kept


def save_pretrained(model: Restorer, folder: str | Path, config: dict, weights: dict | None = None) -> None:
    """Write ``config.json`` and ``model.safetensors`` (the trained part alone; ``weights`` instead of its own)."""
    save_weights(Path(folder) / "model.safetensors", weights or model.trainable().state_dict())
    write_json(Path(folder) / "config.json", config)


def from_pretrained(folder: str | Path, device="cpu", backbone: PixelBackbone | None = None) -> Restorer:
    """A trained model from a run's folder (or any that ``save_pretrained`` wrote; data/adapters/derain is found from
    anywhere), ready to restore. UserError if the folder or a file of it is missing or corrupt, or the backbone is not the
    one it was trained on."""
    folder = find(str(folder))
    path = folder / "config.json"
    config = read_json(path)
    missing = [k for k in (*MODEL_KEYS, *["objective"] * (config.get("method") == "bridge")) if k not in config]
    if missing:
        raise UserError(f"{path} lacks {missing[0]}; give a folder that irbridge trained.")
    model = build_model(config, backbone)
    load_into(model.trainable(), load_weights(folder / "model.safetensors"), str(folder))
    return model.to(device).eval()


def find(path: str) -> Path:
    """A path of the config: as given, or relative to the project where it does not exist here."""
    return Path(path) if Path(path).exists() or Path(path).is_absolute() else ROOT / path


def training_stream(config: dict, crop: int) -> CropStream:
    """The endless stream of training crops of a task."""
    data, degradation = config["data"], config["task"].get("degradation")
    if degradation:
        return CropStream(ImageSource(find(data["train"])), crop, config["seed"], instantiate(degradation))
    pairs = _paired(data, "", None)
    if data["test_clean"] is None:
        pairs.keep(lambda index: index % data["hold_out"] != 0)
    return CropStream(pairs, crop, config["seed"])


def test_pairs(config: dict, size: int | None):
    """The held-back pairs of a task, centre-cropped to ``size`` (None: whole)."""
    data, degradation = config["data"], config["task"].get("degradation")
    if degradation:
        return SyntheticPairs(find(data["test"]), instantiate(degradation), config["seed"], size)
    if data["test_clean"] is not None:
        return _paired(data, "test_", size)
    pairs = _paired(data, "", size)
    pairs.keep(lambda index: index % data["hold_out"] == 0)
    return pairs


def _paired(data: dict, prefix: str, size: int | None) -> PairedFolders:
    for key in (clean := prefix + "clean", degraded := prefix + "degraded"):
        if not data.get(key):
            raise UserError(f"data.{key} is not set; give the folder, data.{key}=DIR.")
    pairs = PairedFolders(data[clean], data[degraded], size)
    pairs.check()
    return pairs
