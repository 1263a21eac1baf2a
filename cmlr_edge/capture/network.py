"""Network cameras and streams, read by PyAV: the newest picture, as old as it says."""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from contextlib import suppress
from http.client import HTTPException
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from cmlr_edge.capture.backlog import Backlog, Verdict
from cmlr_edge.capture.bgr import Pictures
from cmlr_edge.capture.bounds import MAX_STREAM_PIXELS, check_size, encoded_size
from cmlr_edge.capture.ffmpeg import (
    FILE_FORMATS,
    keep_packets,
    open_container,
    rate_of,
    seconds,
    sender_time,
)
from cmlr_edge.capture.footing import Footing
from cmlr_edge.capture.frame_numbers import FrameNumbers, Trust
from cmlr_edge.capture.mjpeg import open_mjpeg
from cmlr_edge.capture.pump import PAUSE_S, Pump, Unit
from cmlr_edge.capture.readers import EndOfSource, Grab
from cmlr_edge.capture.rtp import open_rtsp, told_losses
from cmlr_edge.capture.slices import Slices
from cmlr_edge.capture.timeline import TimeLine
from cmlr_edge.capture.units import CODECS, Leaned, read_units, settings_in
from cmlr_edge.errors import CaptureError
from cmlr_edge.machine.facts import usable_cores
from cmlr_edge.packet_ring import PacketRing

_PROTOCOLS = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto"  # none that reads files
_FORMATS = f"{FILE_FORMATS} rtsp hls aac mp3".replace(" ", ",")
_LOOK_S = 0.3  # at a stream, to see what it holds; frames grow old meanwhile
_CATCH_UP_S = 1.0  # at most without a picture while older frames are left out
_HOPELESS_S = 2.0  # so far behind, decoding everything does not catch up
_MAX_THREADS = 4  # that decode parts of one picture
_MAX_DAMAGED = 200  # packets in a row
_NEAR_END_S, _NEAR_END_SHARE = 2.0, 0.02  # a stream that stops so near its announced end is over
_KEPT_ARRIVALS = 64  # of frames that a decoder holds back to bring them in order
_REASONS = {
    "HTTPUnauthorizedError": "user or password are refused (401)",
    "HTTPForbiddenError": "access is refused (403)",
    "HTTPNotFoundError": "there is no such stream at this address (404)",
    "ExitError": "it did not answer in time",
    "TimeoutError": "it did not answer in time",
}


