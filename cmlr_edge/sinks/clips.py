"""A clip of each event, with the seconds before and after it, cut from the packets of its stream.

Nothing is decoded or encoded. A film can only begin with a key picture: an MP4 holds those from the last
one before and tells players where to begin (an edit list); a Matroska file begins there.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from cmlr_edge.errors import CmlrError, DependencyError, OutputError
from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.machine.pyav import pyav
from cmlr_edge.packet_ring import Excerpt, Kept, PacketRing
from cmlr_edge.redaction import printable
from cmlr_edge.sinks.base import Result, Takes
from cmlr_edge.sinks.kept_files import KeptFiles

_MP4 = "h264"  # what browsers play; other codecs go into Matroska, which holds them all
_TICKS = 90_000  # of a time in a clip, per second


@dataclass(eq=False)
class _Clip:
    """One that grows."""

    source: str
    path: Path
    ring: PacketRing
    excerpt: Excerpt
    event_is_over: bool = False


class Clips:
    """Writes FOLDER/SOURCE/LABEL_ID.mp4, or .mkv, some seconds after the end of an event.

    Events of sources without packets, or whose packets must not be seen, have none.
    """

    takes: Takes = "both"
    pictures = False

    def __init__(
        self,
        folder: Path,
        *,
        before_s: float = 5.0,
        after_s: float = 5.0,
        longest_s: float = 60.0,
        keep_bytes: float = 10**9,
        keep_days: float | None = 30,
    ) -> None:
        """Look at what is there already; older clips make room for newer ones.

        Args:
            folder: See `KeptFiles`.
            before_s: Shown before the event.
            after_s: Shown after it.
            longest_s: Of a clip; of a longer event it shows the beginning.
            keep_bytes: Of clips at most.
            keep_days: Older clips are deleted; None keeps them.

        Raises:
            OutputError: The folder cannot be used.
            DependencyError: PyAV is not installed.
        """
        if pyav() is None:
            raise DependencyError("clips need PyAV: pip install 'cmlr-edge[cpu]'")
        self.name = str(folder)
        self._before_s, self._after_s, self._longest_s = before_s, after_s, longest_s
        suffixes = (".mp4", ".mkv")
        self._files = KeptFiles(folder, suffixes, keep_bytes=keep_bytes, keep_days=keep_days)
        self._growing: dict[str, _Clip] = {}

    def write(self, result: Result) -> None:
        """Begin clips of events that start, and write those that are over; see `Sink`.

        Raises:
            OutputError: A clip cannot be written; `lost` says how many.
        """
        for event in result.events:
            self._follow(event, result)
        self.tend()

    @property
    def trouble(self) -> str:
        """Why nothing can be written there; see `Sink`."""
        return self._files.trouble

    def tend(self) -> None:
        """Write the clips that are over, delete those that are too old; see `Sink`.

        Raises:
            OutputError: As for `write`.
        """
        # A film may have been read to its end before the model came to the end of an event.
        over = [
            key
            for key, clip in self._growing.items()
            if clip.excerpt.is_over and (clip.event_is_over or not clip.ring.was_read_ahead)
        ]
        self._finish(over)
        self._files.tend()

    def close(self) -> None:
        """Write what there is of all clips; see `Sink`.

        Raises:
            OutputError: As for `write`.
        """
        self._finish([*self._growing])

    def files_of(self, event: Event, frame: Frame) -> dict[str, str]:
        """The file of an event's clip; see `Sink`."""
        if frame.ring is None or frame.stream_s is None:
            return {}
        return {"clip": str(self._path_of(event, frame.ring))}

    def _path_of(self, event: Event, ring: PacketRing) -> Path:
        return self._files.path_of(event, ".mp4" if ring.codec == _MP4 else ".mkv")

    def _follow(self, event: Event, result: Result) -> None:
        frame = result.frame
        if event.kind == "begin":  # an earlier run's are over
            self._finish(
                [key for key, clip in self._growing.items() if clip.source == event.source]
            )
        elif event.kind == "start":
            self._begin(event, frame)
        elif event.kind == "end" and (clip := self._growing.get(event.id)) is not None:
            clip.event_is_over = True
            if result.ending or frame.ring is not clip.ring or event.end_s is None:
                clip.ring.finish(clip.excerpt)  # nothing more comes
            elif (end_s := _stream_s(frame, event.end_s)) is not None:
                excerpt = clip.excerpt
                excerpt.until_s = min(excerpt.until_s, end_s + self._after_s)

    def _begin(self, event: Event, frame: Frame) -> None:
        ring, start_s = frame.ring, _stream_s(frame, event.start_s)
        if ring is None or start_s is None:
            return
        from_s = start_s - self._before_s
        excerpt = ring.excerpt(from_s, from_s + self._longest_s)
        path = self._path_of(event, ring)
        self._growing[event.id] = _Clip(event.source, path, ring, excerpt)

    def _finish(self, keys: Sequence[str]) -> None:
        failed: list[CmlrError] = []
        for key in keys:
            clip = self._growing.pop(key)
            packets = clip.ring.finish(clip.excerpt)
            try:
                content = remux(clip.ring, packets, clip.excerpt.from_s, clip.excerpt.until_s)
                self._files.keep(clip.path, content)
            except CmlrError as error:  # the next one may fit
                failed.append(error)
        if failed:
            lost = OutputError(str(failed[0]))
            lost.lost = len(failed)
            raise lost


