"""What becomes of one source's predictions: its events, and every result to its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cmlr_edge.events.event import Event
from cmlr_edge.events.reasons import VisitReasons
from cmlr_edge.events.tracker import EventTracker
from cmlr_edge.frame import Frame
from cmlr_edge.model.label_names import require_known
from cmlr_edge.model.stability import LabelStability, StabilityRules, stability_from_thresholds
from cmlr_edge.pipeline.intake import Choice, IntakeSettings
from cmlr_edge.place.watch import PlaceStatus, PlaceWatch
from cmlr_edge.prediction import Prediction
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.sinks.base import Result, Sink
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.outputs import Outputs


@dataclass(frozen=True)
class Judging:
    """How the scores of one source are judged."""

    stability: Mapping[str, LabelStability]  # for every label, in the order of the scores
    choice: Choice


class Outlet:
    """Follows the labels of one source, and tells its outputs."""

    def __init__(
        self,
        source: str,
        judging: Judging,
        own: Sequence[GuardedSink],
        shared: Outputs,
        *,
        lossless: bool,
        strict: Sequence[GuardedSink] = (),
        watch: PlaceWatch | None = None,
    ) -> None:
        """Own the outputs of this source alone.

        Args:
            source: Name for results and events.
            judging: What is said of the scores, and followed over time.
            own: Take its results, and are closed here.
            shared: Take them too, and stay their owner's.
            lossless: Wait for a slow output, rather than lose a result.
            strict: Those of its own that end the source when they raise.
            watch: Of its place.
        """
        self._source, self._own, self._shared = source, Outputs(own), shared
        self._lossless, self._strict, self._watch = lossless, strict, watch
        self.choice = judging.choice  # that counts now
        self._tracker = EventTracker(judging.stability, source=source)
        self._reasons = VisitReasons()
        self._last: Result | None = None
        self._files: dict[str, dict[str, str]] = {}  # of open events, by id

    @property
    def lost(self) -> int:
        """How many results and events of this source its outputs did not take."""
        ours = [*self._own.guards, *self._shared.guards]
        unfinished = sum(guard.lost_of("") for guard in self._own.guards)
        return self._own.lost_before + unfinished + sum(g.lost_of(self._source) for g in ours)

    def guard_of(self, sink: Sink | GuardedSink) -> GuardedSink | None:
        """The guard of an output of its own; None for one that is not."""
        return next((guard for guard in self._own.guards if guard.guards(sink)), None)

    def change_judging(self, judging: Judging) -> None:
        """Go on with other settings; see `EventTracker.change_settings`."""
        self.choice = judging.choice
        self._tracker.change_settings(judging.stability)

    def change_own(self, guards: Sequence[GuardedSink]) -> None:
        """Go on with other outputs of its own; those that are not among them are closed."""
        self._own.change(guards)

    def begin(self) -> None:
        """Tell those that take events that a run of this source begins, before anything else."""
        self._write(Result.begin(self._source))

    def take(self, frame: Frame, prediction: Prediction) -> Result:
        """Follow the labels and tell the outputs.

        Raises:
            Exception: What an output met, if that is to end the source.
        """
        prediction, notices = self._placed(frame, prediction)
        tracked = self._reasons.explain(self._track(frame, prediction), prediction)
        events = [*notices, *(self._with_files(event, frame) for event in tracked)]
        self._last = Result(
            frame,
            prediction,
            tuple(events),
            self._source,
            thresholds=self.choice.reached_from,
            wanted=self.choice.wanted,
        )
        self._write(self._last)
        self._raise()
        return self._last

    def pause(self) -> None:
        """End the open events, for no frame is looked at for now, or with other masks from now on."""
        if self._watch is not None:
            self._watch.forget_pictures()
        events, last = self._tracker.finish(), self._last
        if last is not None and events:
            events = self._reasons.explain(events, last.prediction)
            events = [self._with_files(event, last.frame) for event in events]
            ending = Result(last.frame, last.prediction, tuple(events), self._source, ending=True)
            self._write(ending)

    def close(self) -> None:
        """End the open events, wait for what is to be written, and close the source's own outputs.

        Raises:
            Exception: As for `take`.
        """
        self.pause()
        if self._watch is not None:
            self._watch.close()
        self._own.close()
        self._raise()

    def _placed(self, frame: Frame, prediction: Prediction) -> tuple[Prediction, list[Event]]:
        """What is said of a frame in this place, and what is to be told of the place."""
        if self._watch is None:
            return self.choice.of(prediction), []
        said, notice = self._watch.take(frame, prediction)
        said = self.choice.of(said, anew=said.scores is not prediction.scores)
        if notice is None or frame.time_s is None:  # pictures have no events
            return said, []
        return said, [Event.of_place(frame, self._source, notice.id, notice.record)]

    @property
    def needs_why(self) -> bool:
        """Whether predictions must say why, for scores are averaged over the place."""
        return self._watch is not None and self._watch.averages

    def compared(self, prediction: Prediction, choice: Choice) -> Prediction:
        """What another model's word on one of the source's frames comes to; nothing is told or counted."""
        said = prediction if self._watch is None else self._watch.compared(prediction)
        return choice.of(said, anew=said.scores is not prediction.scores)

    @property
    def place(self) -> PlaceStatus | None:
        """How the place is, where it is watched."""
        return None if self._watch is None else self._watch.status

    def _write(self, result: Result) -> None:
        result = result.read_only()
        self._own.write(result, wait=self._lossless)
        self._shared.write(result, wait=self._lossless)

    def _raise(self) -> None:
        for guard in self._strict:
            if (error := guard.error_of(self._source) or guard.error_of("")) is not None:
                raise error

    def _with_files(self, event: Event, frame: Frame) -> Event:
        """Let an event name its files, all its messages the same ones."""
        if event.kind == "start":
            files: dict[str, str] = {}
            for guard in (*self._own.guards, *self._shared.guards):
                files |= guard.files_of(event, frame)
            self._files[event.id] = files
        take = self._files.pop if event.kind == "end" else self._files.get
        files = take(event.id, {})
        picture, clip = files.get("picture", ""), files.get("clip", "")
        return replace(event, picture=picture, clip=clip) if files else event

    def _track(self, frame: Frame, prediction: Prediction) -> list[Event]:
        if frame.time_s is None:
            return []
        return self._tracker.add(
            self.choice.followed(prediction.scores),
            frame.time_s,
            valid=prediction.valid,
            captured_at=frame.captured_at,
        )


def judge_by(
    recognizer: Recognizer,
    stability: Mapping[str, LabelStability] | StabilityRules | None,
    intake: IntakeSettings | None = None,
) -> Judging:
    """How one model's scores are judged: by what is given, and for the rest by spec and thresholds.

    Args:
        recognizer: Of the model.
        stability: By label, or rules.
        intake: Labels, thresholds and stability of one source, which count more.

    Raises:
        SpecError: A label is not one of the model's, or a setting is not usable.
    """
    choice = Choice(intake or IntakeSettings(), recognizer)
    rules = [recognizer.spec.stability]
    rules += [stability] if isinstance(stability, StabilityRules) else []
    rules += [intake.stability] if intake and intake.stability else []
    merged = stability_from_thresholds(choice.thresholds, *rules)
    if stability is None or isinstance(stability, StabilityRules):
        return Judging(merged, choice)
    require_known(stability, merged, "stability names")
    return Judging(merged | dict(stability), choice)
