"""Zero-shot models: units, sides, batches, priors, tiles and latents."""

from types import SimpleNamespace

import numpy as np
import pipelines
import pytest
import torch
from solvers.toys import AveragePool, Identity, Mask

import irbridge
from irbridge.backbones.base import Backbone
from irbridge.errors import UserError
from irbridge.gaussian.marginal import broadcast
from irbridge.images.tiles import Tiles
from irbridge.models.zero_shot import Kind, ZeroShot, zeroshot
from irbridge.priors import VE, VP, Flow
from irbridge.priors.vp import vp_alphas_cumprod
from irbridge.solvers.base import SOLVERS, solver

FAST = {
    "ddrm": {"steps": 4},
    "ddnm": {"steps": 4},
    "dps": {"steps": 4},
    "pigdm": {"steps": 4},
    "diffpir": {"steps": 4},
    "reddiff": {"steps": 4},
    "deqir": {"steps": 4},
    "scd": {"steps": 4, "inner": 1},
    "likelihood": {"steps": 4},
}


class Toy(Backbone):
    """A denoiser of bounded images for every prior, which looks at neighbours a little."""

    stride = 4

    def __init__(self, prior):
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1))
        network.config, network.dtype = SimpleNamespace(in_channels=3), torch.float32
        super().__init__(network, prior, "toy", "", {})
        self.seen = []

    def predict(self, inputs, time, residuals):
        raise NotImplementedError

    def denoise(self, z, tau, residuals=None):
        self.seen.append(tuple(z.shape))
        clean, _, noise = (broadcast(part, z) for part in self.prior.marginal(tau))
        mean = clean / (clean**2 + noise**2) * z
        return torch.tanh(0.7 * mean + 0.1 * self.network(mean))


PRIORS = {
    "vp": lambda: VP(vp_alphas_cumprod({})),
    "ve": lambda: VE(sigma_data=None),
    "flow": lambda: Flow(),
}


def model(operator, name="ddrm", prior="vp", noise=0.0, **constants):
    torch.manual_seed(0)
    return ZeroShot(Toy(PRIORS[prior]()), operator, solver(name, **FAST[name] | constants), noise)


def kept(height, width):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(height, width, generator=generator) > 0.4).double()


def masked(height=10, width=14):
    return Mask((3, height, width), kept(height, width))


