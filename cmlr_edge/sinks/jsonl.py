"""JSON lines: an object per frame, or per event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Prediction
from cmlr_edge.sinks.base import Result, Takes
from cmlr_edge.sinks.line_file import LineFile


class JsonLines:
    """Writes a line per frame; a process killed at any moment leaves whole lines."""

    pictures = False

    def __init__(
        self,
        path: Path,
        *,
        rotate_bytes: int | None = None,
        name_source: bool = False,
        keep_old: bool = False,
    ) -> None:
        """Remember the path; the file is created, or added to, at the first frame.

        Args:
            path: Its folder must exist.
            rotate_bytes: See `LineFile`.
            name_source: Every line says its source, for a file that several share.
            keep_old: See `LineFile`.
        """
        self._lines = LineFile(path, rotate_bytes=rotate_bytes, keep_old=keep_old)
        self._name_source = name_source

    def claim(self) -> None:
        """Lock the file at once; see `LineFile.claim`."""
        self._lines.claim()

    def write(self, result: Result) -> None:
        """Append one line; see `Sink`."""
        record = {"source": result.frame.source} if self._name_source else {}
        self._lines.append(_dump(record | to_record(result.frame, result.prediction)))

    def close(self) -> None:
        """Close the file; see `Sink`."""
        self._lines.close()


class EventLines:
    """Writes a line per begin of a source, and per start, update and end of an event."""

    takes: Takes = "events"
    pictures = False

    def __init__(
        self, path: Path, *, rotate_bytes: int | None = None, keep_old: bool = False
    ) -> None:
        """Remember the path; the file is created, or added to, at the first event.

        Args:
            path: Its folder must exist.
            rotate_bytes: See `LineFile`.
            keep_old: See `LineFile`.
        """
        self._lines = LineFile(path, rotate_bytes=rotate_bytes, keep_old=keep_old)

    def claim(self) -> None:
        """Lock the file at once; see `LineFile.claim`."""
        self._lines.claim()

    def write(self, result: Result) -> None:
        """Append a line for each event; see `Sink`."""
        for event in result.events:
            self._lines.append(_dump(event.to_record()))

    def close(self) -> None:
        """Close the file; see `Sink`."""
        self._lines.close()


def _dump(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False, ensure_ascii=False)


def to_record(frame: Frame, prediction: Prediction) -> dict[str, Any]:
    """Build the JSON object of one frame.

    `time_s` is null for pictures, which name their `file` instead; frames of a live source say when
    they were captured, in seconds since the epoch, by our clock, and in `sender_at` by the sender's,
    null where it does not tell; `valid` is false, and `labels` empty, where the model returned no number;
    frozen, stale and damaged frames say so in `status`, and frames that repeat earlier scores in
    `repeated`. `why` is there where it was asked for.
    """
    said = prediction.to_dict(scores=False)
    record: dict[str, Any] = {
        "frame": frame.index,
        "time_s": None if frame.time_s is None else round(frame.time_s, 4),
    }
    record |= {key: said[key] for key in ("labels", "latency_ms", "valid")}
    if frame.time_s is None:
        record["file"] = frame.source
    if frame.arrived_s is not None:
        record["captured_at"] = round(frame.captured_at, 3)
        taken_at = frame.sender_at
        record["sender_at"] = None if taken_at is None else round(taken_at, 3)
    if frame.status != "ok":
        record["status"] = frame.status
    if prediction.repeated:
        record["repeated"] = True
    if "why" in said:
        record["why"] = said["why"]
    return record
