"""HI-Diff's networks, diffusion and losses against the authors' own numbers, and what learns."""

import pytest
import torch
from golden import load
from hidiff_parts import GOLDEN, filled, image, tiny, waves
from losses import given
from torch import nn

from irbridge.adapters.hidiff.blocks import ChannelAttention, GatedFeedForward, Integration
from irbridge.adapters.hidiff.diffusion import TokenDiffusion
from irbridge.adapters.hidiff.latent import LatentEncoder, PlainDenoiser, TokenDenoiser
from irbridge.adapters.hidiff.network import HIDiffNetwork, HIDiffOptions
from irbridge.errors import UserError
from irbridge.gaussian.transition import posterior_keep, step
from irbridge.models.hidiff import HIDiff
from irbridge.models.hidiff_weights import published
from irbridge.training.networks import checkpoint_gradients

TABLE = load("hidiff")
COUNTS = TABLE["param_counts"]


def close(got, wanted, atol=1e-10):
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    assert torch.allclose(got.flatten(), wanted.flatten(), atol=atol, rtol=0)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("variant", ["gopro", "realblur"])
def test_the_published_counts(variant):
    with torch.device("meta"):
        first, second = (HIDiffNetwork(published(variant), stage) for stage in (1, 2))
    wanted = COUNTS[variant]
    assert count(second) == wanted["inference_total"]
    assert count(second.transformer) == wanted["net_g"] == count(first.transformer)
    assert count(second.encoder) == wanted["net_le_dm"]
    assert count(second.denoiser) == wanted["net_d"]
    assert count(first.encoder) == wanted["net_le"]
    assert count(second.transformer.bottom) == wanted["latent"]
    shorten = [count(part) for part in second.transformer.shorten]
    assert shorten == [wanted["down_1"], wanted["down_2"]]
    levels = {
        **{f"encoder_level{i + 1}": part for i, part in enumerate(second.transformer.encoder)},
        **{f"decoder_level{i + 1}": part for i, part in enumerate(second.transformer.decoder)},
        "refinement": second.transformer.refinement,
    }
    each = {f"{name}.him": count(part.integration) for name, part in levels.items()}
    assert each == wanted["him_each"] and sum(each.values()) == wanted["him_total"]


class Holder(nn.Module):
    """A module under a name."""

    def __init__(self, name, module):
        super().__init__()
        self.add_module(name, module)


def placed(module, ours, theirs, key):
    """A part of a level in the place where the map of names expects it, with its weights."""
    for name in reversed(ours.split(".")):
        module = Holder(name, module)
    params = [[k, theirs + name, *rest] for k, name, *rest in TABLE[key]["params"]]
    filled(module, "transformer", params)


def test_the_integration():
    module = Integration(4, 2, 8)
    placed(module, "refinement.integration", "refinement.him.", "him")
    close(module(image(0, 1, 4, 2, 3), waves(5, 1, 4, 8)), TABLE["him"]["y"])


@pytest.mark.parametrize("key", ["mdta", "gdfn"])
def test_the_parts_of_a_block(key):
    attention = key == "mdta"
    module = ChannelAttention(4, 2, 8) if attention else GatedFeedForward(4, 2.66, 8)
    ours, theirs = ("attention", "attn.") if attention else ("feedforward", "ffn.")
    placed(module, f"bottom.blocks.0.{ours}", f"latent.blocks.0.{theirs}", key)
    x = image(1, 1, 4, 3, 2)
    close(module(x, waves(5, 1, 8)), TABLE[key]["y"])
    module.modulation = None
    close(module(x), TABLE[key]["y_without_prior"])


@pytest.mark.parametrize("key,variant", [("le_gelu", "gopro"), ("le_lrelu", "realblur")])
def test_the_latent_encoders(key, variant):
    table, leaky = TABLE[key], variant == "realblur"
    module = filled(LatentEncoder(6, 2, 1, 2, leaky), "encoder", table["params"], variant)
    z = module(torch.cat([image(2, 1, 3, 16, 16), image(0, 1, 3, 16, 16)], dim=1))
    assert list(z.shape) == table["z_shape"]
    close(z, table["z"])


def denoiser(variant):
    if variant == "gopro":
        module = TokenDenoiser(8, 4, 6, 1)
    else:
        module = PlainDenoiser(8, 2)
    return filled(module, "denoiser", TABLE[f"denoiser_{variant}"]["params"], variant)


