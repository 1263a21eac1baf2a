"""SIGINT and SIGTERM end a run in order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from cmlr_edge.cli.console import stderr
from cmlr_edge.machine.waiting import Interrupted, interrupted_when, while_waiting
from cmlr_edge.session.runner import Runner

_SAME_SIGNAL_S = 0.1  # `timeout` and terminals may send one signal twice: to us and to our group


class Interruption:
    """Notes the first signal instead of raising: an exception could break a lock or an output."""

    def __init__(self) -> None:
        """Start with no signal received."""
        self.number, self._noted_s = 0, 0.0
        self._end: Callable[[], None] | None = None

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
        if self._end is not None:
            self._end()

    def is_unwanted(self) -> bool:
        """Whether what still begins is to be broken off."""
        return self.number != 0 and self._end is None


def run_until_signal(runner: Runner, interruption: Interruption, *, reloads: bool) -> None:
    """Run a session until it is over or a signal ends it; SIGHUP reloads, if there is a file."""
    interruption.calls(runner.request_end)
    if reloads:
        signal.signal(signal.SIGHUP, lambda _number, _frame: runner.request_reload())
    runner.run()


@contextmanager
def noted_signals(*, ends_well: bool) -> Iterator[Interruption]:
    """Handle SIGINT and SIGTERM inside the block; one that comes before the run has begun leaves it.

    Args:
        ends_well: Whether the command goes on until a signal ends it, so that its exit code is 0 then.
    """
    interruption = Interruption()
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, interruption.note) for number in numbers}
    try:
        with while_waiting(interrupted_when(interruption.is_unwanted)):
            yield interruption
    except Interrupted:
        if ends_well:
            raise typer.Exit from None
        stderr.print("interrupted before the first frame")
        raise typer.Exit(128 + interruption.number) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
