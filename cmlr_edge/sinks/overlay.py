"""The input as a video with its labels drawn on every frame."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cmlr_edge.errors import OutputError
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.sinks.base import Result
from cmlr_edge.sinks.drawing import draw_labels, fit_into

_STILLS_PER_SECOND = 1.0  # pictures are shown for a second each


class OverlayVideo:
    """Writes an MP4 (MPEG-4 part 2); the file appears when it is whole."""

    def __init__(self, path: Path, fps: float | None) -> None:
        """Remember where to write.

        Args:
            path: Ends in .mp4; its folder must exist.
            fps: Of the source; None for pictures.
        """
        if path.suffix.lower() != ".mp4":
            raise OutputError(f"the overlay {path} should end in .mp4")
        self._path = path
        # Absolute, for FFmpeg takes what stands before a colon for a protocol.
        self._partial = path.absolute().with_name(f".{path.stem}.{os.getpid()}.part.mp4")
        self._fps = fps or _STILLS_PER_SECOND
        self._writer: Any = None
        self._size = (0, 0)
        self._num_written = 0

    def write(self, result: Result) -> None:
        """Draw and append one frame; other sizes than the first are fitted into it; see `Sink`."""
        frame, prediction = result.frame, result.prediction
        image = frame.image_bgr.copy()
        title = f"frame {frame.index}" if frame.time_s is None else f"{frame.time_s:.2f} s"
        draw_labels(image, prediction.labels, title=title if prediction.valid else "invalid")
        if self._writer is None:
            # The codec stores even sizes only.
            self._size = max(2, image.shape[1] // 2 * 2), max(2, image.shape[0] // 2 * 2)
            self._writer = self._open()
        if (image.shape[1], image.shape[0]) != self._size:
            image = fit_into(image, *self._size)
        self._writer.write(image)
        self._num_written += 1

    def _open(self) -> Any:
        cv2 = opencv()
        if not self._path.parent.is_dir():
            raise OutputError(f"cannot write {self._path}: there is no folder {self._path.parent}")
        codec = cv2.VideoWriter_fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(self._partial), codec, self._fps, self._size)
        if not writer.isOpened():
            self._partial.unlink(missing_ok=True)
            raise OutputError(
                f"cannot write {self._path}: OpenCV could not open an MP4 writer of {self._size} "
                f"at {self._fps:g} frames per second; check the folder's permissions"
            )
        return writer

    def close(self) -> None:
        """Finish the video and give it its name; see `Sink`."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        self._check_whole()
        try:
            self._partial.replace(self._path)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from error

    def _check_whole(self) -> None:
        """OpenCV's writer never reports a failed write, so ask the file what it holds."""
        cv2 = opencv()
        written = cv2.VideoCapture(str(self._partial))
        count = int(written.get(cv2.CAP_PROP_FRAME_COUNT))
        written.release()
        if count < self._num_written:
            self._partial.unlink(missing_ok=True)
            raise OutputError(
                f"cannot write {self._path}: {self._num_written} frames were drawn and "
                f"{max(count, 0)} are in the file; the disk may be full, free some space"
            )
