"""The newest events, as visits: one record per visit of a label, on the wall clock.

The wall clock may be set at any time: by hand, by the network, after a start without a battery. Visits
are therefore kept on a clock that only rises, and told on the wall clock as it is when they are asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cmlr_edge.events.event import Event
from cmlr_edge.machine.clocks import since_start_s
from cmlr_edge.sinks.base import Result, Takes

_MAX_ENDED = 2000  # visits kept for the timeline
_STEP_S = 0.5  # the wall clock was set, rather than made a little faster or slower


@dataclass(frozen=True)
class Visit:
    """A label that came, and perhaps went; times in seconds since the epoch."""

    id: str
    source: str
    label: str
    start_at: float
    end_at: float | None  # None while it lasts; never before start_at
    score: float  # smoothed, newest
    max_score: float
    revision: int  # grows with every change of any visit
    picture: str = ""  # its file; "" where none is taken
    clip: str = ""  # likewise; it is there some seconds after the end


class VisitLog:
    """Keeps the newest visits of all sources; see `Sink`. Any thread may ask it."""

    takes: Takes = "events"
    pictures = False
    inline = True

    def __init__(
        self,
        *,
        clock: Callable[[], float] = since_start_s,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Start empty.

        Args:
            clock: Seconds that only rise.
            wall_clock: Seconds since the epoch.
        """
        self._clock, self._wall_clock = clock, wall_clock
        self._lock = threading.Lock()
        self._revision = 0
        self._to_wall_s = wall_clock() - clock()
        self._open: dict[str, Visit] = {}  # here on our clock, as those that ended
        self._ended: dict[str, Visit] = {}  # oldest first

    def write(self, result: Result) -> None:
        """Take its events; see `Sink`."""
        for event in result.events:
            if event.is_visit:
                self._take(event)

    def _take(self, event: Event) -> None:
        with self._lock:
            self._revision += 1
            known = self._open.pop(event.id, None)
            start_s = self._clock() - (event.time_s - event.start_s)
            start_s = known.start_at if known else start_s
            visit = Visit(
                id=event.id,
                source=event.source,
                label=event.label,
                start_at=start_s,
                end_at=None if event.end_s is None else start_s + event.end_s - event.start_s,
                score=event.score,
                max_score=event.max_score,
                revision=self._revision,
                picture=event.picture,
                clip=event.clip,
            )
            if event.kind == "end":
                self._ended[event.id] = visit
                if len(self._ended) > _MAX_ENDED:
                    del self._ended[next(iter(self._ended))]
            else:
                self._open[event.id] = visit

    def close(self) -> None:
        """Stay readable: a source that ended has a past; see `Sink`."""

    def newest(self, limit: int, *, after_revision: int = 0) -> list[Visit]:
        """Return visits that changed after a revision, the last changed first."""
        with self._lock:
            self._follow_wall_clock()
            visits = [*self._ended.values(), *self._open.values()]
            to_wall_s = self._to_wall_s
        changed = [visit for visit in visits if visit.revision > after_revision]
        newest = sorted(changed, key=lambda visit: -visit.revision)[:limit]
        return [
            replace(
                visit,
                start_at=visit.start_at + to_wall_s,
                end_at=None if visit.end_at is None else visit.end_at + to_wall_s,
            )
            for visit in newest
        ]

    def _follow_wall_clock(self) -> None:
        """Where it was set, every visit has another time there, and so has changed."""
        to_wall_s = self._wall_clock() - self._clock()
        if abs(to_wall_s - self._to_wall_s) < _STEP_S:
            return
        self._to_wall_s = to_wall_s
        for visits in (self._ended, self._open):
            for key, visit in visits.items():
                self._revision += 1
                visits[key] = replace(visit, revision=self._revision)

    def find(self, visit_id: str) -> Visit | None:
        """Return one visit, on our clock; None where it is not known any more."""
        with self._lock:
            return self._open.get(visit_id) or self._ended.get(visit_id)

    def present(self, source: str) -> frozenset[str]:
        """Return the labels whose visits to a source last."""
        with self._lock:
            return frozenset(v.label for v in self._open.values() if v.source == source)
