"""IRBridge: a bridge, a frozen prior and a trained adapter."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from irbridge.adapters.base import Condition
from irbridge.backbones.base import Backbone
from irbridge.bridges.base import Bridge
from irbridge.errors import UserError
from irbridge.gaussian.marginal import draw
from irbridge.gaussian.noise import Noise
from irbridge.gaussian.transition import forward_keep, loss_weight, step
from irbridge.images.tiles import WHOLE, Tiles
from irbridge.models.prior_denoiser import PriorAlone, PriorDenoiser
from irbridge.models.restorer import Restorer, State, keep_known
from irbridge.models.tiled_denoiser import TiledDenoiser
from irbridge.models.timestep_schedule import Timesteps
from irbridge.models.training_step import Batch, TrainingStep
from irbridge.samplers import PriorPath, Sampler, drive, make
from irbridge.samplers.base import Steps


class IRBridge(Restorer):
    """A restoration bridge driven by a frozen generative prior through the transition equation.

    The bridge lives in the backbone's states: pixels, or a VAE's latents, in which y is the latent
    of the degraded image. ``latents``, where it is set, encodes training images instead of the
    backbone, see ``latent_cache``.

    Args:
        backbone: the frozen denoiser. adapter: the trained condition adapter.
        bridge: ``t -> Marginal``. timesteps: the prior's timestep for each bridge time.
        endpoint: the bridge's degraded end: "y", as published, or "anchor", the adapter's g(y).
        sampler: fields of ``samplers.Sampler``. loss: see :meth:`loss`.
    """

    latents = None

    def __init__(
        self,
        backbone: Backbone,
        adapter: nn.Module,
        bridge: Bridge,
        timesteps: Timesteps,
        endpoint: str = "anchor",
        sampler: dict | None = None,
        loss: dict | None = None,
    ):
        super().__init__()
        if endpoint not in ("y", "anchor"):
            raise UserError(f"bridge endpoint={endpoint!r} is unknown; choose y or anchor.")
        self.backbone, self.adapter, self.bridge, self.timesteps = (
            backbone,
            adapter,
            bridge,
            timesteps,
        )
        self.endpoint, self.stride, self.masked = (
            endpoint,
            max(adapter.stride, backbone.stride),
            adapter.masked,
        )
        self.reach = adapter.reach
        self.sampler = self._checked(
            make(sampler) if isinstance(sampler, Sampler) else make(**(sampler or {}))
        )
        self.loss_options = {
            "states": "bridge",
            "weight": "x0",
            "norm": "l1",
            "anchor": 1.0,
            "anchor_first": 0.0,
            "trunk_lr": 1.0,
        }
        self.loss_options |= loss or {}
        if endpoint == "anchor" and not adapter.anchored:
            raise UserError(
                "endpoint=anchor needs an adapter with adapter.anchor=true; use endpoint=y or turn"
                " it on."
            )
        if (states := self.loss_options["states"]) not in self.STATES:
            raise UserError(
                f"loss.states={states!r} is unknown; choose one of {', '.join(self.STATES)}."
            )

    def _checked(self, sampler: Sampler) -> Sampler:
        """The sampler itself; UserError if the model cannot run it."""
        if sampler.nfe == 0 and self.endpoint != "anchor":
            raise UserError(
                "sampler.nfe=0 gives the anchor alone, and this model has none; give 1 or more"
                " calls, or endpoint=anchor."
            )
        return sampler.check(self.bridge)

    def trainable(self) -> nn.Module:
        return self.adapter

    @property
    def learns_anchor(self) -> bool:
        """Whether g(y) is the adapter's own, which trains."""
        return self.adapter.anchored and not self.adapter.pretrained

    @property
    def first_share(self) -> float:
        return self.loss_options["anchor_first"] if self.learns_anchor else 1.0

    def parameter_groups(self) -> list[dict]:
        if self.loss_options["trunk_lr"] == 1 or not self.learns_anchor:
            return super().parameter_groups()
        trunk = {id(p) for p in self.adapter.trunk.parameters()}
        parameters = list(self.adapter.parameters())
        return [
            {"params": [p for p in parameters if id(p) not in trunk]},
            {
                "params": [p for p in parameters if id(p) in trunk],
                "share": self.loss_options["trunk_lr"],
            },
        ]

    def end(self, condition: Condition) -> Tensor:
        """The bridge's degraded end, a state."""
        if self.endpoint == "y":
            return condition.y
        if condition.anchor is None:
            raise UserError(
                "endpoint=anchor needs an adapter with adapter.anchor=true; use endpoint=y or train"
                " one."
            )
        return condition.anchor.detach()

    def denoise(self, z: Tensor, tau: Tensor, condition: Condition) -> Tensor:
        """The conditional clean estimate of a prior state z (B, C, H, W) at tau () or (B,);
        float32.
        """
        residuals = partial(self.adapter.residuals, condition)
        with self.networks(), self.adapter.active(self.backbone.network):
            x0 = self.backbone.denoise(z, tau, residuals)
        return keep_known(x0, condition.y, condition.mask)

    def image(self, state: Tensor, tiles: Tiles = WHOLE) -> Tensor:
        return self.backbone.decode(state, tiles)

    def state_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.backbone.channels, *(side // self.backbone.factor for side in image_shape[1:])

    @torch.no_grad()
    def path(
        self,
        y: Tensor,
        seeds: list[int] | None = None,
        condition: Condition | None = None,
        start: str = "end",
        sampler: Sampler | None = None,
        tiles: Tiles = WHOLE,
        **options,
    ) -> Iterator[State]:
        """The sampling loop (IRBridge, Sec. 3.3): forward transition, frozen network, step of the
        bridge.

        Args: y: (B, 3 or 4, H, W) in [-1, 1], sides divisible by ``stride``. seeds: one noise seed
            per image; default 0, 1, ... condition: of y, where it is already known. start: of a
            rule on the prior itself (ddim, dpmpp). "end": the bridge's first timestep and its own
            end, noised
                (SDEdit), as theory says the published loop starts; "noise": the prior's last level
                and pure noise.
            sampler: instead of the model's own. options: its fields to change, such as nfe or rule;
                nfe=0 gives the anchor alone.
            tiles: of each call; unless these are kept, an adapter's features are then computed
                anew, as those of a whole image take gigabytes.
        """
        if not (
            torch.is_tensor(y)
            and y.dim() == 4
            and not any(side % self.stride for side in y.shape[-2:])
        ):
            raise UserError(
                "path takes a tensor (B, 3, H, W) in [-1, 1] with sides divisible by"
                f" {self.stride}, not {tuple(getattr(y, 'shape', ())) or type(y).__name__}; restore"
                " takes any image."
            )
        sampler, y = self._checked((sampler or self.sampler).changed(**options)), self.seen(y)
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

    def calls(self, **options) -> int:
        """How often ``path`` with these options calls the frozen network."""
        return self._checked(self.sampler.changed(**options)).nfe

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
        prior, timesteps = self.backbone.prior, self.timesteps
        if start not in ("end", "noise"):
            raise UserError(f"start={start!r} is unknown; choose end or noise.")
        if not sampler.on_prior:
            denoiser = PriorDenoiser(ask, self.bridge, prior, timesteps, end, noise)
            return sampler.loop(self.bridge, end, noise), denoiser
        if start == "noise":
            first, end = prior.highest, torch.zeros_like(end)
        else:
            first = float(timesteps(self.bridge, prior, self.bridge.T))
        loop = sampler.loop(PriorPath(T=first, prior=prior), end, noise)
        return loop, PriorAlone(ask, prior, self.backbone.bounded)

    @torch.no_grad()
    def coarse(self, y: Tensor, tiles: Tiles = WHOLE, **options) -> Iterator[State]:
        """The anchor g(y) alone, without any call of the frozen network."""
        anchor = self.anchor(self.seen(y), tiles.reaching(self.reach))
        yield State(self.bridge.T, anchor, anchor, anchor)

    def loss(self, batch: Batch, step: TrainingStep) -> dict[str, Tensor]:
        """Training losses per image, (B,) each; their sum is minimised.

        Options (``loss:`` of the config): ``states``, where z comes from, see ``STATES``;
        ``weight`` "eps" (published), "v" or "x0", whose error is measured; ``norm`` "l1" or "l2";
        ``anchor``, weight of the L1 loss of g(y); ``anchor_first``, share of the training for g(y)
        alone: an early anchor shows the network nothing; ``trunk_lr``, the trunk's part of the
        learning rate, below 1 where it is trained already.
        """
        options, prior, encode = (
            self.loss_options,
            self.backbone.prior,
            self.latents or self.backbone.encode,
        )
        clean, degraded, losses = batch.clean, self.seen(batch.degraded), {}

        def distance(anchor: Tensor) -> Tensor:
            return options["anchor"] * (anchor - clean).abs().flatten(1).mean(1)

        if self.learns_anchor and (
            step.progress < options["anchor_first"] or options["anchor_first"] == 1
        ):
            return {"anchor": distance(self.adapter.estimate(degraded))}
        condition = self.adapter.condition(degraded, encode(degraded[:, :3]))
        if self.learns_anchor:
            losses["anchor"] = distance(condition.anchor)
        clean = encode(clean)
        z, tau = self.STATES[options["states"]](self, clean, condition, step)
        weight = loss_weight(prior.marginal(tau), options["weight"]).expand(len(z)).to(z)
        error = self.denoise(z, tau, condition) - clean
        power = {"l1": 1, "l2": 2}.get(options["norm"])
        if power is None:
            raise UserError(f"loss.norm={options['norm']!r} is unknown; choose l1 or l2.")
        return losses | {"prior": (error.abs() ** power).flatten(1).mean(1) * weight**power}

    def _from_prior(self, clean, condition, at: TrainingStep):
        """As published: tau uniform over the prior's timesteps, z from the prior's marginal."""
        noise, uniform, prior = at.noise, at.uniform, self.backbone.prior
        # where a flow has no noise at all, eps has no error to weigh
        share = uniform.cpu().double().clamp(min=1e-6)
        tau = prior.lowest + share * (prior.highest - prior.lowest)
        return draw(prior.marginal(tau), clean, clean, noise), tau

    @torch.no_grad()
    def _from_bridge(self, clean, condition, at: TrainingStep):
        """Z by the forward transition from the bridge's marginal: one draw in ``steps`` at T, the
        others uniform.
        """
        noise, uniform = at.noise, at.uniform
        end, first, u = self.end(condition), 1 / self.sampler.nfe, uniform.cpu().double()
        t = torch.where(u < first, 1.0, (u - first) / max(1 - first, 1e-9)) * self.bridge.T
        here, tau = self.bridge.marginal(t), self.timesteps(self.bridge, self.backbone.prior, t)
        level, scale = self.backbone.prior.marginal(tau), self.bridge.scale(clean, end)
        # the sampler starts where nothing of x0 is known
        start = (u < first).reshape(-1, 1, 1, 1).to(clean.device)
        x = draw(here, torch.where(start, end, clean), end, noise * scale)
        fresh = Noise([2**31 + int(v * 2**31) for v in u.tolist()])(noise)
        return step(x, end, end, here, level, forward_keep(here, level), fresh, scale), tau

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

    STATES = {"prior": _from_prior, "bridge": _from_bridge, "visited": _visited}
