"""Every choice of every group composes, and every part that a config names can be built and run."""

from functools import cache

import numpy as np
import pipelines
import pytest
import torch
from conftest import ROOT, configured, small_unet
from omegaconf import OmegaConf

from irbridge.backbones.pixel import PixelBackbone
from irbridge.bridges.base import Bridge
from irbridge.bridges.ornstein_uhlenbeck import GOUB, IRSDE
from irbridge.errors import UserError
from irbridge.experiments.build import build_model
from irbridge.experiments.config import plain
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.names import part_named
from irbridge.experiments.run_folder import contradiction
from irbridge.experiments.schema import checked
from irbridge.models.irbridge import IRBridge
from irbridge.priors.vp import VP, vp_alphas_cumprod
from irbridge.samplers import make
from irbridge.samplers.base import REGISTRY, all_options

GROUPS = {
    p.name: sorted(f.stem for f in p.glob("*.yaml") if f.stem != "pretrain")
    # base: what tasks share; hydra: its own settings
    for p in (ROOT / "configs").iterdir()
    if p.is_dir() and p.name not in ("base", "hydra", "metric")  # evaluate takes a list of metrics
}
LATENT = "sd15", "sd21", "sd3", "controlnet", "controlnet_latent", "t2i", "lora", "sd3_controlnet"
# it needs a finished run, see tests/commands/test_refinement_command.py
GROUPS["recipe"].remove("refine_frozen")
CHOICES = [
    (group, choice)
    for group, choices in sorted(GROUPS.items())
    for choice in choices
    # tasks and latent choices have tests of their own
    if group != "task" and choice not in LATENT
]
NEEDS = {
    "task=paired": ["data.clean=a", "data.degraded=b"],  # what has no default
    **dict.fromkeys(("experiment=ship", "experiment=ship_features"), ["data.folder=a"]),
}
IMAGE = np.random.default_rng(0).random((48, 64, 3), dtype=np.float32)


def settled(cfg):
    """As a command would see it, but for ``run``, which may name choices that only Hydra's own
    start knows."""
    run = OmegaConf.masked_copy(cfg, [key for key in cfg if key not in ("hydra", "run")])
    checked("train", plain(run))
    return plain(run)


@cache
def composed(*overrides):
    return settled(
        configured(
            "train", "name=t", *overrides, *(word for o in overrides for word in NEEDS.get(o, []))
        )
    )


@cache
def of_method(method):
    return configured("train", "name=t", f"recipe={method}")


def bridged(method, choice):
    """The config of a method and a bridge, from the files composed once each."""
    cfg = of_method(method).copy()
    cfg.bridge = OmegaConf.load(ROOT / f"configs/bridge/{choice}.yaml")
    return settled(cfg)


def tiny(config, **sampler):
    """The config with a network of a few weights."""
    small = {"channels": [4, 4], "width": 4} if config["adapter"].get("channels") else {}
    return config | {"adapter": config["adapter"] | small, "sampler": config["sampler"] | sampler}


@pytest.fixture(scope="module")
def network():
    return PixelBackbone(small_unet((4, 8)), VP(vp_alphas_cumprod({}), "v_prediction"))


@pytest.fixture
def latent(tmp_path, monkeypatch):
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "cache"))
    return lambda kind: pipelines.load(kind, pipelines.SAVE[kind](tmp_path / kind))


def test_every_group_is_offered_by_the_train_command():
    assert GROUPS.keys() == {
        "adapter",
        "backbone",
        "bridge",
        "debug",
        "experiment",
        "logger",
        "loss",
        "recipe",
        "sampler",
        "task",
        "timesteps",
        "trainer",
    }


@pytest.mark.filterwarnings("ignore:.*has no text encoder")
@pytest.mark.parametrize(
    "backbone, adapter",
    [
        *((b, None) for b in ("sd15", "sd21", "sd3")),
        ("sd3", "lora"),
        *(("sd15", a) for a in GROUPS["adapter"] if a in LATENT),
    ],
)
def test_latent_choices_compose_and_build(backbone, adapter, latent):
    """Each backbone with its own adapter, and every adapter, on the pipeline of a backbone that it
    fits."""
    pytest.importorskip("peft")
    backbone = "sd3" if adapter == "sd3_controlnet" else backbone
    config = composed(f"backbone={backbone}", *([f"adapter={adapter}"] if adapter else []))
    assert (
        config["endpoint"] == "y"
        and config["loss"]["weight"] == ("eps" if backbone == "sd15" else "v")
        and config["trainer"]["lr"] == 5e-5
    )
    assert config["bridge"]["lam"] == 0.00784 and not config["baseline"]
    model = build_model(config, latent(backbone))
    assert isinstance(model, IRBridge) and model.restore(IMAGE[:33, :47], steps=2).shape == (
        33,
        47,
        3,
    )


