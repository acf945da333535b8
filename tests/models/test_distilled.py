"""Distillation: its objective in closed form, what each of the three adapters learns, its use."""

import numpy as np
import pytest
import torch
from conftest import small_unet
from golden import load
from losses import given

from irbridge.adapters.static import StaticAdapter
from irbridge.backbones.pixel import PixelBackbone
from irbridge.bridges import GOUB, Brownian, EBridge
from irbridge.errors import UserError
from irbridge.gaussian.marginal import draw
from irbridge.models.distilled import Distilled, gap
from irbridge.models.timestep_schedule import critical
from irbridge.priors import VP
from irbridge.priors.vp import vp_alphas_cumprod

BRIDGES = {"ebridge": EBridge(), "brownian": Brownian(sigma=0.5), "goub": GOUB()}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch():
    clean, degraded, xi = (noise(2, 3, 16, 16, seed=k) for k in range(3))
    return clean.clamp(-1, 1), degraded.clamp(-1, 1), xi, torch.tensor([0.6, 0.1])


def moved(adapter, by=0.05, seed=1):
    with torch.no_grad():
        for p in adapter.parameters():
            p.add_(by * noise(*p.shape, seed=seed))
    return adapter


def pupil(bridge="ebridge", endpoint="y", nfe=1, taught=True):
    backbone = PixelBackbone(small_unet(), VP(vp_alphas_cumprod({})))
    torch.manual_seed(0)
    adapters = [StaticAdapter(backbone, [16, 16], anchor=endpoint == "anchor") for _ in range(2)]
    return Distilled(
        backbone,
        adapters[0],
        BRIDGES[bridge],
        critical(),
        endpoint,
        {"rule": "posterior", "nfe": nfe},
        teacher=moved(adapters[1]) if taught else None,
    )


@pytest.mark.parametrize("row", load("ibmd")["rows"])
def test_the_gap_of_gaussians(row):
    """0 where the pupil has the teacher's law, above 0 elsewhere, also where it has collapsed: by a
    Gauss-Hermite rule, which is exact here."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    u, eps = (torch.from_numpy(v) for v in np.meshgrid(nodes, nodes))
    weight = torch.from_numpy(np.outer(weights, weights)) / (2 * np.pi)
    mean, variance = row["generator_mean"], row["generator_var"]
    x0, law = mean + variance**0.5 * u, Brownian(T=1, sigma=0.5).marginal(row["s"])
    x = draw(law, x0, torch.zeros_like(x0), eps)

    def best(mean, variance):
        a, _, c = (float(v) for v in law)
        return mean + a * variance / (a**2 * variance + c**2) * (x - a * mean)

    taught = best(row["teacher_mean"], row["teacher_var"])
    value = float((weight * gap(taught, best(mean, variance), x0)).sum())
    assert value == pytest.approx(row["loss"], abs=1e-12)
    assert (value > 1e-4) == ((mean, variance) != (row["teacher_mean"], row["teacher_var"]))


@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("endpoint", ["y", "anchor"])
@pytest.mark.parametrize("nfe", [1, 2, 4])
def test_it_starts_as_its_teacher(bridge, endpoint, nfe):
    """There the gap is 0, as the follower still is the teacher, and the anchor where it was."""
    model = pupil(bridge, endpoint, nfe)
    losses = model.loss(*given(*batch()))
    assert losses.keys() == {"follower", "gap"} | ({"anchor"} if endpoint == "anchor" else set())
    assert all(v.shape == (2,) and v.isfinite().all() for v in losses.values())
    assert torch.allclose(losses["gap"], torch.zeros(2), atol=1e-6)
    assert endpoint == "y" or torch.allclose(losses["anchor"], torch.zeros(2), atol=1e-6)
    for name, value in model.adapter.state_dict().items():
        assert torch.equal(value, model.teacher.state_dict()[name])


def gradients(losses, module):
    weights = [p for p in module.parameters() if p.requires_grad]
    total = sum(v.mean() for v in losses)
    found = torch.autograd.grad(total, weights, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights, strict=True)]


def test_each_adapter_learns_its_own():
    """The follower to follow, the pupil to close the gap, the teacher nothing."""
    model = pupil(nfe=2)
    moved(model.follower, 0.02, 3)
    losses = model.loss(*given(*batch()))
    followed = gradients(losses.values(), model.follower)
    alone = [g / 2 for g in gradients([losses["follower"]], model.follower)]
    for got, wanted in zip(followed, alone, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-3, atol=1e-6)
    assert any(g.abs().sum() > 0 for g in followed)
    assert all(g.abs().sum() == 0 for g in gradients([losses["follower"]], model.adapter))
    assert any(g.abs().sum() > 0 for g in gradients([losses["gap"]], model.adapter))
    assert not any(p.requires_grad for p in model.teacher.parameters())


def test_clean_images_are_not_looked_at():
    model, (clean, degraded, *rest) = pupil(), batch()
    one, other = (
        model.loss(*given(c, degraded, *rest)) for c in (clean, torch.full_like(clean, 9))
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_trains_is_the_pupil_and_its_follower():
    model = pupil()
    names = {name.partition(".")[0] for name in model.trainable().state_dict()}
    assert names == {"adapter", "follower"}
    follower, own = model.parameter_groups()
    assert "share" not in follower and own["share"] == 0.2
    assert model.rows()[-1].label.startswith("Distilled (EBridge, end y, posterior, 1 calls")


def test_a_finished_pupil_restores_alone():
    model = pupil(taught=False)
    assert model.restore(noise(1, 3, 16, 16).clamp(-1, 1)).isfinite().all()
    with pytest.raises(UserError, match="distilled already.*teacher=RUN"):
        model.loss(*given(*batch()))


def test_no_call_leaves_nothing_to_distill():
    with pytest.raises(UserError, match="sampler.nfe=0 leaves no call to distill"):
        pupil(endpoint="anchor", nfe=0)
