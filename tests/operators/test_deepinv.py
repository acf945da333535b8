"""To deepinv and back: its physics here, our operators and backbones there."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cases import SIZES, holes, linear, seeded
from conftest import ROOT
from torch import nn

deepinv = pytest.importorskip("deepinv", reason="deepinv, of the extra inverse, is missing")

from irbridge.backbones.base import Backbone
from irbridge.backbones.deepinv_denoiser import deepinv_denoiser
from irbridge.backbones.pixel import load_backbone
from irbridge.errors import UserError
from irbridge.images.arrays import to_tensor
from irbridge.images.io import read_image
from irbridge.operators.catalog import operator
from irbridge.operators.from_physics import FromPhysics, to_physics
from irbridge.priors import VE, VP, Flow
from irbridge.priors.vp import vp_alphas_cumprod

SIZE = (3, 16, 24)
PRIORS = [VP(vp_alphas_cumprod({})), VE(sigma_data=None), Flow(3.0)]


class Gaussian(Backbone):
    """The exact denoiser of images of independent pixels N(0, variance)."""

    variance = 0.3

    def __init__(self, prior, stride=1):
        network = nn.Linear(1, 1)
        network.config, network.dtype = SimpleNamespace(in_channels=3), torch.float32
        super().__init__(network, prior)
        self.stride, self.shapes = stride, []

    def predict(self, inputs, time, residuals):
        self.shapes.append(inputs.shape)
        taus = time.double().cpu()
        taus = taus / self.prior.steps if isinstance(self.prior, Flow) else taus
        if isinstance(self.prior, Flow):  # it is called with the noise itself
            alpha, sigma = 1 - taus, taus
        else:
            law = self.prior.marginal(taus)
            alpha, sigma = law.clean, law.noise
        alpha, sigma = (a.view(-1, 1, 1, 1).float() for a in (alpha, sigma))
        x0 = alpha * self.variance / (alpha**2 * self.variance + sigma**2) * inputs
        if isinstance(self.prior, Flow):
            return (inputs - alpha * x0) / sigma - x0
        return (inputs - alpha * x0) / sigma


@pytest.mark.parametrize("prior", PRIORS)
def test_a_backbone_denoises_in_deepinvs_units(prior):
    model = deepinv_denoiser(Gaussian(prior))
    x = 0.5 + 0.3 * seeded(3, 3, 8, 10, dtype=torch.float32)
    for sigma in (0.05, 0.4, np.float64(0.4), torch.tensor(0.4), torch.tensor([0.05, 0.4, 1.0])):
        std = 2 * torch.as_tensor(sigma, dtype=torch.float32).view(-1, 1, 1, 1)
        exact = Gaussian.variance / (Gaussian.variance + std**2) * (2 * x - 1)
        assert torch.allclose(model(x, sigma), exact / 2 + 0.5, atol=1e-4)
    assert isinstance(model, deepinv.models.Denoiser)


def test_a_backbone_denoises_as_ours_does():
    backbone = load_backbone()
    prior = backbone.prior
    x = 0.5 + 0.5 * seeded(1, 3, 24, 24, dtype=torch.float32)
    tau = torch.tensor(300.0, dtype=torch.float64)
    law = prior.marginal(tau)
    sigma = float(law.noise / law.clean) / 2
    with torch.no_grad():
        ours = backbone.denoise(float(law.clean) * (2 * x - 1), tau)
        theirs = deepinv_denoiser(backbone)(x, sigma)
    assert torch.allclose(2 * theirs - 1, ours, atol=1e-5)


def test_no_noise_odd_sides_and_dtypes():
    backbone = Gaussian(PRIORS[0], stride=8)
    model = deepinv_denoiser(backbone)
    x = seeded(2, 3, 13, 17).requires_grad_()
    out = model(x, torch.tensor([0.0, 0.3]))
    assert out.shape == x.shape and out.dtype == x.dtype
    assert torch.equal(out[0], x[0]) and not torch.allclose(out[1], x[1])
    assert backbone.shapes[-1] == (2, 3, 16, 24)
    (gradient,) = torch.autograd.grad(out[1].sum(), x)
    assert gradient[1].abs().sum() > 0
    assert model(x, 1e-6).isfinite().all()  # below the prior's range
    assert model(x, 1e6).isfinite().all()  # above it


def test_a_backbone_of_latents_is_none():
    backbone = Gaussian(PRIORS[0])
    backbone.vae = object()
    with pytest.raises(UserError, match="of latents"):
        deepinv_denoiser(backbone)


def psnr(a, b):
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.fixture(scope="module")
def photograph():
    path = sorted((ROOT / "data/samples/test").glob("*.jpg"))[3]
    return to_tensor(read_image(path)[100:132, 100:132])[None] / 2 + 0.5


def test_deepinvs_diffpir_runs_on_our_backbone_and_our_operator(photograph):
    A = operator("inpaint", (3, 32, 32), holes=holes((3, 32, 32)))
    torch.manual_seed(0)
    m = A(photograph)
    model = deepinv.sampling.DiffPIR(
        deepinv_denoiser(load_backbone()),
        deepinv.optim.data_fidelity.L2(),
        sigma=0.01,
        max_iter=12,
        zeta=0.3,
    )
    restored = model(m, to_physics(A, std=0.01), seed=1)
    assert psnr(restored, photograph) > psnr(A.inverse(m), photograph) + 5


def test_deepinvs_ddrm_runs_on_our_backbone(photograph):
    kept = (~holes((3, 32, 32))).float().expand(1, 3, 32, 32)
    physics = deepinv.physics.Inpainting(img_size=(3, 32, 32), mask=kept[0])
    physics.noise_model = deepinv.physics.GaussianNoise(sigma=0.01)
    model = deepinv.sampling.DDRM(deepinv_denoiser(load_backbone()), np.linspace(1, 0, 12))
    m = physics.A(photograph)
    restored = model(m, physics, seed=1)
    assert psnr(restored, photograph) > psnr(m, photograph) + 5


def test_an_operator_as_physics_has_our_parts():
    for name, A in linear(SIZE).items():
        physics = to_physics(A)
        x = seeded(1, *SIZE)
        m = A(0.5 * x)
        assert torch.equal(physics.A(x), A(x)), name
        assert torch.equal(physics.A_adjoint(m), A.adjoint(m)), name
        assert torch.equal(physics.A_dagger(m), A.inverse(m)), name
        gamma = 2.0  # of gamma/2 |A u - m|^2 + 1/2 |u - x|^2
        assert torch.allclose(physics.prox_l2(x, m, gamma), A.prox(x, m, 0.5)), name
    with pytest.raises(UserError, match="operator=hdr is not linear"):
        to_physics(operator("hdr", SIZE))


def test_a_users_own_physics_is_an_operator():
    size = SIZES["even"]
    given = {
        "mask": deepinv.physics.Inpainting(img_size=size, mask=(~holes(size)).float().expand(size)),
        "grey": deepinv.physics.Decolorize(srf="flat"),
        "blur": deepinv.physics.BlurFFT(
            img_size=size, filter=torch.tensor([[[[0.0, 0.1, 0], [0.1, 0.5, 0.2], [0, 0.1, 0]]]])
        ),
        "same": deepinv.physics.Denoising(),
    }
    x = seeded(2, *size, dtype=torch.float32)
    for name, physics in given.items():
        A = FromPhysics(physics, size)
        assert A.linear and A.spectral and A.differentiable, name
        m = A(x)
        assert torch.allclose(A(A.inverse(m)), m, atol=1e-4), name
        assert torch.allclose(A.filter(x, torch.ones_like), x, atol=1e-5), name
        assert torch.allclose(A.filter(x, lambda s: s**2), A.adjoint(m), atol=1e-5), name
        u = A.prox(x, 0.5 * m, 0.3)
        residual = A.adjoint(A(u) - 0.5 * m) + 0.3 * (u - x)
        assert residual.abs().max() < 1e-4, name
        start = A.inverse(m)
        kept = m.clone()
        start.fill_(7)
        assert torch.equal(m, kept), name


def test_a_physics_without_a_decomposition_is_served_by_conjugate_gradients():
    physics = deepinv.physics.Downsampling(img_size=(3, 16, 16), filter="bilinear", factor=2)
    A = FromPhysics(physics, (3, 16, 16))
    assert A.linear and not A.spectral
    x = seeded(1, 3, 16, 16, dtype=torch.float32)
    m = A(x)
    assert (A(A.inverse(m)) - m).abs().max() < 0.02
    u = A.prox(x, 0.5 * m, 0.3)
    assert (A.adjoint(A(u) - 0.5 * m) + 0.3 * (u - x)).abs().max() < 1e-4


def test_a_physics_that_is_not_linear():
    class Squared(deepinv.physics.Physics):
        def A(self, x, **kwargs):
            return x**2

        def A_dagger(self, y, **kwargs):
            return y

    class Rounded(Squared):
        def A(self, x, **kwargs):
            return (x.detach() * 10).round() / 10

    A = FromPhysics(Squared(), SIZE)
    assert (A.linear, A.spectral, A.differentiable) == (False, False, True)
    m = A(seeded(1, *SIZE))
    kept = m.clone()
    A.inverse(m).fill_(7)  # whose A_dagger is the measurement itself
    assert torch.equal(m, kept)
    assert not FromPhysics(Rounded(), SIZE).differentiable


def test_what_is_no_physics_or_of_another_size_is_one_sentence():
    with pytest.raises(UserError, match="takes a physics of deepinv's, not Linear"):
        FromPhysics(nn.Linear(3, 3), SIZE)
    physics = deepinv.physics.Inpainting(img_size=(3, 9, 9), mask=torch.ones(3, 9, 9))
    with pytest.raises(UserError, match="takes no image of"):
        FromPhysics(physics, SIZE)
