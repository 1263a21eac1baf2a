"""The way of one source's frames through a run: taken, prepared, answered, handed to its sinks."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cmlr_edge.capture import Source
from cmlr_edge.capture.live import LiveSource, SourceState
from cmlr_edge.errors import FrameError
from cmlr_edge.frame import Frame
from cmlr_edge.pipeline.intake import Choice, Intake
from cmlr_edge.pipeline.outlet import Judging, Outlet
from cmlr_edge.pipeline.scene import SceneGate
from cmlr_edge.pipeline.settings import StreamsSettings
from cmlr_edge.pipeline.status import SourceStatus, Tally
from cmlr_edge.pipeline.ticket import Ticket
from cmlr_edge.pipeline.tiles import combined
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.preprocess import Prepared
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.redaction import told
from cmlr_edge.sinks.base import Result, Sink
from cmlr_edge.sinks.guarded import GuardedSink

_NEWEST_AHEAD = 2  # one frame in the model and one that waits: more would only grow old
_LEAST_STEP_S = 1e-3  # between frames whose source gives them one time, or none that rises
_OUTSIDE = "outside its hours: not looked at"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LaneLinks:
    """What a lane needs of the run it belongs to."""

    prepare: Callable[[Frame], Prepared]
    submit: Callable[[Ticket], None]  # asks for `Lane.answer`
    publish: Callable[[Result], None]  # may wait
    finished: Callable[[], None]


class Lane:
    """One source with two threads: one takes and prepares its frames, one hands on the results."""

    def __init__(
        self,
        source: Source,
        name: str,
        outlet: Outlet,
        links: LaneLinks,
        settings: StreamsSettings,
        max_frames: int | None,
        gate: SceneGate | None,
        intake: Intake,
    ) -> None:
        """Own the source and the outlet; `start` begins.

        Args:
            source: Opened.
            name: For people, without passwords.
            outlet: Likewise owned.
            links: To the rest of the run.
            settings: Say how many frames are under way, unless the source wants its newest only.
            max_frames: Take no more than so many.
            gate: Says which frames need the model; None for all.
            intake: Says which frames are looked at, and what of them.
        """
        self.name, self._source, self._outlet, self._links = name, source, outlet, links
        self._live = source if isinstance(source, LiveSource) else None
        if self._live is not None:
            self._live.call(name)
        newest = self._live is not None and self._live.policy == "newest"
        self.stale_after_s = self._live.settings.stale_after_s if self._live and newest else None
        self._ahead = _NEWEST_AHEAD if newest else settings.frames_ahead
        self._max_frames, self._gate, self._intake = max_frames, gate, intake
        self._new_intake: Intake | None = None
        self._asleep = False
        self._end_requested = False
        self._last_s = -math.inf  # the time of the frame before
        self._changed = threading.Condition()  # guards everything below
        self._tickets: deque[Ticket] = deque()  # in the order of the frames
        self._taken_all = self._aborted = self._over = False
        self._error: BaseException | None = None
        self._latest: Result | None = None
        self._tally = Tally()
        self._new_judging: Judging | None = None
        self._threads = [
            threading.Thread(target=target, name=f"{what} {name}", daemon=True)
            for what, target in (("take", self._take_frames), ("hand on", self._hand_on))
        ]

    def guard_of(self, sink: Sink | GuardedSink) -> GuardedSink | None:
        """The guard of an output of its own; None for one that is not."""
        return self._outlet.guard_of(sink)

    def start(self) -> None:
        """Take frames. Calling it twice is harmless."""
        for thread in self._threads:
            if thread.ident is None:
                thread.start()

    @property
    def over(self) -> bool:
        """Whether the last result was handed on, and everything is closed."""
        with self._changed:
            return self._over

    @property
    def error(self) -> BaseException | None:
        """What ended the source before its time."""
        with self._changed:
            return self._error

    @property
    def choice(self) -> Choice:
        """Which labels are said, and from which score on."""
        return self._outlet.choice

    @property
    def latest(self) -> Result | None:
        """The newest result."""
        with self._changed:
            return self._latest

    def status(self) -> SourceStatus:
        """Counts, latencies and state."""
        with self._changed:
            tally, error, over = self._tally, self._error, self._over
            state, reason = SourceState.OK, ""
            if self._live is not None:
                state, reason = self._live.state, self._live.reason
            if self._asleep and state is SourceState.OK:
                reason = _OUTSIDE
            if error is not None:
                said = state is SourceState.FAILED  # by the live source, without the name again
                state, reason = SourceState.FAILED, reason if said else told(error)
            elif over and state is not SourceState.FAILED:
                reason = self._live.reason if self._live else "the source ended"
                state = SourceState.ENDED
            return SourceStatus(
                name=self.name,
                state=state,
                reason=reason,
                away=self._live is not None and self._live.away,
                frames=tally.frames,
                repeated=tally.repeated,
                invalid=tally.invalid,
                unusable=tally.unusable,
                lost=self._outlet.lost,
                damaged=getattr(self._source, "damaged", 0),  # not every source can tell
                frames_per_second=tally.frames_per_second(),
                latency_ms=tally.latency_percentiles(),
                runs_per_frame=self._intake.runs_per_frame,
                place=self._outlet.place,
                capture=None if self._live is None else self._live.stats,
                is_cut=self._live is not None and self._live.is_cut,
            )

    def look(self, recognizer: Recognizer, frame: Frame) -> Prediction:
        """What another recognizer says of a frame that the lane gave; any thread may ask."""
        looks = [recognizer.prepare(part) for part in self._intake.looks(frame)]
        said = combined(recognizer.recognize_prepared(looks, explain=self._outlet.needs_why))
        return self._outlet.compared(said, Choice(self._intake.settings, recognizer))

    def answer(self, ticket: Ticket, prediction: Prediction) -> None:
        """Take the model's word on one of this lane's frames."""
        with self._changed:
            ticket.prediction = prediction
            self._changed.notify_all()

    def use_judging(self, judging: Judging) -> None:
        """Judge the scores by other settings from the next frame on."""
        with self._changed:
            self._new_judging = judging
        if self._gate is not None:  # the next scores are another model's
            self._gate.forget()

    def use_intake(self, intake: Intake) -> None:
        """Look at frames otherwise, from the next one on; where masks change, open events end."""
        with self._changed:
            self._new_intake = intake

    def use_outputs(self, guards: Sequence[GuardedSink]) -> None:
        """Go on with other outputs of its own, from the next result on."""
        self._outlet.change_own(guards)

    def request_end(self) -> None:
        """Take no more frames; what is under way is answered. A signal handler may call it."""
        self._end_requested = True
        if self._live is not None:
            self._live.request_end()

    def abort(self, error: BaseException | None = None) -> None:
        """End without the frames that are under way.

        Args:
            error: What went wrong, if it did.
        """
        self.request_end()
        with self._changed:
            self._aborted = True
            self._error = self._error or error
            self._tickets.clear()
            self._changed.notify_all()

    def _take_frames(self) -> None:
        try:
            frames, taken = iter(self._source), 0
            while taken != self._max_frames and self._await_room():
                frame = next(frames, None)
                if frame is None:
                    break
                self._adopt_intake(frame)
                if self._is_wanted(frame):
                    self._take(self._intake.masked(frame))
                    taken += 1
        except BaseException as error:  # noqa: BLE001 (whatever a source raises ends it alone)
            with self._changed:
                self._error = self._error or error
        finally:
            with self._changed:
                self._taken_all = True
                self._changed.notify_all()

    def _adopt_intake(self, frame: Frame) -> None:
        """Go on with other settings, if there are any; nothing that was seen without a mask is kept on."""
        with self._changed:
            intake, self._new_intake = self._new_intake, None
        if intake is None:
            return
        if intake.settings.masks != self._intake.settings.masks:
            self._pause(frame)
            if frame.ring is not None:  # a new connection's may hold what came before this frame
                frame.ring.listen(wanted=False)
        self._intake = intake
        if self._gate is not None:
            self._gate.forget()

    def _pause(self, frame: Frame) -> None:
        """End open events, once the frames before this one are answered."""
        with self._changed:
            self._tickets.append(Ticket(self, frame, None, 0.0, pauses=True))
            self._changed.notify_all()

    def _is_wanted(self, frame: Frame) -> bool:
        """Whether a frame is looked at; outside the hours of its source none is, no event lasts, and no packet is kept."""
        asleep, was_asleep = not self._intake.is_active(), self._asleep
        if asleep != was_asleep:
            level = logging.WARNING if asleep and not self._tally.frames else logging.INFO
            _log.log(level, "%s: %s", self.name, _OUTSIDE if asleep else "looked at again")
            with self._changed:
                self._asleep = asleep
            if asleep:
                self._pause(frame)
        if frame.ring is not None:  # each connection has its own; packets hold what a mask hides
            frame.ring.listen(wanted=not asleep and not self._intake.settings.masks)
        return not asleep and self._intake.wants(frame)

    def _await_room(self) -> bool:
        """Wait before the next frame is taken, so that it is as new as can be."""
        with self._changed:
            while len(self._tickets) >= self._ahead and not self._ending():
                self._changed.wait(0.2)  # a signal handler cannot notify
            return not self._ending()

    def _ending(self) -> bool:
        return self._end_requested or self._aborted

    def _take(self, frame: Frame) -> None:
        arrived_s = time.monotonic() if frame.arrived_s is None else frame.arrived_s
        if (time_s := frame.time_s) is not None:
            if frame.source != self.name:
                frame = replace(frame, source=self.name)
            if not self._last_s < time_s < math.inf:  # ours take care of it, others may not
                time_s = max(self._last_s, -_LEAST_STEP_S) + _LEAST_STEP_S
                frame = replace(frame, time_s=time_s)
            self._last_s = time_s
        try:
            repeats = self._gate is not None and not self._gate.needs_model(frame)
            looks = [] if repeats else [*map(self._links.prepare, self._intake.looks(frame))]
        except FrameError:
            if self._live is None:
                raise
            with self._changed:
                self._tally.unusable += 1
            return
        tiles = [Ticket(self, frame, prepared, arrived_s) for prepared in looks[1:]]
        whole = looks[0] if looks else None
        ticket = Ticket(self, frame, whole, arrived_s, tiles=tuple(tiles))
        with self._changed:
            if self._aborted:
                return
            self._tickets.append(ticket)
            self._changed.notify_all()
        for part in [ticket, *tiles] if looks else []:
            self._links.submit(part)

    def _hand_on(self) -> None:
        try:
            if self._source.fps is not None and not self._aborted:  # pictures have no events
                self._outlet.begin()
            while (ticket := self._next_answered()) is not None:
                self._finish(ticket)
        except BaseException as error:  # noqa: BLE001 (whatever a sink raises ends this source alone)
            self.abort(error)
        self._close(self._outlet.close)
        self._await_taken()
        self._close(self._source.close)
        if self._error is not None and self._own_error():
            _log.warning("%s ended: %s", self.name, told(self._error))
        with self._changed:
            self._over = True
        self._links.finished()

    def _own_error(self) -> bool:
        """Whether the error is not what the live source has said already."""
        return self._live is None or self._live.state is not SourceState.FAILED

    def _await_taken(self) -> None:
        """Closing a file while another thread reads it would crash OpenCV."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken_all)

    def _close(self, close: Callable[[], None]) -> None:
        try:
            close()
        except BaseException as error:  # noqa: BLE001 (likewise)
            self.abort(error)

    def _next_answered(self) -> Ticket | None:
        """Wait for the answer to the oldest frame; None once there is none under way any more."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._aborted
                    or (self._tickets and self._tickets[0].answered)
                    or (self._taken_all and not self._tickets)
                )
            )
            if self._new_judging is not None:
                self._outlet.change_judging(self._new_judging)
                self._new_judging = None
            if not self._tickets:
                return None
            ticket = self._tickets.popleft()
            self._changed.notify_all()  # there is room for another frame
            return ticket

    def _finish(self, ticket: Ticket) -> None:
        if ticket.pauses:
            self._outlet.pause()
            return
        prediction = ticket.together(self._intake) or self._repeated(ticket.frame)
        if self._gate is not None and not prediction.valid:
            self._gate.forget()
        result = self._outlet.take(ticket.frame, prediction)
        with self._changed:
            self._latest = result
            self._tally.add(result, ticket.arrived_s)
        self._links.publish(result)

    def _repeated(self, frame: Frame) -> Prediction:
        """What the model said about the scene before, for a frame that shows the same."""
        assert self._latest is not None
        before = self._latest.prediction
        valid = before.valid and frame.status == "ok"
        return replace(
            before,
            labels=before.labels if valid else (),
            latency_ms=Latency(capture=frame.capture_ms),
            captured_at=frame.captured_at,
            valid=valid,
            repeated=True,
        )
