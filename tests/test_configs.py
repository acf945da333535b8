"""Every choice of every group composes, and every part that a config names can be built."""

import numpy as np
import pytest
from conftest import ROOT, configured
from omegaconf import OmegaConf

from irbridge.config import contradiction, instantiate, plain
from irbridge.errors import UserError
from irbridge.priors import VP, vp_alphas_cumprod
from irbridge.process import RULES

GROUPS = {p.name: sorted(f.stem for f in p.glob("*.yaml") if f.stem != "pretrain")
          for p in (ROOT / "configs").iterdir() if p.is_dir() and p.name != "base"}   # base: what tasks share
CHOICES = [(group, choice) for group, choices in sorted(GROUPS.items()) for choice in choices
           if group != "task"]   # tasks have a test of their own
PAIRS = ["data.clean=a", "data.degraded=b"]


def composed(*overrides):
    return configured("train", "name=t", *overrides, *(PAIRS if "task=paired" in overrides else []))


def test_every_group_is_offered_by_the_train_command():
    assert GROUPS.keys() == {"adapter", "backbone", "bridge", "debug", "logger", "loss", "method", "sampler", "task",
                             "timesteps", "trainer"} | ({"experiment"} & GROUPS.keys())


@pytest.mark.parametrize("group, choice", CHOICES)
def test_every_choice_composes_and_builds(group, choice, backbone):
    cfg = composed(f"{group}={choice}")
    config = plain(cfg)
    assert config["sampler"]["rule"] in RULES and config["method"] in ("irbridge", "regression")
    bridge, timesteps = instantiate(config["bridge"]), instantiate(config["timesteps"])
    t = np.linspace(0, bridge.T, 7)
    marginal = bridge.marginal(t)
    assert all(field.isfinite().all() for field in marginal)
    tau = timesteps(bridge, VP(vp_alphas_cumprod({})), t)
    assert tau.shape == (7,) and ((tau >= 0) & (tau <= 999)).all()
    adapter = instantiate(config["adapter"] | {"channels": [8, 8]}, backbone)
    assert len(adapter.zero.convs) == 5 and adapter.stride == 2


@pytest.mark.parametrize("task", GROUPS["task"])
def test_every_task_builds_and_runs_in_debug(task):
    config = plain(composed(f"task={task}", "debug=default"))
    assert config["trainer"]["steps"] <= 5 and config["task"]["name"] == task
    assert instantiate(config["task"]["protocol"]).describe()
    if task == "paired":
        assert config["data"]["clean"] == "a" and config["task"]["degradation"] is None
        return
    degradation = instantiate(config["task"]["degradation"])
    image = np.random.default_rng(0).random((33, 47, 3), dtype=np.float32)
    out = degradation(image, np.random.default_rng(0))
    assert out.shape == image.shape and 0 <= out.min() <= out.max() <= 1 and np.abs(out - image).max() > 0.01
    assert all((ROOT / config["data"][k]).is_dir() for k in ("train", "test"))


def test_published_settings_are_one_override_each():
    config = plain(composed("loss=published", "endpoint=y", "adapter=control", "timesteps=task", "bridge=goub"))
    assert (config["loss"]["states"], config["loss"]["weight"], config["loss"]["norm"]) == ("prior", "eps", "l2")
    assert config["endpoint"] == "y" and config["adapter"]["_target_"].endswith("ControlAdapter")


@pytest.mark.parametrize("name", ["S1", "S8", "derain", "inpaint"])
def test_paper_schedules(name):
    assert instantiate(plain(composed("timesteps=paper", f"timesteps.name={name}"))["timesteps"])


@pytest.mark.parametrize("config_name", ["pretrain", "evaluate", "prior"])
def test_other_commands_compose(config_name):
    assert OmegaConf.to_container(configured(config_name, *(["run=x"] if config_name == "evaluate" else [])), resolve=False)


def test_contradiction_names_the_first_difference():
    saved = {"seed": 0, "trainer": {"lr": 0.1, "steps": 5}, "task": {"name": "a"}}
    assert contradiction(saved, saved) is None
    assert contradiction(saved, saved | {"trainer": {"lr": 0.1, "steps": 9}}) is None
    assert contradiction(saved, saved | {"trainer": {"lr": 0.2, "steps": 5}}) == "trainer.lr was 0.1 and is now 0.2"
    assert contradiction(saved, saved | {"new": 1}) == "new was None and is now 1"


def test_parts_that_cannot_be_built():
    with pytest.raises(UserError, match="irbridge.bridges.Nothing"):
        instantiate({"_target_": "irbridge.bridges.Nothing"})
    with pytest.raises(UserError, match="bridge.T=0 must be positive"):
        instantiate({"_target_": "irbridge.bridges.GOUB", "T": 0})
    with pytest.raises(UserError, match="GOUB cannot be built"):
        instantiate({"_target_": "irbridge.bridges.GOUB", "sigma": 1.0})
