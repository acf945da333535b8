"""Costs are counted right, and the clock's parts are what ran in them."""

import json
import mmap
import time
from functools import partial

import pytest
import torch
from conftest import small_unet, trainer_options
from diffusers import AutoencoderKL, UNet2DConditionModel
from losses import given
from pipelines import SAVE, load

from irbridge.adapters.control import ControlAdapter
from irbridge.adapters.controlnet import ControlNet
from irbridge.adapters.sd3_controlnet import SD3ControlNet
from irbridge.adapters.static import StaticAdapter
from irbridge.adapters.trunk import Trunk, bridge_network
from irbridge.backbones.encoding_cache import LatentCache
from irbridge.backbones.latent import LatentBackbone
from irbridge.backbones.pixel import PixelBackbone
from irbridge.bridges.brownian import Brownian
from irbridge.bridges.ornstein_uhlenbeck import GOUB
from irbridge.commands.profile import summary, time_restoring, time_training
from irbridge.environment import peak_memory, reset_peak
from irbridge.models.bridge_network import BridgeNetwork
from irbridge.models.irbridge import IRBridge
from irbridge.models.loss_options import LossOptions
from irbridge.models.regression import Regression
from irbridge.models.timestep_schedule import critical
from irbridge.priors.vp import VP, vp_alphas_cumprod
from irbridge.profiling.clock import PARTS, Clock, watched
from irbridge.profiling.flops import cost, describe_cost

pytestmark = pytest.mark.filterwarnings("ignore:.*no text encoder")
CPU = torch.device("cpu")
PRIOR = VP(vp_alphas_cumprod({}), "epsilon")
LOSS = LossOptions(states="bridge", anchor_first=0.0)  # one call of the network from the start


def pixel_model(adapter=StaticAdapter, **options):
    backbone = PixelBackbone(small_unet(), PRIOR)
    anchored = options.get("anchor", True)
    return IRBridge(
        backbone,
        adapter(backbone, [8, 16], **options),
        GOUB(),
        critical(100),
        "anchor" if anchored else "y",
        {"steps": 3},
        LOSS,
    )


def latent_model(kind, folder):
    backbone = load(kind, SAVE[kind](folder))
    adapter = {
        "sd15": ControlNet,
        "sd3": SD3ControlNet,
        "adm": partial(ControlAdapter, channels=[8, 16]),
    }[kind](backbone)
    return IRBridge(backbone, adapter, GOUB(), critical(100), "y", {"steps": 2}, LOSS)


def convolutions(module, side):
    """GFLOPs of the convolutions and linear layers that ran in a real forward pass, from their
    shapes."""
    total, handles = [0], []

    def count(layer, args, output):
        inner = layer.weight[0].numel()
        total[0] += 2 * output.numel() * inner

    for layer in module.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            handles.append(layer.register_forward_hook(count))
    with torch.no_grad():
        module(
            torch.zeros(1, 3, side, side),
            *([torch.zeros(1)] if not isinstance(module, Trunk) else []),
        )
    for handle in handles:
        handle.remove()
    return total[0] / 1e9


def test_cost_is_that_of_the_layers():
    model = pixel_model()
    # features that are nothing are not computed
    torch.nn.init.constant_(model.adapter.zero.convs[0].bias, 0.1)
    found = cost(model, 31)  # rounded up to the stride
    assert found["size"] == 32
    assert found["network"] == pytest.approx(convolutions(model.backbone.network, 32), rel=1e-6)
    zero = sum(
        c.weight.numel() * 2 * (32 // s) ** 2
        for c, (_, s) in zip(model.adapter.zero.convs, model.adapter.layout)
    )
    assert found["condition"] == pytest.approx(
        convolutions(model.adapter.trunk, 32) + zero / 1e9, rel=1e-6
    )
    assert found["residuals"] == found["encode"] == found["decode"] == found["vae"] == 0
    assert found["trainable"] == sum(p.numel() for p in model.adapter.parameters())
    assert found["frozen"] == sum(p.numel() for p in model.backbone.network.parameters())
    # the embedding of time is small
    assert cost(model, 64)["network"] == pytest.approx(4 * found["network"], rel=1e-2)


def test_cost_leaves_the_model_as_it_was():
    model = pixel_model(ControlAdapter, anchor=False).train()
    before, modes = (
        {k: v.clone() for k, v in model.state_dict().items()},
        [m.training for m in model.modules()],
    )
    y = torch.rand(1, 3, 16, 16)
    restored = model.restore(y)
    found = cost(model, 512)
    assert found["residuals"] > 0 == found["condition"]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert modes == [m.training for m in model.modules()] and torch.equal(
        model.restore(y), restored
    )
    assert not {"condition", "residuals"} & vars(model.adapter).keys() and "forward" not in vars(
        model.backbone.network
    )


@pytest.mark.parametrize("kind", ["sd15", "sd3"])
def test_cost_of_latents(tmp_path, kind):
    model = latent_model(kind, tmp_path)
    found = cost(model, 64)
    for key in ("network", "residuals", "encode", "decode"):
        assert found[key] > 0
    assert found["decode"] > found["encode"] and (found["condition"] > 0) == (kind == "sd15")
    assert found["vae"] == sum(p.numel() for p in model.backbone.vae.parameters())
    assert (
        describe_cost(model, 64)
        == f"{type(model.adapter).__name__}: {found['trainable'] / 1e6:.1f} M trainable parameters,"
        f" {found['frozen'] / 1e6:.1f} M frozen; a step costs"
        f" {found['condition'] + found['residuals']:.3g} GFLOPs in the adapter,"
        f" {found['network']:.3g} in the frozen network (64 px)"
    )


@pytest.mark.slow
def test_the_published_size():
    """Stable Diffusion v1-5 and its ControlNet, without weights: their known numbers of
    parameters."""
    n = 4
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * n,
            up_block_types=("UpDecoderBlock2D",) * n,
            layers_per_block=2,
            latent_channels=4,
        )
        backbone = LatentBackbone(
            unet, vae, PRIOR, [{"encoder_hidden_states": torch.zeros(1, 77, 768)}]
        )
        adapter = ControlNet(backbone)
    model = IRBridge(
        backbone.to_empty(device="cpu"), adapter.to_empty(device="cpu"), GOUB(), critical(100), "y"
    )
    found = cost(model, 512)
    assert (found["trainable"], found["frozen"], found["vae"]) == (
        361_279_120,
        859_520_964,
        83_653_863,
    )


@pytest.mark.parametrize(
    "model",
    [Regression(Trunk([8, 16])), BridgeNetwork(Brownian(), bridge_network(channels=[8, 16]))],
)
def test_cost_without_a_frozen_network(model):
    found = cost(model, 32)
    assert found["frozen"] == found["network"] == found["residuals"] == 0 < found["condition"]
    assert "frozen" not in describe_cost(
        model, 32
    ) and f"{found['condition']:.3g} GFLOPs (32 px)" in describe_cost(model, 32)


@pytest.mark.parametrize("kind", ["sd15", "sd3", "adm"])
def test_attention_is_the_fused_one(tmp_path, monkeypatch, kind):
    """Of the frozen network, of its ControlNet and of the VAE."""
    model, seen = latent_model(kind, tmp_path), []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *a, **k: seen.append(1) or fused(*a, **k),
    )
    ran = []
    for module in model.modules():
        if hasattr(module, "to_q"):
            module.register_forward_hook(lambda *call: ran.append(1))
    model.restore(torch.rand(1, 3, 16, 16))
    assert len(seen) == len(ran) > 0


def spend(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_the_clock_counts_each_moment_once():
    clock, times = Clock(CPU), [time.perf_counter()]
    clock.lap()
    times.append(time.perf_counter())
    spend(0.02)
    with clock("adapter"):
        spend(0.03)
        with clock("network"):
            spend(0.05)
        spend(0.01)
    with pytest.raises(ValueError), clock("vae"):
        raise ValueError
    times.append(time.perf_counter())
    lap = clock.lap()
    times.append(time.perf_counter())
    assert times[2] - times[1] <= sum(lap.values()) <= times[3] - times[0]
    assert (
        lap["network"] >= 0.05 and lap["adapter"] >= 0.04 and lap["rest"] >= 0.02 and "vae" in lap
    )
    assert clock.lap().keys() == {"rest"}


def test_every_network_is_watched(tmp_path):
    model = latent_model("sd15", tmp_path / "pipeline")
    model.latents = LatentCache(tmp_path / "cache", model.backbone)
    clock = Clock(CPU)
    entered = []
    clock.__class__ = type(
        "Counting",
        (Clock,),
        {"enter": lambda self, part: entered.append(part) or Clock.enter(self, part)},
    )
    with watched(model, clock):
        model.restore(torch.rand(1, 3, 16, 16))
        assert entered == ["vae", "adapter"] + ["adapter", "network"] * 2 + ["vae"]
        entered.clear()
        images = torch.rand(2, 2, 3, 16, 16)
        model.loss(*given(*images, torch.randn(2, 4, 2, 2), torch.rand(2)))
    # through the cache, which encodes
    assert entered == ["vae", "vae", "adapter", "vae", "vae", "adapter", "network"]
    assert isinstance(model.latents, LatentCache)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_is_timed_as_it_runs(accumulate, monkeypatch):
    model = pixel_model()
    forward = model.backbone.network.forward
    monkeypatch.setattr(
        model.backbone.network, "forward", lambda *args: spend(0.05) or forward(*args)
    )
    laps = time_training(
        model, trainer_options(batch_size=2, accumulate=accumulate), steps=2, warmup=1
    )
    assert len(laps) == 2
    for lap in laps:
        assert set(lap) == set(PARTS) - {"vae"} and lap["network"] >= 0.05 * accumulate
        assert lap["backward"] > 0 and lap["optimizer"] > 0


def test_regression_trains_under_the_clock():
    laps = time_training(Regression(Trunk([8, 16])), trainer_options(), steps=1, warmup=1)
    assert set(laps[0]) == {"adapter", "backward", "optimizer", "data", "rest"}


def test_restoring_is_timed_as_it_runs(monkeypatch):
    model = pixel_model()
    forward = model.backbone.network.forward
    monkeypatch.setattr(
        model.backbone.network, "forward", lambda *args: spend(0.02) or forward(*args)
    )
    laps = time_restoring(model, 16, 2, times=2)
    assert len(laps) == 2 and all(
        lap["network"] >= 0.06 and lap["adapter"] > 0 < lap["rest"] for lap in laps
    )


def test_summary():
    laps = [{"network": 0.2, "rest": 0.02}, {"network": 0.4, "adapter": 0.4, "rest": 0.02}]
    found = summary(laps, 4, 3 * 2**20, {})
    assert found["seconds"]["network"] == pytest.approx(0.3) and found["total"] == pytest.approx(
        0.52
    )
    assert found["share"]["adapter"] == pytest.approx(0.2 / 0.52) and sum(
        found["share"].values()
    ) == pytest.approx(1)
    assert found["images_per_second"] == pytest.approx(4 / 0.52) and found["peak_mib"] == 3
    assert found["rest_of_networks"] == pytest.approx(0.02 / 0.5)


def test_the_peak_sees_what_is_held():
    reset_peak(CPU)
    before = peak_memory(CPU)
    # not from what was freed before
    held = torch.frombuffer(mmap.mmap(-1, 256 * 2**20), dtype=torch.uint8).fill_(1)
    assert peak_memory(CPU) - before > 250 * 2**20 and held[0] == 1


def test_the_command(command, small, tmp_path):
    words = [
        *small,
        "task=derain",
        "trainer.crop=16",
        "trainer.batch_size=2",
        "benchmark.steps=1",
        "benchmark.warmup=1",
        "benchmark.size=16",
        f"output={tmp_path / 'numbers.json'}",
    ]
    status, out, err = command("profile_speed", *words)
    assert status == 0, err
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert (
        out.startswith("StaticAdapter: ")
        and "training 2 x 16 px, s" in rows[0]
        and "restoring 1 x 16 px, s" in rows[0]
    )
    assert {len(row.split("|")) for row in rows} == {7}
    written = json.loads((tmp_path / "numbers.json").read_text())
    for side in ("training", "restoring"):
        seconds = written[side]["seconds"]
        assert set(seconds) == set(PARTS) and seconds["network"] > 0 and seconds["adapter"] > 0
        assert (
            written[side]["total"] == pytest.approx(sum(seconds.values()))
            and written[side]["peak_mib"] > 0
        )
    assert written["config"]["trainer"]["crop"] == 16
    train, restore = (written[side]["gflops"] for side in ("training", "restoring"))
    # an image, two calls; two images, one call
    assert restore["network"] == pytest.approx(2 / 2 * train["network"])
    assert restore["adapter"] == pytest.approx(1 / 2 * train["adapter"])  # it runs once an image
    assert list(tmp_path.glob("runs/*")) == []
