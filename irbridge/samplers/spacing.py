"""The times that a sampler steps between, and how many network calls each step may make."""

import numpy as np
import torch

from irbridge.bridges.base import Bridge

SPACINGS = ("time", "logsnr", "karras")


def spaced(
    bridge: Bridge, first: float, count: int, spacing: str = "time", rho: float = 7.0
) -> np.ndarray:
    """Falling times from ``first`` down to the clean end.

    Args:
        bridge: the process that is sampled.
        first: the time to start at.
        count: number of steps.
        spacing: what the steps are uniform in. "time"; "logsnr", the log of signal over noise; or
            "karras", t^(1 / rho) (Karras et al. 2022, eq. 5; DDBM). The last two would never reach
            the clean end: they run down to the share ``bridge.near`` of T, and one step more is
            taken from there.
        rho: of "karras".

    Returns:
        ``count + 1`` times, float64.
    """
    low = bridge.lowest
    near = low + bridge.near * (bridge.T - low)
    if spacing == "time" or count == 1 or first <= near:
        return np.linspace(first, low, count + 1)
    if spacing == "karras":
        inner = np.linspace(first ** (1 / rho), near ** (1 / rho), count) ** rho
    else:
        inner = _even_in_log_snr(bridge, first, near, count)
    return np.concatenate([[first], inner[1:], [low]])


def _even_in_log_snr(bridge: Bridge, first: float, near: float, count: int) -> np.ndarray:
    """``count`` falling times from about ``first`` to ``near``, by interpolation in a fine table.

    A pinned end has no finite level, so that the table stops at 0.99 T.
    """
    times = np.geomspace(near, min(first, 0.99 * bridge.T), 20001)
    level = np.log(bridge.marginal(torch.as_tensor(times)).level.numpy())
    return np.interp(np.linspace(level[-1], level[0], count), level, times)


def split_calls(nfe: int, most: int) -> list[int]:
    """The network calls of each step, ``nfe`` in all.

    Args:
        nfe: the calls to hand out.
        most: calls of a full step. The last one, to the clean end, takes one less (at least one).

    Returns:
        One number per step. Where the budget does not divide, the step before the last has fewer.
    """
    count = nfe if most == 1 else -(-(nfe + 1) // most)
    calls = [most] * (count - 1) + [max(most - 1, 1)]
    calls[max(count - 2, 0)] -= sum(calls) - nfe
    return calls