@pytest.mark.parametrize("variant,key", [("gopro", "eps"), ("realblur", "z0")])
def test_the_denoisers(variant, key):
    got = denoiser(variant)(waves(1, 1, 4, 8), 3, waves(2, 1, 4, 8))
    close(got, TABLE[f"denoiser_{variant}"][key])


SCHEDULES = {
    (True, 8): TABLE["schedule_gopro_T8_linear_.1_.99"],
    (False, 16): TABLE["schedule_realblur_T16_sqrtspace_.1_.99"],
    (True, 3): TABLE["sampling3_gopro"]["schedule"],
    (False, 3): TABLE["sampling3_realblur"]["schedule"],
}


@pytest.mark.parametrize("gopro,steps", SCHEDULES)
def test_the_schedules(gopro, steps):
    diffusion, table = TokenDiffusion(steps, gopro), SCHEDULES[gopro, steps]
    kept = torch.tensor(diffusion.kept)
    close(kept[1:], table["abar"], 1e-14)
    close(1 - kept[1:] / kept[:-1], table["betas"], 1e-13)
    laws = [diffusion.law(k) for k in range(steps + 1)]
    close(1 / torch.stack([law.clean for law in laws[1:]]), table["recip"], 1e-9)
    close(torch.stack([law.noise / law.clean for law in laws[1:]]), table["recipm1"], 1e-9)
    none, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for k, (now, then) in enumerate(zip(laws[1:], laws, strict=False)):
        keep = posterior_keep(now, then)
        close(step(none, one, one, now, then, keep), table["coef_x0"][k], 1e-12)
        close(step(one, none, none, now, then, keep), table["coef_xt"][k], 1e-12)


@pytest.mark.parametrize("variant", ["gopro", "realblur"])
def test_three_steps_of_the_samplers(variant):
    diffusion = TokenDiffusion(3, variant == "gopro")
    states = diffusion.walk(denoiser(variant), waves(3, 1, 4, 8), waves(2, 1, 4, 8))
    for got, wanted in zip(states, TABLE[f"sampling3_{variant}"]["states"], strict=True):
        close(got, wanted)


def test_where_a_training_starts():
    """The GoPro variant's code takes abar for its root; the other takes the root."""
    table = TABLE["train_start_gopro_T3"]
    z, noise = waves(4, 1, 4, 8, height=0.5), waves(6, 1, 4, 8)
    diffusion = TokenDiffusion(3, gopro=True)
    close(diffusion.start(z, noise), table["code"])
    diffusion.gopro = False
    close(diffusion.start(z, noise), table["as_in_paper"])


def golden_models():
    """Both stages with the weights of the golden losses."""
    table, options = TABLE["losses"], HIDiffOptions(**GOLDEN)
    first = HIDiff(options, 1)
    filled(first.network.transformer, "transformer", TABLE["transformer_tiny"]["params"])
    filled(first.network.encoder, "encoder", table["params_le"])
    second = HIDiff(options, 2, first=first).double()
    filled(second.network.transformer, "transformer", TABLE["transformer_tiny"]["params"])
    filled(second.network.encoder, "encoder", table["params_le_dm"])
    filled(second.network.denoiser, "denoiser", table["params_d"])
    return first, second


def test_a_whole_transformer():
    table, (model, _) = TABLE["transformer_tiny"], golden_models()
    transformer, z = model.network.transformer, waves(5, 1, 16, 8)
    assert count(transformer) == table["n_params"]
    restored = transformer(image(0, 1, 3, 16, 16), z)
    close(restored.mean(), table["mean"], 1e-9)
    close(restored.abs().mean(), table["abs_mean"], 1e-9)
    close(restored.flatten()[:12], table["first12"], 1e-9)
    _, fewer, one = transformer.scales(z)
    assert list(fewer.shape) == table["multi_scale"]["z2_shape"]
    close(fewer.flatten()[:8], table["multi_scale"]["z2_first8"])
    close(one, table["multi_scale"]["z3"])


def test_the_losses_of_both_stages():
    table, (first, second) = TABLE["losses"], golden_models()
    clean, blurred = (image(k, 1, 3, 16, 16) * 2 - 1 for k in (0.3, 0))
    batch = clean, blurred, waves(6, 1, 16, 8), torch.zeros(1)
    close(first.loss(*given(*batch))["image"], table["stage1_L1"], 1e-9)
    losses = second.loss(*given(*batch))
    close(losses["image"], table["stage2_pixel_L1"], 1e-9)
    close(losses["tokens"], table["stage2_latent_L1"], 1e-9)
    close(sum(losses.values()), table["stage2_total"], 1e-9)


