"""Source -> recognizer -> events -> sinks, for one source in the caller's own thread; see also `streams`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

from cmlr_edge.capture import Source
from cmlr_edge.events.event import Event
from cmlr_edge.events.tracker import EventTracker
from cmlr_edge.frame import Frame
from cmlr_edge.model.label_names import require_known
from cmlr_edge.model.stability import LabelStability, StabilityRules, stability_from_thresholds
from cmlr_edge.prediction import Prediction
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.sinks import EventSink, Sink


@dataclass(frozen=True)
class Result:
    """One frame, what the model says about it, and what that brings about."""

    frame: Frame
    prediction: Prediction
    events: tuple[Event, ...]  # in the order of the labels; always empty for still pictures
    source: str = ""  # its name, as events give it


class Outlet:
    """What becomes of one source's predictions: events, and every frame and event to its sinks."""

    def __init__(
        self,
        source: str,
        stability: Mapping[str, LabelStability],
        sinks: Sequence[Sink] = (),
        event_sinks: Sequence[EventSink] = (),
    ) -> None:
        """Own the sinks from here on.

        Args:
            source: Name for results and events.
            stability: For every label, in the order of the scores.
            sinks: Take every frame.
            event_sinks: Take every event.
        """
        self._source = source
        self._sinks, self._event_sinks = sinks, event_sinks
        self._tracker = EventTracker(stability, source=source)

    def change_stability(self, stability: Mapping[str, LabelStability]) -> None:
        """Go on with other settings; see `EventTracker.change_settings`."""
        self._tracker.change_settings(stability)

    def take(self, frame: Frame, prediction: Prediction) -> Result:
        """Follow the labels and tell the sinks."""
        events = self._track(frame, prediction)
        for sink in self._sinks:
            sink.write(frame, prediction)
        self._send(events)
        return Result(frame, prediction, tuple(events), self._source)

    def close(self) -> None:
        """End the open events and close every sink, even if one of them fails to."""
        with ExitStack() as cleanup:
            for close in _closers(self._sinks, self._event_sinks):
                cleanup.callback(close)
            self._send(self._tracker.finish())

    def _track(self, frame: Frame, prediction: Prediction) -> list[Event]:
        if frame.time_s is None:
            return []
        return self._tracker.add(
            prediction.scores,
            frame.time_s,
            valid=prediction.valid,
            captured_at=frame.captured_at,
        )

    def _send(self, events: Iterable[Event]) -> None:
        for event in events:
            for sink in self._event_sinks:
                sink.write_event(event)


def recognize_stream(
    source: Source,
    recognizer: Recognizer,
    *,
    sinks: Sequence[Sink] = (),
    event_sinks: Sequence[EventSink] = (),
    stability: Mapping[str, LabelStability] | StabilityRules | None = None,
    max_frames: int | None = None,
) -> Generator[Result, None, None]:
    """Recognise every frame that the source delivers, hand it to every sink, and yield it.

    When the generator ends, is closed, or an error leaves it, open events are ended towards the event
    sinks and all sinks are closed.

    Args:
        source: Opened; closing it stays with the caller.
        recognizer: Likewise.
        sinks: Take every frame. Closed here.
        event_sinks: Take every event. Closed here.
        stability: By label, or rules, instead of what spec and thresholds say.
        max_frames: Stop after this many.

    Raises:
        SpecError: `stability` names a label that the model does not know.
    """
    with ExitStack() as cleanup:
        for close in _closers(sinks, event_sinks):  # also if the settings are refused
            cleanup.callback(close)
        outlet = Outlet(source.name, merge_stability(recognizer, stability), sinks, event_sinks)
        cleanup.callback(outlet.close)
        for frame in islice(source, max_frames):
            yield outlet.take(frame, recognizer(frame))


def _closers(sinks: Sequence[Sink], event_sinks: Sequence[EventSink]) -> list[Callable[[], None]]:
    return [sink.close for sink in sinks] + [sink.close for sink in event_sinks]


def merge_stability(
    recognizer: Recognizer, override: Mapping[str, LabelStability] | StabilityRules | None
) -> dict[str, LabelStability]:
    """Settings for every label: those given, and for the rest what spec and thresholds say.

    Raises:
        SpecError: A label is not one of the model's, or a setting is not usable.
    """
    if isinstance(override, StabilityRules):
        own = recognizer.spec.stability
        return stability_from_thresholds(recognizer.thresholds, own, override)
    merged = stability_from_thresholds(recognizer.thresholds, recognizer.spec.stability)
    changed = dict(override or {})
    require_known(changed, merged, "stability names")
    return merged | changed
