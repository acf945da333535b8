"""The transition equation: the single step between any two Gaussian laws."""

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
    """Move a state from one law to another (IRBridge, eq. 7 and Proposition 3.1).

        u' = (k/c) u + (a' - (k/c) a) x0 + (b' - (k/c) b) y + sqrt(c'^2 - k^2) xi,    0 <= k <= c'

    It is at once the step of any sampler and the transition between a bridge and a prior. At a
    pinned end (c = 0) the state says nothing that x0 and y do not: k must be 0 there, and the step
    draws from ``then`` outright ("booting noise", DBIM), never dividing by c.

    Args:
        state: u, (B, ...), a state of ``now``.
        x0: the clean estimate, alike.
        y: the degraded end, alike.
        now: the law (a, b, c) of the state.
        then: the law (a', b', c') that it moves to.
        keep: k, the std of the state's own noise that survives; see the ``*_keep`` functions.
        noise: xi, unit normal (times the residual for a residual-modulated bridge). ``None`` leaves
            it out, which keeps the marginal only where k = c'.
        spread: what multiplies the noise in the state but not xi, element-wise: the residual, on
            the way from a residual-modulated bridge to an isotropic prior.

    Returns:
        u', shaped as the state.

    Raises:
        ValueError: k is negative, no number, or above c'.
    """
    keep = torch.as_tensor(keep, dtype=torch.float64)
    _check_keep(keep, then)
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
    if not torch.is_tensor(spread):
        return result + broadcast(_beyond(kept * spread, then.noise), state) * noise
    # where the state is noisier than the target, x0 stands in for the excess
    kept, there = broadcast(kept, state), broadcast(then.noise, state)
    share = (there / (kept * spread.abs()).clamp(min=1e-12)).clamp(max=1)
    own = state - draw(now, x0, y, torch.zeros_like(state))
    result = result - broadcast(ratio, state) * (1 - share) * own
    return result + _beyond(kept * (spread * share), there) * noise


def _beyond(kept: Tensor, whole: Tensor) -> Tensor:
    """The std of the noise that a std of ``whole`` has beyond one of ``kept``."""
    return (whole**2 - kept**2).clamp(min=0).sqrt()


def _check_keep(keep: Tensor, then: Marginal) -> None:
    """ValueError unless 0 <= k <= c', up to rounding."""
    right = (keep >= 0) & (keep <= then.noise * (1 + 1e-9) + 1e-300)
    if not bool(right.all()):
        k, noise = torch.broadcast_tensors(keep, then.noise)
        wrong = int((~right).flatten().nonzero()[0])
        raise ValueError(
            f"A step cannot keep a std of {float(k.flatten()[wrong]):g} of the state's noise where"
            f" the law that it leads to has {float(noise.flatten()[wrong]):g}; keep must be from 0"
            " to that."
        )


def loss_weight(level: Marginal, kind: str) -> Tensor:
    """What turns the error of x0 into that of another target.

    Args:
        level: the law of the prior's state.
        kind: "x0", "eps" or "v" (of a variance-preserving prior).

    Returns:
        A factor, float64, shaped as the level's fields.

    Raises:
        UserError: there is no such kind.
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
    """The kept std of the Markov posterior p(u' | u, x0, y): ``(a/a') c'^2 / c``.

    That of DDPM, IR-SDE, GOUB and I2SB. It is clamped to c', which only binds where the process is
    not Markov (a/c increasing).
    """
    ratio = torch.where(then.clean > 0, now.clean / then.clean, 0.0)
    return _unpinned(now, torch.minimum(ratio * then.noise**2 / now.noise, then.noise))


def implicit_keep(now: Marginal, then: Marginal) -> Tensor:
    """The kept std of a step without fresh noise: ``c'``.

    That of DDIM, DBIM with eta 0 and RDBM (eq. 19); from the prior, IRBridge's reverse transition.
    """
    return _unpinned(now, then.noise)


def forward_keep(now: Marginal, then: Marginal) -> Tensor:
    """The kept std with which x0 drops out of the step: ``c a'/a``.

    That of IRBridge's forward transition (Sec. 3.2), for targets at least as noisy. Where
    ``c'/a' < c/a`` it is clamped to c', and the step uses whatever x0 it is given, as at a pinned
    end.
    """
    wanted = torch.where(now.clean > 0, now.noise * then.clean / now.clean, then.noise)
    return _unpinned(now, torch.minimum(wanted, then.noise))


def kept(now: Marginal, then: Marginal, share: Tensor) -> Tensor:
    """The kept std that is this share of the state's own noise, at most ``c'``."""
    return _unpinned(now, torch.minimum(share * now.noise, then.noise))


def _unpinned(now: Marginal, keep: Tensor) -> Tensor:
    return torch.where(now.noise > 0, keep, 0.0)
