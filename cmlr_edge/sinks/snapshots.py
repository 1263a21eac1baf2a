"""A picture of each event: its best moment, as a JPEG, kept for as long as there is room."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.machine.clocks import CLOCK_WAS_SET_S, since_start_s
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


class Snapshots:
    """Writes FOLDER/SOURCE/LABEL_ID.jpg at the start of an event, and a better one at its end."""

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
            folder: Made where it is missing; the one it lies in must exist.
            labels: Of the model, in the order of the scores.
            keep_bytes: Of pictures at most.
            keep_days: Older pictures are deleted; None keeps them.
            clock: Seconds that only rise: a wall clock that is set makes no picture old.
            wall_clock: Seconds since the epoch, for the pictures that are there already.

        Raises:
            OutputError: The folder cannot be used.
        """
        self.name = str(folder)
        self._folder, self._keep_bytes, self._clock = folder, keep_bytes, clock
        self._keep_s = None if keep_days is None else keep_days * _DAY_S
        self._index = {label: index for index, label in enumerate(labels)}
        self._open: dict[str, tuple[Event, _Best]] = {}
        try:
            folder.mkdir(exist_ok=True)
            found = [
                path for path in folder.glob("*/*.jpg") if path.is_file() and _OURS.match(path.name)
            ]
            stats = [(path, path.stat()) for path in found]
        except OSError as error:
            raise self._unwritten(folder, error) from error
        now_s, wall_s = clock(), wall_clock()
        about = sorted(
            (now_s - _age_s(stat.st_mtime, wall_s), stat.st_mtime, stat.st_size, path)
            for path, stat in stats
        )
        # When on our clock, bytes, path; the oldest first.
        self._kept = deque((when_s, size, path) for when_s, _, size, path in about)
        self._bytes = sum(stat.st_size for _, stat in stats)

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
                self._follow(event, result.frame)
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

    def _follow(self, event: Event, frame: Frame) -> None:
        if event.kind == "begin":  # an earlier run's are over
            self._open = {k: v for k, v in self._open.items() if v[0].source != event.source}
        elif event.kind == "start":
            jpeg = _encode(frame)
            self._open[event.id] = event, _Best(event.score, jpeg)
            self._keep(self.path_of(event), jpeg)
        elif event.kind == "end" and event.id in self._open:
            started, best = self._open.pop(event.id)
            if best.score > started.score:
                self._keep(self.path_of(event), best.jpeg)

    def _keep(self, path: Path, jpeg: bytes) -> None:
        try:
            self._make_room(len(jpeg))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, jpeg)
        except OSError as error:
            raise self._unwritten(path, error) from error
        self._forget(path)
        self._kept.append((self._clock(), len(jpeg), path))
        self._bytes += len(jpeg)

    def _make_room(self, size: int) -> None:
        """Delete the oldest pictures, our own alone, until there is room for one more."""
        oldest_s = -math.inf if self._keep_s is None else self._clock() - self._keep_s
        while self._kept:
            free = shutil.disk_usage(self._folder).free
            is_full = self._bytes + size > self._keep_bytes or free - size < _LEAST_FREE_BYTES
            if not is_full and self._kept[0][0] >= oldest_s:
                return
            _, freed, path = self._kept.popleft()
            self._bytes -= freed
            path.unlink(missing_ok=True)
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


def _age_s(written_at: float, now_at: float) -> float:
    """Of a file; one that was written, or is looked at, while no clock was set counts as new."""
    return max(0.0, now_at - written_at) if written_at >= CLOCK_WAS_SET_S else 0.0


def _encode(frame: Frame) -> bytes:
    cv2 = opencv()
    ok, encoded = cv2.imencode(".jpg", frame.image_bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not ok:
        raise OutputError(f"a picture of {frame.source} cannot be written as JPEG")
    return bytes(encoded)
