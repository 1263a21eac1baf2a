"""One JSON object per frame and line."""

from __future__ import annotations

import json
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

from cmlr_edge.errors import OutputError
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Prediction


class JsonLines:
    """Writes a line per frame; a process killed at any moment leaves whole lines."""

    def __init__(self, path: Path) -> None:
        """Remember the path; the file is replaced at the first frame.

        Args:
            path: Its folder must exist.
        """
        self._path = path
        self._file: FileIO | None = None

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Append one line; see `Sink`."""
        line = json.dumps(to_record(frame, prediction), allow_nan=False, ensure_ascii=False) + "\n"
        data = line.encode()
        try:
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)
            # One unbuffered write per line: the kernel has all of it or nothing.
            written = self._file.write(data)
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror}; choose another --out"
            ) from error
        if written != len(data):
            self._file.truncate(self._file.tell() - (written or 0))
            raise OutputError(f"cannot write {self._path}: the disk is full; free some space")

    def close(self) -> None:
        """Close the file; see `Sink`."""
        if self._file is not None:
            self._file.close()


def to_record(frame: Frame, prediction: Prediction) -> dict[str, Any]:
    """Build the JSON object of one frame.

    `time_s` is null for pictures, which name their `file` instead; `valid` is false, and `labels`
    empty, where the model returned no number.
    """
    record: dict[str, Any] = {
        "frame": frame.index,
        "time_s": None if frame.time_s is None else round(frame.time_s, 4),
        "labels": [
            {"label": item.label, "score": round(item.score, 5)} for item in prediction.labels
        ],
        "latency_ms": {
            stage: round(value, 3) for stage, value in asdict(prediction.latency_ms).items()
        },
        "valid": prediction.valid,
    }
    if frame.time_s is None:
        record["file"] = frame.source
    return record
