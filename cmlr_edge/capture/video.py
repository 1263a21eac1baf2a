"""Video files: every frame, in order, with times that rise."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cmlr_edge.capture.animation import AnimatedPicture
from cmlr_edge.capture.base import ClosesItself
from cmlr_edge.capture.film import Film, Picture
from cmlr_edge.capture.images import IMAGE_SUFFIXES
from cmlr_edge.capture.timeline import TimeLine
from cmlr_edge.errors import SOUND_ALONE, CaptureError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.pyav import pyav
from cmlr_edge.redaction import printable

_log = logging.getLogger(__name__)


class VideoFile(ClosesItself):
    """Every frame of a video file, in order."""

    def __init__(self, path: Path, *, keep_s: float | None = None) -> None:
        """Open the file and decode its first frame; see `open_film`.

        Args:
            path: Of the file.
            keep_s: Seconds of packets to keep for clips, where PyAV reads it; None for none.

        Raises:
            CaptureError: It is not a video, or no frame of it can be decoded.
        """
        self.name = printable(path)
        self.files: Sequence[Path] = (path,)
        try:
            path.open("rb").close()  # what decoders say of what may not be read is another thing
        except OSError as error:
            raise CaptureError(f"{self.name} cannot be read: {error.strerror}") from error
        try:
            self._film = open_film(path, keep_s)
        except OSError as error:
            if getattr(error, "kind", "") == SOUND_ALONE:
                raise CaptureError(
                    f"{self.name} holds {SOUND_ALONE}, and no picture: name a video, or a picture"
                ) from error
            raise self._unreadable(path, error.strerror or str(error)) from error
        self.lacks_end = False  # as far as is known before it was read
        self._first = self._read()
        if self._first[0] is None:
            self.close()
            if self._film.is_encrypted:
                raise CaptureError(f"{self.name} is encrypted: decrypt it first")
            raise self._unreadable(path, "no frame of it can be decoded")
        if self._film.num_videos > 1:
            _log.warning(
                "%s holds %d videos: the first one is read", self.name, self._film.num_videos
            )
        self.fps = self._film.fps
        self.num_frames = self._film.num_frames

    @property
    def damaged(self) -> int:
        """Packets so far that could not be read or decoded as a whole; at least one where the end is missing."""
        return max(self._film.damaged, self.lacks_end)

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame; see `Source`. Warns in the log where some are missing."""
        index, (picture, capture_ms) = 0, self._first
        line = TimeLine(self.fps, may_jump=self._film.may_jump)
        while picture is not None:
            yield Frame(
                picture.image_bgr,
                index,
                line.place(picture.stream_s),
                time.time(),
                capture_ms,
                self.name,
                "ok" if picture.is_whole else "damaged",
                stream_s=picture.stream_s,
                ring=self._film.ring,
            )
            index, (picture, capture_ms) = index + 1, self._read()
        self._warn(index)

    def _read(self) -> tuple[Picture | None, float]:
        start = time.perf_counter()
        picture = self._film.read()
        return picture, (time.perf_counter() - start) * 1e3

    def _warn(self, frames: int) -> None:
        if damaged := self._film.damaged:
            _log.warning(
                "%s: %d packets are damaged; %d frames were read", self.name, damaged, frames
            )
        self.lacks_end, missing_s = self._film.is_cut, self._film.missing_s()
        if self.lacks_end or missing_s:
            _log.warning(
                "%s ended %s that it announces, after %d frames: the file may be cut short",
                self.name,
                f"{missing_s:.1f} s before the end" if missing_s else "before the last byte",
                frames,
            )

    @staticmethod
    def _unreadable(path: Path, reason: str) -> CaptureError:
        return CaptureError(
            f"{printable(path)} ({path.stat().st_size} bytes) is not a video that can be decoded ({reason}): it "
            "may be cut short, without pictures, or its codec may be missing; try `ffmpeg -i FILE -c:v libx264 out.mp4`"
        )

    def close(self) -> None:
        """Release the file; see `Source`."""
        self._film.close()


def open_film(path: Path, keep_s: float | None = None) -> Film:
    """Open a video file by PyAV where it is installed, else by OpenCV; a picture that moves by Pillow.

    Raises:
        CaptureError: It cannot be opened.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return AnimatedPicture(path)
    if (av := pyav()) is not None:
        from cmlr_edge.capture.ffmpeg import PyAvFilm

        return PyAvFilm(av, path, keep_s)
    from cmlr_edge.capture.opencv_film import OpenCvFilm

    return OpenCvFilm(path)
