"""Live sources: a supervised thread reads, the newest frame waits, and a lost camera is opened again.

A read that hangs cannot be stopped from outside. Each connection is therefore read in a thread of its
own, which is abandoned when it makes no progress: whatever it still returns is thrown away.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from random import SystemRandom

from cmlr_edge.capture.base import ClosesItself, Policy
from cmlr_edge.capture.connection import Connection, SourceStats
from cmlr_edge.capture.freshness import FrozenDetector
from cmlr_edge.capture.readers import EndOfSource, Grab, OpenReader
from cmlr_edge.capture.refusal import why_refused
from cmlr_edge.errors import CaptureError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.backoff import Backoff
from cmlr_edge.redaction import one_line, redact, redact_source

_MAX_READERS = 2  # one that reads and one that hangs; opening again waits until that one returns
_CLOSE_TIMEOUT_S = 1.0
_KEY_PICTURE_S = 30.0  # cameras that save bandwidth send one as seldom
_END_CHECK_S = 0.2  # between looks at whether the end was requested
_IS_OVER = "the broadcast is over, and what is there is its recording"  # whose events were told
_random = SystemRandom().random
_log = logging.getLogger(__name__)


class SourceState(Enum):
    """How a live source is doing."""

    CONNECTING = "connecting"
    OK = "ok"
    TIMEOUT = "timeout"
    RECONNECTING = "reconnecting"
    ENDED = "ended"
    FAILED = "failed"


_TROUBLED = {SourceState.TIMEOUT, SourceState.RECONNECTING}
_AWAY = {SourceState.CONNECTING, *_TROUBLED}


@dataclass(frozen=True)
class LiveSettings:
    """How long to wait for what, in seconds."""

    open_timeout_s: float = 10.0  # then opening counts as hung
    read_timeout_s: float = 2.0  # without a frame: state TIMEOUT
    hang_timeout_s: float = 5.0  # without a frame: the connection is given up and opened again
    first_frame_timeout_s: float | None = (
        None  # never a frame for so long: state FAILED; None: never
    )
    backoff_first_s: float = 0.2  # doubles with every attempt
    backoff_max_s: float = 1.5
    refused_first_s: float = 60.0  # likewise, where another wrong password could lock the account
    refused_max_s: float = 900.0
    stable_after_s: float = 5.0  # a connection that held so long resets the back-off
    frozen_after_s: float | None = 10.0  # the same picture for so long is frozen; None: never
    stale_after_s: float = 2.0  # a frame that waited so long is stale
    queue_frames: int = 32  # held at most under the policy "every"; the reader then waits


class LiveSource(ClosesItself):
    """Frames of a camera or stream, read by a supervised thread; see `Source`."""

    num_frames: int | None = None
    files: Sequence[Path] = ()

    def __init__(
        self,
        name: str,
        open_reader: OpenReader,
        settings: LiveSettings | None = None,
        *,
        policy: Policy = "newest",
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random,
    ) -> None:
        """Start to connect; nothing here waits.

        Args:
            name: For people; passwords are taken out of it.
            open_reader: Opens one connection; called again after each loss.
            settings: Timeouts and limits.
            policy: "newest" drops what was not taken in time; "every" makes the reader wait.
            clock: Monotonic seconds.
            random: Uniform in [0, 1), for the back-off.
        """
        self.name = self._called = redact_source(name)
        self.fps: float | None = 25.0  # until the source announces its own
        self._open_reader = open_reader
        self.settings = settings or LiveSettings()
        self.policy: Policy = policy
        self._clock = clock
        self._end_requested = False
        self._backoff = Backoff(self.settings.backoff_first_s, self.settings.backoff_max_s, random)
        self._seldom = Backoff(self.settings.refused_first_s, self.settings.refused_max_s, random)
        self._changed = threading.Condition()  # guards everything below
        self._buffer: deque[tuple[float, Frame]] = deque()
        self._film_s, self._was_live = 0.0, False  # given so far of a film; whether it gave others
        self._is_cut = False
        self._state, self._reason = SourceState.CONNECTING, ""
        self._refused = ""  # why it refuses us, told last in this outage
        self._stats, self._damaged = SourceStats(), 0
        self._closing = self._was_away = False
        self._running = 0  # reading threads, hung ones included
        self._started_s = clock()
        self._supervisor = threading.Thread(
            target=self._supervise, name=f"supervise {self.name}", daemon=True
        )
        self._supervisor.start()

    def call(self, name: str) -> None:
        """Name it so in the log, as results and outputs do."""
        with self._changed:
            self._called = name

    @property
    def state(self) -> SourceState:
        """How the source is doing now."""
        with self._changed:
            return self._state

    @property
    def reason(self) -> str:
        """Why the state is not OK, for people; empty if it is."""
        with self._changed:
            return self._reason

    @property
    def away(self) -> bool:
        """Whether no frames come from it, or came when it was closed: `reason` says why."""
        with self._changed:
            return self._was_away or self._state in _AWAY

    @property
    def is_cut(self) -> bool:
        """Whether it is over before the end that it announced: `reason` says why."""
        with self._changed:
            return self._is_cut

    @property
    def damaged(self) -> int:
        """Packets so far that could not be decoded."""
        with self._changed:
            return self._damaged

    @property
    def stats(self) -> SourceStats:
        """Counts so far."""
        with self._changed:
            return self._stats

    def next_frame(self, timeout_s: float | None = None) -> Frame | None:
        """Wait for a frame that was not taken yet.

        Args:
            timeout_s: At most so long; None waits as long as the source may still deliver.

        Returns:
            The frame, or None if none came in time or the source is over: see `state`.
        """
        with self._changed:
            deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
            while not self._buffer and not self._is_over():
                left_s = math.inf if deadline_s is None else deadline_s - time.monotonic()
                if left_s <= 0 or self._end_requested:
                    return None
                self._changed.wait(min(left_s, _END_CHECK_S))
            if not self._buffer or self._end_requested:
                return None
            arrived_s, frame = self._buffer.popleft()
            if frame.status == "ok" and self._clock() - arrived_s > self.settings.stale_after_s:
                frame = replace(frame, status="stale")
            self._count(delivered=1, stale=int(frame.status == "stale"))
            self._changed.notify_all()  # a reader may wait for room
            return frame

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the source ends or is closed; see `Source`.

        Raises:
            CaptureError: The source has failed for good.
        """
        while (frame := self.next_frame()) is not None:
            yield frame
        if self.state is SourceState.FAILED:
            raise CaptureError(f"{self.name}: {self.reason}")

    def request_end(self) -> None:
        """Let no more frames be taken. A signal handler may call it: it waits for no lock."""
        self._end_requested = True

    def close(self) -> None:
        """Stop the threads; one that hangs in its driver is left behind. See `Source`."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._was_away = self._state in _AWAY
            if not self._is_over():
                frames = "no more frames" if self._stats.received else "no frames"
                reason = f"{frames} came: {self._reason}" if self._was_away else "closed"
                self._set_state(SourceState.ENDED, reason)
            self._buffer.clear()
            self._changed.notify_all()
        self._supervisor.join()
        with self._changed:
            if not self._changed.wait_for(lambda: self._running == 0, _CLOSE_TIMEOUT_S):
                _log.warning("%s: %d reading threads hang", self._called, self._running)

    def _is_over(self) -> bool:
        return self._state in {SourceState.ENDED, SourceState.FAILED}

    def _set_state(self, state: SourceState, reason: str = "", *, is_refusal: bool = False) -> None:
        is_new, was_away, before = state is not self._state, self._state in _TROUBLED, self._reason
        self._state, self._reason = state, redact(one_line(reason))
        # Time mends the other reasons of an outage; that a camera refuses us somebody has to.
        if not is_new and (not is_refusal or self._reason in {before, self._refused}):
            return
        kept = self._refused if state in _TROUBLED else ""
        self._refused = self._reason if is_refusal else kept
        is_fine = state in {SourceState.OK, SourceState.ENDED} and not self._is_cut
        why = f" ({self._reason})" if self._reason else " again" if was_away and is_fine else ""
        # Who was told that it is away is told that it is back.
        level = logging.INFO if is_fine and not was_away else logging.WARNING
        _log.log(level, "%s: %s%s", self._called, state.value, why)
        self._changed.notify_all()

    def _count(self, **more: int) -> None:
        values = {name: getattr(self._stats, name) + number for name, number in more.items()}
        self._stats = replace(self._stats, **values)

    def _supervise(self) -> None:
        """Keep one connection alive until the source is closed, ends, or fails."""
        with self._changed:
            while not self._closing:
                session = Connection(self._clock())
                self._running += 1
                threading.Thread(
                    target=self._read, args=(session,), name=f"read {self.name}", daemon=True
                ).start()
                lost_because = self._watch(session)
                session.abandoned = True
                self._changed.notify_all()  # it may wait for room
                if session.ended:
                    self._is_cut = bool(session.lost_because)
                    self._set_state(SourceState.ENDED, session.lost_because or "the source ended")
                if self._is_over() or self._gives_up(lost_because):
                    return
                self._set_state(
                    SourceState.RECONNECTING, lost_because, is_refusal=session.is_refused
                )
                self._pause_before_opening(session)
                self._count(reconnects=1)

    def _watch(self, session: Connection) -> str:
        """Wait until the connection is over; return why."""
        settings = self.settings
        while not self._closing and not session.ended and not session.lost_because:
            idle_s = 0.0 if session.waits else self._clock() - session.progress_s
            limit_s = settings.hang_timeout_s if session.opened else settings.open_timeout_s
            if idle_s >= limit_s and self._awaits_key(session, idle_s):
                limit_s = idle_s + _END_CHECK_S
            elif idle_s >= limit_s:
                what = "no frame" if session.opened else "opening did not finish"
                return f"{what} for {limit_s:g} s"
            if session.opened and idle_s >= settings.read_timeout_s:
                self._set_state(SourceState.TIMEOUT, f"no frame for {settings.read_timeout_s:g} s")
            elif session.opened:
                limit_s = min(limit_s, settings.read_timeout_s)
            self._changed.wait(max(limit_s - idle_s, 1e-3))
        return session.lost_because

    def _awaits_key(self, session: Connection, idle_s: float) -> bool:
        """Whether a stream that was joined in the middle sends, and no picture to begin with yet."""
        if session.first_frame_s is not None or idle_s >= _KEY_PICTURE_S:
            return False
        return bool(getattr(session.reader, "receives", False))  # not every reader can tell

    def _gives_up(self, reason: str) -> bool:
        limit_s = self.settings.first_frame_timeout_s
        if limit_s is None or self._stats.received:
            return False
        if self._clock() - self._started_s < limit_s:
            return False
        self._set_state(SourceState.FAILED, f"never gave a frame in {limit_s:g} s: {reason}")
        return True

    def _pause_before_opening(self, session: Connection) -> None:
        first_s = session.first_frame_s
        if first_s is not None and self._clock() - first_s >= self.settings.stable_after_s:
            self._backoff.reset()
            self._seldom.reset()
        backoff = self._seldom if session.may_lock else self._backoff
        self._changed.wait_for(lambda: self._closing, backoff.next_s())
        self._changed.wait_for(lambda: self._closing or self._running < _MAX_READERS)

    def _read(self, session: Connection) -> None:
        """Read one connection to its end; runs in a thread of its own."""
        lost_because, ended, reader = "the source stopped delivering", False, None
        try:
            reader = self._open_reader()
            with self._changed:
                session.opened, session.progress_s = True, self._clock()
                session.reader = reader
                self.fps = reader.fps or self.fps
                self._changed.notify_all()
            frozen = FrozenDetector(self.settings.frozen_after_s)
            while True:
                start = time.perf_counter()
                if (grab := reader.read()) is None:
                    break
                capture_ms = (time.perf_counter() - start) * 1e3
                is_frozen = frozen.is_frozen(grab.image_bgr, self._clock())
                if not self._accept(session, grab, capture_ms, is_frozen=is_frozen):
                    break
        except EndOfSource as end:
            ended, lost_because = True, str(end)
        except Exception as error:  # noqa: BLE001 (a driver may raise anything; the source lives on)
            lost_because = str(error) or type(error).__name__
            if (refusal := why_refused(lost_because)) is not None:
                lost_because, session.may_lock = refusal.reason, refusal.may_lock
                session.is_refused = True
        finally:
            if reader is not None:
                reader.close()
            with self._changed:
                self._running -= 1
                session.ended, session.lost_because = ended, lost_because
                self._changed.notify_all()

    def _accept(
        self, session: Connection, grab: Grab, capture_ms: float, *, is_frozen: bool
    ) -> bool:
        """Put a frame into the buffer; return whether this connection is still wanted."""
        with self._changed:
            if grab.film_s is not None and self._was_live:  # the source lives on
                raise CaptureError(_IS_OVER)
            if not self._awaits_turn(session, grab):
                return False
            now_s = self._clock()
            session.progress_s = now_s
            session.first_frame_s = session.first_frame_s or now_s
            captured_at, time_s = grab.captured_at, now_s - self._started_s
            self._was_live = grab.film_s is None
            if grab.film_s is not None:
                captured_at = time.time()
                time_s = self._film_s = session.place(grab.film_s, self._film_s)
            frame = Frame(
                grab.image_bgr,
                self._stats.received,
                time_s,
                captured_at,
                capture_ms,
                self.name,
                "damaged" if not grab.is_whole else "frozen" if is_frozen else "ok",
                time.monotonic() - grab.age_s,
                grab.sender_at,
                grab.stream_s,
                grab.ring,
            )
            self._damaged += grab.damaged
            dropped = len(self._buffer) if self.policy == "newest" else 0
            if dropped:
                self._buffer.clear()
            self._buffer.append((now_s - grab.age_s, frame))
            self._count(
                received=1 + grab.skipped, dropped=dropped + grab.skipped, frozen=int(is_frozen)
            )
            self._set_state(SourceState.OK)
            self._changed.notify_all()
            return True

    def _awaits_turn(self, session: Connection, grab: Grab) -> bool:
        """Wait, with the lock held, until a frame is due and has room; whether it is still wanted."""
        session.waits = True
        self._changed.wait_for(lambda: session.abandoned or self._closing or self._has_room())
        if grab.film_s is not None and self.policy == "newest":
            left_s = session.due_in_s(grab.film_s, self._clock())
            self._changed.wait_for(lambda: session.abandoned or self._closing, left_s)
        session.waits = False
        return not (session.abandoned or self._closing)

    def _has_room(self) -> bool:
        return self.policy == "newest" or len(self._buffer) < self.settings.queue_frames
