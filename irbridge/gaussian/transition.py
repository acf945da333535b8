"""Transition."""

import torch
from torch import Tensor

from irbridge.errors import UserError
from irbridge.gaussian.marginal import Marginal, broadcast, draw


def step(
    state: Tensor,
    x0: Tensor,
    y: Tensor,
    now: Marginal,
    then: Marginal,
    keep: Tensor,
    noise: Tensor | None = None,
    spread: Tensor | float = 1.0,
) -> Tensor:
    """Move a state from the marginal ``now`` to the marginal ``then`` (IRBridge, Proposition 3.1).

        u' = (k/c) u + (a' - (k/c) a) x0 + (b' - (k/c) b) y + sqrt(c'^2 - k^2) xi,    0 <= k <= c'

    Args: state: u, (B, ...), a state of ``now``. x0, y: the clean estimate and the degraded end,
        shaped alike. keep: k, the standard deviation of the state's own noise that survives; see
        ``irbridge.samplers.single_step``. noise: xi, unit normal (times the residual for a residual-modulated
        bridge). ``None`` leaves it out, which keeps
            the marginal only where k = c'.
        spread: what multiplies the noise in the state but not xi, element-wise: the residual, on
            the way from a residual-modulated bridge to an isotropic prior.

    At a pinned end (c = 0) the state says nothing that x0 and y do not: k must be 0 there, and the
    step draws from ``then`` outright ("booting noise", DBIM), never dividing by c.
    """
    ratio = torch.where(now.noise > 0, keep / now.noise, 0.0)
    result = (
        broadcast(ratio, state) * state
        + broadcast(then.clean - ratio * now.clean, state) * x0
        + broadcast(then.degraded - ratio * now.degraded, state) * y
    )
    if noise is None:
        return result
    # not ratio * c, whose rounding would leave a trace of noise
    kept = torch.where(now.noise > 0, keep, 0.0)
    # where the state is noisier than the target, x0 stands in for the excess
    if torch.is_tensor(spread):
        excess = (broadcast(kept, state) * spread.abs()).clamp(min=1e-12)
        share = (broadcast(then.noise, state) / excess).clamp(max=1)
        result = result - broadcast(ratio, state) * (1 - share) * (
            state - draw(now, x0, y, torch.zeros_like(state))
        )
        spread = spread * share
        fresh = (
            (broadcast(then.noise, state) ** 2 - (broadcast(kept, state) * spread) ** 2)
            .clamp(min=0)
            .sqrt()
        )
    else:
        fresh = broadcast((then.noise**2 - (kept * spread) ** 2).clamp(min=0).sqrt(), state)
    return result + fresh * noise


def loss_weight(level: Marginal, kind: str) -> Tensor:
    """What turns the error of x0 into that of "x0", "eps" or "v" (VP) at a level; float64, shaped
    as the level.
    """
    weights = {
        "x0": torch.ones_like(level.noise),
        "eps": level.clean / level.noise,
        "v": 1 / level.noise,
    }
    if kind not in weights:
        raise UserError(f"loss.weight={kind!r} is unknown; choose one of {', '.join(weights)}.")
    return weights[kind]


def posterior_keep(now: Marginal, then: Marginal) -> Tensor:
    """K of the Markov posterior p(u' | u, x0, y): ``(a/a') c'^2 / c`` (DDPM, IR-SDE, GOUB, I2SB).
    Clamped to c', which only binds where the process is not Markov (a/c increasing).
    """
    ratio = torch.where(then.clean > 0, now.clean / then.clean, 0.0)
    return _unpinned(now, torch.minimum(ratio * then.noise**2 / now.noise, then.noise))


def implicit_keep(now: Marginal, then: Marginal) -> Tensor:
    """K = c': no fresh noise. DDIM, DBIM eta=0, RDBM eq. 19; from the prior, the paper's reverse
    transition.
    """
    return _unpinned(now, then.noise)


def forward_keep(now: Marginal, then: Marginal) -> Tensor:
    """K = c a'/a, where x0 drops out: the paper's forward transition (Sec. 3.2), for targets at
    least as noisy. Where ``c'/a' < c/a`` k is clamped to c', and the step uses whatever x0 it is
    given, as at a pinned end.
    """
    wanted = torch.where(now.clean > 0, now.noise * then.clean / now.clean, then.noise)
    return _unpinned(now, torch.minimum(wanted, then.noise))


def kept(now: Marginal, then: Marginal, share: Tensor) -> Tensor:
    """K that keeps this share of the state's own noise, k <= c'."""
    return _unpinned(now, torch.minimum(share * now.noise, then.noise))


def _unpinned(now: Marginal, keep: Tensor) -> Tensor:
    return torch.where(now.noise > 0, keep, 0.0)
