"""Takes packets off a connection as soon as they come, and puts the pieces of a picture together.

FFmpeg's own way of finding where a picture of an RTP stream ends is the beginning of the next one: at one
picture a second that is a second late. Here a picture ends when nothing of it has come for a moment; for a longer
one behind a piece that fills its packet, as only the last of a unit does not, or with fewer slices than the picture
before it had.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from cmlr_edge.capture.bounds import MAX_STREAM_BYTES
from cmlr_edge.capture.doubles import STARTS, Doubles
from cmlr_edge.capture.ffmpeg import packets_of
from cmlr_edge.capture.units import CODECS, MOST_UNITS, Units, read_units
from cmlr_edge.errors import CaptureError

_MAX_WAITING_BYTES = 2**26  # then the sender has to wait
PAUSE_S = 0.06  # without a piece: the picture is whole
_MAX_PAUSE_S = 0.5
_PATIENCE = 1.5  # times as long as was needed
_HEAD_BYTES = {"h264": 5, "hevc": 6}  # that FFmpeg puts before the first part of a unit
_ALONE = {"mjpeg"}  # FFmpeg drops one that is not whole, and no other builds upon it
_WHOLE_PICTURES = {*_ALONE, "vp8", "vp9", "av1"}  # FFmpeg puts these together by their marks


class _Piece:
    """A packet, when it came on time.monotonic(), what is in it, and how many are missing before it."""

    def __init__(self, packet: Any, codec: str, num_missing: int) -> None:
        self.packet, self.pts, self.arrived_s = packet, packet.pts, time.monotonic()
        self._codec, self._num_missing = codec, num_missing
        self.waited_s = 0.0  # since the one before

    @cached_property
    def content(self) -> bytes:
        """Copied once."""
        return bytes(self.packet)

    @cached_property
    def units(self) -> Units:
        """Looked at once, in codecs whose units are known."""
        return read_units(self._codec, self.content) if self._codec in CODECS else Units()

    @property
    def goes_on(self) -> bool:
        """Whether it is not the beginning of a unit, but a later part of one."""
        return self._codec in CODECS and not self.content.startswith(STARTS)

    @property
    def is_behind_gap(self) -> bool:
        """Whether packets are missing before it."""
        return self._num_missing > 0

    @property
    def harms_before(self) -> bool:
        """Whether what is missing before it may be of another picture than its own."""
        return self._num_missing > 1 or (self.is_behind_gap and self.opens)

    @property
    def opens(self) -> bool:
        """Whether nothing of its picture is before it."""
        if self._codec == "mpeg4":  # its pictures have one start code each
            return self.content.startswith(STARTS)
        return self.units.begins or self.units.leads

    @property
    def num_carried(self) -> int:
        """Bytes of a unit's content in it, as far as a packet limits them."""
        return len(self.content) - (0 if self.goes_on else _HEAD_BYTES[self._codec])


@dataclass(frozen=True, eq=False)
class Unit:
    """The packets of one picture."""

    packets: list[Any]
    heads: list[bytes]  # see `Units`
    is_key: bool  # it needs none before it
    waited_s: float  # until its first one came, since the one before
    arrived_s: float  # its last one, on time.monotonic()
    is_behind_gap: bool = False  # something is missing before it
    is_behind_partial: bool = (
        False  # ... maybe of the one before, which was not known when it was given
    )
    is_partial: bool = False  # something may be missing of it


