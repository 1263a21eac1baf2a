"""Slow and lost nodes: a run of an archive, followed unit by unit, as crews hand units out."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count


@dataclass
class Worker:
    """One core, or one actor of a cluster."""

    node: int
    slowness: float = 1.0  # how many times as long a unit takes here
    free_s: float = 0.0  # from when on it can work
    unit: int | None = None  # under way
    begun_s: float = 0.0  # of that
    life: int = 0  # one more with each loss: what was planned before is void
    is_there: bool = False


@dataclass(frozen=True)
class Loss:
    """A node that is lost, with all that is under way there."""

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
    pause_s: float = 0.0,
    losses: Iterable[Loss] = (),
) -> Outcome:
    """Follow a run: whoever is free is given the next unit.

    Args:
        units_s: Seconds of each unit on a worker that is not slow, in the order of the plan.
        workers: They are changed.
        pause_s: Until a free worker has its next unit.
        losses: Nodes that are lost.

    Raises:
        ValueError: No worker is left.
    """
    run = _Run(units_s, workers, pause_s)
    for loss in losses:
        run.at(loss.time_s, lambda loss=loss: run.lose(loss))  # type: ignore[misc]
    return run.outcome()


class _Run:
    """What happens, in the order of its time."""

    def __init__(self, units_s: Sequence[float], workers: Sequence[Worker], pause_s: float) -> None:
        self._units_s, self._workers, self._pause_s = units_s, workers, pause_s
        self._waiting, self._left = deque(range(len(units_s))), len(units_s)
        self._now, self._lost_s, self._number = 0.0, 0.0, count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._free: list[int] = []  # workers; may be outdated
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
            if worker.unit is not None:
                self._lost_s += self._now - worker.begun_s
                taken.append(worker.unit)
                worker.unit = None
            worker.is_there, worker.life = False, worker.life + 1
            if loss.back_s is not None:
                again = self._now + loss.back_s
                self.at(again, lambda index=index: self._arrive(index))  # type: ignore[misc]
        self.at(self._now + loss.noticed_s, lambda: self._waiting.extendleft(reversed(taken)))

    def _arrive(self, index: int) -> None:
        self._workers[index].is_there = True
        heapq.heappush(self._free, index)

    def _hand_out(self) -> None:
        while self._waiting and self._free:
            index = heapq.heappop(self._free)
            worker = self._workers[index]
            if not worker.is_there or worker.unit is not None:
                continue
            worker.unit, worker.begun_s = self._waiting.popleft(), self._now
            end_s = self._now + self._pause_s + self._units_s[worker.unit] * worker.slowness
            life = worker.life
            self.at(end_s, lambda index=index, life=life: self._finish(index, life))  # type: ignore[misc]

    def _finish(self, index: int, life: int) -> None:
        worker = self._workers[index]
        if life != worker.life:
            return
        worker.unit = None
        self._left -= 1
        heapq.heappush(self._free, index)
