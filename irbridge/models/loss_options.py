"""What a model is trained for."""

from dataclasses import dataclass
from typing import ClassVar

from irbridge.ranges import NOT_NEGATIVE, SHARE, Options, number, one_of, option


@dataclass
class LossOptions(Options):
    """The settings of the loss; ``configs/loss`` has sets of them.

    Attributes:
        states: where training states come from: prior (published), bridge, visited.
        weight: what the squared or absolute error is of: eps (published), v, x0.
        norm: l2 (published) or l1.
        anchor: weight of the loss of g(y).
        anchor_first: share of the training in which g(y) alone is trained.
        trunk_lr: the trunk's part of the learning rate; below 1 where it is trained already.
        lpips: weight of the LPIPS of the clean estimate, and of g(y), beside the loss of any method
            on pixels.
        consistency: weight of the distance between the estimates at two times of one path, for few
            calls; of a bridge whose states are the prior's own.
        consistency_step: how far these times are apart, as a share of the bridge's.
    """

    KEY: ClassVar[str] = "loss"

    states: str = option("visited")  # the model lists the choices
    weight: str = option("x0", one_of("x0", "eps", "v"))
    norm: str = option("l1", one_of("l1", "l2"))
    anchor: float = option(1.0, NOT_NEGATIVE)
    anchor_first: float = option(0.8, SHARE)
    trunk_lr: float = option(1.0, NOT_NEGATIVE, added=True)
    lpips: float = option(0.0, NOT_NEGATIVE, added=True)
    consistency: float = option(0.0, NOT_NEGATIVE, added=True)
    consistency_step: float = option(
        0.05, number(lambda v: 0 < v <= 1, "above 0 and at most 1"), added=True
    )
