"""Saying what happens again and again without filling a journal."""

from __future__ import annotations

import time

_AT_ONCE, _EVERY_S = 5, 60.0


class Rarely:
    """Lets the first few through, and then one a minute."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self._num_said, self._said_s = 0, 0.0

    def may_say(self) -> bool:
        """Whether this time is one to be said; it then counts as said."""
        now_s = time.monotonic()
        if self._num_said >= _AT_ONCE and now_s - self._said_s < _EVERY_S:
            return False
        self._num_said, self._said_s = self._num_said + 1, now_s
        return True