def test_adapters_name_the_ones_that_fit(network, latent):
    with pytest.raises(UserError, match="ControlNet.*UNet2DModel.*static or control"):
        build_model(composed("adapter=controlnet", "endpoint=y"), network)
    with pytest.raises(UserError, match="latent.*adapter=controlnet"):
        build_model(composed("backbone=sd15", "adapter=static"), latent("sd15"))
    with pytest.raises(UserError, match="SD3.*controlnet"):
        build_model(composed("backbone=sd15", "adapter=sd3_controlnet"), latent("sd15"))


@pytest.mark.parametrize("group, choice", CHOICES)
def test_every_choice_composes_and_builds(group, choice, network):
    config = tiny(composed(f"{group}={choice}"))
    model = build_model(config, network)
    assert (
        type(model).__name__
        == {
            "irbridge": "IRBridge",
            "distill": "Distilled",
            "bridge": "BridgeNetwork",
            "regression": "Regression",
            "refine": "Refinement",
            "hidiff": "HIDiff",
        }[config["method"]]
    )
    if config["method"] == "irbridge":
        t = np.linspace(0, model.bridge.T, 7)
        tau = model.timesteps(model.bridge, model.backbone.prior, t)
        assert tau.shape == (7,) and ((tau >= 0) & (tau <= 999)).all()
        assert len(model.adapter.zero.convs) == 5 and model.stride == (
            16 if model.adapter.trunk else 2
        )


# Bridges and samplers


def refusal(bridge, sampler):
    """What the sentence of a combination that does not exist must say, or None."""
    modulated = getattr(bridge, "pi", None) == "residual"
    return (
        ["residual-modulated", "bridge.pi=one"]
        if modulated and sampler["rule"] in ("odes3", "heun")
        else None
    )


@pytest.mark.parametrize("method", ["irbridge", "bridge"])
@pytest.mark.parametrize("choice", GROUPS["bridge"])
def test_every_sampler_walks_every_bridge(method, choice, network):
    """In exactly nfe calls, one less as RDBM was published.

    4 leave the solvers of two and three calls a step a part of one.
    """
    config = bridged(method, choice)
    model = build_model(tiny(config), network)
    published, bridge = model.sampler, model.bridge
    own = make(**config["task"]["sampler"]) if method == "irbridge" else published
    assert (published.rule, published.nfe) == (own.rule, own.nfe)
    for name in GROUPS["sampler"]:
        sampler = composed(f"sampler={name}")["sampler"] | {"nfe": 4}
        if wanted := refusal(bridge, sampler):
            with pytest.raises(UserError) as refused:
                build_model(tiny(config, **sampler), network)
            assert all(
                word in str(refused.value) for word in [f"sampler.rule={sampler['rule']}", *wanted]
            )
            continue
        model.sampler = own.changed(**sampler).check(bridge)
        states = []
        for state in model.trajectory(
            torch.from_numpy(IMAGE).permute(2, 0, 1)[None] * 2 - 1, seeds=[0]
        ):
            states.append(state)
        # the first step of RDBM without noise asks nothing
        silent = method == "bridge" and choice in ("rdbm", "residual") and not sampler["boot"]
        assert len(states) == 4 - silent == model.calls() and all(
            s.x.isfinite().all() and s.x0.isfinite().all() for s in states
        ), name
        assert states[0].t > states[-1].t and states[-1].x0.shape == (1, 3, 48, 64)
    restored = build_model(tiny(config, nfe=3), network).restore(IMAGE[:39, :55])
    assert restored.shape == (39, 55, 3) and np.isfinite(restored).all()


@pytest.mark.parametrize("method", ["irbridge", "bridge"])
@pytest.mark.parametrize("choice", GROUPS["bridge"])
def test_no_more_calls_than_steps(method, choice, network):
    config = bridged(method, choice)
    bridge = instantiate(config["bridge"])
    most = int(bridge.T) if bridge.steps else 2000
    assert build_model(tiny(config, rule="posterior", nfe=most), network).sampler.nfe == most
    if bridge.steps:
        with pytest.raises(
            UserError, match=f"sampler.nfe={most + 1} is more than the {most} steps"
        ):
            build_model(tiny(config, rule="posterior", nfe=most + 1), network)


