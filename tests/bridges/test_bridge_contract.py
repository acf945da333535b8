"""What every bridge promises, whichever class there is."""

from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest
import torch

import irbridge.bridges
from irbridge.bridges import Bridge
from irbridge.gaussian.marginal import draw
from irbridge.samplers.base import REGISTRY

PUBLIC = {name: getattr(irbridge.bridges, name) for name in irbridge.bridges.__all__}
KINDS = {
    name: kind
    for name, kind in PUBLIC.items()
    if isinstance(kind, type) and issubclass(kind, Bridge) and kind is not Bridge
}


def below(kind):
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def test_every_bridge_of_the_package_is_public():
    own = {k.__name__ for k in below(Bridge) if k.__module__.startswith("irbridge.bridges.")}
    assert {name for name in own if not name.startswith("_")} == set(KINDS)
    assert len(KINDS) >= 14


@pytest.fixture(params=KINDS, name="bridge")
def built(request):
    """Each class with its defaults, which are the published constants."""
    return KINDS[request.param]()


def test_it_is_a_frozen_dataclass_equal_to_its_like(bridge):
    assert (
        is_dataclass(bridge) and type(bridge)() == bridge and hash(bridge) == hash(type(bridge)())
    )
    assert [at.name for at in fields(bridge)][:2] == ["T", "start"]
    with pytest.raises(FrozenInstanceError):
        bridge.T = 5


def test_its_marginal_is_float64_and_shaped_as_the_times(bridge):
    batch = torch.linspace(0, bridge.T, 7, dtype=torch.float32)
    for times in (0, bridge.T, 0.3 * bridge.T, batch, batch.double().reshape(7, 1)[:, 0]):
        law = bridge.marginal(times)
        shape = torch.as_tensor(times).shape
        assert all(field.dtype == torch.float64 and field.shape == shape for field in law)
        assert all(field.isfinite().all() and (field > -1e-12).all() for field in law)
        assert law.noise.device.type == "cpu"


def test_it_begins_at_the_clean_image(bridge):
    assert [float(field) for field in bridge.marginal(bridge.lowest)] == pytest.approx([1, 0, 0])
    x0, y = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x = draw(bridge.marginal(0), x0, y, bridge.scale(x0, y) * torch.ones_like(x0))
    assert torch.allclose(x, x0, atol=1e-6)


def test_its_start_knows_nothing_of_the_clean_image(bridge):
    start = bridge.begin()
    assert start.clean == 0 and start.noise >= 0 and start.degraded > 0
    assert bridge.pinned == (not bridge.marginal(bridge.T).noise > 0)
    if bridge.pinned:  # a pinned end is y exactly, and UniDB all but y
        assert [float(v) for v in bridge.marginal(bridge.T)] == pytest.approx([0, 1, 0], abs=5e-3)


def test_its_clean_share_falls_to_the_degraded_end(bridge):
    law = bridge.marginal(torch.linspace(0, bridge.T, 101, dtype=torch.float64))
    assert (law.clean.diff() <= 1e-12).all() and law.clean[0] == 1
    assert law.degraded[0] == 0 and (law.clean + law.degraded <= 1 + 1e-12).all()


def test_a_step_keeps_no_more_noise_than_there_is_to_keep(bridge):
    for t, s in ((1.0, 0.6), (0.9, 0.5), (0.4, 0.1), (0.2, 0.0)):
        now, then, keep = bridge.posterior(t * bridge.T, s * bridge.T)
        assert keep.dtype == torch.float64 and 0 <= keep <= then.noise * (1 + 1e-12)
        assert keep == 0 or now.noise > 0


def test_how_it_was_published_can_be_run(bridge):
    how = bridge.published
    entry = REGISTRY[how.rule]
    sampler = entry.kind(
        **entry.fixed, nfe=how.nfe, noise=how.noise, boot=how.boot, spacing=how.spacing
    )
    assert sampler.check(bridge, direct=True) is sampler
