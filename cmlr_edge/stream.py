"""Source -> recognizer -> events -> sinks: the loop behind `cmlr-edge label` and `Recognizer.stream`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

from cmlr_edge.capture import Source
from cmlr_edge.errors import SpecError
from cmlr_edge.events import Event
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Prediction
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.sinks import EventSink, Sink
from cmlr_edge.stability import EventTracker, LabelStability, stability_from_thresholds


@dataclass(frozen=True)
class Result:
    """One frame, what the model says about it, and what that brings about."""

    frame: Frame
    prediction: Prediction
    events: tuple[Event, ...]  # in the order of the labels; always empty for still pictures


def recognize_stream(
    source: Source,
    recognizer: Recognizer,
    *,
    sinks: Sequence[Sink] = (),
    event_sinks: Sequence[EventSink] = (),
    stability: Mapping[str, LabelStability] | None = None,
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
        stability: By label, instead of what follows from the recognizer's thresholds.
        max_frames: Stop after this many.

    Raises:
        SpecError: `stability` names a label that the model does not know.
    """
    with ExitStack() as cleanup:  # closes every sink, even if one of them fails to
        for close in [sink.close for sink in sinks] + [sink.close for sink in event_sinks]:
            cleanup.callback(close)
        tracker = EventTracker(_merge_stability(recognizer, stability), source=source.name)
        cleanup.callback(lambda: _send(tracker.finish(), event_sinks))
        for frame in islice(source, max_frames):
            prediction = recognizer(frame)
            events = _track(tracker, frame, prediction)
            for sink in sinks:
                sink.write(frame, prediction)
            _send(events, event_sinks)
            yield Result(frame, prediction, tuple(events))


def _merge_stability(
    recognizer: Recognizer, override: Mapping[str, LabelStability] | None
) -> dict[str, LabelStability]:
    merged = stability_from_thresholds(recognizer.thresholds)
    if unknown := sorted(set(override or {}) - set(merged)):
        raise SpecError(f"stability names unknown labels {unknown}; known: {list(merged)}")
    return merged | dict(override or {})


def _track(tracker: EventTracker, frame: Frame, prediction: Prediction) -> list[Event]:
    if frame.time_s is None:
        return []
    return tracker.add(
        prediction.scores, frame.time_s, valid=prediction.valid, captured_at=frame.captured_at
    )


def _send(events: Iterable[Event], event_sinks: Sequence[EventSink]) -> None:
    for event in events:
        for sink in event_sinks:
            sink.write_event(event)
