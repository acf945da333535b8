"""IRBridge: a bridge, a frozen prior and a trained adapter."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from irbridge.adapters.base import Condition
from irbridge.backbones.base import Backbone
from irbridge.bridges.base import Bridge
from irbridge.errors import UserError
from irbridge.gaussian.marginal import draw
from irbridge.gaussian.noise import Noise
from irbridge.gaussian.transition import forward_keep, loss_weight, step
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.loss_options import LossOptions
from irbridge.models.perceptual import perceptual
from irbridge.models.prior_denoiser import DirectDenoiser, PriorDenoiser
from irbridge.models.restorer import Restorer, Row, State, keep_known
from irbridge.models.tiled_denoiser import TiledDenoiser
from irbridge.models.timestep_schedule import Timesteps
from irbridge.models.training_step import Batch, TrainingStep
from irbridge.ranges import shown
from irbridge.samplers import PriorPath, Sampler, drive, make
from irbridge.samplers.base import Steps

CALLS = 3  # of the rows beside an anchor alone
POWERS = {"l1": 1, "l2": 2}  # of the error, by the norm of the loss
BASELINES = (
    ("DDIM from noise, same adapter", "ddim_noise", "ddim", "noise"),
    ("DDIM, same adapter and start", "ddim", "ddim", "end"),
    ("DPM-Solver++(2M), same adapter and start", "dpmpp", "dpmpp", "end"),
)
"""Rows of the prior itself, without a bridge: label, key, sampler, start."""


class IRBridge(Restorer):
    """A restoration bridge driven by a frozen generative prior through the transition equation.

    The bridge lives in the backbone's states: pixels, or a VAE's latents, in which y is the latent
    of the degraded image (IRBridge, ICML 2025).

    Args:
        backbone: the frozen denoiser.
        adapter: the trained condition adapter.
        bridge: the law of the state at every time.
        timesteps: the prior's timestep for each bridge time; a bridge whose states are the prior's
            own has its own.
        endpoint: the bridge's degraded end: "y", as published, or "anchor", the adapter's g(y).
        sampler: a sampler, or fields for :func:`irbridge.samplers.make`.
        loss: what it is trained for; None: the defaults of the class.

    Attributes:
        latents: where it is set, encodes training images instead of the backbone; see
            :class:`~irbridge.backbones.encoding_cache.LatentCache`.
    """

    latents = None

    def __init__(
        self,
        backbone: Backbone,
        adapter: nn.Module,
        bridge: Bridge,
        timesteps: Timesteps,
        endpoint: str = "anchor",
        sampler: Sampler | dict | None = None,
        loss: LossOptions | None = None,
    ):
        super().__init__()
        if endpoint not in ("y", "anchor"):
            raise UserError(f"bridge endpoint={endpoint!r} is unknown; choose y or anchor.")
        self.backbone, self.adapter, self.bridge = backbone, adapter, bridge
        self.timesteps, self.endpoint, self.masked = timesteps, endpoint, adapter.masked
        self.stride = max(adapter.stride, backbone.stride)
        self.reach = adapter.reach
        sampler = sampler if isinstance(sampler, Sampler) else make(**(sampler or {}))
        self.sampler = self._checked(sampler)
        self.loss_options = loss or LossOptions()
        if endpoint == "anchor" and not adapter.anchored:
            raise UserError(
                "endpoint=anchor needs an adapter with adapter.anchor=true; use endpoint=y or turn"
                " it on."
            )
        if (states := self.loss_options.states) not in self.STATES:
            raise UserError(
                f"loss.states={states!r} is unknown; choose one of {', '.join(self.STATES)}."
            )
        if self.loss_options.lpips and self.backbone.vae is not None:
            raise UserError(
                "loss.lpips compares pixels, and this backbone works in latents; use loss.lpips=0."
            )
        if self.loss_options.consistency and not self.bridge.prior_states:
            raise UserError(
                f"loss.consistency compares states of the prior's own, and {type(bridge).__name__}"
                " has none; use bridge=ebridge, or loss.consistency=0."
            )

    @property
    def bridge(self) -> Bridge:
        """The law of the state at every time, on the backbone's prior."""
        return self._bridge

    @bridge.setter
    def bridge(self, bridge: Bridge) -> None:
        self._bridge = bridge.on(self.backbone.prior)

    def _checked(self, sampler: Sampler) -> Sampler:
        """The sampler itself; UserError if the model cannot run it."""
        if sampler.nfe == 0 and self.endpoint != "anchor":
            raise UserError(
                "sampler.nfe=0 gives the anchor alone, and this model has none; give 1 or more"
                " calls, or endpoint=anchor."
            )
        return sampler.check(self.bridge)

    @property
    def _schedule(self) -> Timesteps:
        """The timesteps, as they are for the bridge's end."""
        return self.timesteps.from_anchor() if self.endpoint == "anchor" else self.timesteps

    def timestep(self, t) -> Tensor:
        """The prior's timestep at which its network is asked about the bridge's state at t.

        Args:
            t: numbers in [0, T], of any shape.
        """
        if self.bridge.prior_states:
            return self.bridge.timestep(t)
        return self._schedule(self.bridge, self.backbone.prior, t)

    @override
    def trainable(self) -> nn.Module:
        return self.adapter

    @property
    def learns_anchor(self) -> bool:
        """Whether g(y) is the adapter's own, which trains."""
        return self.adapter.anchored and not self.adapter.pretrained

    @property
    @override
    def first_share(self) -> float:
        return self.loss_options.anchor_first if self.learns_anchor else 1.0

    @property
    @override
    def digest(self) -> str:
        return self.backbone.digest

    @override
    def load(self) -> None:
        _ = self.backbone.network

    @override
    def parameter_groups(self) -> list[dict]:
        if self.loss_options.trunk_lr == 1 or not self.learns_anchor:
            return super().parameter_groups()
        trunk = {id(p) for p in self.adapter.trunk.parameters()}
        parameters = list(self.adapter.parameters())
        slow = [p for p in parameters if id(p) in trunk]
        return [
            {"params": [p for p in parameters if id(p) not in trunk]},
            {"params": slow, "share": self.loss_options.trunk_lr},
        ]

    @override
    def parts(self) -> dict[str, nn.Module]:
        parts = {"trainable": self.adapter, "frozen": self.backbone.network}
        return parts if self.backbone.vae is None else parts | {"vae": self.backbone.vae}

    @override
    def describe(self) -> dict[str, dict]:
        backbone, adapter = {}, {}
        # An anchor trained alone has learnt nothing of the prior, and goes with any.
        if not (self.learns_anchor and self.first_share == 1):
            backbone["digest"] = self.backbone.digest
        if signature := self.backbone.signature():
            backbone["signature"] = signature
        if self.adapter.pretrained:
            anchor = self.adapter.pretrained[0]
            adapter = {"anchor": anchor.name, "anchor_digest": anchor.digest}
        return {"backbone": backbone, "adapter": adapter}

    @override
    def rows(self, **options) -> list[Row]:
        # a mistake must not come up after the other rows
        sampler = self.sampler.changed(**options).check(self.bridge)
        # the anchor is the default; what the calls would make of it is shown all the same
        alone = sampler.nfe == 0
        sampler = sampler.changed(nfe=CALLS) if alone else sampler
        nfe = sampler.nfe
        rows = [
            Row(f"{label}, {nfe} calls", key, {"sampler": make(rule, nfe=nfe), "start": start}, nfe)
            for label, key, rule, start in BASELINES
        ]
        settings = f"{sampler.describe()}, {nfe} calls"
        label = f"IRBridge ({self.bridge.title()}, end {self.endpoint}, {settings})"
        if self.endpoint == "y":
            return [*rows, Row(label, "irbridge_y", {"sampler": sampler}, nfe)]
        bridged = Row(label, "irbridge", {"sampler": sampler}, nfe)
        anchor = Row("Anchor g(y) alone", "anchor", {"trajectory": self.coarse})
        return [*rows, bridged, anchor] if alone else [*rows, anchor, bridged]

    def end(self, condition: Condition) -> Tensor:
        """The bridge's degraded end, a state.

        Args:
            condition: what the adapter knows of the image.

        Raises:
            UserError: the end is an anchor, and the adapter has none.
        """
        if self.endpoint == "y":
            return condition.y
        if condition.anchor is None:
            raise UserError(
                "endpoint=anchor needs an adapter with adapter.anchor=true; use endpoint=y or train"
                " one."
            )
        return condition.anchor.detach()

    def denoise(
        self, z: Tensor, tau: Tensor, condition: Condition, adapter: nn.Module | None = None
    ) -> Tensor:
        """The conditional clean estimate.

        Args:
            z: a state of the prior, (B, C, H, W).
            tau: its timestep, () or (B,).
            condition: what the adapter knows of the image.
            adapter: another one that drives the network instead of the model's own.

        Returns:
            x0, a state like z, float32.
        """
        adapter = adapter or self.adapter
        residuals = partial(adapter.residuals, condition)
        with self.networks(), adapter.active(self.backbone.network):
            x0 = self.backbone.denoise(z, tau, residuals)
        return keep_known(x0, condition.y, condition.mask if self.keeps_known else None)

    @override
    def image(self, state: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        return self.backbone.decode(state, tiles)

    @override
    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.backbone.channels, *(side // self.backbone.factor for side in image_shape[1:])

    @override
    @torch.no_grad()
    def trajectory(
        self,
        y: Tensor,
        seeds: list[int] | None = None,
        condition: Condition | None = None,
        start: str = "end",
        sampler: Sampler | None = None,
        tiles: Tiles = WHOLE,
        **options,
    ) -> Iterator[State]:
        """The trajectory: forward transition, frozen network, step of the bridge (Sec. 3.3).

        Args:
            y: (B, 3 or 4, H, W) in [-1, 1], sides divisible by ``stride``.
            seeds: one noise seed per image; default 0, 1, ...
            condition: of y, where it is already known.
            start: of a sampler on the prior itself, such as ddim. "end": the bridge's first
                timestep and its own end, noised (SDEdit), as theory says the published loop starts;
                "noise": the prior's last level and pure noise.
            sampler: instead of the model's own.
            tiles: of each call. Unless these are kept, an adapter's features are then computed
                anew, as those of a whole image take gigabytes.
            options: the sampler's fields to change, such as nfe or rule; nfe=0 gives the anchor
                alone.

        Yields:
            Every network call.

        Raises:
            UserError: y has no such shape, or the model cannot run the sampler.
        """
        y = self.seen(self.given(y))
        if sampler is not None and not isinstance(sampler, Sampler):
            raise UserError(
                f"sampler={shown(sampler, repr)} is no Sampler; name one by rule, such as"
                " rule='heun', or give what irbridge.samplers.make returns."
            )
        sampler = self._checked((sampler or self.sampler).changed(**options))
        if sampler.nfe == 0:
            yield from self.coarse(y, tiles)
            return
        ask = TiledDenoiser(self, y, tiles.reaching(self.reach), condition)
        noise = Noise(seeds if seeds is not None else list(range(len(y))))
        loop, denoiser = self._sampling(ask, ask.end(), noise, sampler, start)
        for query, _ in drive(loop, denoiser):
            yield State(query.t, query.x, denoiser.z, denoiser.x0)

    def anchor(self, y: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        """The adapter's coarse estimate g(y) of images y as :meth:`seen`, (B, 3, H, W)."""

        def estimate(y: Tensor) -> Tensor:
            with self.networks():
                return self.adapter.estimate(y)

        return tiles(estimate, y, stride=self.stride)

    @override
    def sampler_with(self, **options) -> Sampler:
        return self._checked(self.sampler.changed(**options))

    @override
    def passes(self, **options) -> int:
        return self.calls(**options) + (self.endpoint == "anchor")

    def _sampling(
        self,
        ask: Callable[[Tensor, Tensor], Tensor],
        end: Tensor,
        noise: Noise,
        sampler: Sampler,
        start: str = "end",
    ) -> tuple[Steps, PriorDenoiser]:
        """The sampler's loop, and what answers its queries by the network ``ask(z, tau) -> x0``."""
        prior, process, own_end = self.backbone.prior, self.bridge, end

        def read(z: Tensor, tau: Tensor) -> Tensor:
            # on the prior alone, too: the adapter was trained to be read so
            return self.bridge.clean(ask(z, tau), own_end, tau)

        if start not in ("end", "noise"):
            raise UserError(f"start={start!r} is unknown; choose end or noise.")
        if sampler.on_prior and start == "noise":
            process, end = PriorPath(T=prior.highest, prior=prior), torch.zeros_like(end)
        elif sampler.on_prior:
            process = PriorPath(T=float(self.timestep(process.T)), prior=prior)
        if process.prior_states:
            denoiser = DirectDenoiser(read, process, self.backbone.bounded)
        else:
            denoiser = PriorDenoiser(read, process, prior, self._schedule, end, noise)
        return sampler.loop(process, end, noise), denoiser

    @torch.no_grad()
    def coarse(self, y: Tensor, tiles: Tiles = WHOLE, **options) -> Iterator[State]:
        """The anchor g(y) alone, without any call of the frozen network."""
        anchor = self.anchor(self.seen(self.given(y)), tiles.reaching(self.reach))
        yield State(self.bridge.T, anchor, anchor, anchor)

    @override
    def loss(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """Training losses per image, (B,) each; their sum is minimised.

        What they are is said by the model's :class:`~irbridge.models.loss_options.LossOptions`. A
        first share of the training is for g(y) alone, as an early anchor shows the network nothing.
        """
        options, encode = self.loss_options, self.latents or self.backbone.encode
        clean, degraded, losses = batch.clean, self.seen(batch.degraded), {}

        def of_anchor(anchor: Tensor) -> dict[str, Tensor]:
            found = {"anchor": options.anchor * (anchor - clean).abs().flatten(1).mean(1)}
            if options.lpips:
                distance = perceptual(anchor, clean)
                found["anchor_lpips"] = options.anchor * options.lpips * distance
            return found

        if self.learns_anchor and (
            step.progress < options.anchor_first or options.anchor_first == 1
        ):
            return of_anchor(self.adapter.estimate(degraded))
        condition = self.adapter.condition(degraded, encode(degraded[:, :3]))
        if self.learns_anchor:
            losses |= of_anchor(condition.anchor)
        clean = encode(clean)
        z, tau = self.STATES[options.states](self, clean, condition, step)
        law = self.backbone.prior.marginal(tau)
        weight = loss_weight(law, options.weight).expand(len(z)).to(z)
        x0 = self.denoise(z, tau, condition)
        # the prior's own states have nothing of y
        x0 = x0 if options.states == "prior" else self.bridge.clean(x0, self.end(condition), tau)
        losses["prior"] = self._error(x0, clean) * weight ** POWERS[options.norm]
        if options.lpips:
            losses["lpips"] = options.lpips * perceptual(x0, clean)
        if options.consistency:
            seen = x0 if options.states == "bridge" else None
            losses["consistency"] = options.consistency * self._consistency(
                clean, condition, step, seen
            )
        return losses

    def _error(self, x0: Tensor, clean: Tensor) -> Tensor:
        """The mean error of each image in the norm of the loss, (B,)."""
        return ((x0 - clean).abs() ** POWERS[self.loss_options.norm]).flatten(1).mean(1)

    def _consistency(
        self, clean: Tensor, condition: Condition, at: TrainingStep, x0: Tensor | None
    ) -> Tensor:
        """How far the estimate at a time is from that a little before, on one path, (B,).

        The path is one clean image, end and noise; the earlier estimate is not trained, and at t =
        0 it is the clean image itself (E-Bridge; consistency training, Song et al. 2023).

        Args:
            clean: the clean states, (B, C, H, W).
            condition: what the adapter knows of the images.
            at: the noise, and the times as those of states "bridge".
            x0: the estimate at these times, where it is there already.
        """
        bridge, end, t = self.bridge, self.end(condition), self._times(at)
        before = (t - self.loss_options.consistency_step * bridge.T).clamp(min=0)

        def estimate(t: Tensor) -> Tensor:
            z, tau = draw(bridge.marginal(t), clean, end, at.noise), bridge.timestep(t)
            return bridge.clean(self.denoise(z, tau, condition), end, tau)

        x0 = estimate(t) if x0 is None else x0
        with torch.no_grad():
            ended = (before == 0).reshape(-1, 1, 1, 1).to(clean.device)
            goal = torch.where(ended, clean, estimate(before))
        return self._error(x0, goal)

    def _times(self, at: TrainingStep) -> Tensor:
        """Times of the bridge, (B,): one in ``nfe`` is T, the others are uniform."""
        u, first = at.uniform.cpu().double(), 1 / self.sampler.nfe
        return torch.where(u < first, 1.0, (u - first) / max(1 - first, 1e-9)) * self.bridge.T

    def _from_prior(self, clean, condition, at: TrainingStep):
        """As published: tau uniform over the prior's timesteps, z from the prior's marginal."""
        noise, uniform, prior = at.noise, at.uniform, self.backbone.prior
        # where a flow has no noise at all, eps has no error to weigh
        share = uniform.cpu().double().clamp(min=1e-6)
        tau = prior.lowest + share * (prior.highest - prior.lowest)
        return draw(prior.marginal(tau), clean, clean, noise), tau

    @torch.no_grad()
    def _from_bridge(self, clean, condition, at: TrainingStep):
        """A draw from the bridge, taken to the prior by the forward transition where it must be."""
        u, end = at.uniform.cpu().double(), self.end(condition)
        # the sampler starts where nothing of x0 is known
        start = (u < 1 / self.sampler.nfe).reshape(-1, 1, 1, 1).to(clean.device)
        known = torch.where(start, end, clean)
        return self.state(self._times(at), known, end, at, self.bridge.scale(clean, end))

    def state(
        self,
        t: Tensor,
        clean: Tensor,
        end: Tensor,
        at: TrainingStep,
        scale: Tensor | float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A draw from the bridge as the network sees it, and its timestep.

        Args:
            t: times of the bridge, (B,), float64 on the CPU.
            clean: the clean states, (B, C, H, W).
            end: the degraded ones, alike.
            at: the noise.
            scale: what multiplies it; None: as the bridge says.
        """
        scale = self.bridge.scale(clean, end) if scale is None else scale
        here, tau = self.bridge.marginal(t), self.timestep(t)
        x = draw(here, clean, end, at.noise * scale)
        if self.bridge.prior_states:
            return x, tau
        level = self.backbone.prior.marginal(tau)
        fresh = Noise([2**31 + int(v * 2**31) for v in at.uniform.cpu().double().tolist()])
        keep = forward_keep(here, level)
        return step(x, end, end, here, level, keep, fresh(at.noise), scale), tau

    @torch.no_grad()
    def _visited(self, clean, condition, at: TrainingStep):
        """The state of a random step of the sampler, reached by running it that far."""
        end, noise = self.end(condition), Noise([int(v * 2**31) for v in at.uniform.tolist()])

        def ask(z: Tensor, tau: Tensor) -> Tensor:
            return self.denoise(z, tau, condition)

        loop, denoiser = self._sampling(ask, end, noise, self.sampler)
        share = float(at.uniform[0]) if at.shared is None else at.shared
        query = next(loop)
        for _ in range(int(share * self.sampler.nfe)):
            query = loop.send(denoiser(query))
        z, tau, _ = denoiser.enter(query)
        return z, tau

    STATES: ClassVar = {"prior": _from_prior, "bridge": _from_bridge, "visited": _visited}
