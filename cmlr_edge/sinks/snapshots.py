"""A picture of each event: its best moment, as a JPEG, kept for as long as there is room."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.model.files import write_atomically
from cmlr_edge.redaction import printable, safe_name
from cmlr_edge.sinks.base import Result, Takes

_QUALITY = 90  # of JPEG
_BETTER = 0.05  # a score so much higher is worth another picture: at most twenty of an event
_LEAST_FREE_BYTES = 200 * 10**6  # of the disk; others need room, too
_OURS = re.compile(r".+_[0-9a-f]{32}\.jpg")
_DAY_S = 86_400.0


@dataclass
class _Best:
    """The best picture of one open event so far."""

    score: float
    jpeg: bytes
    why: bytes  # JSON; b"" where that was not asked for

    @property
    def size(self) -> int:
        """Bytes of both."""
        return len(self.jpeg) + len(self.why)


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
    ) -> None:
        """Look at what is there already; older pictures make room for newer ones.

        Args:
            folder: Made where it is missing; the one it lies in must exist.
            labels: Of the model, in the order of the scores.
            keep_bytes: Of pictures at most.
            keep_days: Older pictures are deleted; None keeps them.

        Raises:
            OutputError: The folder cannot be used.
        """
        self.name = str(folder)
        self._folder, self._keep_bytes = folder, keep_bytes
        self._keep_s = None if keep_days is None else keep_days * _DAY_S
        self._index = {label: index for index, label in enumerate(labels)}
        self._open: dict[str, tuple[Event, _Best]] = {}
        try:
            folder.mkdir(exist_ok=True)
            found = [
                path for path in folder.glob("*/*.jpg") if path.is_file() and _OURS.match(path.name)
            ]
            about = sorted((path.stat().st_mtime, _size(path), path) for path in found)
        except OSError as error:
            raise self._unwritten(folder, error) from error
        self._kept = deque(about)  # when, bytes, path; the oldest first
        self._bytes = sum(size for _, size, _ in about)

    def write(self, result: Result) -> None:
        """Follow open events, and write pictures of those that start or end; see `Sink`.

        Raises:
            OutputError: A picture cannot be written; `lost` says how many.
        """
        failed: list[OutputError] = []
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

    def close(self) -> None:
        """Forget open events; their pictures are there from the start. See `Sink`."""
        self._open.clear()

    def path_of(self, event: Event) -> Path:
        """Where the picture of an event is."""
        name = f"{safe_name(event.label)}_{event.id}.jpg"
        return self._folder / safe_name(event.source) / name

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
            self._keep(self.path_of(event), first)
        elif event.kind == "end" and event.id in self._open:
            started, best = self._open.pop(event.id)
            if best.score > started.score:
                self._keep(self.path_of(event), best)

    def _keep(self, path: Path, best: _Best) -> None:
        try:
            self._make_room(best.size)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, best.jpeg)
            if best.why:
                write_atomically(_sidecar(path), best.why)
            else:
                _sidecar(path).unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritten(path, error) from error
        self._forget(path)
        self._kept.append((time.time(), best.size, path))
        self._bytes += best.size

    def _make_room(self, size: int) -> None:
        """Delete the oldest pictures, our own alone, until there is room for one more."""
        oldest_s = -1.0 if self._keep_s is None else time.time() - self._keep_s
        while self._kept:
            free = shutil.disk_usage(self._folder).free
            is_full = self._bytes + size > self._keep_bytes or free - size < _LEAST_FREE_BYTES
            if not is_full and self._kept[0][0] >= oldest_s:
                return
            _, freed, path = self._kept.popleft()
            self._bytes -= freed
            path.unlink(missing_ok=True)
            _sidecar(path).unlink(missing_ok=True)
            with suppress(OSError):  # other pictures are in it
                path.parent.rmdir()

    def _forget(self, path: Path) -> None:
        """Let the picture that another has just replaced count no longer."""
        for item in [item for item in self._kept if item[2] == path]:
            self._kept.remove(item)
            self._bytes -= item[1]

    @staticmethod
    def _unwritten(path: Path, error: OSError) -> OutputError:
        reason = error.strerror or os.strerror(error.errno or 0)
        return OutputError(f"cannot write {printable(path)}: {reason}")


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _size(path: Path) -> int:
    """Bytes of a picture and of what says why."""
    return sum(file.stat().st_size for file in (path, _sidecar(path)) if file.is_file())


def _why(result: Result, label: str) -> bytes:
    why = result.prediction.why
    if why is None or not result.prediction.valid:
        return b""
    record = {"label": label, **why[label].to_dict()}
    return json.dumps(record, allow_nan=False, ensure_ascii=False).encode()


def _encode(frame: Frame) -> bytes:
    cv2 = opencv()
    ok, encoded = cv2.imencode(".jpg", frame.image_bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not ok:
        raise OutputError(f"a picture of {frame.source} cannot be written as JPEG")
    return bytes(encoded)
