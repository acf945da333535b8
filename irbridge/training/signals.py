"""Signals."""

import signal
from contextlib import contextmanager

stops: list[int] = []  # the stop signals that the present training, which first saves, has had


@contextmanager
def _stop_signals():
    """Within the block SIGINT and SIGTERM go to ``stops`` alone, so that the loop can save and
    leave. A loader's worker that such a signal to all of the group has ended fails the next read,
    never the middle of an optimizer step.
    """
    stops.clear()
    previous = {
        s: signal.signal(s, lambda number, _: stops.append(number))
        for s in (signal.SIGINT, signal.SIGTERM)
    }
    if hasattr(signal, "SIGCHLD"):
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
