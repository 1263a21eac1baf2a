"""SIGINT and SIGTERM end a run in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Notes the first signal instead of raising: an exception could break a lock or an output."""

    def __init__(self) -> None:
        """Start with no signal received."""
        self.number = 0
        self._end: Callable[[], None] = lambda: None

    def calls(self, end: Callable[[], None]) -> None:
        """Let a signal call `end`, which must not wait; at once if one has come already."""
        self._end = end
        if self.number:
            end()

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal; the second one ends the process, whatever hangs in it."""
        if self.number:
            os._exit(128 + number)
        self.number = number
        self._end()


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
