"""Models from a config, and models to and from a folder that describes itself."""

from dataclasses import replace
from pathlib import Path

import torch

from irbridge import environment
from irbridge.adapters.pretrained_anchor import PREFIX, load_anchor
from irbridge.adapters.trunk import FIELDS, bridge_network, make_trunk
from irbridge.assets import __version__, cache_folder, find, shipped
from irbridge.backbones.base import Backbone, alike
from irbridge.backbones.encoding_cache import LatentCache
from irbridge.data.degradations.inpaint import Inpaint
from irbridge.environment import commit
from irbridge.errors import UserError, one_sentence, unknown
from irbridge.evaluation.protocol import Protocol
from irbridge.experiments.hidiff import hidiff
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.names import part_named, present
from irbridge.experiments.saved import read_settings
from irbridge.experiments.schema import made
from irbridge.files import read_json, sha256, write_json
from irbridge.models import precision
from irbridge.models.bridge_network import BridgeNetwork
from irbridge.models.distilled import Distilled
from irbridge.models.irbridge import IRBridge
from irbridge.models.loss_options import LossOptions
from irbridge.models.refine_options import RefineOptions
from irbridge.models.refinement import Refinement
from irbridge.models.regression import Regression
from irbridge.models.restorer import Restorer
from irbridge.ranges import SHARE, shown
from irbridge.samplers import make
from irbridge.samplers.base import named
from irbridge.training.options import TrainerOptions
from irbridge.weights import load_into, load_weights, save_weights

MODEL_KEYS = (
    "method",
    "endpoint",
    "backbone",
    "adapter",
    "bridge",
    "timesteps",
    "sampler",
    "loss",
    "task",
)
METHODS = ("irbridge", "distill", "bridge", "regression", "refine", "hidiff")
# what further methods are built from, by the method: also a folder must say it
OWN_KEYS = {
    "bridge": ("objective",),
    "refine": ("refine",),
    "hidiff": ("hidiff", "stage"),
}
TAUGHT = "endpoint", "backbone", "adapter", "bridge", "timesteps"  # a teacher's, and its pupil's
RECORDED = "digest", "signature"  # what a folder says of the backbone besides how to load it
# what loads a backbone whose config, of an older run, does not say
PIXELS = "irbridge.backbones.pixel.load_backbone"


def build_model(config: dict, backbone: Backbone | None = None, lazy: bool = False) -> Restorer:
    """An untrained model.

    Args:
        config: the plain config of a run, with the keys ``MODEL_KEYS``.
        backbone: the frozen model, where it is there already.
        lazy: a frozen network of pixels is loaded, and its hash compared, where it is first called.

    Raises:
        UserError: The method is unknown, or a part cannot be built.
    """
    config = present(config)
    model = _model(config, backbone, lazy)
    holes = config["task"].get("degradation") or {}
    if config["adapter"].get("masked"):
        fill = holes.get("fill")
        model.hole = float(fill) if SHARE.fits(fill) else Inpaint.fill
    if config["adapter"].get("masked") and _noisy(holes):
        for part in model.modules():
            if hasattr(part, "keeps_known"):
                part.keeps_known = False
    return model


def _noisy(holes: dict) -> bool:
    """Whether the config of holes says that pixels outside them have noise."""
    noise = holes.get("noise", (0, 0))
    return bool(isinstance(noise, list | tuple) and noise and noise[-1] > 0)


def _model(config: dict, backbone: Backbone | None, lazy: bool) -> Restorer:
    """:func:`build_model` of a config in its present form."""
    method, adapter = config["method"], config["adapter"]
    if method not in METHODS:
        raise UserError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}.")
    # initial weights are a function of the config's seed alone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.get("seed", 0))
        if method in ("bridge", "regression", "refine") and not (
            adapter.get("channels") and "layers" in adapter
        ):
            raise UserError(
                f"method={method} takes the width of adapter=static or adapter=control, and "
                f"{adapter['_target_']} has none; choose one of these, or baseline=false."
            )
        sizes = {key: adapter[key] for key in (*FIELDS, "masked") if key in adapter}
        loss = made(LossOptions, config["loss"])
        if method == "regression":
            return Regression(make_trunk(**sizes), loss.lpips)
        if method == "hidiff":
            return hidiff(config, loss.lpips, _first(config))
        if method == "bridge":
            return BridgeNetwork(
                instantiate(config["bridge"], of="bridge"),
                bridge_network(**sizes),
                **config["objective"],
                sampler=sampler_fields(config["sampler"]),
                masked=adapter.get("masked", False),
                lpips=loss.lpips,
            )
        if method == "refine":
            return _refinement(config, sizes)
        backbone = _frozen(config["backbone"], backbone, lazy)
        parts = (
            backbone,
            instantiate(adapter, backbone, of="adapter"),
            instantiate(config["bridge"], of="bridge"),
            instantiate(config["timesteps"], of="timesteps"),
            config["endpoint"],
            config["task"]["sampler"] | sampler_fields(config["sampler"]),
            loss,
        )
        if method == "distill":
            # a finished pupil has none
            teacher = config.get("teacher")
            model = Distilled(
                *parts,
                teacher=teacher and from_pretrained(teacher, backbone=backbone).adapter,
            )
        else:
            model = IRBridge(*parts)
        if config.get("data", {}).get("cache_latents"):
            model.latents = LatentCache(None, backbone)
        return model


