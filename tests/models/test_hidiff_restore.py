"""HI-Diff as a method: what it is told, tiles, seeds, sizes."""

import numpy as np
import pytest
import torch
from hidiff_parts import tiny

from irbridge.data.pair import Pair
from irbridge.errors import UserError
from irbridge.evaluation.methods import methods
from irbridge.images.tiles import WHOLE, Tiles


def picture(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def lively(**changes):
    """A model whose tokens change much of what it restores."""
    model = tiny(**changes)
    with torch.no_grad():
        for level in (*model.network.transformer.encoder, *model.network.transformer.decoder):
            level.integration.project.weight.mul_(4)
    return model


@pytest.mark.parametrize("size", [(40, 56), (7, 9), (1, 30), (33, 64)])
def test_any_size(size):
    image = picture(*size)
    restored = tiny().restore(image)
    assert restored.shape == image.shape and np.isfinite(restored).all()
    assert tiny(1).restore(image, clean=image).shape == image.shape


def test_the_seed_of_an_image_decides():
    """Whatever batch it is in."""
    model, images = lively(), torch.rand(2, 3, 24, 24) * 2 - 1
    both = model.restore(images, seeds=[5, 9])
    assert torch.equal(both, model.restore(images, seeds=[5, 9]))
    for image, restored, seed in zip(images, both, (5, 9), strict=True):
        assert torch.allclose(model.restore(image[None], seed=seed)[0], restored, atol=1e-6)
    assert not torch.equal(both, model.restore(images, seeds=[6, 10]))


def test_tokens_are_those_of_the_whole_image():
    """Whatever the tiles: the encoder's convolutions see all that they would see at once."""
    model, image = lively(), torch.rand(1, 3, 96, 320)
    whole = model.tokens(image, [3])
    assert torch.allclose(model.tokens(image, [3], tiles=Tiles(64, 16)), whole, atol=1e-6)
    assert not torch.allclose(model.tokens(image[..., :96], [3]), whole, atol=1e-3)


def without_statistics(model):
    """Attention that looks at no pixels: the Transformer then sees no further than its layers."""
    with torch.no_grad():
        for name, value in model.network.transformer.named_parameters():
            if name.endswith("temperature"):
                value.zero_()
    return model


def test_tiles_differ_by_what_attention_sees_alone():
    """With the whole image's tokens, and attention that looks at no pixels, tiles give the whole
    image; with tokens of their own, or attention of their own, they do not."""
    model, image = lively(), torch.rand(1, 3, 64, 256) * 2 - 1
    cut = Tiles(128, 64, still=24)

    def apart(**options):
        whole, tiled = (
            list(model.trajectory(image, tiles, seeds=[1], **options))[0].x0
            for tiles in (WHOLE, cut)
        )
        return float((whole - tiled).abs().max())

    seen = apart()
    without_statistics(model)
    assert apart() < 1e-5 < seen
    whole = list(model.trajectory(image, seeds=[1]))[0].x0
    part = list(model.trajectory(image[..., :128], seeds=[1]))[0].x0
    assert float((part - whole[..., :128])[..., :96].abs().max()) > 1e-4


def test_a_batch_of_tiles_has_the_tokens_of_its_images():
    model, images = lively(), torch.rand(2, 3, 64, 96) * 2 - 1
    cut = Tiles(64, 16)
    both = list(model.trajectory(images, cut, seeds=[1, 2]))[0].x0
    for i, image in enumerate(images):
        alone = list(model.trajectory(image[None], cut, seeds=[i + 1]))[0].x0[0]
        assert torch.allclose(both[i], alone, atol=1e-5)


def test_an_oracle_restores_nothing_by_itself():
    model, image = tiny(1), picture(40, 56)
    with pytest.raises(UserError, match="oracle that sees the clean image.*stage=2 stage1=RUN"):
        model.restore(image)
    with pytest.raises(UserError, match="clean must be an image of the degraded one's size"):
        model.restore(image, clean=picture(64, 64))
    told = model.restore(image, clean=picture(40, 56, seed=1))
    assert not np.array_equal(told, model.restore(image, clean=image))


class Pairs:
    names = ("a", "b")

    def __getitem__(self, i):
        return Pair(self.names[i], picture(16, 16, seed=i), picture(16, 16, seed=9))


def test_a_number_of_steps_is_its_own_or_refused():
    for model, own in ((tiny(2), tiny(2).options.steps), (tiny(1), 1)):
        model.check_fixed(nfe=own, rule=None)
        with pytest.raises(UserError, match=f"steps={own + 1} is for .* {own} step.*leave steps"):
            model.check_fixed(nfe=own + 1)
        with pytest.raises(UserError, match=r"sampler\.rule=ddim is for a model that samples"):
            model.check_fixed(rule="ddim")


def test_an_oracle_is_named_so_wherever_it_is_scored():
    (row,) = methods(tiny(1), 0, pairs=Pairs())
    assert row.label == "HI-Diff stage 1, oracle (sees the clean image)"
    assert row.key == "hidiff_oracle" and row.more == {"oracle": "sees the clean image"}
    seen = picture(16, 16, seed=9)
    assert not np.array_equal(row.restore(seen, "a"), row.restore(seen, "b"))
    (row,) = methods(tiny(2), 0, pairs=Pairs())
    assert (row.label, row.key, row.more) == ("HI-Diff", "hidiff", {})


def test_half_precision_leaves_the_tokens_alone():
    model, image = lively(), picture(40, 56)
    full = model.restore(image)
    model.precision = "bf16"
    half = model.restore(image)
    assert 0 < np.abs(full - half).max() < 0.1
    tensor = torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.tokens(tensor, [0]), tiny_tokens(tensor))


def tiny_tokens(tensor):
    return lively().tokens(tensor, [0])
