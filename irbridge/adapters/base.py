"""What every condition adapter is.

An adapter hands the frozen network residuals, all zero at initialisation. It may also give a coarse
clean estimate g(y), the anchor, at which a bridge can be pinned instead of y.

A new adapter is a subclass of :class:`Adapter` in a module of its own and a file
``configs/adapter/NAME.yaml`` whose ``_target_`` is its dotted name.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from irbridge.assets import CONFIGS
from irbridge.backbones.base import Backbone
from irbridge.errors import UserError


class Condition(NamedTuple):
    """What an adapter knows of a batch of images, computed once however many calls follow.

    Args:
        y: the state of the degraded image; for pixels y itself, without its mask.
        anchor: the coarse estimate g(y) (B, 3, H, W), or None.
        features: what the residuals come from, or None.
        mask: (B, 1, H, W) of a task with holes, above 0 where the image is to be filled, or None.
    """

    y: Tensor
    anchor: Tensor | None
    features: list[Tensor] | Tensor | None
    mask: Tensor | None = None


class Adapter(nn.Module, ABC):
    """What trains beside a frozen network and sees y. It is built as ``Adapter(backbone, ...)``.

    Attributes:
        networks: names of the diffusers classes that it can drive.
        suggested: of several adapters for one network, those of lower numbers are named first.
        anchored: it gives a coarse estimate g(y).
        pretrained: the frozen networks that give g(y) instead of weights of its own.
        masked: y has its mask as a fourth channel.
        stride: what image sides must divide by; set by the constructor.
        reach: pixels from a tile's edge that the pass over y tells from the image's own; None: all.
    """

    networks: ClassVar[tuple[str, ...]] = ()
    suggested: ClassVar[int] = 1
    anchored: bool = False
    masked: bool = False
    pretrained: Sequence[nn.Module] = ()
    stride: int
    reach: int | None = None

    @property
    def silent(self) -> bool:
        """Whether the frozen network gets nothing, so that no features need computing.

        It is so after a training of g(y) alone.
        """
        return False

    def estimate(self, y: Tensor) -> Tensor | None:
        """The coarse estimate g(y), without the features.

        Args:
            y: (B, 3 or 4, H, W) in [-1, 1].

        Returns:
            (B, 3, H, W); None where the adapter gives none.
        """
        return None

    @abstractmethod
    def condition(self, y: Tensor, state: Tensor) -> Condition:
        """What depends on y alone; it is computed once an image.

        Args:
            y: (B, 3 or 4, H, W) in [-1, 1].
            state: its state in the backbone, (B, C, h, w).
        """

    @abstractmethod
    def residuals(
        self, condition: Condition, z: Tensor, time: Tensor, **context: Tensor
    ) -> list[Tensor] | dict[str, Tensor] | None:
        """What one call of the frozen network is given besides its input.

        Args:
            condition: of the images.
            z: the network's input, (B, C, h, w).
            time: the network's timestep, (B,).
            context: what else it is called with, such as a prompt's embedding.

        Returns:
            What the backbone takes: a list of residuals for pixels, arguments of the network's
            forward for latents. None adds nothing.
        """

    @contextmanager
    def active(self, network: nn.Module) -> Iterator[None]:
        """Within the block, calls of the frozen network are made with this adapter.

        Adapters that only add to what the network is given need nothing here. One that has put
        layers of its own into the network lets them count within the block, and there alone.
        """
        yield


def mask_of(y: Tensor) -> Tensor | None:
    """The mask that y (B, 4, H, W) has as its last channel; None of y (B, 3, H, W)."""
    return y[:, 3:] if y.shape[1] > 3 else None


def bare(y: Tensor) -> Condition:
    """What a silent adapter knows of y (B, 3 or 4, H, W); no network computes it."""
    return Condition(y[:, :3], None, None, mask_of(y))


def set_to_zero(module: nn.Module) -> None:
    """Make every parameter of the module 0, in place."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


class ZeroConvs(nn.Module):
    """One zero-initialised 1 x 1 convolution per skip of the frozen network (Zhang et al., 2023).

    Args:
        sources: channels of each feature.
        layout: (channels, stride) of each skip, see ``backbones.pixel.skip_layout``.
    """

    def __init__(self, sources: list[int], layout: list[tuple[int, int]]):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(source, channels, 1)
            for source, (channels, _) in zip(sources, layout, strict=True)
        )
        set_to_zero(self)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """A residual for each skip, of the features' sizes."""
        return [conv(feature) for conv, feature in zip(self.convs, features, strict=True)]


def require_fit(adapter: Adapter, backbone: Backbone) -> None:
    """UserError unless the adapter can drive the backbone's network; it names those that can."""
    kind = type(backbone.network).__name__
    if kind not in adapter.networks:
        raise UserError(
            f"A {type(adapter).__name__} adapter does not fit a backbone whose network is a {kind};"
            f" choose adapter={' or '.join(_listed(fitting(kind)))}."
        )


def fitting(network: str) -> list[str]:
    """The choices of ``adapter=`` for a network of this diffusers class, best first.

    They are the files of ``configs/adapter`` whose class names the network among its own.
    """
    found = []
    for path in CONFIGS.glob("adapter/*.yaml"):
        target = re.search(r"^_target_: *(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        module, _, name = target[1].rpartition(".")
        kind = getattr(import_module(module), name)
        if network in kind.networks:
            found.append((kind.suggested, path.stem))
    return [name for _, name in sorted(found)]


def _listed(names: list[str]) -> list[str]:
    """All but the last name joined by commas, and the last one."""
    return [", ".join(names[:-1]), names[-1]] if len(names) > 1 else names


def in_one_line(error: Exception) -> str:
    """What an exception of another package says, as a part of a sentence."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(line.strip() for line in lines[:2])[:200]
