"""The light network against another implementation of the same paper, and what the project relies
on: no statistics of the whole image, identity at the start, holes filled and nothing else touched.
"""

import pytest
import torch

from irbridge.adapters import nafnet
from irbridge.adapters.nafnet import Block, NAFNet, PixelNorm, local_mean
from irbridge.adapters.trunk import NAFTrunk, Trunk, bridge_network, make_trunk
from irbridge.errors import UserError

SIZES = {"width": 8, "encoder": [1, 2], "middle": 2, "decoder": [2, 1]}
NAMES = {
    "widen": "conv1",
    "depthwise": "conv2",
    "project": "conv3",
    "attention": "sca.1",
    "expand": "conv4",
    "contract": "conv5",
}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(network, seed=0):
    """The network with every weight moved, its zero layers too."""
    with torch.no_grad():
        for k, p in enumerate(network.parameters()):
            p.add_(0.2 * noise(*p.shape, seed=seed + k))
    return network.eval()


def renamed(network):
    """A network's weights under the names of the authors' code."""
    state = {}
    for name, value in network.state_dict().items():
        part, *rest = name.split(".")
        group = {
            "encoder": "encoders",
            "decoder": "decoders",
            "middle": "middle_blks",
            "down": "downs",
        }.get(part, part)
        levels = len(network.encoder)
        if part in ("decoder", "up"):  # theirs run from the coarsest to the finest
            rest[0] = str(levels - 1 - int(rest[0]))
        if part == "up":
            state[f"ups.{rest[0]}.0.weight"] = value
            continue
        words = [NAMES.get(w, w) for w in rest]
        if words[-1] in ("scale1", "scale2"):
            words[-1], value = {"scale1": "beta", "scale2": "gamma"}[words[-1]], value[None]
        state[".".join([group, *words])] = value
    return state


@torch.no_grad()
def test_is_the_published_network():
    arch = pytest.importorskip("spandrel.architectures.NAFNet")
    ours = awake(NAFNet(**SIZES, attention=True))
    theirs = arch.NAFNet(
        img_channel=3, width=8, enc_blk_nums=[1, 2], middle_blk_num=2, dec_blk_nums=[1, 2]
    ).eval()
    theirs.load_state_dict(renamed(ours))
    image = noise(2, 3, 24, 32)
    assert torch.allclose(image + ours(image).sample, theirs(image), atol=1e-4)


def test_has_the_size_that_was_measured():
    count = sum(p.numel() for p in NAFNet(width=24, attention=True).parameters())
    assert 3.7e6 < count < 3.9e6
    assert NAFNet().stride == 16


