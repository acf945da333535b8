"""Bridges trained from scratch: one network on (x_t, y) for every published target and loss."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from irbridge.adapters.base import mask_of
from irbridge.adapters.trunk import stride_of
from irbridge.bridges.base import Bridge
from irbridge.errors import UserError
from irbridge.gaussian.marginal import broadcast, draw
from irbridge.gaussian.noise import Noise
from irbridge.gaussian.transition import step as bridge_step
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.perceptual import perceptual
from irbridge.models.restorer import Restorer, Row, State, keep_known
from irbridge.models.training_step import Batch, TrainingStep
from irbridge.samplers import Estimate, Query, Sampler, drive, make
from irbridge.samplers.heun import velocity

SIGMA_DATA = 0.5  # DDBM's and EDM's, of images in [-1, 1]


class Readout(NamedTuple):
    """How x0 follows from a network: ``x0 = state x + end y + output network(scale x, y)``.

    Each field is float64, () or (B,).
    """

    state: Tensor
    end: Tensor
    output: Tensor
    scale: Tensor


def readout(target: str, bridge: Bridge, t: Tensor) -> Readout:
    """How x0 follows from what a network predicts.

    Args:
        target: one of ``TARGETS``.
        bridge: the process.
        t: its time, float64, () or (B,).

    Raises:
        UserError: there is no such target; the sentence lists them.
    """
    a, b, c = bridge.marginal(t)
    one, zero, scale = torch.ones_like(a), torch.zeros_like(a), bridge.input_scale(t)
    if target in ("noise", "product"):
        return Readout(1 / a, -b / a, -c / a, scale)
    if target == "edm":
        total = (a**2 + b**2) * SIGMA_DATA**2 + c**2
        out = SIGMA_DATA * ((b * SIGMA_DATA) ** 2 + c**2).sqrt() / total.sqrt()
        return Readout(a * SIGMA_DATA**2 / total, zero, out, total.rsqrt())
    rows = {
        "x0": (zero, zero, one),
        "residual": (zero, one, one),
        "difference": (one, zero, -one),
        "score": (one, zero, -bridge.spread(t)),
        "velocity": (one, zero, -b),
    }
    if target not in rows:
        raise UserError(
            f"objective.target={target!r} is unknown; choose one of {', '.join(TARGETS)}."
        )
    return Readout(*rows[target], scale)


TARGETS = {
    "noise": "eps (GOUB, IR-SDE, UniDB)",
    "product": "pi * eps, the residual times the noise (RDBM)",
    "x0": "the clean image (ResShift, RDBM's released code)",
    "residual": "x0 - y (RDDM, DiffUIR, with the sign turned)",
    "difference": "x_t - x0 (BBDM)",
    "score": "(x_t - x0) / std (I2SB)",
    "velocity": "(x_t - x0) / b (NADB)",
    "edm": "DDBM's preconditioned residual (Karras et al. 2022 for bridges, sigma_data 0.5)",
}
LOSSES = {
    "l1": "absolute error of the target",
    "l2": "squared error of the target",
    "likelihood": (
        "L1 between the Euler step of the reverse SDE and the posterior mean a step of T / 100 on"
        " (GOUB, IR-SDE)"
    ),
}


class BridgeNetwork(Restorer):
    """A bridge with a network of its own.

    It is the alternative that a frozen prior must earn its keep against. A network of noise knows
    nothing of x0 where nothing clean is left: with targets noise and product such an end is
    skipped, in training and sampling. Training goes up to 0.99 T. Sampling:

    * target product without fresh noise (RDBM, ``ddim_sample`` of its code): the times are those of
      ``nfe`` steps from T, and the first step makes no call, as its estimate would have no effect.
      10 steps ask at 0.9 T (x = y), 0.8 T, ..., 0.1 T: 9 calls.
    * others (GOUB, UniDB): all calls, from 0.99 T on, where the state has the noise that the step
      off the end draws.

    Args:
        bridge: the law of the state at every time.
        network: on (x_t, y) and a time, 1000 t / T (250 ln t for target edm), see
            ``trunk.bridge_network``; y has its mask where the task has one.
        target: see ``TARGETS``; None is the bridge's published one.
        loss: see ``LOSSES``; None is the bridge's published one.
        sampler: a sampler, or fields for :func:`irbridge.samplers.make`; what they do not say is as
            the bridge was published.
        masked: whether y has a mask.
        lpips: weight of the LPIPS of the clean estimate beside the loss; not of the targets noise
            and product, whose estimate is divided by what is left of x0.
    """

    def __init__(
        self,
        bridge: Bridge,
        network: nn.Module,
        target: str | None = None,
        loss: str | None = None,
        sampler: Sampler | dict | None = None,
        masked: bool = False,
        lpips: float = 0.0,
    ):
        super().__init__()
        self.lpips = lpips
        published = bridge.published
        self.bridge, self.target = bridge, target or published.target
        self.loss_name = loss or published.loss
        self._settings = self._sampler(sampler)
        self.network, self.stride, self.masked = network, stride_of(network), masked
        self.reach = getattr(network, "reach", None)
        readout(self.target, bridge, torch.tensor(0.5 * bridge.T, dtype=torch.float64))
        if self.loss_name not in LOSSES:
            raise UserError(
                f"objective.loss={self.loss_name!r} is unknown; choose one of {', '.join(LOSSES)}."
            )
        self._check_objective()
        by_noise = self.target in ("noise", "product") or self.loss_name == "likelihood"
        if lpips and by_noise:
            key = "target" if self.loss_name != "likelihood" else "loss"
            value = self.target if key == "target" else self.loss_name
            raise UserError(
                f"loss.lpips looks at the clean estimate, which objective.{key}={value} does not"
                " train; use objective.target=residual objective.loss=l1, or loss.lpips=0."
            )
        ends = bridge.pinned or not bridge.marginal(bridge.T).clean > 0
        self.skips = ends and by_noise
        self.sampler_with()  # what cannot be served is refused now

    def _check_objective(self) -> None:
        """UserError where target or loss need noise that the bridge does not have."""
        bridge, likely = self.bridge, self.loss_name == "likelihood"
        if bridge.modulated and (self.target == "noise" or likely):
            key = "target=noise" if self.target == "noise" else "loss=likelihood"
            raise UserError(
                f"objective.{key} would divide by {type(bridge).__name__}'s residual-modulated"
                " noise; use objective.target=product objective.loss=l1, or bridge.pi=one."
            )
        silent = getattr(bridge, "pi", "one") == "zero"
        if silent and (self.target in ("noise", "product") or likely):
            key = f"loss={self.loss_name}" if likely else f"target={self.target}"
            raise UserError(
                f"objective.{key} has no noise to work on with bridge.pi=zero; use"
                " objective.target=x0 objective.loss=l1."
            )

    def _sampler(self, given: Sampler | dict | None) -> Sampler:
        """The given sampler; what it does not say is as the bridge was published."""
        if isinstance(given, Sampler):
            return given
        bridge, published, given = self.bridge, self.bridge.published, given or {}
        most = min(published.nfe, int(bridge.T)) if bridge.steps else published.nfe
        own = make(published.rule, nfe=most)
        if given.get("rule") in (None, published.rule):
            own = own.changed(noise=published.noise, boot=published.boot, spacing=published.spacing)
        return own.changed(**given)

    @property
    def sampler(self) -> Sampler:
        """How it samples, with the times of its calls where these are not even ones."""
        return self.sampler_with()

    @sampler.setter
    def sampler(self, given: Sampler) -> None:
        self._settings = given

    @override
    def trainable(self) -> nn.Module:
        return self.network

    @property
    def first(self) -> float:
        """The latest time that the network is trained and asked at."""
        return 0.99 * self.bridge.T if self.skips else self.bridge.T

    def output(self, x: Tensor, t: Tensor, y: Tensor, form: Readout) -> Tensor:
        """The network's own output, float32.

        Args:
            x: the state, (B, 3, H, W) in [-1, 1].
            t: its time, (B,).
            y: the degraded images, alike.
            form: how x0 follows from it.
        """
        time = 250 * t.clamp(min=1e-44).log() if self.target == "edm" else 1000 * t / self.bridge.T
        inputs = torch.cat([broadcast(form.scale, x) * x, self.seen(y)], dim=1)
        with self.networks():
            return self.network(inputs, time.float().to(x.device)).sample.float()

    def denoise(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The clean estimate.

        Args:
            x: the state, (B, 3, H, W).
            t: its time, float64 on the CPU, () or (B,).
            y: the degraded images, (B, C, H, W), with a mask as a fourth channel where the task has
                holes.
        """
        t, end = t.expand(len(x)), y[:, :3]
        form = readout(self.target, self.bridge, t)
        out = self.output(x, t, y, form)
        x0 = (
            broadcast(form.state, x) * x
            + broadcast(form.end, x) * end
            + broadcast(form.output, x) * out
        )
        return keep_known(x0, end, mask_of(y) if self.keeps_known else None)

    @override
    @torch.no_grad()
    def trajectory(
        self, y: Tensor, seeds: list[int] | None = None, tiles: Tiles = WHOLE, **options
    ) -> Iterator[State]:
        """The trajectory on the bridge itself; estimates are clipped to [-1, 1].

        ``reverse`` is ``implicit`` here, and the samplers of a prior (such as ddim) step on the
        bridge: it is its own generative process.
        """
        y = self.given(y)
        noise = Noise(seeds if seeds is not None else list(range(len(y))))
        sampler = self.sampler_with(**options)
        tiles = tiles.reaching(self.reach)

        def ask(query: Query) -> Estimate:
            time = torch.tensor(query.t, dtype=torch.float64)
            x0 = tiles(lambda x, y: self.denoise(x, time, y), query.x, y, stride=self.stride)
            return Estimate(x0.clamp(-1, 1), query.x, self.bridge.marginal(query.t))

        first = self.first if self.skips else None
        loop = sampler.loop(self.bridge, y[:, :3], noise, first)
        for query, estimate in drive(loop, ask):
            yield State(query.t, query.x, query.x, estimate.x0)

    @override
    def sampler_with(self, **options) -> Sampler:
        sampler = self._settings.changed(**options).check(self.bridge, direct=True)
        times = self._times(sampler)
        return sampler if times is None else sampler.changed(times=tuple(times))

    def _times(self, sampler: Sampler) -> list[float] | None:
        """The times of the calls; None: those that the sampler plans."""
        given, planned = sampler.times, sampler
        # fresh noise would drown what an estimate near the end is wrong by
        quiet = not (sampler.noise or sampler.boot)
        silent = self.skips and self.target == "product" and quiet
        if given is None and silent:  # of one step, from T to 0, no call at all would be left
            planned = sampler.changed(nfe=max(sampler.nfe, 2))
        times = self._published_times(planned) if given is None else list(given)
        if times is None and silent:
            times = planned.plan(self.bridge)[0].tolist()
        if times is None or not self.skips:
            return times
        latest = self.first if given is None else np.nextafter(self.bridge.T, 0)
        left = [t for t in times if t <= latest]
        return left if len(left) > 1 else [self.first, *left]

    def _published_times(self, sampler: Sampler) -> list[float] | None:
        """The bridge's published times of so many steps, where they differ from even ones."""
        published, options = self.bridge.published, (sampler.rule, sampler.spacing, sampler.boot)
        if options != (published.rule, published.spacing, published.boot):
            return None
        if not 0 < sampler.nfe <= self.bridge.T:
            return None
        times = self.bridge.published_times(sampler.nfe)
        even = sampler.plan(self.bridge)[0]
        return None if times is None or np.array_equal(times, even) else times

    @override
    def rows(self, **options) -> list[Row]:
        sampler = self.sampler_with(**options)
        settings = f"{sampler.describe()}, {sampler.nfe} calls"
        label = f"Bridge from scratch ({self.bridge.title()}, {settings})"
        return [Row(label, "bridge", options, sampler.nfe)]

    @override
    def loss(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """Training loss per image, (B,).

        The time is drawn between T / 1000 (T / 100 for likelihood) and the latest one.
        """
        (clean, degraded), noise = batch, step.noise
        stride = self.bridge.T / (100 if self.loss_name == "likelihood" else 1000)
        t = stride + step.uniform.cpu().double() * (self.first - stride)
        end = degraded[:, :3]
        x = draw(self.bridge.marginal(t), clean, end, noise * self.bridge.scale(clean, end))
        if self.loss_name == "likelihood":
            slope, _ = velocity(self.bridge, t, x, self.denoise(x, t, degraded), end, markov=True)
            now, then, keep = self.bridge.posterior(t, t - stride)
            error = x - stride * slope - bridge_step(x, clean, end, now, then, keep)
            return {self.loss_name: error.abs().flatten(1).mean(1)}
        form = readout(self.target, self.bridge, t)
        wanted = (clean - broadcast(form.state, x) * x - broadcast(form.end, x) * end) / broadcast(
            form.output, x
        )
        out = self.output(x, t, degraded, form)
        error = (out - wanted).abs() if self.loss_name == "l1" else (out - wanted) ** 2
        losses = {self.target: error.flatten(1).mean(1)}
        if self.lpips:
            x0 = clean + broadcast(form.output, x) * (out - wanted)
            x0 = keep_known(x0, end, mask_of(degraded) if self.keeps_known else None)
            losses["lpips"] = self.lpips * perceptual(x0, clean)
        return losses
