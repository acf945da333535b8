"""Stochastic refinement: a predictor, and a diffusion of what it leaves (Whang et al., CVPR 2022).

``x_t - g(y)`` is a DDPM of the residual x0 - g(y), and x_t the state of the mean-reverting process
:class:`~irbridge.bridges.ornstein_uhlenbeck.LinearOU` that ends at g(y). So the project's samplers
follow it; the networks see the residual's state, and y itself.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from irbridge.adapters.base import mask_of
from irbridge.adapters.pretrained_anchor import PretrainedAnchor
from irbridge.adapters.trunk import stride_of
from irbridge.bridges.base import Bridge
from irbridge.bridges.ornstein_uhlenbeck import LinearOU
from irbridge.errors import UserError
from irbridge.gaussian.marginal import Marginal, broadcast
from irbridge.gaussian.noise import Noise
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.refine_options import MEASURED, RefineOptions
from irbridge.models.restorer import Restorer, Row, State, keep_known
from irbridge.models.training_step import Batch, TrainingStep
from irbridge.samplers import Estimate, Query, Sampler, drive, make

CALLS = 10  # of a sampler that does not say how many; published are 500, and 10 for a mean


class Parts(nn.ModuleDict):
    """The networks that are stored and averaged together, with the residual's measured std."""

    def __init__(self, parts: dict[str, nn.Module], measured: bool):
        super().__init__(parts)
        if measured:  # 0: not yet
            self.register_buffer("residual_std", torch.zeros((), dtype=torch.float32))


