"""A part of a video file, from one keyframe to another, so that several processes share a long film.

A film is cut at times that its announced length gives; each part looks for the first keyframe at or
behind its own times, so neighbours agree on where one ends and the other begins without asking each
other. Where a film's times jump they may not: `begin` and `end` tell, and whoever joins the parts
compares them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.capture.ffmpeg import PyAvFilm, seconds
from cmlr_edge.errors import CaptureError

_BACK_S = (0.0, 2.0, 10.0, 60.0)  # before a part's time, to look for a keyframe at


@dataclass(frozen=True)
class Cut:
    """A keyframe that a part begins with."""

    ticks: int  # its time, in the units of its stream
    position: int  # of its first byte in the file; -1 where the format does not tell


class PyAvFilmPart(PyAvFilm):
    """The frames of one part; all parts together hold every frame once."""

    def __init__(self, av: ModuleType, film: Path | IO[bytes], number: int, count: int) -> None:
        """Open it.

        Args:
            av: PyAV.
            film: As `PyAvFilm` takes it.
            number: Of the part, from 0.
            count: How many parts there are.

        Raises:
            CaptureError: It cannot be opened.
        """
        super().__init__(av, film)
        self.begin: Cut | None = (
            None  # once read; None for the beginning, or where it holds nothing
        )
        self.before_s: float | None = None  # of the frame before its first, once that was read
        self.fits = True  # False: times or places are missing, so that the film cannot be cut
        self.end: Cut | None = None  # where the next one begins; None for the end of the file
        self._from, self._to, self._holds_nothing = self._bounds(number, count)

    def missing_s(self) -> float:
        """Seconds that are missing at the end of the film; known by the part that reads up to there."""
        return super().missing_s() if self._to is None and not self._holds_nothing else 0.0

    def _bounds(self, number: int, count: int) -> tuple[int | None, int | None, bool]:
        """Times to look for keyframes at, in ticks; a film that cannot be cut is all in its first part."""
        stream, container = self._stream, self._container
        length = stream.duration
        if not length and container.duration and stream.time_base:
            length = round(container.duration / self._av.time_base / stream.time_base)
        # An AVI has no times, and tells how much of it is missing by the number of all packets.
        if not length or length <= 0 or container.format.name == "avi":
            return None, None, number > 0
        start = stream.start_time or 0
        marks = [start + length * i // count for i in (number, number + 1)]
        return (marks[0] if number else None), (marks[1] if number + 1 < count else None), False

    def _decode(self) -> Iterator[Any]:
        if self._holds_nothing:
            return
        for frame in self._frames_of(self._packets_from_before()):
            if frame.pts is None and not (self._from is self._to is None):
                self.fits = False  # nobody can say whose the frame is
            if not self.fits or self._is_over(frame):
                return
            if self._is_inside(frame):
                yield frame
            else:
                self._footing.holds(frame, is_whole=not frame.is_corrupt)
                self.before_s = seconds(frame.pts, frame.time_base)

    @property
    def start_s(self) -> float | None:
        """Time of the film's beginning, as the stream says."""
        return seconds(self._stream.start_time, self._stream.time_base)

    def _packets_from_before(self) -> Iterator[Any]:
        """Packets from a keyframe before the wanted one: pictures may lean on those before them."""
        if self._from is None:
            yield from self._demux()
            return
        for back_s in _BACK_S:  # a format without an index goes to any packet near the time
            with suppress(self._av.FFmpegError):
                back = round(back_s / self._stream.time_base)
                self._container.seek(self._from - 1 - back, stream=self._stream)
                self._structure.jump()
            packets = self._demux()
            first = next((item for item in packets if _is_key(item)), None)
            if first is not None and first.pts < self._from:
                yield first
                yield from packets
                return
        with suppress(self._av.FFmpegError):
            self._container.seek(self._stream.start_time or 0, stream=self._stream)
            self._structure.jump()
        yield from self._demux()

    def _note(self, packet: Any) -> None:
        if not _is_key(packet):
            return
        has_place = packet.pos is not None and packet.pos >= 0
        cut = Cut(int(packet.pts), int(packet.pos) if has_place else -1)
        if self._from is not None and self.begin is None and cut.ticks >= self._from:
            self.begin = cut
            self.damaged = 0  # what was before is the other part's
            self.fits &= has_place  # without one times are often made up
        if self._to is not None and self.end is None and cut.ticks >= self._to:
            self.end = cut
            self.fits &= has_place

    def _is_inside(self, frame: Any) -> bool:
        if self._from is None:
            return True
        return self.begin is not None and bool(frame.pts >= self.begin.ticks)

    def _is_over(self, frame: Any) -> bool:
        return self.end is not None and bool(frame.pts >= self.end.ticks)


def _is_key(packet: Any) -> bool:
    return bool(packet.is_keyframe) and packet.pts is not None


def find_frame(
    av: ModuleType, film: Path | IO[bytes], stream_s: float | None, index: int, tolerance_s: float
) -> NDArray[np.uint8]:
    """Decode one frame of a film again.

    Args:
        av: PyAV.
        film: As `PyAvFilm` takes it.
        stream_s: The frame's time, as the stream says; None where it has none.
        index: Of the frame, for a stream without times.
        tolerance_s: That the time may be missed by.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        CaptureError: The film cannot be opened, or has no such frame.
    """
    opened = PyAvFilm(av, film)
    try:
        if stream_s is not None:
            opened.go_to(stream_s)
        number = 0
        while (picture := opened.read()) is not None:
            is_there = number == index
            if stream_s is not None and picture.stream_s is not None:
                is_there = picture.stream_s >= stream_s - tolerance_s
            if is_there:
                return picture.image_bgr
            number += 1
    finally:
        opened.close()
    raise CaptureError(f"it no longer has a frame {index}")