class Pump:
    """A thread that reads packets, and the queue of what it read."""

    def __init__(
        self,
        container: Any,
        stream: Any,
        *,
        in_pieces: bool,
        lost_packets: Callable[[], int] = int,
        pause_s: float = PAUSE_S,
    ) -> None:
        """Start to read.

        Args:
            container: Belongs to the pump from now on.
            stream: Of the container; the others are not read.
            in_pieces: Whether packets may be pieces of pictures.
            lost_packets: Counts those that the calling thread missed in what it read.
            pause_s: Without a piece, at first: then the picture is whole.
        """
        self._container, self._stream = container, stream
        self._codec = str(stream.codec_context.name)
        self._in_pieces = in_pieces and self._codec not in _WHOLE_PICTURES
        self._lost_packets = lost_packets
        self._changed = threading.Condition()  # guards the five below
        self._waiting: deque[_Piece] = deque()
        self._waiting_bytes = 0
        self._is_over = self._closing = False
        self._error: Exception | None = None
        self._last_s = time.monotonic()  # when the last packet came that was taken
        self._pause_s = pause_s
        # Bytes that a packet carries of a unit that goes on in the next one; 0: not known.
        self._full = 0
        # Of the last picture, by whether it is a key picture.
        self._num_slices: dict[bool, int] = {}
        self._cut_pts: int | None = None  # of the picture that was taken last
        # See `Unit`: of the next one that is given.
        self._is_behind_gap = self._is_behind_partial = False
        self._is_before_gap = False  # the picture that was put together last
        self._doubles = Doubles() if in_pieces and self._codec in CODECS else None
        self._given_pts: int | None = None  # of the last picture
        self._given: list[bytes] = []  # the picture itself, in pieces
        threading.Thread(target=self._run, name="pump", daemon=True).start()

    def take(self, timeout_s: float) -> Unit | None:
        """Wait for a picture, which is not the one before once more; None at the end of the stream.

        Raises:
            TimeoutError: Nothing came.
            CaptureError: A picture is too large.
            Exception: What the connection was lost by.
        """
        before_s = self._last_s
        while pieces := self._pieces(timeout_s):
            if not self._has_given(pieces):
                return self._unit(pieces, before_s)
            before_s = self._last_s
        return None

    def _pieces(self, timeout_s: float) -> list[_Piece]:
        """Wait for those of the next picture; none at the end of the stream."""
        piece = self._get(timeout_s)
        while piece is not None and self._in_pieces and self._is_late(piece):
            piece = self._get(timeout_s)
        if piece is None:
            return []
        self._is_behind_gap = self._is_behind_gap or piece.is_behind_gap
        if piece.harms_before and not self._is_before_gap:
            self._find_late(piece)
        pieces, size, has_begun = [piece], piece.packet.size, piece.units.begins
        num_slices, is_key = piece.units.num_slices, piece.units.is_key
        while self._in_pieces and self._follows(
            piece, has_begun, is_short=num_slices < self._num_slices.get(is_key, 0)
        ):
            before, piece = piece, self._get(0.0)
            assert piece is not None  # it waits
            if piece.goes_on:
                self._full = max(self._full, before.num_carried)
            pieces.append(piece)
            size += piece.packet.size
            has_begun = has_begun or piece.units.begins
            num_slices, is_key = num_slices + piece.units.num_slices, is_key or piece.units.is_key
            if size > MAX_STREAM_BYTES:
                raise CaptureError(f"it sends a picture of more than {MAX_STREAM_BYTES} bytes")
        if num_slices:  # settings may come alone, with a time of their own
            self._num_slices[is_key] = num_slices
        with self._changed:
            self._is_before_gap = bool(self._waiting) and self._waiting[0].harms_before
        return pieces

    def _has_given(self, pieces: list[_Piece]) -> bool:
        """Whether a picture is the last one once more, whose settings may have come between the two."""
        if self._doubles is None or pieces[0].pts is None:
            return False
        pts, given = pieces[0].pts, [piece.content for piece in pieces]
        if pts == self._given_pts and b"".join(given) in b"".join(self._given):
            return True
        self._given_pts, self._given = pts, given
        return False

    def _unit(self, pieces: list[_Piece], before_s: float) -> Unit:
        self._cut_pts = pieces[0].pts
        is_key = any(piece.units.is_key or piece.packet.is_keyframe for piece in pieces)
        is_behind_gap, is_behind_partial = self._is_behind_gap, self._is_behind_partial
        self._is_behind_gap = self._is_behind_partial = False
        return Unit(
            packets=[piece.packet for piece in pieces],
            heads=[*islice((head for piece in pieces for head in piece.units.heads), MOST_UNITS)],
            is_key=is_key,
            waited_s=max(0.0, pieces[0].arrived_s - before_s),
            arrived_s=pieces[-1].arrived_s,
            is_behind_gap=is_behind_gap,
            is_behind_partial=is_behind_partial,
            is_partial=self._lack(pieces),
        )

    def _lack(self, pieces: list[_Piece]) -> bool:
        """Whether packets are missing in a picture, or next to it where they may be of it."""
        if self._codec in _ALONE:
            return False
        lacks_begin = pieces[0].is_behind_gap and not pieces[0].opens
        has_gap = any(piece.is_behind_gap for piece in pieces[1:])
        return lacks_begin or has_gap or self._is_before_gap

    @property
    def has_more(self) -> bool:
        """Whether a newer picture waits, and not only its first pieces."""
        with self._changed:
            if not self._in_pieces or not self._waiting:
                return bool(self._waiting)
            return bool(self._waiting[0].pts != self._waiting[-1].pts)

    def close(self) -> None:
        """Release the connection, at the latest when the read under way has ended."""
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()

    def _is_late(self, piece: _Piece) -> bool:
        """Whether it belongs to the picture before, which was taken without it."""
        # Times that stand still do not tell the next picture from this one.
        if piece.pts is None or piece.pts != self._cut_pts or piece.opens:
            return False
        self._find_late(piece)
        return True

    def _find_late(self, piece: _Piece) -> None:
        """Note a piece by which the picture before it was not whole; wait so long from now on, if it is worth while."""
        self._is_behind_partial = True
        wanted_s = _PATIENCE * piece.waited_s
        if wanted_s <= _MAX_PAUSE_S:
            self._pause_s = max(self._pause_s, wanted_s)

    def _follows(self, piece: _Piece, has_begun: bool, *, is_short: bool) -> bool:
        """Wait for the packet behind a piece; whether it is another one of the same picture."""
        if (pts := piece.pts) is None:
            return False
        is_full = self._full and piece.num_carried >= self._full
        pause_s = _MAX_PAUSE_S if is_full or is_short else self._pause_s
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_over, pause_s)
            if not self._waiting or self._waiting[0].pts != pts:
                return False
            # Times tell pictures apart no more where a camera's stand still; FFmpeg also gives the second
            # picture the time of the first, where RTP's times begin with 0.
            return not (has_begun and self._waiting[0].units.begins)

    def _get(self, timeout_s: float) -> _Piece | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._is_over, timeout_s):
                raise TimeoutError(f"no packet for {timeout_s:g} s")
            if not self._waiting:
                if self._error is not None:
                    raise self._error
                return None
            piece = self._waiting.popleft()
            piece.waited_s, self._last_s = piece.arrived_s - self._last_s, piece.arrived_s
            self._waiting_bytes -= piece.packet.size
            self._changed.notify_all()
            return piece

    def _run(self) -> None:
        try:
            seen = self._lost_packets()
            for packet in packets_of(self._container, self._stream):
                piece = _Piece(packet, self._codec, self._lost_packets() - seen)
                is_new = packet.size and not (
                    self._doubles and self._doubles.has(piece.pts, piece.content)
                )
                if not is_new:
                    continue
                seen = self._lost_packets()
                if not self._put(piece):
                    break
        except Exception as error:  # noqa: BLE001 (raised again where packets are taken)
            self._error = error
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing)  # a picture may be being decoded
        self._container.close()

    def _put(self, piece: _Piece) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._waiting_bytes < _MAX_WAITING_BYTES
            )
            self._waiting.append(piece)
            self._waiting_bytes += piece.packet.size
            self._changed.notify_all()
            return not self._closing