@torch.no_grad()
def test_pixel_norm_sees_one_pixel():
    norm = awake(PixelNorm(6))
    x = noise(2, 6, 5, 7)
    mean, var = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
    wanted = (x - mean) / (var + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[
        :, None, None
    ]
    assert torch.allclose(norm(x), wanted, atol=1e-5)
    x[0, :, 0, 0] = 100
    assert torch.allclose(norm(x)[1], wanted[1], atol=1e-5) and torch.allclose(
        norm(x)[0, :, 1:], wanted[0, :, 1:], atol=1e-5
    )


@pytest.mark.parametrize("size", [(9, 13), (5, 40), (3, 3)])
@pytest.mark.parametrize("window", [1, 4, 8, 64])
def test_local_mean_is_the_mean_of_the_window(size, window):
    x = noise(2, 3, *size)
    got = local_mean(x, window).expand_as(x)
    if window >= max(size):
        assert torch.allclose(got, x.mean((2, 3), keepdim=True).expand_as(x), atol=1e-6)
        return
    for row, column in [(0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 2)]:
        down, across = (min(window, s) // 2 for s in size)
        part = x[
            ..., max(0, row - down) : row + down + 1, max(0, column - across) : column + across + 1
        ]
        assert torch.allclose(got[..., row, column], part.mean((2, 3)), atol=1e-5)


@pytest.mark.parametrize("attention", [False, True])
@torch.no_grad()
def test_a_tile_gives_what_the_whole_image_gives(attention, monkeypatch):
    """Away from its border by the network's reach; GroupNorm's statistics of the whole image would
    fail here."""
    monkeypatch.setattr(nafnet, "WINDOW", 16)
    network = awake(NAFNet(**SIZES, attention=attention))
    image = noise(1, 3, 320, 160)
    whole, part = network(image), network(image[..., 80:240, :])
    inner = slice(64, 96)
    assert torch.allclose(
        whole.sample[..., 80:240, :][..., inner, 64:96], part.sample[..., inner, 64:96], atol=1e-5
    )
    moved = image.clone()
    moved[..., :16, :] += 3
    assert torch.equal(network(moved).sample[..., 200:, :], whole.sample[..., 200:, :]) or attention


@torch.no_grad()
def test_output_is_zero_and_blocks_are_the_identity_at_the_start():
    x = noise(2, 3, 32, 32)
    assert not NAFNet(**SIZES)(x).sample.any()
    hidden = noise(2, 8, 5, 5)
    assert torch.equal(Block(8)(hidden), hidden)


def test_time_reaches_every_block_and_is_nothing_at_the_start():
    network, x = NAFNet(**SIZES, timed=True), noise(2, 3, 16, 16)
    plain = [block(noise(1, 8, 4, 4), torch.zeros(1, 32)) for block in network.encoder[0]]
    assert torch.equal(plain[0], noise(1, 8, 4, 4))
    network = awake(network)
    early, late = (network(x, torch.full((2,), t)).sample for t in (5.0, 800.0))
    assert (early - late).abs().max() > 1e-3
    mixed = network(x, torch.tensor([5.0, 800.0])).sample
    assert torch.allclose(mixed[0], early[0], atol=1e-5) and torch.allclose(
        mixed[1], late[1], atol=1e-5
    )
    late.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_output_is_computed_in_float32():
    network, x = awake(NAFNet(**SIZES)), noise(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(x).sample
    assert (
        half.dtype == torch.float32
        and (half - network(x).sample).abs().max() < 0.05 * half.abs().max() + 0.05
    )
    assert len(half.unique()) > 2000  # bfloat16 would have few values


@pytest.mark.parametrize(
    "kind", [{"trunk": "nafnet", **SIZES}, {"trunk": "unet", "channels": [8, 8, 16], "layers": 1}]
)
@torch.no_grad()
def test_trunks_give_features_at_each_stride(kind):
    trunk = awake(make_trunk(**kind))
    image, features = trunk(noise(1, 3, 32, 48))
    assert image.shape == (1, 3, 32, 48) and trunk.stride == 4
    assert {s: f.shape[1] for s, f in features.items()} == trunk.features_layout
    assert all(f.shape[2:] == (32 // s, 48 // s) for s, f in features.items())
    assert make_trunk(**kind, predicts=False)(noise(1, 3, 32, 48))[0] is None


@pytest.mark.parametrize(
    "kind", [{"trunk": "nafnet", **SIZES}, {"trunk": "unet", "channels": [8, 8], "layers": 1}]
)
@torch.no_grad()
def test_known_pixels_pass_bit_for_bit_and_the_mask_is_seen(kind):
    trunk, image = awake(make_trunk(masked=True, **kind)), noise(1, 3, 32, 32)
    hole = torch.full((1, 1, 32, 32), -1.0)
    hole[..., 8:20, 4:24] = 1
    out = trunk(torch.cat([image, hole], dim=1))[0]
    assert torch.equal(out[..., :8, :], image[..., :8, :]) and torch.equal(
        out[..., 24:], image[..., 24:]
    )
    assert (out != image)[..., 8:20, 4:24].all()
    larger = hole.clone()
    larger[..., 22:30, 4:24] = 1
    assert (trunk(torch.cat([image, larger], dim=1))[0] - out)[..., 8:20, 4:24].abs().max() > 1e-4
    assert next(trunk.parameters()).shape[1] == 4


def test_defaults_and_mistakes():
    assert isinstance(make_trunk(channels=[8, 8]), Trunk) and isinstance(
        make_trunk("nafnet"), NAFTrunk
    )
    assert bridge_network("nafnet", **SIZES).intro.in_channels == 6
    assert bridge_network(channels=[8], masked=True).config.in_channels == 7
    with pytest.raises(
        UserError, match="adapter.trunk='vit' is unknown; choose one of nafnet, unet"
    ):
        make_trunk("vit", channels=[8])
    with pytest.raises(UserError, match="equally many levels"):
        make_trunk("nafnet", **SIZES | {"decoder": [1]})
