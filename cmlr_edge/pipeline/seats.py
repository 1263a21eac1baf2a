"""Where recognizers work side by side on the frames of all sources, each in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from cmlr_edge.errors import SpecError
from cmlr_edge.pipeline.settings import StreamsSettings
from cmlr_edge.pipeline.ticket import Ticket
from cmlr_edge.recognizer import Recognizer

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
        possible = int(min(self._max_batch, self._run_budget_s * size / max(took_s, 1e-9)))
        if possible < self.limit:
            self.limit = max(1, possible)
        elif size == self.limit:
            self.limit = min(self.limit + 1, possible)


class _Seat:
    """Where one recognizer works."""

    def __init__(self, recognizer: Recognizer, settings: StreamsSettings) -> None:
        self.recognizer = recognizer
        self.at_work: Recognizer | None = None
        self.began_s = 0.0  # when it took its last batch, on time.monotonic()
        self.batch_size = BatchSize(settings.max_batch, settings.latency_budget_s / 2)


class Seats:
    """Takes tickets of all lanes in turn, and answers them."""

    def __init__(
        self,
        recognizers: Recognizer | Sequence[Recognizer],
        settings: StreamsSettings,
        changed: threading.Condition,
        fail: Callable[[BaseException], None],
    ) -> None:
        """Plan; `start` begins.

        Args:
            recognizers: One, or several of the same labels.
            settings: Limits of batches.
            changed: Guards who works on what, and is told when that changes.
            fail: Told what a recognizer raised; its thread is then over.

        Raises:
            SpecError: There is none, or they have different labels.
        """
        given = _several(recognizers)
        self._labels = given[0].labels
        self._check_labels(given)
        self._changed, self._fail = changed, fail
        self._explain = settings.explain or False
        self._queue: FairQueue[Ticket] = FairQueue()
        self._seats = [_Seat(recognizer, settings) for recognizer in given]
        self._threads = [
            threading.Thread(target=self._work, args=(seat,), name=f"recognize {i}", daemon=True)
            for i, seat in enumerate(self._seats)
        ]

    @property
    def first(self) -> Recognizer:
        """A recognizer that works here, for what all know: labels, thresholds, preparing."""
        return self._seats[0].recognizer

    def put(self, ticket: Ticket) -> None:
        """Let a frame be recognised."""
        self._queue.put(ticket.lane, ticket)

    def check(self, recognizers: Recognizer | Sequence[Recognizer]) -> list[Recognizer]:
        """Look at those that shall go on, before anything is changed; return them as a list.

        Raises:
            SpecError: Their labels or number differ.
        """
        given = _several(recognizers)
        self._check_labels(given)
        if len(given) != len(self._seats):
            raise SpecError(f"{len(self._seats)} recognizers work, {len(given)} should go on")
        return given

    def swap(self, given: Sequence[Recognizer]) -> list[Recognizer]:
        """Let them go on, with the lock held; return the former ones, once they have finished."""
        former = [seat.recognizer for seat in self._seats]
        for seat, recognizer in zip(self._seats, given, strict=True):
            seat.recognizer = recognizer
        leaving = {*former} - {*given}
        self._changed.wait_for(lambda: not {seat.at_work for seat in self._seats} & leaving)
        return former

    def longest_run_s(self) -> float:
        """How long the model has been at the frames it has now: it hangs if this grows and grows."""
        with self._changed:
            began_s = [seat.began_s for seat in self._seats if seat.at_work is not None]
        return time.monotonic() - min(began_s) if began_s else 0.0

    def start(self) -> None:
        """Begin, once."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take no more frames; a recognizer that hangs is left behind."""
        self._queue.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(1.0)

    def _check_labels(self, recognizers: Sequence[Recognizer]) -> None:
        for recognizer in recognizers:
            if recognizer.labels != self._labels:
                raise SpecError(
                    f"the labels of {recognizer.spec.name} differ from those of the run: recognizers "
                    "that share or take over a run must know the same labels in the same order"
                )

    def _work(self, seat: _Seat) -> None:
        """Recognise what waits, batch after batch; runs in a thread of its own."""
        while batch := self._queue.take(seat.batch_size.limit):
            with self._changed:
                seat.at_work = recognizer = seat.recognizer
                seat.began_s = time.monotonic()
            try:
                start = time.perf_counter()
                prepared = [item.freshened() for item in batch]
                predictions = recognizer.recognize_prepared(prepared, explain=self._explain)
                seat.batch_size.learn(len(batch), time.perf_counter() - start)
            except Exception as error:  # noqa: BLE001 (handed to whoever waits)
                self._fail(error)
                return
            finally:
                with self._changed:
                    seat.at_work = None
                    self._changed.notify_all()
            for ticket, prediction in zip(batch, predictions, strict=True):
                ticket.lane.answer(ticket, prediction)


def _several(recognizers: Recognizer | Sequence[Recognizer]) -> list[Recognizer]:
    given = [recognizers] if isinstance(recognizers, Recognizer) else list(recognizers)
    if not given:
        raise SpecError("no recognizer was given: a run needs at least one")
    for recognizer in given:
        if not isinstance(recognizer, Recognizer):
            raise SpecError(f"expected a Recognizer, got {type(recognizer).__name__}")
    return given
