"""The sampling loop of any process, asked directly or through a prior: a generator that yields
``(t, x)``, is sent the clean estimate there, and ends at the clean end, where the last estimate is
the answer.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from irbridge.bridges.base import Bridge
from irbridge.gaussian.marginal import Marginal, broadcast, draw, marginal
from irbridge.gaussian.transition import implicit_keep, step
from irbridge.samplers.base import Rule, Sampler, rule


def walk(
    bridge: Bridge,
    sampler: Sampler,
    y: Tensor,
    noise: Callable[[Tensor], Tensor],
    first: float | None = None,
    x: Tensor | None = None,
) -> Iterator[tuple[float, Tensor]]:
    """The loop: yields (t, x), is sent (x0, state, its marginal), and returns the last x.

    Args: y: the degraded end, (B, C, H, W). noise: called with a tensor, gives unit normal noise of
        its shape. first: the time to start at, instead of T; a pinned bridge starts at y there too
        (its end is skipped). x: the state to start from, instead of the bridge's own start.

    What is sent back is what the step starts from: x and the bridge's marginal, or the prior's
    state and its own.
    """
    how = rule(sampler.rule)
    times, calls = sampler.plan(bridge, first)
    if x is None:
        skipped = marginal(0, 1, 0 if bridge.pinned else bridge.marginal(times[0]).noise)
        law = bridge.begin() if times[0] == bridge.T else skipped
        x = draw(law, y, y, noise(y) * bridge.scale(y, y))
    past: list[tuple[Tensor, Tensor]] = []  # log(a / c) and the estimate of earlier calls

    def fresh(x0):
        return noise(y) * bridge.scale(x0, y) if sampler.noise else None

    for i, ((t, s), budget) in enumerate(zip(pairwise(times), calls)):
        booting, last = i == 0 and sampler.boot > 0, i == len(calls) - 1
        if how.solver == "hybrid":
            x = yield from _hybrid(bridge, sampler, x, y, t, s, budget, last, fresh)
            continue
        x0, state, law = yield float(t), x
        now, then, keep = how.laws(bridge, t, s, sampler.eta)
        if how.from_prior:
            now, then = law, bridge.marginal(s)
            x = step(state, x0, y, now, then, implicit_keep(now, then))
            continue
        # nothing may be divided by, or the step is too small to be a past one
        first_order = booting or not now.noise > 0
        if how.solver and first_order:
            # its laws may be another process's, with levels of their own
            now, then, keep = bridge.posterior(t, s)
        x = step(
            x,
            x0,
            y,
            now,
            then,
            keep,
            fresh(x0) if how.fresh and (keep < then.noise).any() else None,
        )
        if not how.solver or first_order or not now.clean > 0:
            continue
        width = then.level.log().neg() - now.level.log().neg()
        if how.solver == "exponential" and budget > 1:
            again = (yield float(s), x)[0]
            x = x + broadcast(then.clean * (width + torch.expm1(-width)) / width, x) * (again - x0)
        if how.solver == "multistep" and not last:
            x = x + _multistep(how, then, width, now.level.log().neg(), x0, past)
            past.append((now.level.log().neg(), x0))
    return x


def _multistep(
    how: Rule, then: Marginal, width: Tensor, at: Tensor, x0: Tensor, past: list
) -> Tensor | float:
    """What earlier estimates add to an implicit step over ``width`` of log(a / c) (DBIM, App. on
    high-order solvers; DPM-Solver++(2M), which weighs the slope as a midpoint would).
    """
    if not past:
        return 0.0
    flat = -torch.expm1(-width)
    slope = (x0 - past[-1][1]) / broadcast(at - past[-1][0], x0)
    if how.on_prior:
        return broadcast(then.clean * flat * width / 2, x0) * slope
    if how.order == 2 or len(past) == 1:
        return broadcast(then.clean * (width - flat), x0) * slope
    h1, h2 = at - past[-1][0], past[-1][0] - past[-2][0]
    bend = (slope - (past[-1][1] - past[-2][1]) / broadcast(h2, x0)) / broadcast(h1 + h2, x0)
    slope = slope + broadcast(h1, x0) * bend
    return (
        broadcast(then.clean * (width - flat), x0) * slope
        + broadcast(then.clean * (width**2 / 2 - width + flat), x0) * 2 * bend
    )


def velocity(
    bridge: Bridge,
    t: Tensor,
    x: Tensor,
    x0: Tensor,
    y: Tensor,
    markov: bool = False,
    ahead: bool = False,
) -> tuple[Tensor, Tensor]:
    """(dx/dt, g^2) of the bridge at x_t (B, ...) given x0: of the probability-flow ODE, or of the
    Markov reverse SDE ``a' x0 + b' y + (c'/c + e/c^2)(x - a x0 - b y), g^2 = 2 e, e = c c' - (a'/a)
    c^2``. Derivatives are one-sided, so that a published table gives the rate below t, or with
    ``ahead`` above it. t: float64, () or (B,), off the pinned ends.
    """
    now, room = bridge.marginal(t), torch.where(t < bridge.T, torch.minimum(t, bridge.T - t), t)
    width = 1e-6 * room if ahead else -1e-6 * room
    da, db, dc = ((there - here) / width for there, here in zip(bridge.marginal(t + width), now))
    excess = dc / now.noise - da / now.clean
    rate = dc / now.noise + (excess if markov else 0.0)
    mean = draw(now, x0, y, torch.zeros_like(x))
    return (
        broadcast(da, x) * x0 + broadcast(db, x) * y + broadcast(rate, x) * (x - mean),
        2 * now.noise**2 * excess,
    )


def _hybrid(
    bridge: Bridge,
    sampler: Sampler,
    x: Tensor,
    y: Tensor,
    t: float,
    s: float,
    budget: int,
    last: bool,
    fresh,
):
    """DDBM's step in t: Euler-Maruyama over the share ``churn``, then Heun (Euler to the clean
    end).
    """
    t, s = torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
    if budget == (2 if last else 3) and sampler.churn:
        x0 = (yield float(t), x)[0]
        middle = t + sampler.churn * (s - t)
        slope, variance = velocity(bridge, t, x, x0, y, markov=True)
        wiener = fresh(x0)
        x = x + broadcast(middle - t, x) * slope
        x = (
            x
            if wiener is None
            else x + broadcast((variance.clamp(min=0) * (t - middle)).sqrt(), x) * wiener
        )
        t = middle
    x0 = (yield float(t), x)[0]
    slope, _ = velocity(bridge, t, x, x0, y)
    ahead = x + broadcast(s - t, x) * slope
    if last or budget < 2:
        return ahead
    again = (yield float(s), ahead)[0]
    return x + broadcast((s - t) / 2, x) * (
        slope + velocity(bridge, s, ahead, again, y, ahead=True)[0]
    )
