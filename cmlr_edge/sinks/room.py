"""What is left out where more waits than there is room for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

from cmlr_edge.events.event import Event

T = TypeVar("T")


def take_least(
    waiting: deque[T], worth: Callable[[T], int], below: int, *, spared: int = 0
) -> T | None:
    """Take out the oldest of what is worth least, if that is less than `below`.

    Args:
        waiting: The oldest first.
        worth: Of an item.
        below: The worth of what asks for room.
        spared: So many of the oldest stay.
    """
    worths = [worth(item) for item in islice(waiting, spared, None)]
    if not worths or min(worths) >= below:
        return None
    index = spared + worths.index(min(worths))
    item = waiting[index]
    del waiting[index]
    return item


class EventQueue:
    """Events that wait for a server that is away, up to a limit; ends are kept before all others."""

    def __init__(self, limit: int) -> None:
        """Start empty.

        Args:
            limit: Events that wait at most.
        """
        self.changed = threading.Condition()  # guards everything below
        self._limit = limit
        self._waiting: deque[Event] = deque()
        self.closed = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def put(self, events: Iterable[Event]) -> int:
        """Let events wait; return how many found no room, of these or of those before."""
        lost = 0
        with self.changed:
            for event in events:
                if len(self._waiting) >= self._limit:
                    lost += 1
                    if take_least(self._waiting, _worth_of, event.worth) is None:
                        continue
                self._waiting.append(event)
            self.changed.notify_all()
        return lost

    def take(self, may_go: Callable[[], bool] = lambda: True) -> Event | None:
        """Wait for the oldest event and take it; None once nothing more comes.

        Args:
            may_go: Looked at whenever something changed: whether an event can be used now.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.closed or (self._waiting and may_go()))
            return None if self.closed else self._waiting.popleft()

    def close(self) -> int:
        """Let nobody wait any longer; return how many events are given up."""
        with self.changed:
            self.closed, left = True, len(self._waiting)
            self._waiting.clear()
            self.changed.notify_all()
        return left


def _worth_of(event: Event) -> int:
    return event.worth
