"""Stop signals, which a training answers between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

stops: list[int] = []  # the stop signals that the present training, which first saves, has had


@contextmanager
def stop_signals() -> Iterator[None]:
    """Within the block SIGINT and SIGTERM are only noted in ``stops``.

    The training loop can then save and leave. A terminal sends its signal to the loader's workers
    too. That a worker has ended is told by the next read of its crops, never in the middle of an
    optimizer step.
    """
    stops.clear()
    previous = {
        number: signal.signal(number, lambda got, _: stops.append(got))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    if hasattr(signal, "SIGCHLD"):
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
