"""A picture of each event: its best moment, as a JPEG, kept for as long as there is room."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.machine.clocks import since_start_s
from cmlr_edge.machine.opencv import jpeg_of
from cmlr_edge.sinks.base import Result, Takes
from cmlr_edge.sinks.kept_files import KeptFiles

_QUALITY = 90  # of JPEG
_BETTER = 0.05  # a score so much higher is worth another picture: at most twenty of an event


@dataclass
class _Best:
    """The best picture of one open event so far."""

    score: float
    jpeg: bytes
    why: bytes  # JSON; b"" where that was not asked for


class Snapshots:
    """Writes FOLDER/SOURCE/LABEL_ID.jpg at the start of an event, and a better one at its end.

    Where predictions are explained, LABEL_ID.json beside it says why the label was said there.
    """

    takes: Takes = "both"

    def __init__(
        self,
        folder: Path,
        labels: tuple[str, ...],
        *,
        keep_bytes: float = 10**9,
        keep_days: float | None = 30,
        clock: Callable[[], float] = since_start_s,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Look at what is there already; older pictures make room for newer ones.

        Args:
            folder: See `KeptFiles`.
            labels: Of the model, in the order of the scores.
            keep_bytes: Of pictures at most.
            keep_days: Older pictures are deleted; None keeps them.
            clock: Seconds that only rise: a wall clock that is set makes no picture old.
            wall_clock: Seconds since the epoch, for the pictures that are there already.

        Raises:
            OutputError: The folder cannot be used.
        """
        self.name = str(folder)
        self._files = KeptFiles(
            folder,
            (".jpg", ".json"),
            keep_bytes=keep_bytes,
            keep_days=keep_days,
            clock=clock,
            wall_clock=wall_clock,
        )
        self._index = {label: index for index, label in enumerate(labels)}
        self._open: dict[str, tuple[Event, _Best]] = {}

    def write(self, result: Result) -> None:
        """Follow open events, and write pictures of those that start or end; see `Sink`.

        Raises:
            OutputError: A picture cannot be written; `lost` says how many.
        """
        failed: list[OutputError] = []
        self.tend()
        if not (result.ending or result.beginning) and result.prediction.valid:
            self._look(result)
        for event in result.events:
            try:
                self._follow(event, result)
            except OutputError as error:  # noqa: PERF203 (the next one may fit)
                failed.append(error)
        if failed:
            failed[0].lost = len(failed)
            raise failed[0]

    @property
    def trouble(self) -> str:
        """Why nothing can be written there; see `Sink`."""
        return self._files.trouble

    def tend(self) -> None:
        """Delete pictures that are too old; see `Sink`."""
        self._files.tend()

    def close(self) -> None:
        """Forget open events; their pictures are there from the start. See `Sink`."""
        self._open.clear()

    def files_of(self, event: Event, _frame: Frame) -> dict[str, str]:
        """The file of an event's picture; see `Sink`."""
        return {"picture": str(self.path_of(event))}

    def path_of(self, event: Event) -> Path:
        """Where the picture of an event is."""
        return self._files.path_of(event, ".jpg")

    def _look(self, result: Result) -> None:
        """Keep a better picture of what is there."""
        encoded = b""
        for event, best in self._open.values():
            if event.source != result.source:
                continue
            score = float(result.prediction.scores[self._index[event.label]])
            if score >= best.score + _BETTER:
                encoded = encoded or _encode(result.frame)
                best.score, best.jpeg = score, encoded
                best.why = _why(result, event.label)

    def _follow(self, event: Event, result: Result) -> None:
        if event.kind == "begin":  # an earlier run's are over
            self._open = {k: v for k, v in self._open.items() if v[0].source != event.source}
        elif event.kind == "start":
            first = _Best(event.score, _encode(result.frame), _why(result, event.label))
            self._open[event.id] = event, first
            self._keep(event, first)
        elif event.kind == "end" and event.id in self._open:
            started, best = self._open.pop(event.id)
            if best.score > started.score:
                self._keep(event, best)

    def _keep(self, event: Event, best: _Best) -> None:
        self._files.keep(self.path_of(event), best.jpeg)
        if best.why:
            self._files.keep(self._files.path_of(event, ".json"), best.why)


def _why(result: Result, label: str) -> bytes:
    why = result.prediction.why
    if why is None or not result.prediction.valid:
        return b""
    record = {"label": label, **why[label].to_dict()}
    return json.dumps(record, allow_nan=False, ensure_ascii=False).encode()


def _encode(frame: Frame) -> bytes:
    return jpeg_of(frame.image_bgr, _QUALITY, frame.source)
