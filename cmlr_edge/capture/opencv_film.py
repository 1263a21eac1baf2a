"""Video files through OpenCV, where PyAV is not installed."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.capture.bounds import MAX_STREAM_PIXELS, check_size
from cmlr_edge.capture.endings import is_cut
from cmlr_edge.capture.film import Picture
from cmlr_edge.capture.interlaced import interlaced_sample, shows_sample
from cmlr_edge.capture.names import utf8_path
from cmlr_edge.capture.structure import Structure
from cmlr_edge.errors import CaptureError
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.packet_ring import PacketRing

_SILENT = 0  # OpenCV's number of it
_MISSING_SHARE = 0.05  # containers announce a few frames more than they hold; this is beyond that
_LEAST_MISSING_S, _MOST_MISSING_S = (
    1.0,
    1e6,
)  # sound may be a little longer; what was a pipe announces years
_BAD_READS = 100  # in a row: nothing more is to come
_TEXT_BYTES = 512
_ROW_STEP = 8
_log = logging.getLogger(__name__)


@cache
def converts_interlaced() -> bool:
    """Whether this OpenCV gives the pictures of interlaced video; some builds say so and do not."""
    with interlaced_sample() as path:
        capture = open_quietly(str(path), opencv().CAP_FFMPEG)
        ok, image = capture.read()
        capture.release()
    return bool(ok) and shows_sample(image)


class UnwrittenFrames:
    """Finds pictures that a faulty OpenCV returned without writing them.

    Its buffer then shows what was there before: nothing, or the picture before.
    """

    def __init__(self) -> None:
        """Ask the build."""
        self._is_faulty = not converts_interlaced()
        self._rows: NDArray[np.uint8] | None = None

    def may_be(self, image_bgr: NDArray[np.uint8]) -> bool:
        """Whether this picture, the next of its stream, may be one of them.

        Args:
            image_bgr: (H, W, 3).
        """
        if not self._is_faulty:
            return False
        rows, before = image_bgr[::_ROW_STEP], self._rows
        if before is not None and not np.array_equal(rows, before):
            self._rows = rows.copy()
            return False
        if before is None:  # of the first picture nobody can tell
            self._rows = rows.copy()
        _warn_once()
        return True


@cache
def _warn_once() -> None:
    _log.warning(
        "this OpenCV (%s) leaves pictures of interlaced video unwritten; pictures that may be such are "
        "marked damaged, and are invalid: pip install av",
        opencv().__version__,
    )


class OpenCvFilm:
    """A video file, read by OpenCV; see `Film`."""

    may_jump = is_encrypted = False
    num_videos = 1  # OpenCV does not tell
    ring: PacketRing | None = None

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            CaptureError: It cannot be opened, or names other files instead of holding a video.
        """
        with path.open("rb") as file:
            head = file.read(_TEXT_BYTES)
        if head.isascii() and b"\0" not in head:
            raise CaptureError("it is text; playlists are not opened")
        cv2 = opencv()
        # Absolute, for FFmpeg takes what stands before a colon for a protocol.
        with utf8_path(path) as text:
            self._capture = open_quietly(text)
        self.fps = announced_fps(self._capture)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames: int | None = int(count) if 0 < count < 2**53 else None
        check_size(*announced_size(self._capture), MAX_STREAM_PIXELS, "it has pictures")
        self.damaged, self.is_cut = 0, is_cut(path)
        self._path: Path | None = path  # None: looked through
        self._held: Picture | None = None  # the next one, where the last is not to be trusted
        self._unwritten = UnwrittenFrames()
        self._read_frames = 0
        self._last_s = 0.0

    def read(self) -> Picture | None:
        """Decode the next frame; see `Film`."""
        if not self.is_cut:
            picture = self._decode()
            if picture is None:
                self._look_through()
            return picture
        picture = self._held or self._decode()
        self._held = self._decode() if picture is not None else None
        if picture is None or self._held is not None:
            return picture
        self.damaged += 1
        return replace(picture, is_whole=False)

    def _decode(self) -> Picture | None:
        for bad_reads in range(_BAD_READS):
            ok, image = self._capture.read()
            if ok:
                self.damaged += bad_reads
                position_ms = float(self._capture.get(opencv().CAP_PROP_POS_MSEC))
                has_time = math.isfinite(position_ms) and (position_ms > 0 or not self._read_frames)
                self._read_frames += 1
                self._last_s = position_ms / 1e3 if has_time else self._last_s
                return Picture(
                    image,
                    position_ms / 1e3 if has_time else None,
                    not self._unwritten.may_be(image),
                )
        return None

    def _look_through(self) -> None:
        """Count a hole in the file, at its end: OpenCV tells neither that there is one, nor where."""
        path, self._path = self._path, None
        if path is not None:
            structure = Structure(path)
            self.damaged += not structure.ends()
            structure.close()

    def missing_s(self) -> float:
        """Seconds that are missing at the end; see `Film`."""
        if self.num_frames is None or self.fps is None:
            return 0.0
        least = 1 - _MISSING_SHARE
        announced_s = self.num_frames / self.fps
        if self._read_frames >= least * self.num_frames or self._last_s >= least * announced_s:
            return 0.0
        missing_s = announced_s - self._last_s
        return missing_s if _LEAST_MISSING_S < missing_s < _MOST_MISSING_S else 0.0

    def close(self) -> None:
        """Release the file; see `Film`."""
        self._capture.release()


def announced_fps(capture: Any) -> float | None:
    """Frames per second that an opened `cv2.VideoCapture` announces, if they can be true."""
    fps = float(capture.get(opencv().CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else None


def announced_size(capture: Any) -> tuple[int, int]:
    """Width and height of the pictures of an opened `cv2.VideoCapture`, as it announces them."""
    cv2 = opencv()
    sides = [capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)]
    width, height = (int(side) if math.isfinite(side) else 0 for side in sides)
    return width, height


def open_quietly(source: int | str, backend: int = 0, parameters: Sequence[int] = ()) -> Any:
    """Open without OpenCV's own lines on stderr: our exceptions say what went wrong.

    Args:
        source: As `cv2.VideoCapture` takes it.
        backend: One of OpenCV's numbers; 0 for any.
        parameters: Pairs of property and value, for opening.
    """
    cv2 = opencv()
    # Debian's and JetPack's OpenCV may have the older of the two names only.
    logging_of = getattr(cv2.utils, "logging", None)
    set_level = cv2.setLogLevel if logging_of is None else logging_of.setLogLevel
    set_level(_SILENT)
    return cv2.VideoCapture(source, backend, list(parameters))
