"""SIGINT and SIGTERM end a run in order; SIGHUP lets it read its file again, or where it has none ends it, too."""

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

_SAME_SIGNAL_S = 0.1  # `timeout` and terminals may send one signal twice: to us and to our group


class Interruption:
    """Notes the first signal instead of raising: an exception could break a lock or an output."""

    def __init__(self) -> None:
        """Start with no signal received."""
        self.number, self._noted_s = 0, 0.0
        self._end: Callable[[], None] | None = None
        self._reload: Callable[[], None] | None = None
        self._is_reload_wanted = False

    def calls(self, end: Callable[[], None], reload: Callable[[], None] | None = None) -> None:
        """Let signals call these, which must not wait; at once if one has come already."""
        self._end, self._reload = end, reload
        if self.number:
            end()
        if self._is_reload_wanted and reload is not None:
            reload()

    def note_reload(self, _number: int, _frame: FrameType | None) -> None:
        """Handle SIGHUP; one that comes while the run still begins counts as soon as it has."""
        self._is_reload_wanted = True
        if self._reload is not None:
            self._reload()

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal; the second one ends the process, whatever hangs in it.

        Nobody who is in a hurry sends SIGHUP: a terminal that is closed does, and its shell once more.
        """
        if self.number:
            if number == signal.SIGHUP or time.monotonic() - self._noted_s < _SAME_SIGNAL_S:
                return
            os._exit(128 + number)
        self.number, self._noted_s = number, time.monotonic()
        if self._end is not None:
            self._end()

    def is_unwanted(self) -> bool:
        """Whether what still begins is to be broken off."""
        return self.number != 0 and self._end is None


@contextmanager
def noted_signals(*, ends_well: bool, reloads: bool = False) -> Iterator[Interruption]:
    """Handle signals inside the block; one that ends the run and comes before it has begun leaves the block.

    Args:
        ends_well: Whether the command goes on until a signal ends it, so that its exit code is 0 then.
        reloads: Whether there is a file to read again at SIGHUP, which ends the run otherwise; not under nohup.
    """
    interruption = Interruption()
    handlers: dict[int, Callable[[int, FrameType | None], None]]
    handlers = {signal.SIGINT: interruption.note, signal.SIGTERM: interruption.note}
    if reloads:
        handlers[signal.SIGHUP] = interruption.note_reload
    elif signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        handlers[signal.SIGHUP] = interruption.note
    previous = {number: signal.signal(number, note) for number, note in handlers.items()}
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
