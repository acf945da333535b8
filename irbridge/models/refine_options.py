"""How a predictor and the diffusion of its residual are trained and sampled (``recipe=refine``)."""

from dataclasses import dataclass
from typing import ClassVar

from irbridge.errors import UserError
from irbridge.ranges import INSIDE, PLACE, POSITIVE, SAMPLES, Options, option, shown

MEASURED = "measured"


@dataclass
class RefineOptions(Options):
    """The settings of a :class:`~irbridge.models.refinement.Refinement`.

    Attributes:
        predictor: what gives g(y): null, a network of the adapter's size that is trained here;
            the folder of a finished run of recipe=regression; or spandrel:FILE.
        joint: the denoiser's loss trains the predictor too, as published.
        scale: std of the noise in the state: 1 as published, or "measured", that of the residuals
            of the first training batch, which gives the denoiser a residual of unit size.
        samples: a restored image is the mean of so many draws.
        end: the squared share of the residual that is left at the sampler's start, whose betas rise
            in a straight line from 1e-6; null: even times of the training's own schedule.
        reflect: a restored image is seen by the denoiser with its reflection around it. With zeros
            there, as a convolution pads, it underrates the outermost pixels' noise, which stays.
        denoiser: sizes of the denoiser that differ from the adapter's.
        sizes: those of the predictor, where they differ; written with a trained model.
        digest: SHA-256 of a pretrained predictor's file; likewise.
    """

    KEY: ClassVar[str] = "refine"

    predictor: str | None = option(None, PLACE)
    joint: bool = True
    scale: float | str = 1.0
    samples: int = option(1, SAMPLES)
    end: float | None = option(1e-3, INSIDE)
    reflect: bool = option(False, added=True)
    denoiser: dict = option({})
    sizes: dict = option({})
    digest: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.scale != MEASURED and not POSITIVE.fits(self.scale):
            raise UserError(
                f"refine.scale={shown(self.scale)} must be {POSITIVE.wanted}, or {MEASURED}."
            )
