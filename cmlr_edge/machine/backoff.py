"""Waiting before the next attempt at something that failed."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Delays that grow, scattered so that many devices do not come back in step."""

    def __init__(self, first_s: float, max_s: float, random: Callable[[], float]) -> None:
        """Start small.

        Args:
            first_s: The first delay before scattering.
            max_s: The longest.
            random: Uniform in [0, 1).
        """
        self._first_s, self._max_s, self._random = first_s, max_s, random
        self._attempts = 0

    def next_s(self) -> float:
        """Return the next delay: between half and all of the doubled value."""
        delay_s = min(self._max_s, self._first_s * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        return delay_s * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """Start small again."""
        self._attempts = 0
