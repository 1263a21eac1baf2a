"""Video files and cameras, through OpenCV."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cmlr_edge.capture.base import ClosesItself
from cmlr_edge.errors import CaptureError
from cmlr_edge.frame import Frame
from cmlr_edge.opencv import opencv

_MISSING_SHARE = 0.05  # containers announce a few frames more than they hold; this is beyond that
_log = logging.getLogger(__name__)


class VideoFile(ClosesItself):
    """Every frame of a video file, in order."""

    def __init__(self, path: Path) -> None:
        """Open the file and decode its first frame.

        Raises:
            CaptureError: It is not a video, or no frame of it can be decoded.
        """
        self.name = str(path)
        self.files: Sequence[Path] = (path,)
        self._capture = _open_quietly(str(path))
        self._first = self._read()
        if self._first is None:
            self.close()
            raise CaptureError(
                f"{path} ({path.stat().st_size} bytes) is not a video that OpenCV can decode: it "
                "may be cut short, or its codec may be missing; try `ffmpeg -i FILE -c:v libx264 "
                "out.mp4`"
            )
        cv2 = opencv()
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps: float | None = fps if math.isfinite(fps) and 0 < fps <= 1000 else None
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames: int | None = int(count) if 0 < count < 2**53 else None

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame; see `Source`. Warns in the log where the file ends early."""
        index, item = 0, self._first
        while item is not None:
            image, time_s, capture_ms = item
            if time_s is None or (index > 0 and time_s <= 0):
                time_s = index / self.fps if self.fps else None
            yield Frame(image, index, time_s, time.time(), capture_ms, self.name)
            index, item = index + 1, self._read()
        expected = self.num_frames
        if expected is not None and index < expected * (1 - _MISSING_SHARE):
            _log.warning(
                "%s ended after %d of the %d frames it announces: the file may be cut short",
                self.name,
                index,
                expected,
            )

    def _read(self) -> tuple[Any, float | None, float] | None:
        cv2 = opencv()
        start = time.perf_counter()
        ok, image = self._capture.read()
        if not ok:
            return None
        position_ms = float(self._capture.get(cv2.CAP_PROP_POS_MSEC))
        time_s = position_ms / 1e3 if math.isfinite(position_ms) and position_ms >= 0 else None
        return image, time_s, (time.perf_counter() - start) * 1e3

    def close(self) -> None:
        """Release the file; see `Source`."""
        self._capture.release()

    def __enter__(self) -> VideoFile:
        """Return itself."""
        return self


class Camera(ClosesItself):
    """A local camera, read in the caller's thread."""

    num_frames: int | None = None
    files: Sequence[Path] = ()

    def __init__(self, device: int | str) -> None:
        """Open a camera by index or by device file.

        Raises:
            CaptureError: It cannot be opened or delivers nothing.
        """
        cv2 = opencv()
        self.name = f"camera {device}"
        self._capture = _open_quietly(device)
        if not self._capture.isOpened():
            raise CaptureError(
                f"{self.name} cannot be opened: check that it is plugged in (`ls /dev/video*`), "
                "not in use by another program, and that you may read it (group video)"
            )
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, where the driver obeys
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps: float | None = fps if math.isfinite(fps) and 0 < fps <= 1000 else None

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until closed; see `Source`."""
        opened, index = time.monotonic(), 0
        while self._capture.isOpened():
            start = time.perf_counter()
            ok, image = self._capture.read()
            if not ok:
                raise CaptureError(f"{self.name} stopped delivering after {index} frames")
            capture_ms = (time.perf_counter() - start) * 1e3
            time_s = time.monotonic() - opened
            yield Frame(image, index, time_s, time.time(), capture_ms, self.name)
            index += 1

    def close(self) -> None:
        """Release the camera; see `Source`."""
        self._capture.release()

    def __enter__(self) -> Camera:
        """Return itself."""
        return self


def _open_quietly(source: int | str) -> Any:
    """Open without OpenCV's own lines on stderr: our exceptions say what went wrong."""
    cv2 = opencv()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2.VideoCapture(source)