class Refinement(Restorer):
    """An initial predictor g, which runs once, and a denoiser of the residual x0 - g(y).

    The one loss is the L1 error of the noise. With ``joint`` its gradient passes through the state
    into g, which has no other loss: then nothing makes g(y) the best estimate, or any given one.

    Args:
        bridge: the training schedule.
        predictor: a trunk, or a pretrained network, which stays as it is.
        denoiser: on (residual's state, y) and a time, which is 1000 ``sqrt(abar)``; see
            ``trunk.bridge_network``.
        options: None: the defaults of the class.
        sampler: a sampler, or fields for :func:`irbridge.samplers.make`.
        masked: whether y has a mask.
    """

    endpoint = "anchor"  # so that a training's validation scores g(y) as well

    def __init__(
        self,
        bridge: Bridge,
        predictor: nn.Module,
        denoiser: nn.Module,
        options: RefineOptions | None = None,
        sampler: Sampler | dict | None = None,
        masked: bool = False,
    ):
        super().__init__()
        self.options = options or RefineOptions()
        self.schedule, self.masked = _fitting(bridge), masked
        self.pretrained = (predictor,) if isinstance(predictor, PretrainedAnchor) else ()
        self.samples = self.options.samples
        _check_joint(self.options, bool(self.pretrained))
        if not self.pretrained and predictor.masked != masked:
            raise UserError(
                f"The predictor takes {3 + predictor.masked} channels and this task's images have"
                f" {3 + masked}; give refine.predictor a run of the same task."
            )
        parts = {"denoiser": denoiser}
        if not self.pretrained:
            parts["predictor"] = predictor.requires_grad_(self.options.joint)
        self.own = Parts(parts, self.options.scale == MEASURED)
        self.stride = max(stride_of(denoiser), 1 if self.pretrained else predictor.stride)
        reaches = [None if self.pretrained else predictor.reach, self._denoiser_reach]
        self.reach = None if None in reaches else max(reaches)
        given = sampler if isinstance(sampler, Sampler) else make("posterior", nfe=CALLS)
        self._settings = given if isinstance(sampler, Sampler) else given.changed(**(sampler or {}))
        # what cannot be served is refused now, also no calls: its denoiser is what trains
        self._settings.check(self.process(self._settings), direct=True)

    @property
    def denoiser(self) -> nn.Module:
        """The network that is asked at every call."""
        return self.own["denoiser"]

    @property
    def _denoiser_reach(self) -> int | None:
        return getattr(self.denoiser, "reach", None)

    @property
    @override
    def digest(self) -> str | None:
        return self.pretrained[0].digest if self.pretrained else None

    @property
    def sampler(self) -> Sampler:
        """How it samples."""
        return self._settings

    @sampler.setter
    def sampler(self, given: Sampler) -> None:
        self._settings = given

    @override
    def trainable(self) -> nn.Module:
        return self.own

    @override
    def parameter_groups(self) -> list[dict]:
        return [{"params": [p for p in self.own.parameters() if p.requires_grad]}]

    @override
    def describe(self) -> dict[str, dict]:
        kept = {"sizes": self.options.sizes}
        if self.pretrained:
            kept |= {"predictor": self.pretrained[0].name, "digest": self.digest}
        return {"refine": asdict(self.options) | kept}

    @property
    def scale(self) -> float:
        """The std of the noise in the state; 1 where it is still to be measured."""
        if self.options.scale != MEASURED:
            return float(self.options.scale)
        return float(self.own.residual_std) or 1.0

    @property
    def bridge(self) -> LinearOU:
        """The process that the denoiser is trained on, around g(y)."""
        return replace(self.schedule, lam=self.scale)

    def process(self, sampler: Sampler) -> LinearOU:
        """The process that a sampler follows: so many steps as it makes calls, see ``end``.

        Given times are those of the training's schedule.
        """
        if self.options.end is None or sampler.times is not None:
            return self.bridge
        return LinearOU.down_to(self.options.end, max(sampler.nfe, 1), self.scale)

    def predict(self, y: Tensor) -> Tensor:
        """The initial estimate g(y), (B, 3, H, W), of y as :meth:`seen`."""
        if self.pretrained:
            guess = self.pretrained[0].to(y.device)(y[:, :3])
            return keep_known(guess, y[:, :3], mask_of(y) if self.keeps_known else None)
        with nullcontext() if self.options.joint else torch.no_grad(), self.networks():
            return self.own["predictor"](y)[0]

    def noise_of(self, residual: Tensor, law: Marginal, y: Tensor) -> Tensor:
        """The denoiser's estimate of the noise, of the type of the state.

        Args:
            residual: the state less g(y), (B, 3, H, W).
            law: of the state, float64, () or (B,).
            y: as :meth:`seen`.
        """
        level = (1000 * law.clean).expand(len(y)).float().to(y.device)
        with self.networks():
            inputs = torch.cat([residual / self.scale, y], dim=1)
            return self.denoiser(inputs, level).sample.to(residual.dtype)

    def denoise(self, x: Tensor, law: Marginal, y: Tensor, guess: Tensor) -> Tensor:
        """The clean estimate of a state x (B, 3, H, W) around ``guess``, the initial estimate."""
        residual = x - guess
        if self.options.reflect:
            # so far that the network's coarsest pixels stay where they were
            around = self.stride
            wide = self.noise_of(_framed(residual, around), law, _framed(y, around))
            noise = wide[..., around:-around, around:-around]
        else:
            noise = self.noise_of(residual, law, y)
        x0 = guess + (residual - broadcast(law.noise, x) * noise) / broadcast(law.clean, x)
        return keep_known(x0, y[:, :3], mask_of(y) if self.keeps_known else None)

    def anchor(self, y: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """The initial estimate of images y as :meth:`seen`, tile by tile."""
        reach = None if self.pretrained else self.own["predictor"].reach
        return tiles.reaching(reach)(self.predict, y, stride=self.stride)

    @torch.no_grad()
    def coarse(self, y: Tensor, tiles: Tiles = WHOLE, **options) -> Iterator[State]:
        """The initial estimate g(y) alone, without any call of the denoiser."""
        guess = self.anchor(self.seen(self.given(y)), tiles)
        yield State(self.schedule.T, guess, guess, guess)

    @override
    @torch.no_grad()
    def trajectory(
        self, y: Tensor, seeds: list[int] | None = None, tiles: Tiles = WHOLE, **options
    ) -> Iterator[State]:
        """The trajectory around g(y); estimates are clipped to [-1, 1] as images, not as residuals.

        Without any call (``nfe=0``) it is g(y) alone. ``reverse`` is ``implicit`` here, and the
        samplers of a prior (such as ddim) step on the process itself.
        """
        sampler = self.sampler_with(**options)
        if sampler.nfe == 0:
            yield from self.coarse(y, tiles)
            return
        y = self.seen(self.given(y))
        process, guess = self.process(sampler), self.anchor(y, tiles)
        noise = Noise(seeds if seeds is not None else list(range(len(y))))
        cut = tiles.reaching(self._denoiser_reach)

        def ask(query: Query) -> Estimate:
            law = process.marginal(query.t)
            x0 = cut(
                lambda x, y, guess: self.denoise(x, law, y, guess),
                query.x,
                y,
                guess,
                stride=self.stride,
            )
            return Estimate(x0.clamp(-1, 1), query.x, law)

        for query, estimate in drive(sampler.loop(process, guess, noise), ask):
            yield State(query.t, query.x, query.x, estimate.x0)

    @override
    def sampler_with(self, **options) -> Sampler:
        sampler = self._settings.changed(**options)
        return sampler if sampler.nfe == 0 else sampler.check(self.process(sampler), direct=True)

    @override
    def passes(self, **options) -> int:
        return self.calls(**options) + 1

    @override
    def rows(self, **options) -> list[Row]:
        sampler = self.sampler_with(**options)
        alone = Row("Predictor g(y) alone", "anchor", {"trajectory": self.coarse})
        if sampler.nfe == 0:
            return [alone]
        label = f"Stochastic refinement ({sampler.describe()}, {sampler.nfe} calls)"
        return [alone, Row(label, "refine", options, sampler.nfe)]

    @override
    def loss(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """The L1 error of the noise, (B,), at levels that are uniform between two neighbours."""
        clean, noise = batch.clean, step.noise
        y = self.seen(batch.degraded)
        guess = self.predict(y)
        left = clean - guess
        if self.options.scale == MEASURED and step.progress == 0 and not self.own.residual_std:
            self._measure(left)
        # uniform between whole times, where sqrt(abar) is a straight line
        law = self.bridge.marginal(self.schedule.T * (1 - step.uniform.cpu().double()))
        state = broadcast(law.clean, clean) * left + broadcast(law.noise, clean) * noise
        error = self.noise_of(state, law, y) - noise
        return {"noise": error.abs().flatten(1).mean(1)}

    @torch.no_grad()
    def _measure(self, residual: Tensor) -> None:
        """Keep the std of the residuals of a batch, the same in all processes."""
        variance = residual.float().square().mean()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(variance)
            variance /= torch.distributed.get_world_size()
        self.own.residual_std.copy_(variance.sqrt().clamp(min=1e-4))


def _framed(image: Tensor, width: int) -> Tensor:
    """An image (B, C, H, W) with so many pixels of its reflection on each side.

    Of one that is too small to reflect the outermost pixels are repeated.
    """
    mode = "reflect" if width < min(image.shape[-2:]) else "replicate"
    return functional.pad(image, (width,) * 4, mode=mode)


def _fitting(bridge: Bridge) -> LinearOU:
    """The bridge itself; UserError unless it is the process of a residual."""
    if not isinstance(bridge, LinearOU) or bridge.start != "published":
        raise UserError(
            f"method=refine diffuses a residual, and {type(bridge).__name__} with"
            f" bridge.start={bridge.start} does something else; use bridge=refine."
        )
    if bridge.lam != 1:
        raise UserError(
            f"bridge.lam={bridge.lam:g} is what refine.scale says of method=refine; give"
            f" refine.scale={bridge.lam:g} instead."
        )
    return bridge


def _check_joint(options: RefineOptions, pretrained: bool) -> None:
    """UserError where the predictor cannot be trained, or frozen, as the options say."""
    if options.joint and pretrained:
        raise UserError(
            f"refine.joint=true trains the predictor, and {options.predictor} stays as it is; give"
            " refine.joint=false."
        )
    if not (options.joint or options.predictor or options.sizes):
        raise UserError(
            "refine.joint=false keeps the predictor as it is, and it has learnt nothing yet; give"
            " refine.predictor=RUN, a finished run of recipe=regression."
        )
