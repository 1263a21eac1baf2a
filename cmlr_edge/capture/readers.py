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

from cmlr_edge.capture.opencv_film import announced_fps, open_quietly
from cmlr_edge.capture.video import VideoFile
from cmlr_edge.errors import CaptureError
from cmlr_edge.machine.opencv import opencv

_USUAL_FPS = 25.0  # of a stream that does not say
_PAUSE_S = 0.5  # a wait that may have let frames pile up
_CATCH_UP_S = 0.5  # at most, so that a stream faster than it says is read, too
_CSI_DEFAULTS = {"width": 1280, "height": 720, "fps": 30, "flip": 0}


class EndOfSource(Exception):
    """The source has no more frames and will have none: do not open it again."""


@dataclass(frozen=True, eq=False)
class Grab:
    """What a reader returns."""

    image_bgr: NDArray[np.uint8]  # (H, W, 3), not written to afterwards
    captured_at: float  # seconds since the epoch
    skipped: int = 0  # older frames that the reader left out before this one


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
        self._capture = open_quietly(source, getattr(cv2, f"CAP_{backend}"), parameters)
        if not self._capture.isOpened():
            remedy = "check address, user and password, and power"
            if backend == "GSTREAMER":
                remedy = (
                    "try the pipeline with gst-launch-1.0 and a fakesink instead of the appsink"
                )
            raise CaptureError(f"it cannot be opened: {remedy}")
        if backend == "V4L2":
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # where the driver obeys
        self.fps = announced_fps(self._capture)
        count = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        # A file that a web server hands out knows its length and is over at its end.
        self._is_finite = backend == "FFMPEG" and math.isfinite(count) and count > 0
        self._catches_up = backend == "FFMPEG" and not self._is_finite
        self._usual_wait_s = 1 / (self.fps or _USUAL_FPS)
        self._is_first = True

    def read(self) -> Grab | None:
        """Wait for a frame; see `Reader`.

        Frames of a network stream pile up while it is opened and while the network pauses. They then
        come without a wait and would pass for new, so they are left out.
        """
        waited_s, skipped = self._grab(), 0
        if waited_s is not None and self._catches_up and self._follows_pause(waited_s):
            until_s = time.monotonic() + _CATCH_UP_S
            waited_s = 0.0
            while waited_s is not None and waited_s < self._usual_wait_s / 4:
                waited_s, skipped = self._grab(), skipped + 1
                if time.monotonic() > until_s:
                    break
        if waited_s is not None:
            ok, image = self._capture.retrieve()
            if ok:
                return Grab(_check_bgr(image), time.time(), skipped)
        if self._is_finite:
            raise EndOfSource
        return None

    def _grab(self) -> float | None:
        """Take the next frame; return how long it took to come, None where none came."""
        start_s = time.monotonic()
        return time.monotonic() - start_s if self._capture.grab() else None

    def _follows_pause(self, waited_s: float) -> bool:
        pause_s = max(_PAUSE_S, 3 * self._usual_wait_s)
        follows, self._is_first = self._is_first or waited_s > pause_s, False
        self._usual_wait_s += 0.2 * (waited_s - self._usual_wait_s)
        return follows

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

    def __init__(self, path: Path, *, loop: bool = False) -> None:
        """Open the file; see `VideoFile`.

        Args:
            path: The file.
            loop: At its end it starts again.
        """
        self._path, self._loop = path, loop
        self._start()
        self.fps = self._video.fps

    def _start(self) -> None:
        self._video = VideoFile(self._path)
        self._frames = iter(self._video)
        self._started_s = time.monotonic()

    def read(self) -> Grab:
        """Wait until the next frame is due; see `Reader`."""
        frame = next(self._frames, None)
        if frame is None:
            if not self._loop:
                raise EndOfSource
            self._video.close()
            self._start()
            frame = next(self._frames)
        due_s = self._started_s + (frame.time_s or 0.0)
        time.sleep(max(0.0, due_s - time.monotonic()))
        return Grab(frame.image_bgr, time.time())

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
