"""What every backbone promises; the classes are found from ``Backbone`` itself."""

from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules

import pytest
import torch
from pipelines import SAVE, load

import irbridge.backbones
from irbridge.backbones.base import Backbone

for module in iter_modules(irbridge.backbones.__path__):
    import_module(f"irbridge.backbones.{module.name}")

pytestmark = pytest.mark.filterwarnings("ignore:.*has no text encoder")


def subclasses(kind):
    for child in kind.__subclasses__():
        yield from subclasses(child)
        if not isabstract(child) and child.__module__.startswith("irbridge."):
            yield child


CLASSES = sorted(set(subclasses(Backbone)), key=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return {kind: load(kind, SAVE[kind](tmp_path_factory.mktemp(kind))) for kind in SAVE}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state(backbone, batch=2):
    side = 2 * backbone.stride // backbone.factor
    return noise(batch, backbone.channels, side, side)


def middle(backbone):
    prior = backbone.prior
    return torch.tensor((float(prior.lowest) + float(prior.highest)) / 2, dtype=torch.float64)


def test_every_class_is_loaded_here(loaded):
    assert {type(backbone) for backbone in loaded.values()} == set(CLASSES)


def test_what_is_abstract_is_abstract():
    class Nothing(Backbone):
        pass

    for kind in (Backbone, Nothing):
        with pytest.raises(TypeError, match="abstract"):
            kind(None, None)


@pytest.mark.parametrize("kind", SAVE)
@torch.no_grad()
def test_states_have_the_sizes_that_it_says(loaded, kind):
    backbone = loaded[kind]
    assert isinstance(backbone.stride, int) and backbone.stride % backbone.factor == 0
    image = noise(2, 3, 2 * backbone.stride, 3 * backbone.stride).clamp(-1, 1)
    encoded = backbone.encode(image)
    rows, columns = (side // backbone.factor for side in image.shape[2:])
    assert encoded.shape == (2, backbone.channels, rows, columns)
    decoded = backbone.decode(encoded)
    assert decoded.shape == image.shape and decoded.dtype == encoded.dtype == torch.float32
    if backbone.vae is None:
        assert backbone.factor == 1 and torch.equal(encoded, image) and torch.equal(decoded, image)


@pytest.mark.parametrize("kind", SAVE)
@torch.no_grad()
def test_an_estimate_depends_on_its_own_image_alone(loaded, kind):
    backbone = loaded[kind]
    z, tau = state(backbone), middle(backbone)
    whole = backbone.denoise(z, tau)
    assert whole.shape == z.shape and whole.dtype == torch.float32
    for index in range(2):
        alone = backbone.denoise(z[index : index + 1], tau)
        torch.testing.assert_close(alone[0], whole[index], atol=1e-4, rtol=1e-4)
    each = backbone.denoise(z, torch.stack([tau, 0.5 * tau]))
    torch.testing.assert_close(each[0], whole[0], atol=1e-4, rtol=1e-4)
    assert (each[1] - whole[1]).abs().max() > 0


@pytest.mark.parametrize("kind", SAVE)
def test_gradients_pass_and_nothing_of_it_trains(loaded, kind):
    backbone = loaded[kind]
    z = state(backbone).requires_grad_(True)
    backbone.denoise(z, middle(backbone)).square().mean().backward()
    assert z.grad.abs().max() > 0
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())
    assert not any(module.training for module in backbone.train().network.modules())


@pytest.mark.parametrize("kind", SAVE)
@torch.no_grad()
def test_residuals_are_asked_with_what_the_network_is_given(loaded, kind):
    backbone, asked = loaded[kind], []
    z, tau = state(backbone), middle(backbone)
    expected, time = backbone.prior.network_input(z, tau.expand(len(z)))

    def nothing(inputs, time, **context):
        asked.append((inputs, time, context))

    assert torch.equal(backbone.denoise(z, tau, nothing), backbone.denoise(z, tau))
    ((inputs, at, context),) = asked
    torch.testing.assert_close(inputs, expected.to(inputs.dtype))
    torch.testing.assert_close(at, time.float())
    assert all(len(value) == len(z) for value in context.values())


@pytest.mark.parametrize("kind", SAVE)
def test_it_says_where_it_is_from(loaded, kind):
    backbone = loaded[kind]
    assert backbone.name and len(backbone.digest) == 64 and backbone.scheduler
    assert all(isinstance(value, float) for value in backbone.signature())
    assert backbone.dtype == next(backbone.network.parameters()).dtype
