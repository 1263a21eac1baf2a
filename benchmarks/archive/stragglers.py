"""Slow and lost nodes: a run of an archive, followed unit by unit, as crews hand units out."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count


@dataclass
class Worker:
    """One core, or one actor of a cluster."""

    node: int
    slowness: float = 1.0  # how many times as long a unit takes here
    free_s: float = 0.0  # from when on it can work
    held: deque[int] = field(default_factory=deque)  # units that it has; the first is under way
    begun_s: float = 0.0  # of the unit under way
    life: int = 0  # one more with each loss: what was planned before is void
    is_there: bool = False


@dataclass(frozen=True)
class Loss:
    """A node that is lost, with all that its workers hold."""

    node: int
    time_s: float
    noticed_s: float  # until its units are given to others
    back_s: float | None  # until another node works in its place; None: never


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    seconds: float  # to the end of the last unit
    lost_core_s: float  # of work that was done for nothing


def simulate(
    units_s: Sequence[float],
    workers: Sequence[Worker],
    *,
    ahead: int = 0,
    losses: Iterable[Loss] = (),
) -> Outcome:
    """Follow a run: whoever holds the fewest units is given the next one.

    Args:
        units_s: Seconds of each unit on a worker that is not slow, in the order of the plan.
        workers: They are changed.
        ahead: Units that a worker is given beside the one under way.
        losses: Nodes that are lost.

    Raises:
        ValueError: No worker is left.
    """
    run = _Run(units_s, workers, ahead)
    for loss in losses:
        run.at(loss.time_s, lambda loss=loss: run.lose(loss))  # type: ignore[misc]
    return run.outcome()


class _Run:
    """What happens, in the order of its time."""

    def __init__(self, units_s: Sequence[float], workers: Sequence[Worker], ahead: int) -> None:
        self._units_s, self._workers, self._ahead = units_s, workers, ahead
        self._waiting, self._left = deque(range(len(units_s))), len(units_s)
        self._now, self._lost_s, self._number = 0.0, 0.0, count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._open: list[tuple[int, int]] = []  # how many a worker held, and which; may be outdated
        for index, worker in enumerate(workers):
            self.at(worker.free_s, lambda index=index: self._arrive(index))  # type: ignore[misc]

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._number), action))

    def outcome(self) -> Outcome:
        while self._left:
            if not self._events:
                raise ValueError("all nodes are lost, and none comes back")
            self._now, _, action = heapq.heappop(self._events)
            action()
            self._hand_out()
        return Outcome(self._now, self._lost_s)

    def lose(self, loss: Loss) -> None:
        taken = list[int]()
        for index, worker in enumerate(self._workers):
            if worker.node != loss.node or not worker.is_there:
                continue
            self._lost_s += self._now - worker.begun_s if worker.held else 0.0
            taken += worker.held
            worker.held.clear()
            worker.is_there, worker.life = False, worker.life + 1
            if loss.back_s is not None:
                again = self._now + loss.back_s
                self.at(again, lambda index=index: self._arrive(index))  # type: ignore[misc]
        self.at(self._now + loss.noticed_s, lambda: self._waiting.extendleft(reversed(taken)))

    def _arrive(self, index: int) -> None:
        self._workers[index].is_there = True
        heapq.heappush(self._open, (0, index))

    def _hand_out(self) -> None:
        while self._waiting and self._open:
            held, index = heapq.heappop(self._open)
            worker = self._workers[index]
            if not worker.is_there or held != len(worker.held) or held > self._ahead:
                continue
            worker.held.append(self._waiting.popleft())
            if not held:
                self._begin(index)
            heapq.heappush(self._open, (held + 1, index))

    def _begin(self, index: int) -> None:
        worker = self._workers[index]
        worker.begun_s = self._now
        end_s = self._now + self._units_s[worker.held[0]] * worker.slowness
        life = worker.life
        self.at(end_s, lambda: self._finish(index, life))

    def _finish(self, index: int, life: int) -> None:
        worker = self._workers[index]
        if life != worker.life:
            return
        worker.held.popleft()
        self._left -= 1
        if worker.held:
            self._begin(index)
        heapq.heappush(self._open, (len(worker.held), index))