def clean(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("name", FAST)
def test_every_solver_runs_on_every_prior_at_odd_sides(name, prior):
    operator = masked(9, 13)
    found = model(operator, name, prior)(operator(clean(2, 3, 9, 13)))
    assert found.shape == (2, 3, 9, 13) and found.abs().max() <= 1
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", ["ddrm", "ddnm", "pigdm", "deqir"])
def test_without_noise_the_measurement_is_met(name):
    operator = masked()
    m = operator(clean(1, 3, 10, 14))
    constants = {"replace": True} if name == "pigdm" else {}
    found = model(operator, name, **constants)(m)
    assert torch.allclose(operator(found), m, atol=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("name", FAST)
def test_images_of_a_batch_do_not_depend_on_one_another(name, noise):
    if noise and name == "deqir":
        return  # refuses noise
    operator = AveragePool((3, 8, 12))
    m = operator(clean(3, 3, 8, 12))
    m[1] *= 0.2
    together = model(operator, name, noise=noise)(m, seed=5)
    alone = model(operator, name, noise=noise)(m[1:2], seed=6)
    assert torch.allclose(together[1:2], alone, atol=2e-6)


def test_noise_is_told_in_units_of_images_from_0_to_1():
    operator = Identity((3, 8, 8))
    posed = model(operator, noise=0.05).problem(clean(1, 3, 8, 8), operator, [0])
    assert posed.std == pytest.approx(0.1)


def test_a_measurement_stays_as_it_is():
    operator = Identity((3, 8, 8))
    m = clean(1, 3, 8, 8)
    before = m.clone()
    model(operator, "reddiff")(m)
    assert torch.equal(m, before)


def test_an_image_is_read_restored_and_keeps_what_is_known():
    image = np.random.default_rng(0).random((9, 13, 3), dtype=np.float32)
    holes = np.zeros((9, 13), bool)
    holes[2:5, 3:9] = True

    def make(_, mask):
        operator = Mask((3, 9, 13), (~mask[0, 0]).double())
        operator.read = operator.__call__
        return operator

    found = model(Kind("inpaint", make)).restore(image, seed=3, mask=holes)
    assert found.shape == image.shape and np.array_equal(found[~holes], image[~holes])
    assert not np.allclose(found[holes], image[holes])
    again = model(Kind("inpaint", make)).restore(image, seed=3, mask=holes)
    assert np.array_equal(found, again)
    noisy = model(Kind("inpaint", make), noise=0.1).restore(image, seed=3, mask=holes)
    assert not np.array_equal(noisy[~holes], image[~holes])


def test_super_resolution_returns_a_larger_image():
    def make(image, _):
        height, width = image.shape[-2:]
        return AveragePool((3, 2 * height, 2 * width))

    small = 0.3 + 0.4 * np.random.default_rng(0).random((5, 7, 3), dtype=np.float32)
    found = model(Kind("sr", make, factor=2)).restore(small)
    assert found.shape == (10, 14, 3)
    assert np.allclose(found.reshape(5, 2, 7, 2, 3).mean((1, 3)), small, atol=0.02)


def test_tiles_cut_the_calls_of_the_network_and_not_the_operator():
    operator = masked(24, 24)
    m = operator(clean(1, 3, 24, 24))
    whole = model(operator)
    cut = model(operator)
    tiles = Tiles(16, overlap=8, still=2)
    assert torch.allclose(whole(m), cut(m, tiles=tiles), atol=1e-5)
    assert {shape[-1] for shape in whole.backbone.seen} == {24}
    assert {shape[-1] for shape in cut.backbone.seen} == {16}


def test_gradients_pass_through_tiles():
    operator = masked(24, 24)
    m = operator(clean(1, 3, 24, 24))
    tiles = Tiles(16, overlap=8, still=2)
    whole, cut = model(operator, "dps")(m), model(operator, "dps")(m, tiles=tiles)
    assert torch.allclose(whole, cut, atol=1e-4)


def test_memory_does_not_grow_with_the_steps():
    """No solver keeps its states: as many tensors of states are alive at any step."""
    import gc

    operator = masked()
    m = operator(clean(1, 3, 10, 14))

    def alive():
        gc.collect()
        found = [o for o in gc.get_objects() if torch.is_tensor(o) and o.shape[-2:] == (10, 14)]
        return len(found)

    for name in set(FAST) - {"deqir"}:  # whose batch is all levels
        counts = []
        made = model(operator, name, steps=12)
        for number, state in enumerate(made.solve(m, operator, [0])):
            del state
            if number in (3, 10):
                counts.append(alive())
        assert counts[1] <= counts[0], name


def test_what_does_not_fit_is_said_before_any_call():
    class Odd(Identity):
        name = "jpeg"
        linear, spectral = False, False

    for name in set(FAST) - {"dps", "reddiff"}:
        with pytest.raises(UserError, match=f"solver={name} needs an operator that is linear"):
            model(Odd((3, 8, 8)), name)
    for name in ("dps", "reddiff"):
        model(Odd((3, 8, 8)), name)

    class Unknown(Identity):
        spectral = False

    for name in ("ddnm", "pigdm"):
        with pytest.raises(UserError, match=f"solver={name} needs with noise an operator that has"):
            model(Unknown((3, 8, 8)), name, noise=0.1)
    with pytest.raises(UserError, match="noise=-0.1 must be a number from 0"):
        model(Identity((3, 8, 8)), noise=-0.1)
    with pytest.raises(UserError, match="'ddmr' is unknown.*ddrm"):
        solver("ddmr")
    with pytest.raises(UserError, match="solver.etta is no constant of ddrm"):
        solver("ddrm", etta=1)
    with pytest.raises(UserError, match="solver.eta=2 must be"):
        solver("ddrm", eta=2)
    with pytest.raises(UserError, match="more than the 1000 timesteps"):
        model(Identity((3, 8, 8)), "ddrm", steps=1001)(clean(1, 3, 8, 8))


def test_every_solver_has_a_word_and_a_class():
    for name in SOLVERS:
        assert solver(name).name == name


def test_the_public_face():
    found = irbridge.zeroshot(None, Identity((3, 16, 16)), "diffpir", noise=0.1, steps=3)
    assert isinstance(found, irbridge.ZeroShot) and found.solver.lam == 7.0
    assert found(clean(1, 3, 16, 16)).shape == (1, 3, 16, 16)
    assert zeroshot is irbridge.zeroshot


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sd3"])
def test_red_diff_and_dps_run_on_latents_with_the_operator_on_the_decoded_image(kind, tmp_path):
    getattr(pipelines, f"save_{kind}")(tmp_path / kind)
    backbone = pipelines.load(kind, tmp_path / kind)
    operator = masked(37, 43)
    m = operator(clean(1, 3, 37, 43))
    for name in ("reddiff", "dps"):
        found = ZeroShot(backbone, operator, solver(name, **FAST[name]))
        restored = found(m, seed=1)
        assert restored.shape == (1, 3, 37, 43) and torch.isfinite(restored).all()
        assert torch.equal(restored, found(m, seed=1))
    for name in set(FAST) - {"dps", "reddiff"}:
        with pytest.raises(UserError, match=f"solver={name} needs an operator that is linear"):
            ZeroShot(backbone, operator, solver(name))


def test_on_latents_red_diff_lowers_the_error_of_the_decoded_image(tmp_path):
    pipelines.save_sd15(tmp_path / "sd")
    backbone, operator = pipelines.load("sd15", tmp_path / "sd"), masked(32, 32)
    m = operator(backbone.decode(3 * clean(1, 4, 4, 4)))
    found = ZeroShot(backbone, operator, solver("reddiff", lam=0.0, steps=60))
    on = found.problem(m, operator, [0]).operator
    start = (on(on.inverse(m)) - m).square().mean()
    *_, last = found.solve(m, operator, [0])
    assert (on(last.x0) - m).square().mean() < 0.7 * start
