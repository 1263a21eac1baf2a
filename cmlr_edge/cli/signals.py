"""SIGINT and SIGTERM end a run in order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cmlr_edge.session.runner import Runner

_SAME_SIGNAL_S = 0.1  # `timeout` and terminals may send one signal twice: to us and to our group


class Interruption:
    """Notes the first signal instead of raising: an exception could break a lock or an output."""

    def __init__(self) -> None:
        """Start with no signal received."""
        self.number, self._noted_s = 0, 0.0
        self._end: Callable[[], None] = lambda: None

    def calls(self, end: Callable[[], None]) -> None:
        """Let a signal call `end`, which must not wait; at once if one has come already."""
        self._end = end
        if self.number:
            end()

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal; the second one ends the process, whatever hangs in it."""
        if self.number and time.monotonic() - self._noted_s < _SAME_SIGNAL_S:
            return
        if self.number:
            os._exit(128 + number)
        self.number, self._noted_s = number, time.monotonic()
        self._end()


def run_until_signal(runner: Runner, interruption: Interruption, *, reloads: bool) -> None:
    """Run a session until it is over or a signal ends it; SIGHUP reloads, if there is a file."""
    interruption.calls(runner.request_end)
    if reloads:
        signal.signal(signal.SIGHUP, lambda _number, _frame: runner.request_reload())
    runner.run()


@contextmanager
def noted_signals() -> Iterator[Interruption]:
    """Handle SIGINT and SIGTERM inside the block."""
    interruption = Interruption()
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, interruption.note) for number in numbers}
    try:
        yield interruption
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
