"""Which frames go into the next run of the model, and how many."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """What several owners put is taken in batches, from each owner in turn."""

    def __init__(self) -> None:
        """Start empty."""
        self._changed = threading.Condition()  # guards everything below
        self._waiting: OrderedDict[Hashable, deque[T]] = OrderedDict()  # next owner first
        self._closed = False

    def put(self, owner: Hashable, item: T) -> None:
        """Add an item behind the owner's others. Bounding them is the owner's duty."""
        with self._changed:
            self._waiting.setdefault(owner, deque()).append(item)
            self._changed.notify()

    def take(self, limit: int) -> list[T]:
        """Wait for items and take what is there, at most `limit`; empty once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch: list[T] = []
            while self._waiting and not self._closed and len(batch) < limit:
                owner, items = self._waiting.popitem(last=False)
                batch.append(items.popleft())
                if items:
                    self._waiting[owner] = items  # behind the other owners
            return batch

    def close(self) -> None:
        """Give out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class BatchSize:
    """Learns from each run how many frames the model answers in time."""

    def __init__(self, max_batch: int, run_budget_s: float) -> None:
        """Start with one frame.

        Args:
            max_batch: Never more.
            run_budget_s: How long one run of the model may take.
        """
        self._max_batch, self._run_budget_s = max_batch, run_budget_s
        self.limit = 1

    def learn(self, size: int, took_s: float) -> None:
        """Take the time of one run; a larger one is taken to need as much more per frame."""
        possible = int(self._run_budget_s * size / max(took_s, 1e-9))
        if possible < self.limit:
            self.limit = max(1, possible)
        elif size == self.limit:
            self.limit = min(self._max_batch, self.limit + 1, possible)
