"""What an output takes, and what it has to be able to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Latency, Prediction

Takes: TypeAlias = Literal["results", "events", "both"]
_NO_PICTURE = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Result:
    """One frame, what the model says about it, and what that brings about.

    Outputs share it: to draw on a picture, copy it.
    """

    frame: Frame  # with its picture
    prediction: Prediction  # of that frame
    events: tuple[Event, ...]  # in the order of the labels; always empty for still pictures
    source: str = ""  # its name, as events give it
    ending: bool = False  # the source is over: new are only the events, the frame is its last again
    # There is no frame yet, only the event that says so; for "events" alone.
    beginning: bool = False
    thresholds: NDArray[np.float32] | None = None  # (L,), from which score on a label is there
    wanted: NDArray[np.bool_] | None = None  # (L,), which labels may be said of this source

    @classmethod
    def begin(cls, source: str) -> Result:
        """What a source's outputs of events are told first."""
        frame = Frame(_NO_PICTURE, 0, None, 0.0, 0.0, source)
        prediction = Prediction(np.empty(0, np.float32), (), Latency(), 0.0, valid=False)
        return cls(frame, prediction, (Event.begin(source),), source, beginning=True)

    def read_only(self) -> Result:
        """The same with arrays that no output can change, for the others get them too."""
        image, scores = self.frame.image_bgr.view(), self.prediction.scores.view()
        image.flags.writeable = scores.flags.writeable = False
        frame, said = replace(self.frame, image_bgr=image), replace(self.prediction, scores=scores)
        return replace(self, frame=frame, prediction=said)

    def without_picture(self) -> Result:
        """The same with an empty picture, to be kept for long."""
        return replace(self, frame=replace(self.frame, image_bgr=_NO_PICTURE))


@dataclass(frozen=True)
class SourceHealth:
    """How a source is doing, for outputs that tell it."""

    name: str
    is_ok: bool
    labels: tuple[str, ...] = ()  # that alone may be said of it; () for all
    known: tuple[str, ...] = ()  # of the model, in the order of its scores; () where nobody says
    newest: Result | None = None  # its newest; None before its first


@dataclass(frozen=True)
class OutputStatus:
    """How one output is doing."""

    name: str  # without passwords
    state: Literal["ok", "failing", "hanging"]
    reason: str  # why the state is not ok, for people; empty if it is
    lost: int  # results and events that it did not take


class Sink(Protocol):
    """An output. It is used by one thread at a time, and creates its file at the first result.

    Seven attributes are looked for, all optional:
        takes: "results", one for every frame (the default); "events", the results with events alone;
            or "both", where `Result.ending` tells the last events from a frame.
        pictures: False where `Result.frame.image_bgr` is not looked at, so that more results can wait.
        inline: True where `write` never waits, so that it needs no queue.
        watch: Called with a list of `SourceHealth` several times a second, between two writes.
        tend: Called about once a second by the thread of `write`, while nothing comes to write.
        files_of: Called with an event that starts and its frame, by another thread than `write`, before
            it is told to anybody: the files of it there will be, by "picture" and "clip".
        trouble: Text, empty while all is well: why its place takes nothing now, though nothing is lost yet.
            Until it is empty again, an output that lost something does not count as working again.
    """

    def write(self, result: Result) -> None:
        """Take one result.

        Raises:
            OutputError: It cannot be written. `lost` says how much is, where that is not this result.
        """
        ...

    def close(self) -> None:
        """Finish the output. Calling it twice is harmless.

        Raises:
            OutputError: It cannot be finished.
        """
        ...