class NetworkReader:
    """A stream that FFmpeg opens; see `Reader`."""

    def __init__(
        self,
        av: ModuleType,
        url: str,
        *,
        open_timeout_s: float,
        read_timeout_s: float,
        newest: bool = True,
        keep_s: float | None = None,
    ) -> None:
        """Open it.

        Args:
            av: PyAV.
            url: Of RTSP or HTTP.
            open_timeout_s: At most for opening.
            read_timeout_s: At most without a packet.
            newest: Leave out frames behind which newer ones wait.
            keep_s: See `keep_packets`.

        Raises:
            CaptureError: It cannot be opened, or holds no video that can be decoded.
        """
        self._av, self._timeout_s = av, read_timeout_s
        self._pause_s = PAUSE_S
        lost_packets, self._lost_references = told_losses(av)
        self._trust = Trust()  # in the latter
        before = lost_packets()
        container, stream = self._open(url, (open_timeout_s, read_timeout_s))
        self._has_gap_in_look = lost_packets() > before
        self._context = context = stream.codec_context
        # Threads by picture hold one picture back each: with 12 cores half a second, or 12 seconds.
        context.thread_type = "SLICE"
        context.thread_count = min(usable_cores(), _MAX_THREADS)
        self.fps = rate_of(stream)
        self._stream, self._time_base, self._keep_s = stream, stream.time_base, keep_s
        self._ring = keep_packets(av, stream, keep_s)
        self._damaged = 0  # packets since the last picture
        self._footing = Footing(context)
        self._numbers, self._slices = _followed(context)
        self._leaned, self._is_leaned_on = Leaned(context.name), True  # the last picture
        # What a server hands out as a file knows its length and is over at its end.
        self._length_s = max(0.0, (container.duration or 0) / 1e6)
        self._is_finite, self._is_rtsp = self._length_s > 0, container.format.name == "rtsp"
        self._played_s, self._began_s = 0.0, math.nan  # of it; on the stream's clock
        self._leaves_out = newest and not self._is_finite
        self._line = self._own_times(container)
        self._has_size = _has_size(container)
        self._given, self._lost_because = 0, ""
        self._backlog = Backlog(self.fps, has_times=not self._only_counts(container.format))
        self._awaits_key = self._has_key = False
        # By the frame's time: when it arrived, on time.monotonic(), and was taken, as the sender says.
        self._arrivals: dict[int, tuple[float, float | None]] = {}
        self._ready: deque[Grab] = deque()  # decoded with one that was given
        self._pictures = Pictures(av)
        self._received_s = -math.inf  # when the last packets came
        self._pump = Pump(
            container,
            stream,
            in_pieces=self._is_rtsp,
            lost_packets=lost_packets,
            pause_s=self._pause_s,
        )

    def _own_times(self, container: Any) -> TimeLine | None:
        """A file of a web server plays at its own pace, or is read as fast as can be; by its own times."""
        if self._is_rtsp or not self._is_finite:
            return None
        may_jump = bool(container.format.flags & self._av.format.Flags.ts_discont.value)
        return TimeLine(self.fps, may_jump=may_jump)

    def read(self) -> Grab | None:
        """Wait for a frame; leave out those behind which newer ones wait; see `Reader`."""
        if self._ready:
            return self._ready.popleft()
        skipped, first = 0, None
        while (unit := self._next()) is not None:
            verdict = self._judge(unit)
            frames = self._decode(unit, verdict)
            first = first or (time.monotonic(), verdict.age_s)
            start_s, first_age_s = first
            elapsed_s = time.monotonic() - start_s
            is_queued = self._leaves_out and (verdict.is_queued or self._pump.has_more)
            if not frames or (is_queued and elapsed_s < _CATCH_UP_S):
                skipped += len(frames)
                continue
            age_s = verdict.age_s
            if verdict.is_queued and age_s > first_age_s - elapsed_s / 2:
                self._backlog.trust()  # a backlog would have become less by reading
                age_s = 0.0
            if self._leaves_out:
                return self._grab(frames[-1], unit, age_s, skipped + len(frames) - 1)
            self._ready += (self._grab(frame, unit, age_s, 0) for frame in frames)
            return self._ready.popleft()
        return self._end()

    def _end(self) -> Grab | None:
        """Give what the decoder still holds of a file; None where a camera is lost.

        Raises:
            EndOfSource: A file is over.
        """
        if not self._may_be_over():
            return None
        with suppress(self._av.FFmpegError):  # there is nothing left the second time
            unit = Unit([], [], False, 0.0, time.monotonic())
            self._ready += (self._grab(item, unit, 0.0, 0) for item in self._judged(None))
        if self._ready:
            return self._ready.popleft()
        if not self._given:
            raise CaptureError("it ended before a picture that can be decoded")
        raise EndOfSource(self._lost_because)

    def _may_be_over(self) -> bool:
        """Whether it stops where a file ends. Cameras announce lengths too, and then go on or are lost.

        A file of a web server is over wherever it stops, because it would begin again: one whose length
        is not known in seconds, where it gave all the bytes that it announced.
        """
        if self._has_size and not self._is_finite:
            return not self._lost_because
        missing_s = abs(self._length_s - self._played_s)
        near_s = max(_NEAR_END_S, _NEAR_END_SHARE * self._length_s)
        return self._is_finite and (not self._is_rtsp or missing_s <= near_s)

    @property
    def receives(self) -> bool:
        """Whether packets come, be it without a picture yet."""
        return time.monotonic() - self._received_s < self._timeout_s

    def close(self) -> None:
        """Release the connection; see `Reader`."""
        self._pump.close()
        if self._ring is not None:
            self._ring.end()

    def _open(self, url: str, timeouts_s: tuple[float, float]) -> tuple[Any, Any]:
        options = {
            "protocol_whitelist": _PROTOCOLS,
            "format_whitelist": _FORMATS,
            "analyzeduration": str(round(_LOOK_S * 1e6)),
            "fpsprobesize": "0",
        }
        is_http = url.lower().startswith("http")
        if is_http and (mjpeg := open_mjpeg(self._av, url, self._timeout_s)) is not None:
            return mjpeg, mjpeg.stream
        if is_http:  # a server may close a connection without a word, if it is not to be kept
            options["multiple_requests"] = "1"
        try:
            if not url.lower().startswith("rtsp"):
                return open_container(self._av, url, options, timeouts_s)
            container, stream, self._pause_s = open_rtsp(self._av, url, options, timeouts_s)
        except (self._av.FFmpegError, UnicodeError) as error:
            why = _unknown_host(url) or self._explain(error)
            raise CaptureError(f"it cannot be opened: {why}") from error
        return container, stream

    def _only_counts(self, container_format: Any) -> bool:
        """Whether times are made up from the number of the frame."""
        flags = self._av.format.Flags
        made_up = flags.no_timestamps.value | flags.generic_index.value
        is_made_up = container_format.flags & made_up and not container_format.flags & (
            flags.ts_discont.value
        )
        return bool(is_made_up) or container_format.name in {"mpjpeg", "mjpeg"}

    def _next(self) -> Unit | None:
        """Read a picture's packets; None where the connection is lost."""
        try:
            return self._pump.take(self._timeout_s)
        except CaptureError:
            raise
        except (self._av.FFmpegError, OSError, HTTPException) as error:
            why = f"the connection is lost: {self._explain(error)}"
            if self._line is not None or self._has_size:
                self._lost_because = f"{why}, after {self._played_s:.1f} s"
                self._lost_because += f" of {self._length_s:.1f} s" * self._is_finite
            if self._may_be_over():
                return None
            raise CaptureError(why) from error

    def _judge(self, unit: Unit) -> Verdict:
        packet, self._received_s = unit.packets[0], unit.arrived_s
        taken_at = sender_time(packet)
        stream_s = seconds(packet.pts if packet.dts is None else packet.dts, self._time_base)
        if stream_s is not None:
            self._began_s = stream_s if math.isnan(self._began_s) else self._began_s
            self._played_s = stream_s - self._began_s
        verdict = self._backlog.judge(stream_s, unit.waited_s, unit.arrived_s)
        if stream_s is None and self._time_base:  # there is no order but that of arrival
            packet.pts = round(unit.arrived_s / self._time_base)
        if packet.pts is not None:
            self._arrivals[packet.pts] = unit.arrived_s - verdict.age_s, taken_at
            if len(self._arrivals) > _KEPT_ARRIVALS:
                del self._arrivals[next(iter(self._arrivals))]
        return verdict

    def _decode(self, unit: Unit, verdict: Verdict) -> list[tuple[Any, bool]]:
        """Decode a picture; return frames, and whether each is whole."""
        if verdict.age_s > _HOPELESS_S and verdict.is_queued and self._leaves_out:
            self._awaits_key = True
        packet, ring = self._joined(unit), self._ring
        if ring is not None:
            shown = packet.dts if packet.pts is None else packet.pts
            if unit.is_key and not ring.settings:
                ring.settings = settings_in(ring.codec, bytes(packet))
            ring.add(packet, seconds(shown, self._time_base), is_key=unit.is_key)
        if self._awaits_key and not unit.is_key:
            self._footing.lose(in_decoder=False)
            return []
        self._awaits_key = False
        self._has_key = self._has_key or unit.is_key
        if self._misses(unit):
            self._footing.lose(in_decoder=False)
        lacks = self._slices is not None and self._slices.lack(unit.heads)
        # Pieces that FFmpeg looked at come first, and it does not tell where something was missing.
        lacks = lacks or (self._has_gap_in_look and self._played_s <= 2 * _LOOK_S)
        leaned_on = self._leaned.on(unit.heads)
        # Without a slice's beginning nothing is decoded, so that what builds upon it misses it.
        self._is_leaned_on = not self._is_missed_by_others() if leaned_on is None else leaned_on
        self._footing.take(
            packet, is_partial=lacks or unit.is_partial, is_leaned_on=self._is_leaned_on
        )
        try:
            return self._judged(packet)
        except self._av.FFmpegError as error:
            # Who joins a stream lacks what its first pictures build upon; of a film nothing may lack.
            self._damaged += self._has_key or self._line is not None
            self._footing.lose(in_decoder=True)
            self._check_picture(packet, error)
            return []

    def _misses(self, unit: Unit) -> bool:
        """Whether what others build upon may be missing before a picture, and its decoder will not miss it."""
        misses = self._numbers is not None and self._numbers.misses(unit.heads)
        lost = unit.is_behind_gap and not self._is_missed_by_others()
        return misses or lost or (unit.is_behind_partial and self._is_leaned_on)

    def _is_missed_by_others(self) -> bool:
        """Whether pictures tell that one which they build upon never came."""
        if self._context.name == "hevc":
            return self._trust.is_on
        return self._numbers is not None and self._numbers.is_sure

    def _judged(self, packet: Any) -> list[tuple[Any, bool]]:
        before = self._lost_references()
        frames, holds = self._context.decode(packet), self._footing.holds
        if self._trust.believes(self._lost_references() > before):
            self._footing.doubt()
        return [(frame, holds(frame, is_whole=not frame.is_corrupt)) for frame in frames]

    def _joined(self, unit: Unit) -> Any:
        """A packet with all of a picture."""
        packet = unit.packets[0]
        if len(unit.packets) > 1:
            packet = self._av.Packet(b"".join(unit.packets))
            packet.pts, packet.dts = unit.packets[0].pts, unit.packets[0].dts
            packet.time_base = self._time_base
        return packet

    def _check_picture(self, packet: Any, error: Exception) -> None:
        """Say why nothing comes, where it is not one damaged packet.

        Raises:
            CaptureError: Pictures are too large, or no packet can be decoded.
        """
        if size := encoded_size(memoryview(packet)):
            check_size(*size, MAX_STREAM_PIXELS, "it sends pictures")
        if self._damaged >= _MAX_DAMAGED:
            raise CaptureError(
                f"none of its last {self._damaged} packets can be decoded ({self._explain(error)}): "
                f"damaged, or of more than {MAX_STREAM_PIXELS / 1e6:.0f} million pixels"
            ) from error

    def _grab(self, judged: tuple[Any, bool], unit: Unit, age_s: float, skipped: int) -> Grab:
        frame, is_whole = judged
        now_s = time.monotonic()
        arrived_s, taken_at = self._arrivals.get(frame.pts, (unit.arrived_s, None))
        age_s = max(age_s, now_s - arrived_s)
        damaged, self._damaged = self._damaged, 0
        stream_s = seconds(frame.pts, self._time_base)
        self._given += 1
        return Grab(
            self._pictures.to_bgr(frame),
            time.time() - age_s,
            skipped,
            age_s=age_s,
            damaged=damaged,
            is_whole=is_whole,
            sender_at=taken_at,
            stream_s=stream_s,
            film_s=None if self._line is None else self._line.place(stream_s),
            ring=self._ring_of((frame.width, frame.height)),
        )

    def _ring_of(self, size_wh: tuple[int, int]) -> PacketRing | None:
        """The packets of a frame; where pictures change their size another ring begins."""
        ring = self._ring
        if ring is not None and ring.size_wh not in {(0, 0), size_wh}:
            ring.end()
            self._ring = ring = keep_packets(self._av, self._stream, self._keep_s)
        if ring is not None:
            ring.size_wh = size_wh
        return ring

    def _explain(self, error: Exception) -> str:
        known = _REASONS.get(type(error).__name__)
        return known or getattr(error, "strerror", None) or str(error)


def _followed(context: Any) -> tuple[FrameNumbers | None, Slices | None]:
    """What notices pictures and slices that never came, where the codec tells them."""
    told = context.extradata or b""
    if told.startswith(b"\1"):  # of lengths, not start codes
        return None, None
    numbers = FrameNumbers(read_units("h264", told).heads) if context.name == "h264" else None
    return numbers, Slices(context.name) if context.name in CODECS else None


def _has_size(container: Any) -> bool:
    """Whether a web server says of how many bytes an answer is; of a list of streams that tells nothing."""
    return getattr(container, "size", 0) > 0 and container.format.name not in {"hls", "rtsp"}


def _unknown_host(url: str) -> str:
    """What the resolver says against the host of an address, of which FFmpeg says "Input/output error"."""
    try:
        socket.getaddrinfo(urlsplit(url).hostname, None)
    except socket.gaierror as error:
        return str(error.strerror)
    except (OSError, ValueError):
        return ""
    return ""