def test_the_tokens_of_both_stages():
    """Their first numbers, which the golden tables have."""
    table, (first, second) = TABLE["losses"], golden_models()
    clean, blurred = image(0.3, 1, 3, 16, 16), image(0, 1, 3, 16, 16)
    z = first.network.tokens(torch.cat([clean, blurred], dim=1))
    found = {"z": z, "c": second.network.encoder(blurred)}
    start = second.network.diffusion.start(z, waves(6, 1, 16, 8))
    found["z_hat"] = second.network.tokens(blurred, start)
    for key, tokens in found.items():
        close(tokens.flatten()[: len(table[key])], table[key])


def tiny_batch(seed=1):
    draw = torch.Generator().manual_seed(seed)
    clean, degraded = (torch.rand(2, 3, 16, 16, generator=draw) * 2 - 1 for _ in range(2))
    noise = torch.randn(2, 16, 8, generator=draw)
    return given(clean, degraded, noise, torch.zeros(2))


@pytest.mark.parametrize("variant", ["gopro", "realblur"])
def test_what_learns_in_stage_2(variant):
    """All but the encoder of stage 1, also by the tokens' loss alone, through every step."""
    first = tiny(1, variant=variant)
    before = {name: value.clone() for name, value in first.network.encoder.state_dict().items()}
    model = tiny(2, seed=5, first=first, variant=variant)
    started, own = first.network.transformer.state_dict(), model.network.transformer.state_dict()
    assert all(torch.equal(own[name], value) for name, value in started.items())
    losses = model.loss(*tiny_batch())
    assert losses.keys() == {"image", "tokens"}
    for key, silent in (("tokens", "transformer"), ("image", None)):
        model.zero_grad()
        losses[key].mean().backward(retain_graph=True)
        for part in ("transformer", "encoder", "denoiser"):
            gradients = [p.grad for p in getattr(model.network, part).parameters()]
            moved = any(g is not None and g.abs().sum() > 0 for g in gradients)
            assert moved == (part != silent), (key, part)
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    trained = {id(p) for p in model.trainable().parameters()}
    assert not trained & {id(p) for p in model.teacher.parameters()}
    optimizer = torch.optim.AdamW(model.parameter_groups()[0]["params"], 1e-2)
    optimizer.step()
    assert all(torch.equal(model.teacher.state_dict()[name], v) for name, v in before.items())


def test_stage_1_learns_from_the_clean_image():
    model = tiny(1)
    losses = model.loss(*tiny_batch())
    assert losses.keys() == {"image"}
    losses["image"].mean().backward()
    assert all(p.grad is not None for p in model.trainable().parameters())


def test_checkpointed_gradients_are_the_same():
    model, found = tiny(2, first=tiny(1)), []
    for _ in range(2):
        model.zero_grad()
        sum(v.mean() for v in model.loss(*tiny_batch()).values()).backward()
        found.append([p.grad.clone() for p in model.trainable().parameters()])
        checkpoint_gradients(model)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("variant", ["gopro", "realblur"])
def test_without_a_diffusion_one_pass_makes_the_tokens(variant):
    """With the same parameters, all of which learn."""
    model = tiny(2, first=tiny(1, variant=variant), variant=variant, diffusion=False)
    assert count(model) == count(tiny(2, first=tiny(1, variant=variant), variant=variant))
    losses = model.loss(*tiny_batch())
    losses["tokens"].mean().backward()
    for part in (model.network.encoder, model.network.denoiser):
        assert all(p.grad is not None for p in part.parameters())
    image = torch.zeros(1, 3, 16, 16)
    assert torch.equal(model.restore(image, seed=0), model.restore(image, seed=1))


@pytest.mark.parametrize(
    "changes,said",
    [
        ({"heads": [1]}, "lists of as many levels, 2 to 4"),
        ({"blocks": [1], "heads": [1]}, "2 to 4"),
        ({"heads": [1, 3]}, "3 does not divide 8"),
        ({"width": 5}, "hidiff.width=5 must be even"),
        ({"variant": "hide"}, "one of gopro, realblur"),
        ({"steps": 1}, "hidiff.steps=1"),
    ],
)
def test_sizes_that_make_no_network(changes, said):
    with pytest.raises(UserError, match=said) as refused:
        tiny(**changes)
    assert str(refused.value).count(". ") == 0