@pytest.mark.parametrize("choice", GROUPS["sampler"])
def test_a_sampler_is_named_by_its_rule(choice):
    sampler = composed(f"sampler={choice}")["sampler"]
    assert sampler.keys() == {"steps", *all_options()} - {"order"}  # which the rule says
    assert sampler["rule"] == (None if choice == "default" else choice)
    assert choice == "default" or make(choice).rule == choice
    assert GROUPS["sampler"] == sorted([*REGISTRY, "default"])


def test_steps_is_another_name_of_nfe():
    assert (
        composed("sampler.steps=7")["sampler"]["nfe"]
        == 7
        == composed("sampler.nfe=7")["sampler"]["nfe"]
    )


@pytest.mark.parametrize("choice", GROUPS["bridge"])
def test_a_bridge_is_public_and_as_published(choice):
    """Trained from scratch, a bridge has its class's published constants but for lam, which doubles
    in [-1, 1]."""
    config = bridged("bridge", choice)["bridge"]
    kind = part_named(config["_target_"], "bridge")
    assert not kind.__name__.startswith("_") and issubclass(kind, Bridge) and kind is not Bridge
    bridge, published = instantiate(config), kind()
    for key, value in config.items():
        if key in ("_target_", "sigma") or choice == "resshift4":
            continue
        default = getattr(published, key)
        if key == "lam" and kind.__name__ != "RDBM":
            default = 2 * (30 / 255 if kind is not IRSDE or choice == "ou" else IRSDE().lam)
        assert value == (
            default if isinstance(default, str) else pytest.approx(default, rel=1e-3)
        ), key
    assert bridge.published.nfe > 0


def test_resshift_with_four_steps_is_the_journals():
    config = composed("bridge=resshift4")["bridge"]
    assert config | {"T": 4, "kappa": 2.0, "min_noise": 0.2, "end": 0.99, "power": 0.3} == config


@pytest.mark.parametrize(
    "task, lam", [("derain", 20 / 255), ("inpaint", 60 / 255), ("sr", 60 / 255)]
)
def test_irsde_has_its_published_noise(task, lam):
    assert composed("recipe=bridge", "bridge=irsde", f"task={task}")["bridge"][
        "lam"
    ] == pytest.approx(lam, rel=1e-3)


# Experiments

RECIPES = {
    "irbridge": ("irbridge", "Brownian"),
    "irbridge_y": ("irbridge", "GOUB"),
    "published": ("irbridge", "GOUB"),
    "bridge": ("bridge", "Brownian"),
    "goub": ("bridge", "GOUB"),
    "goub_residual": ("bridge", "GOUB"),
    "irsde": ("bridge", "IRSDE"),
    "rdbm": ("bridge", "RDBM"),
    "rdbm_one": ("bridge", "RDBM"),
    "rdbm_zero": ("bridge", "RDBM"),
    "rdbm_released": ("bridge", "RDBM"),
    "distill": ("distill", "Brownian"),
    "regression": ("regression", ""),
    "refine": ("refine", "LinearOU"),
    "refine_published": ("refine", "LinearOU"),
    "hidiff": ("hidiff", ""),
    "hidiff_gopro": ("hidiff", ""),
    "hidiff_realblur": ("hidiff", ""),
}


@pytest.mark.parametrize("recipe", GROUPS["recipe"])
def test_every_recipe_in_the_efficiency_experiment(recipe, network):
    config, (method, bridge) = (
        tiny(composed("experiment=efficiency", f"recipe={recipe}")),
        RECIPES[recipe],
    )
    model = build_model(config, network)
    assert config["method"] == method and (not bridge or type(model.bridge).__name__ == bridge)
    assert not config["baseline"] and not config["evaluate"]["all_rows"]
    assert config["run_root"] == "runs/efficiency"
    if method == "bridge":
        assert model.target == {
            "bridge": "difference",
            "goub_residual": "residual",
            "rdbm_zero": "x0",
            "rdbm_released": "x0",
            "goub": "noise",
            "irsde": "noise",
        }.get(recipe, "product")


