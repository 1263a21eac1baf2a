"""The times of a stream as a line that only rises, whatever the stream says."""

from __future__ import annotations

import math

_USUAL_STEP_S = 1 / 25  # where nothing is known
_LARGEST_JUMP_S = 10.0  # ahead, in formats that join recordings whose times have nothing in common
_LARGEST_PAUSE_S = 1e6  # in all others: beyond, the number is damaged
_LEAST_SHARE = 0.05  # of a usual step: between frames whose order the stream muddles


class TimeLine:
    """Counts seconds from the first frame on.

    Recordings that were joined start again in the middle: the line then goes on by a usual step. Frames
    that stand a little before their neighbours, or have no time, are put behind them.
    """

    def __init__(self, fps: float | None = None, *, may_jump: bool = False) -> None:
        """Start before the first frame.

        Args:
            fps: Frames per second, if announced.
            may_jump: Whether a long step ahead is a joint of two recordings, rather than a pause.
        """
        self._step_s = 1 / fps if fps else _USUAL_STEP_S
        self._largest_s = max(_LARGEST_JUMP_S, 5 * self._step_s) if may_jump else _LARGEST_PAUSE_S
        self._offset_s: float | None = None  # from the stream's times to ours
        self._last_s = -math.inf

    def place(self, stream_s: float | None) -> float:
        """Return the time of the next frame; more than that of the one before.

        Args:
            stream_s: What the stream says, from wherever it counts; None or no number: nothing.
        """
        if stream_s is None or not math.isfinite(stream_s):
            self._last_s = self._after(self._step_s)
            return self._last_s
        if self._offset_s is None:
            self._last_s = self._after(self._step_s)
            self._offset_s = self._last_s - stream_s
            return self._last_s
        time_s = stream_s + self._offset_s
        if not -2 * self._step_s <= time_s - self._last_s <= self._largest_s:
            self._offset_s += self._last_s + self._step_s - time_s
            time_s = self._last_s + self._step_s
        self._last_s = max(time_s, self._last_s + _LEAST_SHARE * self._step_s)
        return self._last_s

    def _after(self, step_s: float) -> float:
        return 0.0 if self._last_s == -math.inf else self._last_s + step_s
