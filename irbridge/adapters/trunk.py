"""The light networks that train.

The trunk of every pixel adapter, which is also the regression baseline, and the networks of bridges
trained from scratch: one definition, so that comparisons are fair.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from irbridge.adapters.lucid_unet import LucidUNet
from irbridge.adapters.nafnet import NAFNet
from irbridge.adapters.residual_unet import ResidualUNet
from irbridge.backbones.half_precision import keep_ends
from irbridge.backbones.lean import unet_class
from irbridge.environment import affordable
from irbridge.errors import UserError
from irbridge.ranges import DEPTH, LEVELS, WIDTH, check_values, each, one_of, whole

KINDS = "nafnet", "unet", "residual"
BRIDGES = *KINDS, "lucid"  # of a bridge from scratch, which is asked for no features
LAYERS = whole(1, DEPTH)
# of an adapter's config
RANGES = {
    "width": whole(1, WIDTH),
    "encoder": each(LAYERS, most=LEVELS),
    "middle": LAYERS,
    "decoder": each(LAYERS, most=LEVELS),
    "attention": one_of(True, False),
    "channels": each(whole(1, WIDTH), most=LEVELS),
    "layers": LAYERS,
}
FIELDS = "trunk", *RANGES
SIZES = "adapter.width, adapter.channels or adapter.layers"


def unet(channels: Sequence[int], layers: int, inputs: int = 3, outputs: int = 3) -> nn.Module:
    """A diffusers ``UNet2DModel`` without attention, whose output is 0 at initialisation.

    Args:
        channels: width per level, finest first.
        layers: residual blocks per level.
        inputs: channels that it takes.
        outputs: channels that it gives.
    """
    n = len(channels)
    groups = next(g for g in (8, 4, 2, 1) if all(width % g == 0 for width in channels))
    network = unet_class()(
        in_channels=inputs,
        out_channels=outputs,
        layers_per_block=layers,
        block_out_channels=tuple(channels),
        down_block_types=("DownBlock2D",) * n,
        up_block_types=("UpBlock2D",) * n,
        norm_num_groups=groups,
        add_attention=False,
    )
    nn.init.zeros_(network.conv_out.weight)
    nn.init.zeros_(network.conv_out.bias)
    keep_ends(network.conv_in, network.conv_out)
    return network


def bridge_network(trunk: str = "unet", masked: bool = False, **sizes) -> nn.Module:
    """The network of a bridge from scratch, on (x_t, y) and a time.

    The arguments are those of :func:`make_trunk`; ``trunk`` may also be "lucid", the U-Net of
    DiffUIR and RDBM, of the widths ``channels``.
    """
    _known(trunk, BRIDGES)
    check_values(RANGES, sizes, "adapter")
    if trunk == "nafnet":
        own = _nafnet(sizes)
        return affordable(lambda: NAFNet(6 + masked, 3, **own, timed=True), SIZES)
    channels, layers = sizes["channels"], sizes.get("layers", 1)
    if trunk == "lucid":
        return affordable(lambda: LucidUNet(channels, 6 + masked), SIZES)
    if trunk == "residual":
        return affordable(lambda: ResidualUNet(channels, layers, 6 + masked, timed=True), SIZES)
    return affordable(lambda: unet(channels, layers, inputs=6 + masked), SIZES)


def stride_of(network: nn.Module) -> int:
    """What image sides must divide by."""
    if hasattr(network, "stride"):
        return network.stride
    return 2 ** (len(network.config.block_out_channels) - 1)


def make_trunk(
    trunk: str = "unet",
    predicts: bool = True,
    image_channels: int = 3,
    masked: bool = False,
    **sizes,
) -> nn.Module:
    """A :class:`NAFTrunk`, a :class:`Trunk` or a :class:`ResidualTrunk`.

    Args:
        trunk: "nafnet", "unet" or "residual".
        predicts: it gives an image, not features alone.
        image_channels: of its input.
        masked: its input has one channel more, the mask: 1 where the image is to be filled, else
            -1.
        sizes: ``width encoder middle decoder attention`` of "nafnet", ``channels layers`` of
            "unet" and "residual"; the others' are not looked at.
    """
    _known(trunk)
    check_values(RANGES, sizes, "adapter")
    sees = predicts, image_channels, masked
    if trunk == "nafnet":
        own = _nafnet(sizes)
        return affordable(lambda: NAFTrunk(*sees, **own), SIZES)
    channels, layers = sizes["channels"], sizes.get("layers", 1)
    kind = ResidualTrunk if trunk == "residual" else Trunk
    return affordable(lambda: kind(channels, layers, *sees), SIZES)


def _known(kind: str, kinds: tuple[str, ...] = KINDS) -> None:
    if kind in kinds:
        return
    if kind in BRIDGES:
        raise UserError(
            f"adapter.trunk={kind} is the network of a bridge from scratch, such as recipe=rdbm;"
            f" choose one of {', '.join(kinds)}."
        )
    raise UserError(f"adapter.trunk={kind!r} is unknown; choose one of {', '.join(kinds)}.")


def _nafnet(sizes: dict) -> dict:
    chosen = {
        key: sizes[key]
        for key in ("width", "encoder", "middle", "decoder", "attention")
        if key in sizes
    }
    if len(chosen.get("encoder", ())) != len(chosen.get("decoder", ())):
        raise UserError(
            f"adapter.encoder={list(chosen['encoder'])} and"
            f" adapter.decoder={list(chosen['decoder'])} must have equally many levels."
        )
    return chosen


class Trunk(nn.Module):
    """A light :func:`unet` on y alone, its time input held at 0.

    It gives features per stride and, if ``predicts``, the image y + correction, which is y at
    initialisation. The arguments are those of :func:`make_trunk`.

    Attributes:
        keeps_known: pixels outside the holes of a masked y stay as they are.
    """

    keeps_known = True

    def __init__(
        self,
        channels: Sequence[int],
        layers: int = 1,
        predicts: bool = True,
        image_channels: int = 3,
        masked: bool = False,
    ):
        super().__init__()
        self.unet = unet(channels, layers, image_channels + masked, image_channels)
        self.predicts, self.stride, self.masked = predicts, stride_of(self.unet), masked
        self.reach = None  # its normalisation sees the whole image
        if not predicts:
            self.unet.conv_norm_out = self.unet.conv_act = self.unet.conv_out = nn.Identity()

    @property
    def features_layout(self) -> dict[int, int]:
        """Stride -> channels of the features."""
        channels = self.unet.config.block_out_channels
        finer = {2 ** (level - 1): channels[level] for level in range(2, len(channels))}
        return {self.stride: channels[-1], **finer, 1: channels[0]}

    def forward(self, y: Tensor) -> tuple[Tensor | None, dict[int, Tensor]]:
        """The image and the features of y.

        Args:
            y: (B, C, H, W) in [-1, 1], sides divisible by ``stride``.

        Returns:
            The image (B, C, H, W), None unless ``predicts``; and features by their stride.
        """
        outputs: list[Tensor] = []

        def keep(block, args, output) -> None:
            outputs.append(output)

        blocks = [self.unet.mid_block, *self.unet.up_blocks]
        handles = [block.register_forward_hook(keep) for block in blocks]
        try:
            correction = self.unet(y, 0).sample
        finally:
            for handle in handles:
                handle.remove()
        features = {y.shape[-1] // output.shape[-1]: output for output in outputs}
        image = None
        if self.predicts:
            image = filled(correction.float(), y, self.masked, self.keeps_known)
        return image, features


class _LocalTrunk(nn.Module):
    """A network of limited reach on y alone, in the place of :class:`Trunk`.

    Args:
        net: gives an image by its layer ``ending``, and features.
        predicts: as of :func:`make_trunk`.
        masked: likewise.
    """

    keeps_known = True  # as of Trunk

    def __init__(self, net: nn.Module, predicts: bool, masked: bool):
        super().__init__()
        self.net, self.predicts, self.masked = net, predicts, masked
        self.stride, self.reach = net.stride, net.reach
        if not predicts:
            self.net.ending = nn.Identity()

    def forward(self, y: Tensor) -> tuple[Tensor | None, dict[int, Tensor]]:
        """As :class:`Trunk`'s."""
        correction, features = self.net(y)
        if not self.predicts:
            return None, features
        return filled(correction, y, self.masked, self.keeps_known), features