@pytest.mark.parametrize("experiment", ["efficiency", "rdbm"])
def test_a_sweep_names_recipes_that_there_are(experiment):
    file = OmegaConf.load(ROOT / f"configs/experiment/{experiment}.yaml")
    assert file.hydra.mode == "MULTIRUN"
    assert "choices.recipe" in OmegaConf.to_container(file)["run"]  # a folder for each
    swept = file.hydra.sweeper.params
    assert len(swept.recipe.split(",")) > 1 and set(swept.recipe.split(",")) <= set(
        GROUPS["recipe"]
    )
    assert set(str(swept.get("task", "derain")).split(",")) <= set(GROUPS["task"])


@pytest.mark.parametrize("task", GROUPS["task"])
def test_every_task_builds_and_runs_in_debug(task):
    config = composed(f"task={task}", "debug=default")
    assert config["trainer"]["steps"] <= 5 and config["task"]["name"] == task
    assert instantiate(config["task"]["protocol"]).describe()
    if task == "paired":
        assert config["data"]["clean"] == "a" and config["task"]["degradation"] is None
        return
    degradation = instantiate(config["task"]["degradation"])
    image = np.random.default_rng(0).random((33, 47, 3), dtype=np.float32)
    out = degradation(image, np.random.default_rng(0))
    assert (
        out.shape == image.shape
        and 0 <= out.min() <= out.max() <= 1
        and np.abs(out - image).max() > 0.01
    )
    assert all((ROOT / config["data"][k]).is_dir() for k in ("train", "test"))


def test_published_settings_are_one_override_each():
    config = composed(
        "loss=published", "endpoint=y", "adapter=control", "timesteps=task", "bridge=goub"
    )
    assert (config["loss"]["states"], config["loss"]["weight"], config["loss"]["norm"]) == (
        "prior",
        "eps",
        "l2",
    )
    assert config["endpoint"] == "y" and config["adapter"]["_target_"].endswith("ControlAdapter")
    assert GOUB(lam=config["bridge"]["lam"])


@pytest.mark.parametrize("name", ["S1", "S8", "derain", "inpaint"])
def test_paper_schedules(name):
    assert instantiate(composed("timesteps=paper", f"timesteps.name={name}")["timesteps"])


@pytest.mark.parametrize("config_name", ["pretrain", "evaluate", "prior"])
def test_other_commands_compose(config_name):
    words = ["run=x"] if config_name == "evaluate" else []
    assert OmegaConf.to_container(configured(config_name, *words), resolve=False)


def test_contradiction_names_the_first_difference():
    saved = {"seed": 0, "trainer": {"lr": 0.1, "steps": 5}, "task": {"name": "a"}}
    assert contradiction(saved, saved) is None
    assert contradiction(saved, saved | {"trainer": {"lr": 0.1, "steps": 9}}) is None
    assert (
        contradiction(saved, saved | {"trainer": {"lr": 0.2, "steps": 5}})
        == "trainer.lr was 0.1 and is now 0.2"
    )
    assert contradiction(saved, saved | {"new": 1}) == "new was None and is now 1"


def test_the_files_of_a_mix_may_move():
    def mixed(folder, pairs="rain.tar", weight=0.4):
        clean = [f"{folder}/photos.tar", "data/samples/train"]
        return {
            "ship": {"photographs": clean},
            "data": {
                "folder": folder,
                "mix": [
                    {"pairs": f"{folder}/{pairs}", "weight": weight},
                    {"clean": clean, "weight": 1 - weight},
                ],
            },
        }

    assert contradiction(mixed("/a"), mixed("/b")) is None
    assert contradiction(mixed("/a"), mixed("/b", weight=0.5)).startswith("data.mix was")
    assert "snow.tar" in contradiction(mixed("/a"), mixed("/a", "snow.tar"))
    assert contradiction({"data": {"mix": None}}, {"data": {"mix": None}}) is None


def test_parts_that_cannot_be_built():
    with pytest.raises(UserError, match="irbridge.bridges.Nothing"):
        instantiate({"_target_": "irbridge.bridges.Nothing"})
    with pytest.raises(UserError, match="bridge.T=0 must be a whole number"):
        instantiate({"_target_": "irbridge.bridges.ornstein_uhlenbeck.GOUB", "T": 0})
    with pytest.raises(UserError, match="bridge.T=0 must be positive"):
        instantiate({"_target_": "irbridge.bridges.brownian.Brownian", "T": 0})
    with pytest.raises(UserError, match="GOUB cannot be built"):
        instantiate({"_target_": "irbridge.bridges.ornstein_uhlenbeck.GOUB", "sigma": 1.0})
