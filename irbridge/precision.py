"""Whether half precision pays on this machine: tried, never guessed from the processor's name."""

import time
from collections.abc import Callable

ROUNDS = 3


def trial(run: Callable[[bool], None], rounds: int = ROUNDS) -> bool:
    """Whether ``run(True)``, in bfloat16, takes less time than ``run(False)``: the least of alternating runs after one of
    each."""
    least = {}
    for k in range(rounds + 1):
        for half in (False, True):
            started = time.perf_counter()
            run(half)
            if k:   # the first allocates and prepares
                least[half] = min(least.get(half, float("inf")), time.perf_counter() - started)
    return least[True] < least[False]
