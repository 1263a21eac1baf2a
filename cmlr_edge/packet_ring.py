"""The newest packets of a stream, as its sender encoded them: what clips are cut from.

A packet is kept once, however many clips hold it.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

_MAX_BYTES = 64 * 2**20  # of packets that are kept of a stream, and of one clip
_SLACK_S = 10.0  # an event is told so long after it began, and the model needs its time
_STEP_BACK_S = 1.0  # pictures are sent out of order by less: this is another recording
_STEP_AHEAD_S = 60.0
_REORDERED_S = 0.5  # a picture that is shown sooner comes so much later at most


@dataclass(frozen=True, eq=False)
class Kept:
    """The packet of one picture."""

    packet: Any  # of PyAV; nobody changes it
    time_s: float  # when it is shown, on the clock of the stream
    is_key: bool  # whether it needs none before it


class Excerpt:
    """A part of a ring, which goes on growing until it is over; guarded by the ring."""

    def __init__(self, from_s: float, until_s: float, packets: list[Kept]) -> None:
        """Begin with what was kept, from a key picture on."""
        self.from_s, self.until_s = from_s, until_s
        self.packets = packets
        self.is_over = False  # whether nothing more comes
        self._bytes = sum(item.packet.size for item in packets)

    def take(self, kept: Kept) -> None:
        """Let the next packet come."""
        if kept.time_s >= self.until_s + _REORDERED_S or self._bytes > _MAX_BYTES:
            self.is_over = True
            return
        self.packets.append(kept)
        self._bytes += kept.packet.size


class PacketRing:
    """Keeps the newest packets of one connection or file, from a key picture on; any thread may use it."""

    def __init__(self, codec: str, template: Any, keep_s: float) -> None:
        """Start empty.

        Args:
            codec: FFmpeg's name of it.
            template: An output stream of PyAV; those of clips are made like it.
            keep_s: Before an event that was not told yet.
        """
        self.codec, self.template = codec, template
        self.size_wh = (0, 0)  # of its newest picture
        self.settings = b""  # that a decoder must know first, where packets hold them: the template may lack them
        self._keep_s = keep_s + _SLACK_S
        self._lock = threading.Lock()  # guards everything below
        self._groups: deque[list[Kept]] = deque()  # each begins with a key picture
        self._bytes = 0
        self._newest_s = -math.inf
        self._excerpts: list[Excerpt] = []
        self._listens, self._is_over, self._was_read_ahead = True, False, False

    def add(self, packet: Any, time_s: float | None, *, is_key: bool) -> None:
        """Keep the packet of a picture; one without a time is left out."""
        if time_s is None:
            return
        kept = Kept(packet, time_s, is_key)
        with self._lock:
            if not self._listens or self._is_over:
                return
            if self._groups and not -_STEP_BACK_S < time_s - self._newest_s < _STEP_AHEAD_S:
                self._begin_anew()
            if is_key:
                self._groups.append([])
            if not self._groups:
                return
            self._groups[-1].append(kept)
            self._bytes += packet.size
            self._newest_s = max(self._newest_s, time_s)
            self._leave_out()
            for excerpt in self._excerpts:
                excerpt.take(kept)
            self._excerpts = [item for item in self._excerpts if not item.is_over]

    def excerpt(self, from_s: float, until_s: float) -> Excerpt:
        """Begin a part of it, from the last key picture before; it goes on by itself.

        Args:
            from_s: On the clock of the stream.
            until_s: Likewise; may be made less while it grows.
        """
        with self._lock:
            before = [i for i, group in enumerate(self._groups) if group[0].time_s <= from_s]
            first = before[-1] if before else 0
            excerpt = Excerpt(from_s, until_s, [])
            for kept in (item for group in [*self._groups][first:] for item in group):
                excerpt.take(kept)
            excerpt.is_over = excerpt.is_over or self._is_over or not self._listens
            if not excerpt.is_over:
                self._excerpts.append(excerpt)
            return excerpt

    def finish(self, excerpt: Excerpt) -> list[Kept]:
        """Let nothing more come to a part; return what there is, in the order in which it was sent."""
        with self._lock:
            excerpt.is_over = True
            self._excerpts = [item for item in self._excerpts if item is not excerpt]
            return excerpt.packets

    @property
    def was_read_ahead(self) -> bool:
        """Whether it is of a film that was read to its end, maybe before all of it was looked at."""
        with self._lock:
            return self._was_read_ahead

    def listen(self, *, wanted: bool) -> None:
        """Keep packets from now on, or none: those of a time that nobody shall see."""
        with self._lock:
            if wanted != self._listens:
                self._listens = wanted
                self._begin_anew()

    def end(self, *, was_read_ahead: bool = False) -> None:
        """Take nothing more; what was kept can still be had.

        Args:
            was_read_ahead: Of a film: what it shows at its end is perhaps looked at later.
        """
        with self._lock:
            self._is_over, self._was_read_ahead = True, was_read_ahead
            self._end_excerpts()

    def _begin_anew(self) -> None:
        self._groups.clear()
        self._bytes, self._newest_s = 0, -math.inf
        self._end_excerpts()

    def _end_excerpts(self) -> None:
        for excerpt in self._excerpts:
            excerpt.is_over = True
        self._excerpts.clear()

    def _leave_out(self) -> None:
        """Drop the oldest pictures up to the next key picture, as far as nobody can want them."""
        oldest_s = self._newest_s - self._keep_s
        while self._bytes > _MAX_BYTES or (
            len(self._groups) > 1 and self._groups[1][0].time_s <= oldest_s
        ):
            self._bytes -= sum(item.packet.size for item in self._groups.popleft())
