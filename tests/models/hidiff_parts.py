"""HI-Diff's networks with the weights of the golden numbers, and tiny ones."""

import math

import torch

from irbridge.adapters.hidiff.network import HIDiffOptions
from irbridge.models.hidiff import HIDiff
from irbridge.models.hidiff_weights import official

TINY = {
    "width": 4,
    "blocks": [1, 1],
    "heads": [1, 2],
    "refinement": 1,
    "expansion": 2.0,
    "tokens": 2,
    "encoder_blocks": 1,
    "denoiser_width": 6,
    "denoiser_blocks": 1,
}
GOLDEN = {**TINY, "blocks": [1] * 4, "heads": [1, 1, 2, 2], "expansion": 2.66, "steps": 3}


def waves(k, *shape, height=1.0, speed=0.7, middle=0.0):
    """``middle + height * sin(speed * i + k)`` over the flat index i, float64."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (middle + height * torch.sin(speed * i + k)).reshape(shape)


def image(k, *shape):
    return waves(k, *shape, height=0.4, speed=1.3, middle=0.5)


def by_rule(params):
    """The authors' names with the weights that the golden numbers were made with."""
    return {
        name: waves(k, *shape, height=0.2, middle=1.0 if one else 0.0)
        for k, name, shape, one in params
    }


def filled(module, part, params, variant="gopro"):
    """The module in float64 with these weights; every one of them must have a place."""
    theirs = by_rule(params)
    own = {name: theirs.pop(official(part, name, variant)) for name in module.state_dict()}
    assert not theirs, f"no place for {list(theirs)}"
    module.double().load_state_dict(own)
    return module


def tiny(stage=2, seed=0, first=None, **changes):
    """A model of a few thousand weights."""
    torch.manual_seed(seed)
    return HIDiff(HIDiffOptions(**TINY | changes), stage, first=first).eval()