def _first(config: dict) -> Restorer | None:
    """The model of ``stage1``; None where a config names none."""
    if not (given := config.get("stage1")):
        return None
    if not (trained(given) / "model.safetensors").is_file():
        raise UserError(
            f"stage1={given} holds no trained stage 1; train one, irbridge train recipe=hidiff"
            f" task={config['task'].get('name')} stage=1, and give its folder as stage1=RUN."
        )
    return from_pretrained(given)


def _refinement(config: dict, sizes: dict) -> Refinement:
    """A predictor and the denoiser of its residual.

    Args:
        config: of the run.
        sizes: of the networks, as the adapter says.
    """
    if not config.get("refine"):
        raise UserError("method=refine lacks its settings; give recipe=refine instead.")
    options = made(RefineOptions, config["refine"])
    for key in ("denoiser", "sizes"):
        known = (*FIELDS, "masked") if key == "sizes" else FIELDS
        if wrong := [name for name in getattr(options, key) if name not in known]:
            raise unknown(f"refine.{key} has no {wrong[0]}", wrong[0], known, "see configs/adapter")
    if config["loss"].get("lpips"):
        raise UserError(
            "loss.lpips looks at the clean estimate, which recipe=refine does not train; give"
            " loss.lpips=0."
        )
    given = options.predictor
    if given and given.startswith(PREFIX):
        predictor = load_anchor(given, options.digest, "refine.predictor")
    elif given:
        predictor, options = _finished_predictor(given, config, options)
    else:
        predictor = make_trunk(**(options.sizes or sizes))
    return Refinement(
        instantiate(config["bridge"], of="bridge"),
        predictor,
        bridge_network(**sizes | options.denoiser),
        options,
        sampler=sampler_fields(config["sampler"]),
        masked=config["adapter"].get("masked", False),
    )


def _finished_predictor(given: str, config: dict, options: RefineOptions):
    """The network of a finished regression with its weights, and the options that say its sizes."""
    # of training; restoring needs none of it
    from irbridge.experiments.run_folder import check_finished

    folder = trained(given)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"refine.predictor={given} holds no finished run; train one, irbridge train"
            f" task={config['task'].get('name')} recipe=regression, and give its folder."
        )
    settings = read_settings(folder / "config.json")
    method, task = settings.get("method"), settings.get("task", {}).get("name")
    if method != "regression":
        raise UserError(
            f"refine.predictor={given} was trained with method={method}; give a run of"
            " recipe=regression."
        )
    if task != config["task"].get("name"):
        raise UserError(
            f"refine.predictor={given} was trained for another task; give task={task} to refine it."
        )
    check_finished(folder, f"refine.predictor={given}")
    own = settings.get("adapter", {})
    sizes = {key: own[key] for key in (*FIELDS, "masked") if key in own}
    predictor = make_trunk(**sizes)
    load_into(predictor, load_weights(folder / "model.safetensors"), given)
    return predictor, replace(options, sizes=sizes)


def taught(config: dict) -> dict:
    """The config of a run; where it distills, with the bridge and the networks of its teacher.

    Args:
        config: the plain config of a run.

    Raises:
        UserError: The run distills, and its teacher is none, is distilled itself, is no adapter on
            a frozen prior, is not trained to its end, or was trained for another task.
    """
    if config["method"] != "distill":
        return config
    if not (teacher := config.get("teacher")):
        raise UserError(
            "recipe=distill needs what it distills; give teacher=RUN, a trained bridge."
        )
    # of training; restoring needs none of it
    from irbridge.experiments.run_folder import check_finished

    settings = read_settings(trained(teacher) / "config.json")
    method, task = settings.get("method"), settings.get("task", {}).get("name")
    if method == "distill":
        raise UserError(
            f"teacher={teacher} is itself distilled; give the run that it was distilled from."
        )
    check_finished(trained(teacher), f"teacher={teacher}")
    if method != "irbridge":
        raise UserError(
            f"teacher={teacher} was trained with method={method}; give a run through the frozen"
            " prior, of recipe=irbridge."
        )
    if task != config["task"]["name"]:
        raise UserError(
            f"teacher={teacher} was trained for another task; give task={task} to distill it."
        )
    return config | {key: settings[key] for key in TAUGHT}


