"""The guarded outputs of one source or of a whole run, and when each is closed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from cmlr_edge.sinks.base import Result, SourceHealth
from cmlr_edge.sinks.guarded import GuardedSink


class Outputs:
    """Outputs of one source, or that all of a run share; a reload may change them between two results."""

    def __init__(self, guards: Sequence[GuardedSink] = ()) -> None:
        """Own the guards from here on; whoever ends the last with one closes it."""
        self._guards: tuple[GuardedSink, ...] = ()
        self._own: set[GuardedSink] = set()  # those that are not closed yet
        self.lost_before = 0
        self._take(guards)

    @property
    def guards(self) -> tuple[GuardedSink, ...]:
        """Those of the moment."""
        return self._guards

    def write(self, result: Result, *, wait: bool) -> None:
        """Hand one result to each; a result that met a closing one goes to its successor."""
        pending = self._guards
        while True:
            refused = [guard for guard in pending if not guard.write(result, wait=wait)]
            if not refused or pending is self._guards:
                return
            pending = tuple(guard for guard in self._guards if guard not in pending)

    def watch(self, sources: Sequence[SourceHealth]) -> None:
        """Tell those that want to know how the sources are."""
        for guard in self._guards:
            guard.watch(sources)

    def change(self, guards: Sequence[GuardedSink]) -> None:
        """Go on with others; those that are not among them are closed."""
        former = self._guards
        self._take(guards)
        gone = [guard for guard in former if guard not in guards]
        self._close_all(gone, math.inf)
        self.lost_before += sum(guard.lost for guard in gone)

    @property
    def lost(self) -> int:
        """How much was lost, earlier ones included."""
        return self.lost_before + sum(guard.lost for guard in self._guards)

    def close(self, limit_s: float = math.inf) -> None:
        """Close at once, in so many seconds, those that nobody else owns."""
        self._close_all(self._guards, limit_s)

    def _take(self, guards: Sequence[GuardedSink]) -> None:
        for guard in {*guards} - self._own:
            guard.hold()
            self._own.add(guard)
        self._guards = tuple(guards)

    def _close_all(self, guards: Sequence[GuardedSink], limit_s: float) -> None:
        """Let them finish side by side."""
        deadline_s = time.monotonic() + limit_s
        gone = self._own.intersection(guards)
        self._own -= gone
        last = [guard for guard in dict.fromkeys(guards) if guard in gone and guard.release()]
        for guard in last:
            guard.request_close()
        for guard in last:
            guard.close(deadline_s - time.monotonic())
