"""How old a frame of a network stream is when it is read.

Frames pile up while a stream is opened, while the network pauses, and while nobody reads. They then come
without a wait and would pass for new. The stream's own times tell: each frame is compared with the one
that took the shortest way lately, from its time in the stream to its arrival here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_TOO_OLD_S = 0.2  # a frame that old is left out where newer ones wait behind it
_LOOK_BACK_S = 30.0  # at least, for the shortest way: clocks of cameras drift
_FLOWING = 3  # frames in a row that came as slowly as they were taken: none waits
_TIMELESS = 3  # steps in a row that are none: the stream has no times
_LARGEST_REORDERING_S = 1.0  # a longer step back is a new beginning
_PAUSE_S = 0.5  # a wait that may have let frames pile up


@dataclass(frozen=True)
class Verdict:
    """What is known of a frame when it arrives."""

    age_s: float
    is_queued: bool  # newer ones wait behind it, or may do so


class Backlog:
    """Judges the frames of one connection, in the order in which they arrive."""

    def __init__(self, fps: float | None, *, has_times: bool) -> None:
        """Start with a connection that was just opened, while frames piled up.

        Args:
            fps: Frames per second, if announced.
            has_times: Whether the stream says when a frame was taken, and does not only count.
        """
        self._has_times = has_times
        self._step_s = 1 / (fps or 25.0)  # usual, between frames
        self._last_s: float | None = None
        self._lag_s = 0.0  # of the newest frame: arrival less time in the stream
        self._shortest_s = (math.inf, math.inf)  # lags: in this stretch of time, in the one before
        self._stretch_s = -math.inf  # when this one began
        self._flowing = self._timeless = 0
        self._is_settled = False  # whether what had piled up has been read

    def judge(self, stream_s: float | None, waited_s: float, now_s: float) -> Verdict:
        """Take the next frame.

        Args:
            stream_s: Its time in the stream, in the order of arrival.
            waited_s: How long the read waited for it.
            now_s: On a monotonic clock.
        """
        if not self._has_times or stream_s is None:
            return self._by_wait(waited_s)
        step_s = self._step_s if self._last_s is None else stream_s - self._last_s
        if -_LARGEST_REORDERING_S < step_s < 0:  # it is shown before one that came before it
            return Verdict(self._age_s(), not self._is_settled)
        if step_s <= 0:
            self._timeless += 1
            self._has_times = self._timeless < _TIMELESS
            self._forget()
        else:
            self._timeless = 0
        self._last_s, self._lag_s = stream_s, now_s - stream_s
        self._note(now_s)
        flows = 0.7 * step_s <= waited_s <= 2 * step_s + 0.1
        self._flowing = self._flowing + 1 if flows else 0
        self._is_settled = self._is_settled or waited_s >= 0.3 * max(step_s, 0.01)
        if self._flowing >= _FLOWING and self._age_s() > _TOO_OLD_S:
            self.trust()
        age_s = self._age_s()
        return Verdict(age_s, not self._is_settled or (age_s > _TOO_OLD_S and not flows))

    def trust(self) -> None:
        """Take the newest frame for new: reading on did not bring newer ones."""
        self._is_settled = True
        self._forget()
        self._note(self._stretch_s)

    def _age_s(self) -> float:
        return max(0.0, self._lag_s - min(self._shortest_s))

    def _forget(self) -> None:
        self._shortest_s = (math.inf, math.inf)

    def _note(self, now_s: float) -> None:
        newest, before = self._shortest_s
        if now_s - self._stretch_s > _LOOK_BACK_S:
            newest, before, self._stretch_s = math.inf, newest, now_s
        self._shortest_s = (min(newest, self._lag_s), before)

    def _by_wait(self, waited_s: float) -> Verdict:
        """Without times: after the opening or a pause, what comes at once has waited."""
        if waited_s > max(_PAUSE_S, 3 * self._step_s):
            self._is_settled = False
        elif waited_s >= self._step_s / 4:
            self._is_settled = True
        self._step_s += 0.2 * (waited_s - self._step_s)
        return Verdict(0.0, not self._is_settled)
