"""Sources that the model does not keep up with: all of their frames wait too long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from cmlr_edge.sinks.base import Result

_log = logging.getLogger(__name__)

_PATIENCE_S = 10.0  # of stale frames alone; a busy moment ends before


class Lateness:
    """Says once that a source falls behind, and once that it does not any more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is behind yet."""
        self._clock = clock
        self._in_time_s: dict[str, float] = {}  # when the newest result of each was in time last
        self._behind: set[str] = set()

    def behind(self, newest: Mapping[str, Result | None]) -> set[str]:
        """Return which are behind, by the newest result of each source; called several times a second."""
        now_s, before = self._clock(), self._behind
        self._in_time_s = {
            name: now_s
            if result is None or result.frame.status != "stale"
            else self._in_time_s.get(name, now_s)
            for name, result in newest.items()
        }
        self._behind = {name for name, s in self._in_time_s.items() if now_s - s > _PATIENCE_S}
        for name in self._behind - before:
            _log.warning(
                "%s: frames wait too long, the model does not keep up: take fewer a second of the "
                "sources (max_fps), or a smaller model",
                name,
            )
        for name in (before - self._behind) & newest.keys():
            _log.warning("%s: the model keeps up again", name)
        return self._behind
