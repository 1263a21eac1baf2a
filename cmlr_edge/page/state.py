"""What the page and the REST interface tell, gathered from a run of streams."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cmlr_edge import __version__
from cmlr_edge.capture.live import SourceState
from cmlr_edge.frame import FrameStatus
from cmlr_edge.machine import hardware
from cmlr_edge.machine.clocks import since_start_s
from cmlr_edge.page.looking import PictureDesk
from cmlr_edge.page.pictures import NewestPicture
from cmlr_edge.page.sources import SourceControl
from cmlr_edge.page.visits import VisitLog
from cmlr_edge.pipeline import SourceStatus, Streams
from cmlr_edge.pipeline.metrics import PrometheusMetrics
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.redaction import redact
from cmlr_edge.sinks.base import OutputStatus, Result
from cmlr_edge.why import Explain

_SHOWN_SCORES = 8  # the best ones; labels that are present come besides
_STATE_FOR_S = 0.25  # one gathering serves everybody for so long


@dataclass(frozen=True)
class ModelView:
    """The model at work."""

    name: str
    runtime: str
    provider: str  # really in use
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]  # in the order of the labels
    explains: bool  # whether the run says why a label is said


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
    labels: tuple[str, ...]  # that alone may be said of it; () for all
    thresholds: dict[str, float]  # of it, where they are not the model's


@dataclass(frozen=True)
class MachineView:
    """How the machine is doing, as far as its kernel tells."""

    memory_free_bytes: int | None
    memory_total_bytes: int | None
    hottest_c: float | None
    power_mode: str | None  # of a Jetson


@dataclass(frozen=True)
class StateView:
    """Everything but events and pictures."""

    now: float  # seconds since the epoch, as all times here
    started_at: float
    model: ModelView
    machine: MachineView
    sources: tuple[SourceView, ...]
    outputs: tuple[OutputStatus, ...] = ()
    may_edit: bool = False  # whether visitors may change sources
    version: str = __version__  # of cmlr_edge; a page of another one loads itself anew


class LiveState:
    """Looks at a run of streams; any thread may ask."""

    def __init__(
        self,
        streams: Streams,
        recognizer: Recognizer,
        *,
        metrics: PrometheusMetrics | None = None,
        outputs: Callable[[], tuple[OutputStatus, ...]] = tuple,
        answered_within_s: float = 10.0,
        explain: Explain | None = None,
    ) -> None:
        """Take what to look at; nothing is owned.

        Args:
            streams: The run, not started yet.
            recognizer: Which works there.
            metrics: Told at /metrics; those of the run.
            outputs: Asked for the state of each output.
            explain: How visitors' pictures are explained; as the run does, or None.
            answered_within_s: A model that takes longer for a frame hangs or has far too much to do.

        Raises:
            DependencyError: prometheus-client is not installed.
        """
        self._started_s = since_start_s()
        self.may_edit = False  # whether `control` is for those who look: they know a token
        self.control: SourceControl | None = None  # changes the sources, where a run lets visitors
        self.closing = False  # set when viewers shall be sent away
        self.visits = VisitLog()
        self.metrics = metrics or PrometheusMetrics(streams.status)
        self._outputs = outputs
        self._streams, self._answered_within_s = streams, answered_within_s
        self._names: list[str] = []
        self._gone: set[int] = set()  # ids of sources that were removed
        self._pictures: list[NewestPicture] = []
        self.desk = PictureDesk(recognizer, explain)
        self._explains = explain is not None
        self.use(recognizer)
        self._lock = threading.Lock()  # guards the two below
        self._gathered_s = float("-inf")
        self._state: StateView | None = None

    def use(self, recognizer: Recognizer) -> None:
        """Tell of the model that is at work from now on, and let it look at visitors' pictures."""
        self.desk.use(recognizer)
        self._recognizer = recognizer
        self._model = ModelView(
            name=recognizer.spec.name,
            runtime=recognizer.runtime,
            provider=recognizer.provider,
            labels=recognizer.labels,
            thresholds=tuple(recognizer.thresholds.values()),
            explains=self._explains and recognizer.explains,
        )

    def watch(self, name: str) -> None:
        """Show a source that is added to the run under this name.

        Sources get their ids in the order of these calls. The run's outputs have to have `visits`.
        """
        self._pictures.append(NewestPicture())
        self._names.append(redact(name))

    def forget(self, name: str) -> None:
        """Show a source no longer; its id is never given again."""
        self._gone |= {number for number, known in enumerate(self._names) if known == redact(name)}

    def id_of(self, name: str) -> int | None:
        """The id of a source that there is."""
        numbers = [i for i, known in enumerate(self._names) if known == redact(name)]
        return next((number for number in reversed(numbers) if number not in self._gone), None)

    def name_of(self, source_id: int) -> str | None:
        """The name of a source that there is."""
        is_there = 0 <= source_id < len(self._names) and source_id not in self._gone
        return self._names[source_id] if is_there else None

    @property
    def num_sources(self) -> int:
        """How many ids were given; they count from 0."""
        return len(self._names)

    @property
    def num_shown(self) -> int:
        """How many sources there are."""
        return len(self._names) - len(self._gone)

    def state(self) -> StateView:
        """Return everything but events and pictures, at most a moment old."""
        with self._lock:
            now_s = time.monotonic()
            if self._state is None or now_s - self._gathered_s > _STATE_FOR_S:
                self._state, self._gathered_s = self._gather(), now_s
            return self._state

    def num_healthy(self) -> int:
        """Count the sources that give frames which the model answers in time."""
        return sum(
            source.status.state is SourceState.OK and self._is_answered(source.id)
            for source in self.state().sources
        )

    def _is_answered(self, source_id: int) -> bool:
        if (result := self.result(source_id)) is None:
            return False
        arrived_s = result.frame.arrived_s
        return arrived_s is None or time.monotonic() - arrived_s < self._answered_within_s

    def result(self, source_id: int) -> Result | None:
        """Return the newest result of a source; None before its first, and once it is removed."""
        if source_id in self._gone:
            return None
        return self._streams.latest(self._names[source_id])

    def jpeg(self, source_id: int, result: Result) -> bytes:
        """Return the picture of a result; see `NewestPicture.jpeg`."""
        return self._pictures[source_id].jpeg(result.frame)

    def packet(self, source_id: int, result: Result, asked: int | None = None) -> bytes:
        """Return a result for the page: a length, so many bytes of JSON, and the JPEG.

        Args:
            source_id: Its source.
            result: The newest one.
            asked: Number of the label that the visitor wants to know why of.
        """
        prediction = result.prediction
        about: dict[str, Any] = {
            "source": source_id,
            "captured_at": result.frame.captured_at,
            "status": result.frame.status,
            "valid": prediction.valid,
            "latency_ms": round(prediction.latency_ms.total, 2),
            # In the order of the labels; a model gone wrong has none.
            "scores": prediction.scores.round(4).tolist() if prediction.valid else [],
            "present": sorted(self.visits.present(result.source)),
        }
        if (why := prediction.why) is not None and prediction.valid:
            said = [item.label for item in prediction.labels]
            about["flagged"] = [label for label in said if why[label].because_of_surroundings]
            if asked is not None and asked < len(why.labels):
                about["why"] = {"label": asked, **why[why.labels[asked]].to_dict()}
        text = json.dumps(about, allow_nan=False).encode()
        return struct.pack(">I", len(text)) + text + self.jpeg(source_id, result)

    def _gather(self) -> StateView:
        by_name = {status.name: status for status in self._streams.status()}
        return StateView(
            now=time.time(),
            started_at=time.time() - (since_start_s() - self._started_s),
            model=replace(self._model, runtime=self._recognizer.runtime),
            machine=_machine_view(),
            outputs=self._outputs(),
            may_edit=self.may_edit,
            sources=tuple(
                self._source_view(number, by_name[name])
                for number, name in enumerate(self._names)
                if number not in self._gone and name in by_name
            ),
        )

    def _source_view(self, source_id: int, status: SourceStatus) -> SourceView:
        choice = self._streams.choice(status.name)
        frame = self._newest_frame(source_id)
        return SourceView(source_id, status, frame, choice.labels, dict(choice.changed))

    def _newest_frame(self, source_id: int) -> FrameView | None:
        if (result := self.result(source_id)) is None:
            return None
        frame, prediction = result.frame, result.prediction
        height, width = frame.image_bgr.shape[:2]
        return FrameView(
            index=frame.index,
            time_s=frame.time_s,
            captured_at=frame.captured_at,
            size_wh=(width, height),
            status=frame.status,
            valid=prediction.valid,
            latency_ms=prediction.latency_ms.total,
            scores=self._best_scores(result) if prediction.valid else (),
        )

    def _best_scores(self, result: Result) -> tuple[ScoreView, ...]:
        scores, present = result.prediction.scores, self.visits.present(result.source)
        choice, labels = self._streams.choice(result.source), self._model.labels
        ranked = np.argsort(-scores, kind="stable").tolist()
        wanted = [(i, labels[i]) for i in ranked if choice.wanted[i]]
        return tuple(
            ScoreView(label, float(scores[i]), choice.thresholds[label], label in present)
            for rank, (i, label) in enumerate(wanted)
            if rank < _SHOWN_SCORES or label in present
        )


def _machine_view() -> MachineView:
    memory = hardware.memory_bytes()
    return MachineView(
        memory_free_bytes=memory.get("MemAvailable"),
        memory_total_bytes=memory.get("MemTotal"),
        hottest_c=max(hardware.temperatures_c().values(), default=None),
        power_mode=hardware.power_mode(),
    )
