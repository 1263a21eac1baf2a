"""`Streams`: puts sources, recognizers and results together; see the package."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

from cmlr_edge.capture import Source, open_source
from cmlr_edge.capture.live import LiveSource
from cmlr_edge.errors import CaptureError, SpecError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.closing import Closing
from cmlr_edge.model.stability import LabelStability, StabilityRules
from cmlr_edge.pipeline.given import claim, release
from cmlr_edge.pipeline.intake import Choice, Intake, IntakeSettings
from cmlr_edge.pipeline.lane import Lane, LaneLinks
from cmlr_edge.pipeline.outlet import Outlet, judge_by
from cmlr_edge.pipeline.scene import SceneGate
from cmlr_edge.pipeline.seats import Seats
from cmlr_edge.pipeline.settings import StreamsSettings
from cmlr_edge.pipeline.status import SourceStatus
from cmlr_edge.pipeline.ticket import Ticket
from cmlr_edge.place.watch import PlaceWatch
from cmlr_edge.prediction import Prediction
from cmlr_edge.preprocess import Prepared
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.redaction import redact, source_name
from cmlr_edge.sinks.base import Result, Sink
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.outputs import Outputs

_RESULTS_AHEAD = 4  # of one source, that wait for the taker of `results`
_END_CHECK_S = 0.2  # between looks at whether the end was requested
_log = logging.getLogger(__name__)
# What one source brings to how its scores are judged.
_Rules: TypeAlias = tuple[
    Mapping[str, LabelStability] | StabilityRules | None, IntakeSettings | None
]


class Streams(Closing):
    """Recognises the frames of many sources; see the package."""

    def __init__(
        self,
        recognizers: Recognizer | Sequence[Recognizer],
        settings: StreamsSettings | None = None,
    ) -> None:
        """Plan a run; nothing starts yet.

        Args:
            recognizers: One, or several of the same labels that work side by side, each in a thread of
                its own. They stay the caller's: close them after this.
            settings: Limits.

        Raises:
            SpecError: There is none, or they have different labels.
        """
        self._settings = settings or StreamsSettings()
        self._changed = threading.Condition()  # guards everything below
        self._seats = Seats(recognizers, self._settings, self._changed, self._fail)
        self._lanes: dict[str, Lane] = {}
        self._rules: dict[str, _Rules] = {}
        self._results: deque[Result] = deque()
        self._started = self._closed = self._has_taker = False
        self._error: BaseException | None = None
        self._drain_until_s = math.inf  # set where an end is requested

    def add(
        self,
        source: Source | str | Path | int,
        *,
        name: str = "",
        sinks: Sequence[Sink | GuardedSink] = (),
        outputs: Outputs | None = None,
        stability: Mapping[str, LabelStability] | StabilityRules | None = None,
        skip_unchanged_s: float | None = None,
        max_frames: int | None = None,
        intake: IntakeSettings | None = None,
        watch: PlaceWatch | None = None,
    ) -> None:
        """Take another source, before or during the run; it and its sinks are closed here.

        Args:
            source: Opened, and given to no run before; or as `open_source` takes it.
            name: In results, events and status; the source's own by default.
            sinks: Take its results; one that several sources have is closed with the last of them. One
                that raises is counted and left out by a live source, and ends any other, unless it comes
                with a guard.
            outputs: Take its results too; shared with other sources, and closed by their owner.
            stability: By label, or rules, instead of what spec and thresholds say.
            skip_unchanged_s: While the scene does not change repeat the last prediction, at most so
                long, instead of running the model; such results say so in `prediction.repeated`.
            max_frames: Take no more than so many.
            intake: What of it is looked at: labels, pace, hours, masks, region.
            watch: Of its place; predictions have to say why, for it to see anything.

        Raises:
            CaptureError: Another source has that name, a run has or had it, or it is none.
            OutputError: A sink lacks `write` or `close`.
            SpecError: `stability` names a label that the model does not know, or a time is not usable.
        """
        number: object = max_frames  # whatever it is declared to be
        if number is not None and not (isinstance(number, int) and number >= 1):
            raise SpecError(f"max_frames is {max_frames}: expected a whole number, at least 1")
        with ExitStack() as undo:
            if isinstance(source, str | Path | int):
                source = undo.enter_context(open_source(source))
            if not hasattr(source, "name"):
                raise CaptureError(
                    f"{type(source).__name__} is no source: give one that is opened, or a path, URI or number"
                )
            name = redact(name) if name else source_name(source.name)
            claim(source, name)
            undo.callback(release, source)
            gate = None if skip_unchanged_s is None else SceneGate(skip_unchanged_s)
            rules = stability, intake
            self._add(source, name, sinks, outputs or Outputs(), rules, max_frames, gate, watch)
            undo.pop_all()

    def _add(
        self,
        source: Source,
        name: str,
        sinks: Sequence[Sink | GuardedSink],
        outputs: Outputs,
        rules: _Rules,
        max_frames: int | None,
        gate: SceneGate | None,
        watch: PlaceWatch | None,
    ) -> None:
        live = source if isinstance(source, LiveSource) else None
        links = LaneLinks(self._prepare, self._submit, self._publish, self._notify)
        with self._changed:
            if self._closed or self._drain_until_s < math.inf:
                raise CaptureError(f"cannot add {name}: the run is ending")
            if name in self._lanes:
                raise CaptureError(f"two sources are called {name}: give each its own name")
            own = [self._guard(sink) for sink in {id(sink): sink for sink in sinks}.values()]
            strict = [] if live else [guard for guard in own if guard not in sinks]
            outlet = Outlet(
                name,
                judge_by(self._seats.first, *rules),
                own,
                outputs,
                lossless=live is None or live.policy == "every",
                strict=strict,
                watch=watch,
            )
            intake = Intake(rules[1] or IntakeSettings())
            lane = Lane(source, name, outlet, links, self._settings, max_frames, gate, intake)
            self._lanes[name], self._rules[name] = lane, rules
            if self._started:
                lane.start()

    def _guard(self, sink: Sink | GuardedSink) -> GuardedSink:
        """Each output has one guard, however many sources write to it; the last of them closes it."""
        guards = (lane.guard_of(sink) for lane in self._lanes.values())
        known = next((guard for guard in guards if guard is not None), None)
        return known or (sink if isinstance(sink, GuardedSink) else GuardedSink(sink))

    def remove(self, name: str) -> SourceStatus:
        """End one source and forget it; waits at most `drain_s` for its frames under way.

        Raises:
            CaptureError: No source has that name.
        """
        lane = self._lane(name)
        self._finish([lane], time.monotonic() + self._settings.drain_s)
        status = lane.status()
        with self._changed:
            del self._lanes[name], self._rules[name]
        return status

    def swap(self, recognizers: Recognizer | Sequence[Recognizer]) -> list[Recognizer]:
        """Let other recognizers go on, as many, of the same labels; no frame is lost.

        Thresholds of the new ones count from then on; open events go on.

        Returns:
            The old ones, which no longer work: close them.

        Raises:
            SpecError: Their labels or number differ; nothing has changed then.
        """
        given = self._seats.check(recognizers)
        with self._changed:
            judging = {name: judge_by(given[0], *rules) for name, rules in self._rules.items()}
            for name, lane in self._lanes.items():
                lane.use_judging(judging[name])
            return self._seats.swap(given)

    def change_rules(
        self,
        name: str,
        stability: Mapping[str, LabelStability] | StabilityRules | None,
        intake: IntakeSettings | None = None,
    ) -> None:
        """Look at a source and follow its labels by other settings, as `add` takes them; events go on."""
        lane = self._lane(name)
        with self._changed:
            rules = stability, intake
            if rules == self._rules[name]:
                return
            judging = judge_by(self._seats.first, *rules)
            if intake != self._rules[name][1]:
                lane.use_intake(Intake(intake or IntakeSettings()))
            self._rules[name] = rules
            lane.use_judging(judging)

    def choice(self, name: str) -> Choice:
        """Which labels of a source are said, and from which score on.

        Raises:
            CaptureError: No source has that name.
        """
        return self._lane(name).choice

    def change_outputs(self, name: str, guards: Sequence[GuardedSink]) -> None:
        """Let a source go on with other outputs of its own; those that are not among them are closed.

        Raises:
            CaptureError: No source has that name.
        """
        self._lane(name).use_outputs(guards)

    def longest_run_s(self) -> float:
        """How long the model has been at the frames it has now: it hangs if this grows and grows."""
        return self._seats.longest_run_s()

    def start(self) -> None:
        """Begin, in threads; results go to the sinks, `status` and `latest` alone."""
        with self._changed:
            if self._started:
                return
            self._started = True
            self._seats.start()
            for lane in self._lanes.values():
                lane.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every source is over; once an end was requested, `drain_s` at most.

        Returns:
            Whether they are.

        Raises:
            EngineError: The runtime failed; whatever else it raised comes as it was.
        """
        with self._changed:
            deadline_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
            done = self._wait_for(self._is_over, deadline_s)
            if self._error is not None:
                raise self._error
            return done

    def results(self) -> Generator[Result, None, None]:
        """Begin, and yield every result in the order in which they are finished.

        A source whose results are not taken waits, see the package. When the generator is closed, so
        is everything else.

        Raises:
            EngineError: See `wait`. A source that fails is told by `status` alone.
        """
        with self._changed:
            self._has_taker = True
        self.start()
        try:
            while (result := self._next_result()) is not None:
                yield result
            self.wait()
        finally:
            self.close()

    def status(self) -> tuple[SourceStatus, ...]:
        """How each source is doing, in the order in which they were added."""
        with self._changed:
            lanes = [*self._lanes.values()]
        return tuple(lane.status() for lane in lanes)

    def latest(self, name: str) -> Result | None:
        """The newest result of a source; None before its first.

        Raises:
            CaptureError: No source has that name.
        """
        return self._lane(name).latest

    def look(self, name: str, recognizer: Recognizer, frame: Frame) -> Prediction:
        """What another recognizer says of a frame of a source, looked at as the source is.

        Raises:
            CaptureError: No source has that name.
        """
        return self._lane(name).look(recognizer, frame)

    def error(self, name: str) -> BaseException | None:
        """What ended a source before its time, if anything did."""
        return self._lane(name).error

    def request_end(self) -> None:
        """Let no more frames be taken. A signal handler may call it: it waits for no lock."""
        self._drain_until_s = min(self._drain_until_s, time.monotonic() + self._settings.drain_s)
        for lane in [*self._lanes.values()]:
            lane.request_end()

    def close(self) -> None:
        """End everything, after `drain_s` also what hangs. Calling it twice is harmless."""
        with self._changed:
            self._closed, self._has_taker = True, False
            self._results.clear()
            self._changed.notify_all()
            lanes = [*self._lanes.values()]
        self.request_end()
        self._finish(lanes, self._drain_until_s)
        self._seats.close()

    def __repr__(self) -> str:
        """Its sources."""
        return f"<Streams of {', '.join(self._lanes) or 'no source'}>"

    def _lane(self, name: str) -> Lane:
        with self._changed:
            if name not in self._lanes:
                raise CaptureError(f"no source is called {name}; there are {[*self._lanes]}")
            return self._lanes[name]

    def _finish(self, lanes: Sequence[Lane], deadline_s: float) -> None:
        """End lanes, wait for them, and leave behind what hangs."""
        for lane in lanes:
            lane.request_end()
            if not self._started:  # it only has to close what it owns
                lane.abort()
                lane.start()
        with self._changed:
            left_s = max(0.0, deadline_s - time.monotonic())
            self._changed.wait_for(lambda: all(lane.over for lane in lanes), left_s)
        for lane in lanes:
            if not lane.over:
                lane.abort(TimeoutError(f"it did not end in {self._settings.drain_s:g} s"))
                _log.warning("%s hangs and is left behind", lane.name)

    def _prepare(self, frame: Frame) -> Prepared:
        return self._seats.first.prepare(frame)

    def _submit(self, ticket: Ticket) -> None:
        self._seats.put(ticket)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _publish(self, result: Result) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._has_taker or self._has_room(result.source))
            if self._has_taker:
                self._results.append(result)
                self._changed.notify_all()

    def _has_room(self, source: str) -> bool:
        return Counter(result.source for result in self._results)[source] < _RESULTS_AHEAD

    def _next_result(self) -> Result | None:
        with self._changed:
            self._wait_for(lambda: bool(self._results) or self._is_over())
            if not self._results:
                return None
            result = self._results.popleft()
            self._changed.notify_all()
            return result

    def _wait_for(self, ready: Callable[[], bool], deadline_s: float = math.inf) -> bool:
        """Wait with the lock held, but not for what hangs at the end."""
        while not ready():
            left_s = min(deadline_s, self._drain_until_s) - time.monotonic()
            if left_s <= 0:
                return False
            self._changed.wait(min(left_s, _END_CHECK_S))  # a signal handler cannot notify
        return True

    def _is_over(self) -> bool:
        return all(lane.over for lane in self._lanes.values())

    def _fail(self, error: BaseException) -> None:
        """Without the model nothing can go on."""
        with self._changed:
            self._error, self._closed = self._error or error, True
            lanes = [*self._lanes.values()]
        self.request_end()  # limits how long anybody waits for a source that hangs
        for lane in lanes:
            lane.abort(error)
