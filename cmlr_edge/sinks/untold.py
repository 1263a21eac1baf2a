"""Topics whose newest message a broker is yet to be told, each once."""

from __future__ import annotations

from collections.abc import Iterable

LIVING = "/score"  # how topics end that change all the time, and may wait for all others


class Untold:
    """In the order in which they came, but for those that change all the time, which come last."""

    def __init__(self, topics: Iterable[str] = ()) -> None:
        """Begin with some."""
        self._first: dict[str, None] = {}
        self._last: dict[str, None] = {}
        self.add(topics)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._first or self._last)

    def add(self, topics: Iterable[str]) -> None:
        """Take more; one that waits already keeps its place."""
        for topic in topics:
            (self._last if topic.endswith(LIVING) else self._first)[topic] = None

    def take(self) -> str:
        """Take out the next."""
        topics = self._first or self._last
        topic = next(iter(topics))
        del topics[topic]
        return topic