class NAFTrunk(_LocalTrunk):
    """A light :class:`~irbridge.adapters.nafnet.NAFNet` on y alone, in the place of :class:`Trunk`.

    ``sizes`` are those of NAFNet; the other arguments those of :func:`make_trunk`.
    """

    def __init__(
        self, predicts: bool = True, image_channels: int = 3, masked: bool = False, **sizes
    ):
        net = NAFNet(image_channels + masked, image_channels, **sizes)
        super().__init__(net, predicts, masked)

    @property
    def features_layout(self) -> dict[int, int]:
        """Stride -> channels of the features."""
        levels = range(len(self.net.encoder), -1, -1)
        return {2**level: self.net.width * 2**level for level in levels}


class ResidualTrunk(_LocalTrunk):
    """A :class:`~irbridge.adapters.residual_unet.ResidualUNet` on y alone.

    The arguments are those of :class:`Trunk`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        layers: int = 3,
        predicts: bool = True,
        image_channels: int = 3,
        masked: bool = False,
    ):
        net = ResidualUNet(channels, layers, image_channels + masked, image_channels)
        super().__init__(net, predicts, masked)

    @property
    def features_layout(self) -> dict[int, int]:
        """Stride -> channels of the features."""
        return {2**level: width for level, width in reversed(list(enumerate(self.net.channels)))}


def filled(correction: Tensor, y: Tensor, masked: bool, keeps_known: bool) -> Tensor:
    """Y + correction; where known pixels are kept, bit for bit, in the holes alone.

    Args:
        correction: (B, C, H, W).
        y: alike; a masked one has its mask as a last channel, above 0 in the holes.
        masked: whether it has.
        keeps_known: pixels outside the holes stay as they are.
    """
    if not masked:
        return y + correction
    if not keeps_known:
        return y[:, :-1] + correction
    return torch.where(y[:, -1:] > 0, y[:, :-1] + correction, y[:, :-1])
