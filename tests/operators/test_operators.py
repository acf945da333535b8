"""What each operator is: its formula, its alignment, its settings, and deepinv's own beside it."""

import io

import numpy as np
import pytest
import torch
from cases import holes, seeded, uneven
from PIL import Image
from torch.nn import functional as F

deepinv = pytest.importorskip("deepinv", reason="deepinv, of the extra inverse, is missing")

from irbridge.operators.catalog import OPERATORS, operator

SIZE = (3, 16, 24)


def test_the_toy_operators_of_the_published_numbers():
    size = (3, 8, 8)
    x = seeded(1, *size)
    pool = operator("sr", size, factor=2, kernel="average")
    m = pool(x)
    assert torch.allclose(m, F.avg_pool2d(x, 2))
    repeated = m.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(pool.inverse(m), repeated)
    assert torch.allclose(pool.adjoint(m), repeated / 4)
    i, j = np.ogrid[:8, :8]
    kept = (3 * i + 5 * j + i * j) % 4 != 0
    mask = operator("inpaint", size, holes=~kept)
    assert torch.equal(mask(x), x * torch.from_numpy(kept))
    assert torch.equal(operator("denoise", size)(x), x)


def test_those_that_need_no_deepinv_are_what_deepinv_has():
    x = seeded(2, *SIZE, dtype=torch.float32)
    kept = ~holes(SIZE)
    theirs = deepinv.physics.Inpainting(img_size=SIZE, mask=kept.float().expand(SIZE))
    assert torch.equal(operator("inpaint", SIZE, holes=~kept)(x), theirs.A(x))
    theirs = deepinv.physics.Decolorize(srf="flat")
    grey = operator("colour", SIZE)
    assert torch.allclose(grey(x), theirs.A(x), atol=1e-6)
    assert torch.allclose(grey.inverse(grey(x)), theirs.A_dagger(theirs.A(x)), atol=1e-6)


def test_tomography_is_deepinvs_up_to_its_norm():
    size = (2, 20, 20)
    A = operator("ct", size, angles=9)
    theirs = deepinv.physics.Tomography(angles=9, img_width=20, normalize=False)
    x = seeded(2, *size, dtype=torch.float32)
    assert torch.allclose(A(x) * A.norm, theirs.A(x), atol=1e-4)
    assert A(x).shape == (2, 2, 29, 9)
    wide = operator("ct", (1, 11, 20), angles=[0.0, 90.0])
    image = seeded(1, 1, 11, 20)
    sums = wide(image) * wide.norm
    # at 0 degrees the columns are added up
    inside = sums[0, 0, :, 0]
    start = (len(inside) - 20) // 2
    assert torch.allclose(inside[start : start + 20].sum(), image.sum(), atol=1e-9)


