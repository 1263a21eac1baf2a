"""The input as a video with its labels drawn on every frame."""

from __future__ import annotations

import glob
from collections.abc import Callable
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import DependencyError, OutputError
from cmlr_edge.machine.needed import NO_THREAD
from cmlr_edge.machine.pyav import pyav
from cmlr_edge.model.files import clear_parts, followed, give_name, is_plain, part_of
from cmlr_edge.prediction import Prediction
from cmlr_edge.redaction import printable
from cmlr_edge.sinks.base import Result
from cmlr_edge.sinks.drawing import draw_heat, draw_labels, fit_into

_STILLS_PER_SECOND = 1.0  # pictures are shown for a second each
_TICKS = 1000  # of the video's clock in a second
_QUALITY = 3  # MPEG-4 quantiser: 1 is the best, 31 the worst
_LAMBDA = 118  # FFmpeg's unit of it


class _File:
    """A file that keeps its first error until it is asked: PyAV prints a traceback of one that it is given."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the error, if there was one."""
        if self._error is not None:
            raise self._error

    def write(self, data: bytes) -> int:
        return self._unless_failed(lambda: self.file.write(data), len(data))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._unless_failed(lambda: self.file.seek(offset, whence), 0)

    def tell(self) -> int:
        return self._unless_failed(self.file.tell, 0)

    def _unless_failed(self, call: Callable[[], int], otherwise: int) -> int:
        if self._error is None:
            try:
                return call()
            except OSError as error:
                self._error = error
        return otherwise


class OverlayVideo:
    """Writes an MP4 (MPEG-4 part 2) whose frames have the times of the source's.

    The file appears when it is whole.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        """Remember where to write.

        Args:
            path: Ends in .mp4; its folder must exist.
            fps: Of the source; None for pictures.

        Raises:
            OutputError: The name ends otherwise.
            DependencyError: PyAV is not installed.
        """
        if path.suffix.lower() != ".mp4":
            raise OutputError(
                f"the overlay {printable(path)} should end in .mp4, for it is a film: --contact-sheet, or a sink "
                "of kind contact_sheet, draws pictures with their labels into one .png"
            )
        av = pyav()
        if av is None:
            raise DependencyError("an overlay needs PyAV: pip install 'cmlr-edge[cpu]'")
        self._av = av
        self._path = path
        self._real = followed(path)  # a link goes on to lead to it
        self._parts = ExitStack()  # deletes what is half written
        self._fps = fps or _STILLS_PER_SECOND
        self._file: Any = None
        self._container: Any = None
        self._stream: Any = None
        self._size = (0, 0)
        self._first_s = 0.0
        self._last_tick = -1
        self._error: OutputError | None = None

    def write(self, result: Result) -> None:
        """Draw and append one frame; other sizes than the first are fitted into it; see `Sink`."""
        if self._error is not None:  # what is lost cannot be written behind a gap
            raise self._error
        frame, prediction = result.frame, result.prediction
        image = frame.image_bgr.copy()
        title = f"frame {frame.index}" if frame.time_s is None else f"{frame.time_s:.2f} s"
        _draw(image, prediction, title if prediction.valid else "invalid")
        time_s = frame.index / self._fps if frame.time_s is None else frame.time_s
        try:
            if self._container is None:
                # The codec stores even sizes only.
                self._size = max(2, image.shape[1] // 2 * 2), max(2, image.shape[0] // 2 * 2)
                self._first_s = time_s
                self._open()
            if (image.shape[1], image.shape[0]) != self._size:
                image = fit_into(image, *self._size)
            self._encode(image, time_s - self._first_s)
            self._file.check()
        except OSError as error:
            self._give_up()
            self._error = self._unwritten(error)
            raise self._error from error

    def _open(self) -> None:
        if not self._path.parent.is_dir():
            raise OutputError(
                f"cannot write {printable(self._path)}: there is no folder "
                f"{printable(self._path.parent)}"
            )
        if not is_plain(self._path):
            raise OutputError(
                f"cannot write {printable(self._path)}: a video needs a file, and this is none"
            )
        # A file of ours, for FFmpeg takes neither every name nor a colon in one.
        clear_parts(self._real.with_name(glob.escape(self._real.name)))
        self._file = _File(self._parts.enter_context(part_of(self._real)))
        self._container = self._av.open(self._file, "w", format="mp4")
        self._stream = self._container.add_stream(
            "mpeg4", rate=Fraction(self._fps).limit_denominator(1000)
        )
        context = self._stream.codec_context
        context.width, context.height = self._size
        context.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, _TICKS)
        context.qscale = True
        context.global_quality = _QUALITY * _LAMBDA

    def _encode(self, image: NDArray[np.uint8], time_s: float) -> None:
        picture = self._av.VideoFrame.from_ndarray(image, format="bgr24")
        self._last_tick = picture.pts = max(self._last_tick + 1, round(time_s * _TICKS))
        picture.time_base = Fraction(1, _TICKS)
        self._mux(picture)

    def _mux(self, picture: Any) -> None:
        for packet in self._stream.encode(picture):
            packet.duration = max(1, round(_TICKS / self._fps))  # counts for the last one alone
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the video and give it its name; see `Sink`."""
        if self._container is None:
            return
        try:
            self._mux(None)
            self._container.close()
            self._file.check()
            give_name(self._file.file, self._real)
        except OSError as error:
            raise self._unwritten(error) from error
        finally:
            self._give_up()

    def _give_up(self) -> None:
        """Leave nothing half written; harmless where all is done."""
        container, self._container = self._container, None
        with suppress(OSError, AttributeError):
            container.close()
        with suppress(OSError):
            self._parts.close()

    def _unwritten(self, error: OSError) -> OutputError:
        reason = f"{error.strerror or error}; check the folder's permissions, free some space"
        if isinstance(error, BlockingIOError):  # of the encoder
            reason = NO_THREAD
        return OutputError(f"cannot write {printable(self._path)}: {reason}")


def _draw(image: NDArray[np.uint8], prediction: Prediction, title: str) -> None:
    """Labels; and where they are explained, where the network looked for the most probable one."""
    why, labels = prediction.why, [item.label for item in prediction.labels]
    if why is None or not labels:
        draw_labels(image, prediction.labels, title=title)
        return
    first = why[labels[0]]
    draw_heat(image, first)
    flagged = {label for label in labels if why[label].because_of_surroundings}
    looked = "" if first.map is None else f", where {first.label} is"
    draw_labels(image, prediction.labels, title=f"{title}{looked}", flagged=flagged)
