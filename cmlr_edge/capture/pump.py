"""Takes packets off a connection as soon as they come, and puts the pieces of a picture together.

FFmpeg's own way of finding where a picture of an RTP stream ends is the beginning of the next one: at one
picture a second that is a second late. Here a picture ends when nothing of it has come for a moment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from cmlr_edge.capture.bounds import MAX_STREAM_BYTES
from cmlr_edge.capture.doubles import Doubles
from cmlr_edge.capture.ffmpeg import packets_of
from cmlr_edge.errors import CaptureError

_MAX_WAITING_BYTES = 2**26  # then the sender has to wait
_PAUSE_S = 0.06  # without a piece: the picture is whole
_MAX_PAUSE_S = 0.5
_WHOLE_PICTURES = {"mjpeg", "vp8", "vp9", "av1"}  # FFmpeg puts these together by their marks
_SLICES = {"h264": 1, "hevc": 2}  # bytes of the head of a NAL unit
_KEY_TYPES = {"h264": {5}, "hevc": {*range(16, 24)}}  # of NAL units


@dataclass(frozen=True, eq=False)
class Unit:
    """The packets of one picture."""

    packets: list[Any]
    waited_s: float  # until its first one came, since the one before
    arrived_s: float  # its last one, on time.monotonic()
    is_whole: bool  # False: pieces of it came too late, or of one that it builds upon


class Pump:
    """A thread that reads packets, and the queue of what it read."""

    def __init__(self, container: Any, stream: Any, *, in_pieces: bool) -> None:
        """Start to read.

        Args:
            container: Belongs to the pump from now on.
            stream: Of the container; the others are not read.
            in_pieces: Whether packets may be pieces of pictures.
        """
        self._container, self._stream = container, stream
        self._codec = str(stream.codec_context.name)
        self._in_pieces = in_pieces and self._codec not in _WHOLE_PICTURES
        self._changed = threading.Condition()  # guards the five below
        self._waiting: deque[tuple[Any, float]] = deque()
        self._waiting_bytes = 0
        self._is_over = self._closing = False
        self._error: Exception | None = None
        self._last_s = time.monotonic()  # when the last packet came that was taken
        self._pause_s = _PAUSE_S
        self._cut_pts: int | None = None  # of the picture that was taken last
        self._is_broken = False  # a picture lacks pieces, and no key picture has come since
        self._doubles = Doubles() if in_pieces and self._codec in _SLICES else None
        self._given: tuple[int | None, bytes] = (
            None,
            b"",
        )  # the time of the last picture, and itself
        threading.Thread(target=self._run, name="pump", daemon=True).start()

    def take(self, timeout_s: float) -> Unit | None:
        """Wait for a picture, which is not the one before once more; None at the end of the stream.

        Raises:
            TimeoutError: Nothing came.
            CaptureError: A picture is too large.
            Exception: What the connection was lost by.
        """
        while (unit := self._take(timeout_s)) is not None and self._has_given(unit.packets):
            pass
        return unit

    def _has_given(self, packets: list[Any]) -> bool:
        """Whether a picture is the last one once more, whose settings may have come between the two."""
        if self._doubles is None:
            return False
        pts, content = packets[0].pts, b"".join(map(bytes, packets))
        if pts == self._given[0] and content in self._given[1]:
            return True
        self._given = pts, content
        return False

    def _take(self, timeout_s: float) -> Unit | None:
        before_s = self._last_s
        packet, arrived_s = self._get(timeout_s)
        while packet is not None and self._in_pieces and self._is_late(packet):
            packet, arrived_s = self._get(timeout_s)
        if packet is None:
            return None
        packets, first_s, size, has_begun = [packet], arrived_s, packet.size, self._begins(packet)
        while self._in_pieces and packet.pts is not None and self._follows(packet.pts, has_begun):
            packet, arrived_s = self._get(0.0)
            packets.append(packet)
            size += packet.size
            has_begun = has_begun or self._begins(packet)
            if size > MAX_STREAM_BYTES:
                raise CaptureError(f"it sends a picture of more than {MAX_STREAM_BYTES} bytes")
        self._cut_pts = packets[0].pts
        self._is_broken = self._is_broken and not self.is_key(packets)
        return Unit(packets, max(0.0, first_s - before_s), arrived_s, not self._is_broken)

    @property
    def has_more(self) -> bool:
        """Whether a newer picture waits, and not only its first pieces."""
        with self._changed:
            if not self._in_pieces or not self._waiting:
                return bool(self._waiting)
            return bool(self._waiting[0][0].pts != self._waiting[-1][0].pts)

    def is_key(self, packets: list[Any]) -> bool:
        """Whether a picture needs none before it."""
        if self._codec not in _KEY_TYPES:
            return bool(packets[0].is_keyframe)
        data, keys = b"".join(map(bytes, packets)), _KEY_TYPES[self._codec]
        at = data.find(b"\0\0\1")
        while 0 <= at < len(data) - 3:
            kind = data[at + 3] & 31 if self._codec == "h264" else data[at + 3] >> 1 & 63
            if kind in keys:
                return True
            at = data.find(b"\0\0\1", at + 3)
        return any(packet.is_keyframe for packet in packets)

    def close(self) -> None:
        """Release the connection, at the latest when the read under way has ended."""
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()

    def _is_late(self, packet: Any) -> bool:
        """Whether it belongs to the picture before, which was taken without it."""
        if packet.pts is None or packet.pts != self._cut_pts or self._begins(packet):
            return False
        self._is_broken = True
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
        return True

    def _follows(self, pts: int, has_begun: bool) -> bool:
        """Wait for the next packet; whether it is another piece of the same picture."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_over, self._pause_s)
            if not self._waiting or self._waiting[0][0].pts != pts:
                return False
            # Times tell pictures apart no more where a camera's stand still; FFmpeg also gives the second
            # picture the time of the first, where RTP's times begin with 0.
            return not (has_begun and self._begins(self._waiting[0][0]))

    def _begins(self, packet: Any) -> bool:
        """Whether the first block of a picture is in a packet."""
        header = _SLICES.get(self._codec)
        if header is None:
            return False
        data = bytes(packet)
        at = data.find(b"\0\0\1") + 3
        while 3 <= at < len(data) - header:
            kind = data[at] & 31 if self._codec == "h264" else data[at] >> 1 & 63
            is_slice = kind in {1, 5} if self._codec == "h264" else kind < 32
            if is_slice and data[at + header] & 128:  # of the first block the number is one bit
                return True
            at = data.find(b"\0\0\1", at) + 3
        return False

    def _get(self, timeout_s: float) -> tuple[Any, float]:
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._is_over, timeout_s):
                raise TimeoutError(f"no packet for {timeout_s:g} s")
            if not self._waiting:
                if self._error is not None:
                    raise self._error
                return None, self._last_s
            packet, self._last_s = self._waiting.popleft()
            self._waiting_bytes -= packet.size
            self._changed.notify_all()
            return packet, self._last_s

    def _run(self) -> None:
        try:
            for packet in packets_of(self._container, self._stream):
                is_new = packet.size and not (self._doubles and self._doubles.has(packet))
                if is_new and not self._put(packet):
                    break
        except Exception as error:  # noqa: BLE001 (raised again where packets are taken)
            self._error = error
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing)  # a picture may be being decoded
        self._container.close()

    def _put(self, packet: Any) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._waiting_bytes < _MAX_WAITING_BYTES
            )
            self._waiting.append((packet, time.monotonic()))
            self._waiting_bytes += packet.size
            self._changed.notify_all()
            return not self._closing
