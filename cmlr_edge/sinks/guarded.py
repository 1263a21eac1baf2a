"""One guard around every output: a queue, patience, a count of what is lost, and nothing that escapes.

A broken output is counted, said once, and left out; the others and the sources go on. One that hangs
makes nobody wait for longer than a moment: what does not fit into its queue is lost, and counted. One
that is slow makes a file wait, for nothing of a file may be lost, and costs a live source results.
No lock is held while a sink works, but for inline ones: our own counters, which never wait.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.machine.rarely import Rarely
from cmlr_edge.machine.waiting import answer_of
from cmlr_edge.redaction import one_line, redact, told
from cmlr_edge.sinks.base import OutputStatus, Result, Sink, SourceHealth
from cmlr_edge.sinks.room import take_least

_WITH_PICTURES, _WITHOUT = 16, 1000  # results that wait at most
_TEND_S = 1.0  # between looks of an output at what it has begun
_LOOK_S = 0.1  # between looks whether this one is needed, while another has its place
_CLOSE_S = 15.0  # for finishing a file, once everything was written
_log = logging.getLogger(__name__)
_NOTHING = Result.begin("")  # came for a while


class GuardedSink:
    """A sink that any number of sources write to from their threads, and that cannot break a run."""

    def __init__(
        self,
        sink: Sink,
        name: str = "",
        *,
        max_waiting: int | None = None,
        patience_s: float = 1.0,
        flush_s: float = 5.0,
        after: GuardedSink | None = None,
        may_inline: bool = True,
    ) -> None:
        """Own a sink from here on.

        Args:
            sink: See `Sink` for what it says of itself.
            name: For people; the sink's own by default.
            max_waiting: Results that wait at most, instead of 16 with their pictures or 1000 without.
            patience_s: How long a writer waits for an output that does nothing.
            flush_s: How long `close` waits for one that does nothing.
            after: Write nothing before this one is closed, for it may be the same file.
            may_inline: Believe a sink that says that it never waits.

        Raises:
            OutputError: It lacks `write` or `close`.
        """
        if not (hasattr(sink, "write") and hasattr(sink, "close")):
            raise OutputError(f"{type(sink).__name__} is no output: it needs write and close")
        self.name = redact(name or str(getattr(sink, "name", type(sink).__name__)))
        self._sink, self._after = sink, after
        self._takes = getattr(sink, "takes", "results")
        self._pictures = getattr(sink, "pictures", True)
        self._inline = may_inline and getattr(sink, "inline", False)
        self._max_waiting = max_waiting or (_WITH_PICTURES if self._pictures else _WITHOUT)
        self._patience_s, self._flush_s = patience_s, flush_s
        self._changed = threading.Condition()  # guards everything below
        self._waiting: deque[Result] = deque()  # the first is being written
        self._lost: Counter[str] = Counter()  # by source; "" for what belongs to none
        self._lost_in_a_row = 0
        self._is_said, self._log = False, Rarely()
        self._watch = getattr(sink, "watch", None)
        self._tend = getattr(sink, "tend", None)
        self._files_of = getattr(sink, "files_of", None)
        self._health: Sequence[SourceHealth] | None = None  # what `watch` has yet to hear
        self._errors: dict[str, Exception] = {}  # the first of each source
        self._reason = ""
        self._progress_s = 0.0  # when something was last done, or began to wait to be
        self._closing = self._closed = self._abandoned = False
        self._owners = 0
        self._thread: threading.Thread | None = None

    def guards(self, sink: Sink | GuardedSink) -> bool:
        """Whether that is it, or the sink that it owns, and it still takes results."""
        return not self._closing and (sink is self or sink is self._sink)

    def hold(self) -> None:
        """Have one owner more, each of which ends with `release`."""
        with self._changed:
            self._owners += 1

    def release(self) -> bool:
        """Have one owner less; whether that was the last, who has to close it."""
        with self._changed:
            self._owners -= 1
            return self._owners <= 0

    def lost_of(self, source: str) -> int:
        """How many results and events of one source it did not take."""
        with self._changed:
            return self._lost[source]

    def error_of(self, source: str) -> Exception | None:
        """The first error that a result of this source met."""
        with self._changed:
            return self._errors.get(source)

    @property
    def lost(self) -> int:
        """How many results and events it did not take, and whether it could not be finished."""
        with self._changed:
            return self._lost.total()

    def status(self) -> OutputStatus:
        """How it is doing now."""
        trouble = self._trouble()
        with self._changed:
            state: Literal["ok", "failing", "hanging"] = "failing" if self._reason else "ok"
            reason = self._reason
            if trouble and not reason:
                state, reason = "failing", trouble
            if self._abandoned or (self._waiting and self._idle_s() > self._patience_s):
                waiting, idle_s = len(self._waiting), self._idle_s()
                state, reason = "hanging", f"nothing was written for {idle_s:.0f} s, {waiting} wait"
            return OutputStatus(self.name, state, reason, self._lost.total())

    def write(self, result: Result, *, wait: bool = True) -> bool:
        """Take one result, or count it as lost. Never raises.

        Args:
            result: What the sink does not take is passed over.
            wait: For room, while the output does anything at all; else what finds no room is lost.

        Returns:
            False where it is closed, and the result went nowhere.
        """
        if not self._weight(result):
            return True  # nothing of it is for this output
        if self._inline:
            return self._write_inline(result)
        with self._changed:
            while not self._closing and len(self._waiting) >= self._max_waiting:
                left_s = self._patience_s - self._idle_s()
                if not wait or left_s <= 0:
                    # The first is being written; an end is worth more than any update.
                    least = take_least(self._waiting, self._worth, self._worth(result), spared=1)
                    error = OutputError(f"{self.name} takes nothing, or too slowly")
                    self._lose(least or result, error)
                    if least is None:
                        return True
                    break
                self._changed.wait(left_s)
            if self._closing:
                return False
            if not self._waiting:
                self._progress_s = time.monotonic()
            self._waiting.append(result if self._pictures else result.without_picture())
            self._start()
            self._changed.notify_all()
            return True

    def watch(self, sources: Sequence[SourceHealth]) -> None:
        """Tell how the sources are, if the output wants to know: the newest, in its own thread."""
        if self._watch is None:
            return
        with self._changed:
            self._health = sources
            if not self._closing:
                self._start()
                self._changed.notify_all()

    def files_of(self, event: Event, frame: Frame) -> dict[str, str]:
        """The files of an event that the output will write; none where it has none, or fails."""
        if (ask := self._files_of) is None:
            return {}
        try:
            found = answer_of(lambda: dict(ask(event, frame)), self._flush_s)
        except Exception as error:  # noqa: BLE001 (whatever it is, the source goes on)
            if isinstance(error, TimeoutError):
                self._files_of = None  # no source waits for it again
            return {}
        return {str(name): str(file) for name, file in found.items()}

    def flush(self) -> None:
        """Wait until everything was written, unless the output does nothing for `flush_s`."""
        self._await_written(math.inf)

    def request_close(self) -> None:
        """Take nothing more; an output with a thread of its own finishes there. Waits for nothing."""
        with self._changed:
            if self._closing or self._inline:
                return
            self._closing = True
            if not self._waiting:
                self._progress_s = time.monotonic()
            self._start()  # also where nothing ever came: closing may hang too
            self._changed.notify_all()

    def close(self, limit_s: float = math.inf) -> None:
        """Write what waits and finish the output, or count that as lost. Never raises.

        Args:
            limit_s: Wait no longer, whatever it does.
        """
        deadline_s = time.monotonic() + limit_s
        if self._inline:
            with self._changed:
                is_first, self._closing = not self._closing, True
            if is_first:
                self._finish()
            return
        self.request_close()
        self._await_written(deadline_s)
        with self._changed:
            while not (self._closed or self._abandoned):
                left_s = min(_CLOSE_S - self._idle_s(), deadline_s - time.monotonic())
                if self._waiting or left_s <= 0:
                    self._abandon()
                else:
                    self._changed.wait(left_s)

    def _await_written(self, deadline_s: float) -> None:
        with self._changed:
            while self._waiting and not self._abandoned:
                left_s = min(self._flush_s - self._idle_s(), deadline_s - time.monotonic())
                if left_s <= 0:
                    return
                self._changed.wait(left_s)

    def _weight(self, result: Result) -> int:
        """How much of a result the sink takes: the frame, or its events."""
        if result.beginning:
            return len(result.events) * (self._takes == "events")
        if self._takes == "results":
            return int(not result.ending)
        return len(result.events) + int(self._takes == "both" and not result.ending)

    def _worth(self, result: Result) -> int:
        if self._takes == "results":
            return 0
        return max((event.worth for event in result.events), default=0)

    def _trouble(self) -> str:
        """What keeps it from its place meanwhile, as it says itself."""
        try:
            trouble = getattr(self._sink, "trouble", "")
        except Exception as error:  # noqa: BLE001 (whatever it is, the others are told of)
            return told(error)
        return redact(one_line(trouble)) if isinstance(trouble, str) else ""

    def _idle_s(self) -> float:
        return time.monotonic() - self._progress_s

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name=f"write {self.name}", daemon=True
            )
            self._thread.start()

    def _run(self) -> None:
        self._await_former()
        while (result := self._next()) is not None:
            if result is _NOTHING:
                self._look_after()
                continue
            error = _attempt(partial(self._sink.write, result))
            # One that had nothing to write of this result has not shown that it can again.
            is_shown = not self._trouble()
            with self._changed:
                if self._abandoned:
                    return
                self._note(result, error, is_shown=is_shown)
                self._waiting.popleft()
                self._progress_s = time.monotonic()
                self._changed.notify_all()
        self._finish()

    def _await_former(self) -> None:
        """Wait until its owner has closed it; it goes on where this one ends before that, unused."""
        while (former := self._after) is not None:
            with former._changed:
                if former._closed or former._abandoned:
                    self._after = None
                else:
                    former._changed.wait(_LOOK_S)
            with self._changed:
                if self._closing and not self._waiting:
                    return

    def _next(self) -> Result | None:
        pause_s = None if self._tend is None else _TEND_S
        with self._changed:
            ready = self._changed.wait_for(
                lambda: self._waiting or self._closing or self._health is not None, pause_s
            )
            if not ready or self._health is not None:
                return _NOTHING
            return self._waiting[0] if self._waiting else None

    def _look_after(self) -> None:
        """Let the output hear how sources are, or look after what it has begun, of no one source."""
        with self._changed:
            health, self._health = self._health, None
        if health is not None:
            assert self._watch is not None
            if (error := _attempt(partial(self._watch, health))) is not None:
                self._watch = None  # said once: the next time it would fail again
                _log.warning("%s cannot tell how sources are: %s", self.name, told(error))
        elif self._tend is not None and (error := _attempt(self._tend)) is not None:
            with self._changed:
                self._lose(_NOTHING, error)

    def _write_inline(self, result: Result) -> bool:
        with self._changed:
            if self._closing:
                return False
            # An inline sink never waits, so its own lock and this one are held for a moment.
            self._note(result, _attempt(partial(self._sink.write, result)))
            return True

    def _finish(self) -> None:
        error = _attempt(self._sink.close)
        with self._changed:
            if error is not None and not self._abandoned:
                self._reason = told(error)
                _log.warning("%s could not be finished: %s", self.name, self._reason)
                self._lost[""] += _own_count(error) or 1
                self._errors.setdefault("", error)
            self._closed = True
            self._changed.notify_all()

    def _abandon(self) -> None:
        """Leave what hangs behind; with the lock held."""
        self._abandoned = True
        unwritten = sum(self._weight(result) for result in self._waiting)
        for result in self._waiting:
            self._lost[result.source] += self._weight(result)
        self._lost[""] += int(not unwritten)  # it was written, and cannot be finished
        _log.warning("%s hangs and is left behind; %d results lost", self.name, unwritten)
        self._waiting.clear()
        self._changed.notify_all()

    def _note(self, result: Result, error: Exception | None, *, is_shown: bool = True) -> None:
        """Count one attempt; with the lock held."""
        if error is not None:
            self._lose(result, error)
        elif self._lost_in_a_row and is_shown:
            if self._is_said:
                _log.warning("%s works again; %d results lost", self.name, self._lost_in_a_row)
            self._lost_in_a_row, self._reason = 0, ""

    def _lose(self, result: Result, error: Exception) -> None:
        text = told(error)
        if not self._lost_in_a_row:
            self._is_said = self._log.may_say()
        if not self._lost_in_a_row and self._is_said:
            _log.warning("%s fails, going on without it: %s", self.name, text)
        weight = _own_count(error) or self._weight(result)
        self._lost[result.source] += weight
        self._lost_in_a_row += weight
        self._errors.setdefault(result.source, error)
        self._reason = text


def _attempt(action: Callable[[], None]) -> Exception | None:
    try:
        action()
    except Exception as error:  # noqa: BLE001 (whatever it is, the others go on)
        return error
    except BaseException as error:
        if threading.current_thread() is threading.main_thread():
            raise  # Ctrl-C of whoever closes it there
        # It would end the thread, and nothing would be written any more.
        return OutputError(f"it wants to end the process: {told(error)}")
    return None


def _own_count(error: Exception) -> int:
    """How much it says is lost; 0 where it does not say."""
    return max(error.lost, 0) if isinstance(error, OutputError) else 0