def build_protocol(config: dict, **changes) -> Protocol:
    """How the images of a run's task are scored.

    Args:
        config: the plain config of a run, with the key ``task``.
        changes: fields of the protocol that differ from the task's, where they are not None.

    Raises:
        UserError: The protocol cannot be built.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    return instantiate(config["task"]["protocol"] | given, of="protocol")


def trainer_options(config: dict) -> TrainerOptions:
    """How a run is trained; what the config of an older run lacks is as the class says.

    Args:
        config: the plain config of a run, with the key ``trainer``.

    Raises:
        UserError: A setting has another type or is out of range.
    """
    return made(TrainerOptions, config["trainer"])


def sampler_fields(config: dict) -> dict:
    """The fields of a sampler's config that are given, for ``samplers.make``.

    Where the config names a class (``_target_``) its module is imported, so that the class enters
    the registry of samplers; the fields call it by its name.
    """
    given = {key: value for key, value in config.items() if value is not None}
    if target := given.pop("_target_", None):
        kind = part_named(target, "sampler")
        given["rule"] = make(kind, **{k: v for k, v in given.items() if k != "rule"}).rule
        if named(given["rule"]).kind is not kind:
            raise UserError(
                f"sampler._target_={target} has no name of its own; give its class one."
            )
    return given


def frozen_prior(config: dict, lazy: bool = False) -> Backbone:
    """The backbone of a config, one of pixels where it does not say how to load it.

    Args:
        config: as in configs/backbone, without what a run records of it.
        lazy: one of pixels is read when it is first called.
    """
    wanted = {"_target_": PIXELS} | config
    waits = {"lazy": True} if lazy and wanted["_target_"] == PIXELS else {}
    return instantiate(wanted | waits, of="backbone")


def _frozen(config: dict, backbone: Backbone | None, lazy: bool) -> Backbone:
    """The given backbone, or the config's; UserError where it is not the one recorded there."""
    if backbone is None:
        backbone = frozen_prior({k: v for k, v in config.items() if k not in RECORDED}, lazy)
    digest, signature = (config.get(key) for key in RECORDED)

    def check() -> None:
        if digest and digest != backbone.digest:
            raise UserError(
                f"The backbone {backbone.name} has other weights than the ones the adapter was"
                f" trained on (SHA-256 {backbone.digest[:12]}, not {digest[:12]}); give"
                " backbone.pretrained=FOLDER."
            )

    backbone.when_loaded(check)
    if not alike(signature, backbone.signature()):
        raise UserError(
            f"The prompt's embedding of {backbone.name} is not the one that the adapter was trained"
            f" with; give the pipeline with its text encoder, or delete {cache_folder('prompts')}"
            " if that was exchanged."
        )
    return backbone


def describe(config: dict, model: Restorer) -> dict:
    """What a folder must say for the model to be built again.

    That is its part of the config, the backbone's hash, and which code made it.
    """
    groups = OWN_KEYS.get(config["method"], ("objective",))
    kept = {k: config[k] for k in (*MODEL_KEYS, *groups) if k in config}
    kept |= {"seed": config["seed"], "irbridge": __version__, "commit": commit()}
    own = model.describe()
    kept |= {key: kept[key] | own[key] for key in groups if key in own}
    if "backbone" in own:
        folders = {
            k: str(Path(v).resolve())
            for k in ("pretrained", "vae")
            if (v := kept["backbone"].get(k)) and Path(v).is_dir()
        }
        kept["backbone"] = kept["backbone"] | folders | own["backbone"]
        kept["adapter"] = kept["adapter"] | own["adapter"]
    return kept


def save_pretrained(
    model: Restorer, folder: str | Path, config: dict, weights: dict | None = None
) -> None:
    """Write ``config.json`` and ``model.safetensors`` into a folder.

    Args:
        model: of which the trained part alone is written.
        folder: where to.
        config: what :func:`describe` says of the model.
        weights: written instead of the model's own.
    """
    save_weights(Path(folder) / "model.safetensors", weights or model.trainable().state_dict())
    write_json(Path(folder) / "config.json", config)


