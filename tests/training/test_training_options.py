"""What saves memory or time in training leaves its results as they are."""

import subprocess
import sys
import types
from functools import partial, partialmethod

import pytest
import torch
from conftest import ROOT, small_unet, trainer_options
from losses import given
from pipelines import SAVE, load
from safetensors.torch import load_file
from torch import nn

from irbridge.adapters.control import ControlAdapter
from irbridge.adapters.controlnet import ControlNet
from irbridge.adapters.lora import LoRA
from irbridge.adapters.sd3_controlnet import SD3ControlNet
from irbridge.adapters.static import StaticAdapter
from irbridge.adapters.t2i import T2I
from irbridge.adapters.trunk import make_trunk
from irbridge.backbones.pixel import PixelBackbone
from irbridge.bridges.ornstein_uhlenbeck import GOUB
from irbridge.errors import UserError
from irbridge.models.irbridge import IRBridge
from irbridge.models.loss_options import LossOptions
from irbridge.models.timestep_schedule import critical
from irbridge.priors.vp import VP, vp_alphas_cumprod
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.networks import checkpoint_gradients, compile_networks
from irbridge.training.optimizer import build_optimizer
from irbridge.training.trainer import Trainer

SMALL = {"channels": [8, 8], "layers": 1, "anchor": True}
ADAPTERS = {
    "static": partial(StaticAdapter, **SMALL),
    "control": partial(ControlAdapter, **SMALL),
    "sd15": ControlNet,
    "sd21": T2I,
    "lora": LoRA,
    "sd3": SD3ControlNet,
}


def pixels():
    unet = small_unet((8, 16), ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D"))
    return PixelBackbone(unet, VP(vp_alphas_cumprod({}), "v_prediction"))


def bridged(kind, folder, **options):
    """An IRBridge model of that kind whose adapter is no longer zero."""
    if kind == "lora":
        pytest.importorskip("peft")
    if kind in ("static", "control"):
        backbone = pixels()
    else:
        backbone = load(
            "sd15" if kind == "lora" else kind,
            SAVE["sd15" if kind == "lora" else kind](folder),
            **options,
        )
    torch.manual_seed(0)
    adapter = ADAPTERS[kind](backbone)
    for parameter in adapter.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return IRBridge(
        backbone,
        adapter,
        GOUB(),
        critical(100),
        "anchor" if adapter.anchored else "y",
        {"steps": 2},
        LossOptions(states="bridge", anchor_first=0.0),
    )


def batch(model, seed=0, side=32):
    random = torch.Generator().manual_seed(seed)
    clean, degraded = torch.rand(2, 2, 3, side, side, generator=random) * 2 - 1
    noise = torch.randn(2, *model.state_shape(clean.shape[1:]), generator=random)
    return given(clean, degraded, noise, torch.rand(2, generator=random))


def gradients(model, seed=0):
    """The gradient of every trained weight, and how many numbers were kept for the backward
    pass."""
    kept = []
    model.zero_grad()
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (kept.append(t.numel()), t)[1], lambda t: t
    ):
        losses = model(*batch(model, seed))
    sum(v.mean() for v in losses.values()).backward()
    return {n: p.grad for n, p in model.trainable().named_parameters() if p.grad is not None}, sum(
        kept
    )