def _stream_s(frame: Frame, time_s: float) -> float | None:
    """A time of an event on the clock of the stream."""
    if frame.stream_s is None or frame.time_s is None:
        return None
    return frame.stream_s - (frame.time_s - time_s)


def remux(ring: PacketRing, packets: Sequence[Kept], from_s: float, until_s: float) -> bytes:
    """Make a film of packets.

    Args:
        ring: That they are of.
        packets: In the order in which they were sent, from a key picture on.
        from_s: Where to begin, on the clock of the stream.
        until_s: Where to end.

    Returns:
        MP4 of H.264, Matroska of other codecs.

    Raises:
        OutputError: There is nothing, or it cannot be put into such a file.
    """
    av: Any = pyav()
    last = max((i for i, item in enumerate(packets) if item.time_s < until_s), default=-1)
    shown = [round((item.time_s - from_s) * _TICKS) for item in packets[: last + 1]]
    if not shown:
        raise OutputError("a clip has no picture: none came from the last key picture on")
    file = io.BytesIO()
    try:
        container = av.open(file, "w", format="mp4" if ring.codec == _MP4 else "matroska")
        with container:
            stream = container.add_stream_from_template(ring.template, opaque=True)
            if all(ring.size_wh):
                stream.width, stream.height = ring.size_wh
            if ring.settings:
                stream.codec_context.extradata = ring.settings
            times = _decoding_times(shown)
            every = zip(packets, shown, times, _lengths(times), strict=False)
            for item, pts, dts, length in every:
                packet = av.Packet(bytes(item.packet))
                packet.pts, packet.dts, packet.time_base = pts, dts, Fraction(1, _TICKS)
                packet.duration = length
                packet.is_keyframe, packet.stream = item.is_key, stream
                container.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"a clip of {ring.codec} cannot be made: {printable(reason)}") from error
    return file.getvalue()


def _lengths(times: Sequence[int]) -> list[int]:
    """How long each picture is shown; without a length players leave the last one out."""
    lengths = [after - before for before, after in pairwise(times)]
    return [*lengths, lengths[-1] if lengths else _TICKS]


def _decoding_times(shown: Sequence[int]) -> list[int]:
    """When to decode pictures that are sent in another order than shown: rising, none too late.

    Senders of RTP do not tell it, and what others tell may not rise.
    """
    rising = [*accumulate(sorted(shown), lambda before, tick: max(before + 1, tick))]
    late = max(tick - pts for tick, pts in zip(rising, shown, strict=True))
    return [tick - late for tick in rising]
