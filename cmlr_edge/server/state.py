"""What the page and the REST interface tell, gathered from a run of streams."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from cmlr_edge.frame import FrameStatus
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.server.pictures import NewestPicture
from cmlr_edge.server.visits import Visit, VisitLog
from cmlr_edge.stream import Result
from cmlr_edge.streams import SourceStatus, Streams

_SHOWN_SCORES = 8  # the best ones; labels that are present come besides
_STATE_FOR_S = 0.25  # one gathering serves everybody for so long


@dataclass(frozen=True)
class ModelView:
    """The model at work."""

    name: str
    runtime: str
    provider: str  # really in use
    thresholds: dict[str, float]  # by label


@dataclass(frozen=True)
class ScoreView:
    """One label in one frame."""

    label: str
    score: float
    threshold: float
    present: bool  # a visit of it lasts


@dataclass(frozen=True)
class FrameView:
    """The newest recognised frame of a source."""

    index: int
    time_s: float | None
    captured_at: float  # seconds since the epoch
    size_wh: tuple[int, int]
    status: FrameStatus
    valid: bool
    latency_ms: float  # capture to postprocessing
    scores: tuple[ScoreView, ...]  # best first; empty if invalid


@dataclass(frozen=True)
class SourceView:
    """One source."""

    id: int  # in this run's addresses
    status: SourceStatus
    frame: FrameView | None  # None before the first


@dataclass(frozen=True)
class StateView:
    """Everything but events and pictures."""

    now: float  # seconds since the epoch, as all times here
    started_at: float
    model: ModelView
    sources: tuple[SourceView, ...]


class LiveState:
    """Looks at a run of streams; any thread may ask."""

    def __init__(
        self, streams: Streams, recognizer: Recognizer, names: Sequence[str], visits: VisitLog
    ) -> None:
        """Take what to look at; nothing is owned.

        Args:
            streams: The run.
            recognizer: Which works there.
            names: Of the sources, as added to the run; a source's id is its place.
            visits: The event sink of all of them.
        """
        self.names, self.visits = tuple(names), visits
        self.started_at = time.time()
        self.closing = False  # set when viewers shall be sent away
        self._streams = streams
        self._model = ModelView(
            recognizer.spec.name, recognizer.runtime, recognizer.provider, recognizer.thresholds
        )
        self._labels = recognizer.labels
        self._pictures = [NewestPicture() for _ in names]
        self._lock = threading.Lock()  # guards the two below
        self._gathered_s = float("-inf")
        self._state: StateView | None = None

    def state(self) -> StateView:
        """Return everything but events and pictures, at most a moment old."""
        with self._lock:
            now_s = time.monotonic()
            if self._state is None or now_s - self._gathered_s > _STATE_FOR_S:
                self._state, self._gathered_s = self._gather(), now_s
            return self._state

    def result(self, source_id: int) -> Result | None:
        """Return the newest result of a source; None before its first."""
        return self._streams.latest(self.names[source_id])

    def jpeg(self, source_id: int, result: Result) -> bytes:
        """Return the picture of a result; see `NewestPicture.jpeg`."""
        return self._pictures[source_id].jpeg(result.frame)

    def packet(self, source_id: int, result: Result) -> bytes:
        """Return a result for the page: a length, so many bytes of JSON, and the JPEG."""
        about = {"source": source_id, **asdict(self._frame_view(result))}
        text = json.dumps(about, allow_nan=False).encode()
        return struct.pack(">I", len(text)) + text + self.jpeg(source_id, result)

    def changed_visits(self, after_revision: int, limit: int) -> list[Visit]:
        """Return what changed on the timeline; see `VisitLog.newest`."""
        return self.visits.newest(limit, after_revision=after_revision)

    def _gather(self) -> StateView:
        by_name = {status.name: status for status in self._streams.status()}
        return StateView(
            now=time.time(),
            started_at=self.started_at,
            model=self._model,
            sources=tuple(
                SourceView(number, by_name[name], self._newest_frame(number))
                for number, name in enumerate(self.names)
            ),
        )

    def _newest_frame(self, source_id: int) -> FrameView | None:
        result = self.result(source_id)
        return None if result is None else self._frame_view(result)

    def _frame_view(self, result: Result) -> FrameView:
        frame, prediction = result.frame, result.prediction
        height, width = frame.image_bgr.shape[:2]
        return FrameView(
            index=frame.index,
            time_s=frame.time_s,
            captured_at=frame.captured_at,
            size_wh=(width, height),
            status=frame.status,
            valid=prediction.valid,
            latency_ms=round(prediction.latency_ms.total, 3),
            scores=self._best_scores(result) if prediction.valid else (),
        )

    def _best_scores(self, result: Result) -> tuple[ScoreView, ...]:
        scores, present = result.prediction.scores, self.visits.present(result.source)
        shown = np.argsort(-scores, kind="stable").tolist()
        return tuple(
            ScoreView(label, float(scores[i]), self._model.thresholds[label], label in present)
            for rank, (i, label) in enumerate((i, self._labels[i]) for i in shown)
            if rank < _SHOWN_SCORES or label in present
        )