def assert_equal(found, wanted, **tolerance):
    assert found.keys() == wanted.keys() and any(g.abs().max() > 0 for g in wanted.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(
            found[name], gradient, msg=lambda text, name=name: f"{name}: {text}", **tolerance
        )


@pytest.mark.filterwarnings("ignore:.*no text encoder")
@pytest.mark.parametrize("kind", ADAPTERS)
def test_checkpointing_keeps_less_and_changes_no_gradient(tmp_path, kind):
    model = bridged(kind, tmp_path)
    wanted, before = gradients(model)
    checkpoint_gradients(model)
    found, after = gradients(model)
    assert_equal(found, wanted, rtol=0, atol=0)
    assert after < 0.95 * before  # a ControlNet's encoder of the image is no diffusers block


@pytest.mark.filterwarnings("ignore:.*no text encoder")
@pytest.mark.parametrize(
    "kind", ["static", *(pytest.param(k, marks=pytest.mark.slow) for k in ("control", "sd15"))]
)
def test_compiled_networks_are_the_same_ones(tmp_path, monkeypatch, kind):
    """With dynamo's tracing but the eager backend: what a call adds to the network's skips must not
    be frozen in."""
    model = bridged(kind, tmp_path)
    names = list(model.state_dict())
    wanted = [gradients(model, seed)[0] for seed in range(4)]
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    compile_networks(model)
    assert model.backbone.network._compiled_call_impl and list(model.state_dict()) == names
    for seed in range(4):
        assert_equal(gradients(model, seed)[0], wanted[seed])


def test_our_own_trunk_is_compiled_as_well(monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    trunk = make_trunk("nafnet", width=8, encoder=[1], middle=1, decoder=[1])
    y = torch.rand(1, 3, 16, 16)
    expected, names = trunk(y)[0], list(trunk.state_dict())
    compile_networks(trunk)
    assert trunk.net._compiled_call_impl and list(trunk.state_dict()) == names
    torch.testing.assert_close(trunk(y)[0], expected)


class Halves(torch.optim.Optimizer):
    """Keeps its state as bitsandbytes' AdamW8bit does: bytes and their scales one level deeper, the
    step a number."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                s = self.state[p]
                if not s:
                    s |= {
                        "step": 0,
                        "state1": torch.zeros_like(p, dtype=torch.uint8),
                        "absmax1": torch.ones(1),
                    }
                assert type(s["step"]) is int and s["state1"].dtype == torch.uint8
                s["step"] += 1
                average = 0.9 * (s["state1"].float() / 255 * 2 - 1) * s["absmax1"] + 0.1 * p.grad
                s["absmax1"] = average.abs().max().reshape(1).clamp(min=1e-12)
                s["state1"] = ((average / s["absmax1"] + 1) / 2 * 255).round().to(torch.uint8)
                p -= group["lr"] * average / (1 - 0.9 ** s["step"])

    def state_dict(self):
        found = super().state_dict()
        found["state"] = {
            i: {
                "step": s["step"],
                "__bnb_optimizer_quant_state__": {k: v for k, v in s.items() if k != "step"},
            }
            for i, s in found["state"].items()
        }
        return found

    def load_state_dict(self, state):
        state["state"] = {
            i: (
                {k: v for k, v in s.items() if not isinstance(v, dict)}
                | s.get("__bnb_optimizer_quant_state__", {})
            )
            for i, s in state["state"].items()
        }
        types_ = {i: s["state1"].dtype for i, s in state["state"].items()}
        super().load_state_dict(state)
        # torch casts to the weights' type
        for p, kind in zip(self.param_groups[0]["params"], types_.values()):
            self.state[p]["state1"] = self.state[p]["state1"].to(kind)


@pytest.fixture
def bitsandbytes(monkeypatch):
    module = types.ModuleType("bitsandbytes.optim")
    module.AdamW8bit = Halves
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    return module


def tensors_of(run):
    folder = Checkpoints(run).latest()
    return {
        f"{p.name}/{k}": v for p in folder.glob("*.safetensors") for k, v in load_file(p).items()
    }


def assert_runs_equal(run, other):
    a, b = tensors_of(run), tensors_of(other)
    assert a.keys() == b.keys() and [k for k in a if not torch.equal(a[k], b[k])] == []


def test_the_8_bit_state_resumes_exactly(tmp_path, stream, bitsandbytes):
    options = partial(trainer_options, steps=9, optimizer="adamw8bit")
    for run, stops in (("whole", [None]), ("parts", [4, 7, None])):
        for stop in stops:
            Trainer(
                bridged("static", tmp_path), stream, options(stop=stop), 0, tmp_path / run
            ).run()
    assert_runs_equal(tmp_path / "whole", tmp_path / "parts")
    state = {k: v for k, v in tensors_of(tmp_path / "whole").items() if k.startswith("optimizer")}
    assert {v.dtype for k, v in state.items() if k.endswith("state1")} == {torch.uint8}
    assert {int(v) for k, v in state.items() if k.endswith("step")} == {9}


def test_the_8_bit_optimizer_must_be_there_and_work(monkeypatch, bitsandbytes):
    options, weights = (
        trainer_options(optimizer="adamw8bit"),
        [{"params": [nn.Parameter(torch.ones(2))]}],
    )
    assert isinstance(build_optimizer(weights, options, torch.device("cpu")), Halves)
    monkeypatch.setattr(Halves, "step", lambda self: 1 / 0)
    with pytest.raises(UserError, match=r"does not work on cpu \(division by zero\); use adamw"):
        build_optimizer(weights, options, torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UserError, match="needs bitsandbytes; pip install"):
        build_optimizer(weights, options, torch.device("cpu"))
    with pytest.raises(UserError, match="optimizer=sgd must be one of adamw, adamw8bit"):
        trainer_options(optimizer="sgd")


def test_a_restored_state_lies_in_memory_as_its_weights(tmp_path):
    """Fused optimizer steps go over memory, not over indices."""

    def made():
        module = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
        return module, torch.optim.AdamW(module.parameters())

    module, optimizer = made()
    module(torch.ones(1, 4, 5, 5)).sum().backward()
    optimizer.step()
    Checkpoints(tmp_path).save(1, module, module, optimizer)
    again, restored = made()
    Checkpoints(tmp_path).restore(again, again, restored)
    for weight, other in zip(module.parameters(), again.parameters()):
        for key in ("exp_avg", "exp_avg_sq"):
            assert restored.state[other][key].stride() == other.stride()
            assert torch.equal(restored.state[other][key], optimizer.state[weight][key])


def test_the_real_8_bit_optimizer_resumes_exactly(tmp_path, stream):
    pytest.importorskip("bitsandbytes")
    options = partial(trainer_options, steps=5, optimizer="adamw8bit")
    for run, stops in (("whole", [None]), ("parts", [3, None])):
        for stop in stops:
            Trainer(
                bridged("static", tmp_path), stream, options(stop=stop), 0, tmp_path / run
            ).run()
    assert_runs_equal(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.filterwarnings("ignore:.*no text encoder")
@pytest.mark.parametrize(
    "kind, dtype", [("sd15", "float32"), ("sd15", "bfloat16"), ("sd3", "bfloat16")]
)
def test_latents_train_and_resume_in_any_precision(tmp_path, stream, kind, dtype):
    stream.crop = 32
    options = partial(trainer_options, crop=32, checkpointing=dtype == "bfloat16")
    for run, stops in (("whole", [None]), ("parts", [2, None])):
        for stop in stops:
            model = bridged(kind, tmp_path / "pipeline", dtype=dtype)
            Trainer(model, stream, options(stop=stop), 0, tmp_path / run).run()
    assert_runs_equal(tmp_path / "whole", tmp_path / "parts")
    trained = [
        v for k, v in tensors_of(tmp_path / "whole").items() if not k.startswith("optimizer")
    ]
    assert {v.dtype for v in trained if v.is_floating_point()} == {torch.float32}
    assert next(model.backbone.network.parameters()).dtype == getattr(torch, dtype)


TWO = """
import sys, warnings
from pathlib import Path
sys.path[:0] = [str(Path({root!r}) / "tests" / part) for part in ("training", "")]
from test_training_options import *
from irbridge.data.crops import CropStream
from irbridge.data.image_source import ImageSource
from irbridge.data.degradations import Noise
warnings.simplefilter("ignore")
for kind in ("static", "sd15"):
    stream = CropStream(ImageSource({images!r}), 32, 0, Noise())
    folder = Path({folder!r})
    grow = [dict(step=2, crop=40, batch_size=2)]
    options = trainer_options(batch_size=4, crop=32, steps=3, grow=grow)
    model = bridged(kind, folder / f"{{kind}}-{{sys.argv[1]}}")
    trainer = Trainer(model, stream, options, 5, folder / sys.argv[1] / kind)
    trainer.run()
assert trainer.world == dict(one=1, two=2)[sys.argv[1]]
"""


@pytest.mark.slow
def test_one_process_and_two_train_alike(tmp_path, images):
    script = tmp_path / "train.py"
    script.write_text(TWO.format(root=str(ROOT), images=str(images), folder=str(tmp_path)))
    # accelerate launch --cpu starts a single process, whatever --num_processes says
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    for count, words in (("one", ()), ("two", launch)):
        done = subprocess.run(
            [sys.executable, *words, str(script), count],
            check=False,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    for kind in ("static", "sd15"):
        one, two = tensors_of(tmp_path / "one" / kind), tensors_of(tmp_path / "two" / kind)
        # Adam divides by the gradient's size, so a weight whose gradient is rounding alone may go
        # anywhere within lr, and by that change later gradients a little.
        moved = torch.cat([(one[k] - two[k]).abs().flatten() for k in one if k.startswith("model")])
        assert moved.quantile(0.9) < 1e-4 and moved.max() < 3e-3
        averages = [k for k in one if k.endswith("exp_avg")]
        for a, b in ((one[k], two[k]) for k in averages):
            assert (a - b).abs().max() < 1e-3 * a.abs().max() + 5e-6