def test_tomography_has_unit_norm():
    A = operator("ct", (1, 18, 25), angles=12)
    x = seeded(1, 1, 18, 25)
    for _ in range(200):
        x = A.adjoint(A(x))
        norm = x.norm()
        x = x / norm
    assert 1 <= norm.sqrt() + 1e-9 < 1.001


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_the_small_bicubic_image_lies_where_pillow_has_it(factor):
    side = 12 * factor
    A = operator("sr", (1, side, side), factor=factor)
    rows = torch.sin(torch.arange(side).double() / side * 2 * torch.pi)
    image = (rows[:, None] + 0.5 * rows.roll(side // 3)[None]) / 2
    small = A(image[None, None])[0, 0]
    at = Image.fromarray(image.float().numpy(), mode="F")
    theirs = np.asarray(at.resize((12, 12), Image.Resampling.BICUBIC))
    inner = slice(2, -2)  # Pillow does not go on periodically
    assert np.abs(small.numpy() - theirs)[inner, inner].max() < 1e-3
    enlarged = A.view(small[None, None])[0, 0]
    inner = slice(2 * factor, -2 * factor)
    assert (enlarged - image)[inner, inner].abs().max() < 0.02


def test_a_blur_is_a_true_convolution_centred_on_its_kernel():
    for padding in ("circular", "reflect", "replicate"):
        for shape in ((3, 5), (4, 6)):
            kernel = uneven(*shape)
            A = operator("blur", SIZE, kernel=kernel, padding=padding)
            point = torch.zeros(1, *SIZE).double()
            point[..., 8, 12] = 1
            top, left = 8 - shape[0] // 2, 12 - shape[1] // 2
            seen = A(point)[0, :, top : top + shape[0], left : left + shape[1]]
            assert torch.allclose(seen, (kernel / kernel.sum()).double().expand_as(seen), atol=1e-9)
            flat = torch.full((1, *SIZE), 0.7).double()
            assert torch.allclose(A(flat), flat)


def test_a_blurs_threshold_limits_what_noise_becomes():
    A = operator("blur", SIZE, kernel="gaussian", std=2)
    assert not A.spectral or (A.singular[A.singular > 0].min() >= 0.03)
    noise = seeded(1, *SIZE)
    assert A.inverse(noise).norm() <= noise.norm() / 0.03
    exact = operator("blur", SIZE, kernel="uniform", width=4, threshold=0)
    x = seeded(1, *SIZE)
    assert (exact.singular == 0).any()  # its zeros are zeros, not rounding
    assert torch.allclose(exact(exact.inverse(exact(x))), exact(x), atol=1e-9)


def test_compressed_sensing_comes_from_its_seed_alone():
    x = seeded(2, *SIZE)
    torch.manual_seed(1)
    one = operator("cs", SIZE, rate=0.1, seed=4)(x)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = operator("cs", SIZE, rate=0.1, seed=4)(x)
    assert torch.equal(one, again) and torch.equal(state, torch.get_rng_state())
    assert one.shape == (2, round(0.1 * 3 * 16 * 24))
    assert not torch.equal(one, operator("cs", SIZE, rate=0.1, seed=5)(x))
    whole = operator("cs", SIZE, rate=1)
    assert torch.allclose(whole.inverse(whole(x)), x)


def test_jpeg_is_near_what_pillow_writes():
    rng = np.random.default_rng(0)
    rough = rng.uniform(0, 1, (5, 7, 3)).astype(np.float32)
    image = np.asarray(Image.fromarray((rough * 255).astype(np.uint8)).resize((53, 37)))
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    for quality in (5, 40, 90):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
        theirs = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)[None]
        ours = operator("jpeg", (3, 37, 53), quality=quality)(x)
        difference = (ours * 127.5 + 127.5 - theirs)[..., :32, :48].abs()
        # a coefficient that a byte's rounding tips to the other side changes its block alone
        blocks = difference.mean((0, 1)).view(4, 8, 6, 8).mean((1, 3))
        assert blocks.median() < 0.8, quality


def test_jpeg_rounds_but_its_gradient_does_not():
    A = operator("jpeg", (1, 16, 16), quality=10)
    x = (0.5 * seeded(1, 1, 16, 16)).requires_grad_()
    m = A(x)
    assert not torch.allclose(m, x, atol=0.05)
    (gradient,) = torch.autograd.grad(m.sum(), x)
    assert torch.allclose(gradient, torch.ones_like(x), atol=1e-6)


def test_hdr_clips_and_starts_from_half():
    A = operator("hdr", SIZE)
    x = seeded(1, *SIZE)
    assert torch.equal(A(x), (2 * x).clamp(-1, 1)) and torch.equal(A.inverse(A(x)), A(x) / 2)


def test_a_view_can_be_looked_at():
    x = seeded(2, *SIZE, dtype=torch.float32)
    for name in OPERATORS:
        given = {"inpaint": {"holes": holes(SIZE)}, "blur": {"std": 1.0}}
        A = operator(name, SIZE, **given.get(name, {}))
        assert A.view(A(x)).shape == x.shape, name
    hidden = holes(SIZE)
    A = operator("inpaint", SIZE, holes=hidden)
    assert (A.view(x)[..., hidden] == 0).all()  # middle grey, whatever m holds there
    grey = operator("colour", SIZE).view(x.mean(1, keepdim=True))
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_what_each_can_do():
    able = {
        name: (kind.linear, kind.spectral, kind.differentiable) for name, kind in OPERATORS.items()
    }
    full, curved = (True, True, True), (False, False, True)
    assert able == {
        "inpaint": full,
        "sr": full,
        "blur": (True, False, True),
        "colour": full,
        "denoise": full,
        "cs": full,
        "ct": (True, False, True),
        "jpeg": curved,
        "hdr": curved,
    }
    assert operator("blur", SIZE, kernel=uneven(3, 3)).spectral
    assert not operator("blur", SIZE, kernel=uneven(3, 3), padding="reflect").spectral
