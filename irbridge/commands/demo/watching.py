"""A restoration in a thread of its own, and what the page says of it while it goes on."""

import threading
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import numpy as np

from irbridge.images.arrays import to_bytes

KEPT = 24  # estimates that are kept of a restoration, evenly spread over its calls
EVERY = 0.3  # seconds between two looks
TICK = 1.0  # seconds after which the page is told the time again

_TURN = threading.Lock()  # one at a time: the models are shared, and so are the cores


class StoppedError(Exception):
    """Nobody waits for the restoration any more."""


class Watched:
    """A restoration that runs in a thread, where it waits for its turn, and is watched.

    Args:
        work: called with this, as soon as it is its turn; it tells :meth:`progress`,
            :meth:`shown` and :meth:`stage`.

    Attributes:
        latest: the estimate after the latest call, uint8 (H, W, 3), or None.
        seen: how many calls have given an estimate.
        kept: (call, estimate), evenly spread.
    """

    def __init__(self, work: Callable[["Watched"], Any]):
        self.latest, self.seen, self.kept = None, 0, []
        self.calls, self._done, self._all, self._stride = 0, 0, 0, 1
        self._stage, self._started = "Waiting for another photograph to be finished", None
        self._work, self._stop, self._end = work, threading.Event(), threading.Event()
        self._result, self._error = None, None

    def stage(self, words: str, calls: int = 0) -> None:
        """Say what is done now; ``calls`` is how many calls of the network there will be."""
        self._check()
        self._stage, self.calls, self._started = words, calls, time.perf_counter()

    def progress(self, done: int, total: int) -> None:
        """Say that so many tiles of all have passed the networks."""
        self._check()
        self._done, self._all = done, total

    def shown(self, estimate: np.ndarray) -> None:
        """Take the estimate after a call, float (H, W, 3) in [0, 1]."""
        self._check()
        self.latest, self.seen = to_bytes(np.clip(estimate, 0, 1)), self.seen + 1
        if self.seen % self._stride == 0:
            self.kept.append((self.seen, self.latest))
        if len(self.kept) > KEPT:
            self._stride *= 2
            self.kept = [pair for pair in self.kept if pair[0] % self._stride == 0]

    @property
    def shots(self) -> list[tuple[int, np.ndarray]]:
        """The kept estimates and the last one, each with the number of its call."""
        last = [(self.seen, self.latest)] if self.latest is not None else []
        return [pair for pair in self.kept if pair[0] != self.seen] + last

    def follow(self) -> Iterator[None]:
        """Run it, and yield whenever there is something new to say; it is stopped with this."""
        threading.Thread(target=self._run, daemon=True).start()
        told, at = None, 0.0
        try:
            while not self._end.wait(EVERY):
                now, news = time.perf_counter(), (self._stage, self._done, self.seen)
                if news != told or now - at >= TICK:
                    told, at = news, now
                    yield
        finally:
            self._stop.set()

    def result(self) -> Any:
        """What the work gave or raises, once :meth:`follow` has ended."""
        if self._error is not None:
            raise self._error
        return self._result

    def seconds(self) -> float:
        """Since the work began on what it does now."""
        return 0.0 if self._started is None else time.perf_counter() - self._started

    def words(self) -> str:
        """Where it is: "Call 2 of 3, 4 seconds so far, about 3 left"."""
        if self._started is None:
            return f"{self._stage} ..."
        words, past = self._stage, self.seconds()
        if self.calls > 1:
            words = f"Call {min(self.seen + 1, self.calls)} of {self.calls}"
        words += f", {past:.0f} second{'' if round(past) == 1 else 's'} so far"
        if self._done and self._done < self._all:
            words += f", about {past * (self._all - self._done) / self._done:.0f} left"
        return words

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 1; None: that is not known."""
        return self._done / self._all if self._all else None

    def _check(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _run(self) -> None:
        try:
            while not _TURN.acquire(timeout=EVERY):
                self._check()
            try:
                self._check()
                self._result = self._work(self)
            finally:
                _TURN.release()
        except BaseException as error:
            self._error = error
        finally:
            self._end.set()


def status(words: str, share: float | None = None, fault: bool = False) -> str:
    """A line of the page, HTML, with a bar where a share is given."""
    bar = "" if share is None else f'<progress value="{share:.3f}" max="1"></progress>'
    role, kind = ("alert", "fault") if fault else ("status", "going")
    return f'<div role="{role}" class="{kind}">{escape(words)}{bar}</div>' if words else ""