def trained(folder: str | Path) -> Path:
    """The folder of a trained model.

    Args:
        folder: a folder with a ``config.json``; the name of a shipped adapter, such as "derain"; or
            a path below the project, such as "data/adapters/derain".

    Raises:
        UserError: it is no path, an empty one, or one that cannot be looked at.
    """
    if not isinstance(folder, str | Path) or folder == "":
        raise UserError(
            f"A model is named by a path or a word such as 'derain', not by {shown(folder, repr)}."
        )
    try:
        # A run of one's own goes before a shipped adapter of its name.
        if (Path(folder) / "config.json").is_file():
            return Path(folder)
        return shipped().get(str(folder)) or find(folder)
    except OSError as error:
        raise UserError(
            f"{shown(folder)} cannot be looked at ({error.strerror}); check the path and its"
            " permissions."
        ) from error


def _known(folder: str | Path) -> Path:
    """The folder of :func:`trained`; UserError in the words that were typed where there is none."""
    found = trained(folder)
    if found.is_dir():
        return found
    name = str(folder)
    remedy = (
        f"give the folder of a run, or a shipped adapter, one of {', '.join(shipped())};"
        " irbridge.load also takes a model of the hub, user/model"
    )
    raise unknown(f"{shown(name, repr)} is no folder here", name, shipped(), remedy)


def from_pretrained(
    folder: str | Path,
    device="cpu",
    backbone: Backbone | None = None,
    frozen: dict | None = None,
    precision: str = "float32",
    **sampler,
) -> Restorer:
    """A trained model, by its folder or by the name of a shipped adapter, ready to restore.

    Args:
        folder: of a run, or any that ``save_pretrained`` wrote; data/adapters/derain is found from
            anywhere.
        device: where the model is put.
        backbone: the frozen model, where it is there already.
        frozen: keys of the backbone that differ from the training's where they are not None, such
            as ``pretrained``, where its weights are now; and ``anchor``, where a pretrained anchor
            is now.
        precision: that it restores in: "float32", "bf16" or "auto", see
            :func:`irbridge.models.precision.chosen`.
        sampler: fields that it will be asked with, as those of ``restore``, where they are known: a
            model that gives its anchor alone (nfe=0) leaves the frozen network on the disk, until
            it is called after all.

    Raises:
        UserError: The folder or a file of it is missing or corrupt, its settings name a class that
            is none of irbridge's, or the backbone is not the one it was trained on.
    """
    folder = _known(folder)
    path = folder / "config.json"
    config = read_settings(path)
    wanted = *MODEL_KEYS, *OWN_KEYS.get(str(config.get("method")), ())
    missing = [k for k in wanted if k not in config]
    if missing:
        raise UserError(f"{path} lacks {missing[0]}; give a folder that irbridge trained.")
    changes = {k: v for k, v in (frozen or {}).items() if v is not None}
    moved = {"anchor": changes.pop("anchor")} if "anchor" in changes else {}
    config |= {"backbone": config["backbone"] | changes, "adapter": config["adapter"] | moved}
    # a finished pupil has none, whatever a file says
    config["teacher"] = config["stage1"] = None
    if "refine" in config:
        config["refine"] = _finished(config["refine"], moved.get("anchor"))
    model = _built(config, backbone, path)
    weights = load_weights(folder / "model.safetensors")
    try:
        load_into(model.trainable(), weights, str(folder))
    except UserError:
        model.load()  # if its frozen network is another one, that is why
        raise
    model = model.to(environment.device(device), memory_format=torch.channels_last).eval()
    if model.calls(**sampler):
        model.load()  # a wrong network must show here
    model.folder = folder
    model.precision = precision_of(model, folder, precision, **sampler)
    return model


def _finished(refine: dict, moved: str | None) -> dict:
    """The settings of a finished refinement, whose predictor is in its own weights.

    Args:
        refine: as its folder has them.
        moved: where the file of a pretrained predictor is now; None: where it was.
    """
    given = refine.get("predictor")
    pretrained = isinstance(given, str) and given.startswith(PREFIX)
    return refine | {"predictor": (moved or given) if pretrained else None}


def _built(config: dict, backbone: Backbone | None, path: Path) -> Restorer:
    """The model of a folder's config, whoever wrote that; UserError names the file."""
    try:
        return build_model(config, backbone, lazy=True)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(
            f"{path} describes no model that irbridge can build ({one_sentence(error)}); copy it"
            " again, or train anew."
        ) from error


def precision_of(model: Restorer, folder: Path, requested: str, **sampler) -> str:
    """The precision for the model of a folder to restore in with these fields of its sampler.

    See :func:`irbridge.models.precision.chosen`.
    """
    path, about = folder / "config.json", {}
    if requested == "auto":
        about = {"weights": sha256(folder / "model.safetensors"), "config": sha256(path)}
        about |= {"digest": model.digest} if model.digest else {}
    return precision.chosen(requested, model, about, read_json(path).get("bf16_error"), **sampler)
