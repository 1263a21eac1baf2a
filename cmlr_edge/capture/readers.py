"""Connections that a live source reads: through OpenCV, or a video file at its own pace."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.capture.backlog import Backlog
from cmlr_edge.capture.bounds import MAX_STREAM_PIXELS, check_size
from cmlr_edge.capture.opencv_film import (
    UnwrittenFrames,
    announced_fps,
    announced_size,
    open_quietly,
)
from cmlr_edge.capture.video import VideoFile
from cmlr_edge.errors import CaptureError
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.packet_ring import PacketRing

_CATCH_UP_S = 0.5  # at most, so that a stream faster than it says is read, too
_USUAL_FPS = 25.0  # where a film tells none
_CSI_DEFAULTS = {"width": 1280, "height": 720, "fps": 30, "flip": 0}


class EndOfSource(Exception):
    """The source has no more frames and will have none: do not open it again.

    Its text says why it is over before the end that it announced; empty where it is not.
    """


@dataclass(frozen=True, eq=False)
class Grab:
    """What a reader returns."""

    image_bgr: NDArray[np.uint8]  # (H, W, 3), not written to afterwards
    captured_at: float  # seconds since the epoch
    skipped: int = 0  # older frames that the reader left out before this one
    age_s: float = 0.0  # since it was captured, as far as the reader knows
    damaged: int = 0  # packets before it that gave no picture
    is_whole: bool = True  # False: parts of it were missing
    sender_at: float | None = None  # seconds since the epoch, by the sender's clock, where it tells
    stream_s: float | None = None  # on the clock of the stream, as the packets of `ring`
    film_s: float | None = None  # from the first picture of a film on, which has a pace; only rises
    ring: PacketRing | None = None  # where the reader keeps packets


class Reader(Protocol):
    """One connection, used by one thread."""

    @property
    def fps(self) -> float | None:
        """Frames per second, if the connection announces them."""
        ...

    def read(self) -> Grab | None:
        """Wait for the next frame; None where the connection is lost.

        Raises:
            EndOfSource: There are no more frames.
        """
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


OpenReader: TypeAlias = Callable[[], Reader]


class OpenCvReader:
    """A camera, network stream or pipeline that OpenCV opens."""

    def __init__(self, source: int | str, backend: str, timeout_s: float | None = None) -> None:
        """Open it.

        Args:
            source: As `cv2.VideoCapture` takes it.
            backend: OpenCV's name of it: "FFMPEG", "GSTREAMER", "V4L2".
            timeout_s: For opening and for each read, where the backend knows such a thing.

        Raises:
            CaptureError: It cannot be opened.
        """
        cv2 = opencv()
        parameters = []
        if timeout_s is not None:
            milliseconds = round(timeout_s * 1e3)
            parameters = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds]
            parameters += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
        if backend == "FFMPEG" and hasattr(cv2, "CAP_PROP_N_THREADS"):  # each holds one frame back
            parameters += [cv2.CAP_PROP_N_THREADS, 1]
        self._capture = open_quietly(source, getattr(cv2, f"CAP_{backend}"), parameters)
        if not self._capture.isOpened():
            remedy = "check address, user and password, and power"
            if backend == "GSTREAMER":
                remedy = (
                    "try the pipeline with gst-launch-1.0 and a fakesink instead of the appsink"
                )
            raise CaptureError(f"it cannot be opened: {remedy}")
        try:
            check_size(*announced_size(self._capture), MAX_STREAM_PIXELS, "it sends pictures")
        except CaptureError:
            self._capture.release()
            raise
        if backend == "V4L2":
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # where the driver obeys
        self.fps = announced_fps(self._capture)
        count = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        # A file that a web server hands out knows its length and is over at its end.
        self._is_finite = backend == "FFMPEG" and math.isfinite(count) and count > 0
        self._backlog: Backlog | None = None
        self._unwritten: UnwrittenFrames | None = None
        if backend == "FFMPEG":
            self._unwritten = UnwrittenFrames()
            self._backlog = None if self._is_finite else Backlog(self.fps, has_times=True)

    def read(self) -> Grab | None:
        """Wait for a frame; see `Reader`.

        Frames of a network stream pile up while it is opened and while the network pauses. They then
        come without a wait and would pass for new, so they are left out.
        """
        is_there, age_s, is_queued = self._grab()
        skipped, start_s, first_age_s = 0, time.monotonic(), age_s
        while is_there and is_queued:
            elapsed_s = time.monotonic() - start_s
            if self._backlog is not None and elapsed_s > _CATCH_UP_S:
                if age_s > first_age_s - elapsed_s / 2:
                    self._backlog.trust()  # a backlog would have become less by reading
                    age_s = 0.0
                break
            is_there, age_s, is_queued = self._grab()
            skipped += 1
        if is_there:
            ok, image = self._capture.retrieve()
            if ok:
                return Grab(
                    _check_bgr(image),
                    time.time() - age_s,
                    skipped,
                    age_s=age_s,
                    is_whole=self._unwritten is None or not self._unwritten.may_be(image),
                )
        if self._is_finite:
            raise EndOfSource
        return None

    def _grab(self) -> tuple[bool, float, bool]:
        """Take the next frame; return whether one came, its age, and whether newer ones wait."""
        start_s = time.monotonic()
        is_there = bool(self._capture.grab())
        if not is_there or self._backlog is None:
            return is_there, 0.0, False
        now_s = time.monotonic()
        position_ms = float(self._capture.get(opencv().CAP_PROP_POS_MSEC))
        stream_s = position_ms / 1e3 if math.isfinite(position_ms) and position_ms > 0 else None
        verdict = self._backlog.judge(stream_s, now_s - start_s, now_s)
        return True, verdict.age_s, verdict.is_queued

    def close(self) -> None:
        """Release the connection; see `Reader`."""
        self._capture.release()


def _check_bgr(image: Any) -> Any:
    """Refuse what a pipeline gives in another format: some of them look like a grey picture."""
    if image.ndim == 3 and image.shape[2] == 3:
        return image
    raise CaptureError(
        f"it gives pictures of shape {image.shape} instead of BGR: end the pipeline with "
        "`videoconvert ! video/x-raw,format=BGR ! appsink`"
    )


class PacedFile:
    """A video file that plays at its own frame rate, as a camera would."""

    def __init__(self, path: Path, *, loop: bool = False, keep_s: float | None = None) -> None:
        """Open the file; see `VideoFile`.

        Args:
            path: The file.
            loop: At its end it starts again.
            keep_s: See `VideoFile`.
        """
        self._path, self._loop, self._keep_s = path, loop, keep_s
        self._film_s = self._began_s = 0.0  # of the newest picture; where this round began
        self._start()
        self.fps = self._video.fps

    def _start(self) -> None:
        self._video = VideoFile(self._path, keep_s=self._keep_s)
        self._frames = iter(self._video)
        self._damaged = 0  # of its packets that were told

    def read(self) -> Grab:
        """Decode the next frame; see `Reader`."""
        frame = next(self._frames, None)
        if frame is None:
            if not self._loop:
                raise EndOfSource("the file lacks its end" if self._video.lacks_end else "")
            self._video.close()
            self._start()
            frame = next(self._frames)
            self._began_s = self._film_s + 1 / (self.fps or _USUAL_FPS)
        self._film_s = self._began_s + (frame.time_s or 0.0)
        damaged, self._damaged = self._video.damaged - self._damaged, self._video.damaged
        return Grab(
            frame.image_bgr,
            time.time(),
            damaged=damaged,
            is_whole=frame.status == "ok",
            stream_s=frame.stream_s,
            film_s=self._film_s,
            ring=frame.ring,
        )

    def close(self) -> None:
        """Release the file; see `Reader`."""
        self._video.close()


def require_backend(backend: str, uri: str) -> None:
    """Check that this OpenCV can open such a source at all.

    Raises:
        CaptureError: It cannot; the message says how to get one that can.
    """
    cv2 = opencv()
    registry: Any = cv2.videoio_registry
    # getBackends() also lists those whose plug-in is missing.
    if registry.hasBackend(getattr(cv2, f"CAP_{backend}")):
        return
    remedy = {
        "GSTREAMER": "on a Jetson remove opencv-python from pip and use JetPack's python3-opencv; "
        "elsewhere use Debian's python3-opencv, or build OpenCV with GStreamer",
        "FFMPEG": "pip install opencv-python-headless",
        "V4L2": "use Linux and pip install opencv-python-headless",
    }[backend]
    raise CaptureError(
        f"{uri} needs OpenCV with {backend}, and this one ({cv2.__version__}) has none: {remedy}"
    )


def csi_pipeline(uri: str) -> str:
    """Build the GStreamer pipeline of a Jetson's CSI camera. Unverified on hardware.

    Args:
        uri: `csi://0`, with `?width=1280&height=720&fps=30&flip=0` as defaults; `flip` is
            nvvidconv's flip-method, 0 to 7.

    Raises:
        CaptureError: It is written otherwise.
    """
    parts = urlsplit(uri)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    usable = set(given) <= set(_CSI_DEFAULTS) and all(
        re.fullmatch(r"\d{1,5}", value, re.ASCII) for value in given.values()
    )
    if not re.fullmatch(r"\d{1,2}", parts.netloc, re.ASCII) or parts.path not in {"", "/"}:
        usable = False
    if not usable:
        raise CaptureError(
            f"cannot read {uri}: expected csi://0 or csi://0?width=1280&height=720&fps=30&flip=0"
        )
    value = _CSI_DEFAULTS | {name: int(number) for name, number in given.items()}
    return (
        f"nvarguscamerasrc sensor-id={int(parts.netloc)} ! video/x-raw(memory:NVMM), "
        f"width={value['width']}, height={value['height']}, framerate={value['fps']}/1 ! "
        f"nvvidconv flip-method={value['flip']} ! video/x-raw, format=BGRx ! videoconvert ! "
        "video/x-raw, format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )
