"""The newest events, as visits: one record per visit of a label, on the wall clock."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from cmlr_edge.events.event import Event
from cmlr_edge.sinks.base import Result, Takes

_MAX_ENDED = 2000  # visits kept for the timeline


@dataclass(frozen=True)
class Visit:
    """A label that came, and perhaps went; times in seconds since the epoch."""

    id: str
    source: str
    label: str
    start_at: float
    end_at: float | None  # None while it lasts
    score: float  # smoothed, newest
    max_score: float
    revision: int  # grows with every change of any visit


class VisitLog:
    """Keeps the newest visits of all sources; see `Sink`. Any thread may ask it."""

    takes: Takes = "events"
    pictures = False
    inline = True

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._revision = 0
        self._open: dict[str, Visit] = {}
        self._ended: dict[str, Visit] = {}  # oldest first

    def write(self, result: Result) -> None:
        """Take its events; see `Sink`."""
        for event in result.events:
            if event.kind != "begin":
                self._take(event)

    def _take(self, event: Event) -> None:
        offset_s = event.captured_at - event.time_s  # from the source's clock to the wall's
        with self._lock:
            self._revision += 1
            known = self._open.pop(event.id, None)
            visit = Visit(
                id=event.id,
                source=event.source,
                label=event.label,
                start_at=known.start_at if known else event.start_s + offset_s,
                end_at=None if event.end_s is None else event.end_s + offset_s,
                score=event.score,
                max_score=event.max_score,
                revision=self._revision,
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
            visits = [*self._ended.values(), *self._open.values()]
        changed = [visit for visit in visits if visit.revision > after_revision]
        return sorted(changed, key=lambda visit: -visit.revision)[:limit]

    def present(self, source: str) -> frozenset[str]:
        """Return the labels whose visits to a source last."""
        with self._lock:
            return frozenset(v.label for v in self._open.values() if v.source == source)
