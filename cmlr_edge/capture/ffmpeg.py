"""Decoding by PyAV: what is opened and how, and which stream.

FFmpeg opens far more than videos: playlists that name other files, addresses inside files, devices. So a
file is opened by its path alone, as one of the formats that hold their video themselves, and a stream of
the network never opens a file.
"""

from __future__ import annotations

import io
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from cmlr_edge.capture.bgr import Pictures
from cmlr_edge.capture.bounds import MAX_STREAM_PIXELS, check_size
from cmlr_edge.capture.endings import is_cut
from cmlr_edge.capture.film import Picture
from cmlr_edge.capture.footing import Footing
from cmlr_edge.capture.names import utf8_path
from cmlr_edge.capture.structure import Structure
from cmlr_edge.errors import SOUND_ALONE, CaptureError
from cmlr_edge.machine.needed import NO_THREAD
from cmlr_edge.packet_ring import PacketRing
from cmlr_edge.redaction import printable, redact

FILE_FORMATS = (
    "mov matroska avi mpegts mpeg mpegvideo m4v h264 hevc vvc evc av1 obu ivf flv live_flv asf ogg mxf "
    "gxf lxf dv mjpeg jpeg_pipe mpjpeg gif apng nut nsv nuv rm swf vc1 vc1test dhav ivr kux wtv yuv4mpegpipe h261 "
    "h263 dirac cavsvideo dnxhd avs2 avs3 smjpeg pva ty mtv vivo moflex bink smk flic"
)
# Opened to say of them what they are.
_SOUND_FORMATS = "aac ac3 eac3 aiff amr ape au caf dts flac mp3 tta w64 wav wv"
_AHEAD = 2  # packets: parsers give one that is flagged under the flags of the next
_BAD_READS = 100  # in a row, that bring no packet: the file goes no further
_LEAST_MISSING_S = 1.0  # containers announce a little more than they hold; beyond this and ...
_MISSING_SHARE = 0.05  # ... this, the end is missing
_MICRO = 1e-6
_FROM_ZERO = {
    "matroska,webm",
    "asf",
    "nut",
}  # the length counts what is before the first frame, too
_ONLY_ORDER = (
    "avi"  # no times: packets are numbered as decoders want them, and not as they are shown
)
_NUMBERS_PARTS = "mpegts"  # so that it flags what is lost around packets
_FAILS_AT_END = "mpjpeg"  # for FFmpeg there is always one more picture to come
_LEAST_FRAME_BYTES = 8  # of an AVI: the head of a frame
_JPEG_END, _JPEG_TAIL = b"\xff\xd9", 1024  # a packet may be filled up behind it
_REFERENCE_TIME = struct.Struct("=qi")  # AVProducerReferenceTime: microseconds since 1970, flags


def open_container(
    av: ModuleType,
    url: str | IO[bytes],
    options: Mapping[str, str],
    timeouts_s: tuple[float, float] | None = None,
) -> tuple[Any, Any]:
    """Open a file or stream; return the container and its video stream.

    Args:
        av: PyAV.
        url: With its protocol; or a file that can seek.
        options: Of FFmpeg's demuxers.
        timeouts_s: For opening, and for each read.

    Raises:
        CaptureError: It holds no video that can be decoded, or its pictures are too large.
        av.FFmpegError: It cannot be opened.
    """
    bound = {"max_pixels": str(MAX_STREAM_PIXELS)}
    container = av.open(
        url,
        options={**options, **bound},
        metadata_errors="replace",
        timeout=timeouts_s,
    )
    try:
        stream = _choose_video(av, container)
        context = stream.codec_context
        check_size(context.width, context.height, MAX_STREAM_PIXELS, "it has pictures")
        context.options = bound
    except BaseException:
        container.close()
        raise
    return container, stream


def _choose_video(av: ModuleType, container: Any) -> Any:
    """The first video stream that is no cover picture."""
    if not (videos := _videos(av, container)):
        refusal = CaptureError("it holds no video")
        refusal.kind = SOUND_ALONE if container.streams.audio else ""
        raise refusal
    if videos[0].codec_context is None:
        raise CaptureError("this FFmpeg has no decoder for its codec")
    return videos[0]


def _videos(av: ModuleType, container: Any) -> list[Any]:
    aside = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & aside]


def rate_of(stream: Any) -> float | None:
    """Frames per second that a stream announces, if they can be true."""
    rate = stream.guessed_rate or stream.average_rate
    return float(rate) if rate and 0 < rate <= 1000 else None


def seconds(ticks: int | None, time_base: Fraction | None, more: int = 0) -> float | None:
    """Seconds of a time in a stream; None where it has none, or damage left it no unit."""
    if ticks is None or not time_base:
        return None
    return float((ticks + more) * time_base)


def packets_of(container: Any, *streams: Any) -> Iterator[Any]:
    """Yield the packets of streams, all by default, past those of streams that appear later."""
    while True:
        with suppress(IndexError):  # PyAV knows the streams that were there at the beginning
            yield from container.demux(*streams)
            return


def _with_next(packets: Iterator[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Give every packet with those behind it that hold anything, as far as `_AHEAD`."""
    held: deque[Any] = deque()
    for packet in packets:
        if not packet.size:
            while held:
                yield held.popleft(), [*held]
            yield packet, []
            continue
        held.append(packet)
        if len(held) > _AHEAD:
            yield held.popleft(), [*held]
    while held:
        yield held.popleft(), [*held]


def keep_packets(av: ModuleType, stream: Any, keep_s: float | None) -> PacketRing | None:
    """Keep the packets of a stream from now on; None where nobody wants that, or it cannot be.

    Args:
        av: PyAV.
        stream: Of a container, which may be closed afterwards.
        keep_s: See `PacketRing`; None for nothing.
    """
    if keep_s is None:
        return None
    codec = str(stream.codec_context.name)
    holder = av.open(io.BytesIO(), "w", format="matroska")  # takes about any codec
    try:
        if hasattr(stream, "container"):
            template = holder.add_stream_from_template(stream, opaque=True)
        else:
            template = holder.add_stream(codec, rate=25)  # of `MjpegContainer`
    except (av.FFmpegError, ValueError):
        return None
    return PacketRing(codec, template, keep_s)


def sender_time(packet: Any) -> float | None:
    """When a packet's picture was taken by the sender's clock, in seconds since the epoch.

    RTP senders tell it in their reports, the first of which comes a few seconds after the beginning.
    """
    has = getattr(packet, "has_sidedata", None)  # PyAV 14 has it, and no promise of it
    if has is None or not has("prft"):
        return None
    wall_us, _ = _REFERENCE_TIME.unpack_from(bytes(packet.get_sidedata("prft")))
    return float(wall_us) * _MICRO


class PyAvFilm:
    """A video file, read to its end whatever is damaged on the way."""

    def __init__(self, av: ModuleType, film: Path | IO[bytes], keep_s: float | None = None) -> None:
        """Open it.

        Args:
            av: PyAV.
            film: Where it lies; or an opened file that can seek, which stays its owner's.
            keep_s: See `keep_packets`.

        Raises:
            CaptureError: It cannot be opened.
        """
        self._av = av
        options = {"format_whitelist": f"{FILE_FORMATS} {_SOUND_FORMATS}".replace(" ", ",")}
        try:
            if isinstance(film, Path):
                options["protocol_whitelist"] = "file"
                with utf8_path(film) as text:
                    self._container, self._stream = open_container(av, f"file:{text}", options)
            else:
                options["protocol_whitelist"] = "none"  # there is no such protocol
                self._container, self._stream = open_container(av, film, options)
        except av.ArgumentError as error:  # FFmpeg knows the format, and is not to use it
            raise CaptureError("a playlist or the like") from error
        except (av.FFmpegError, UnicodeError) as error:
            raise CaptureError(getattr(error, "strerror", None) or str(error)) from error
        self.num_videos, self.is_encrypted = len(_videos(av, self._container)), False
        self._stream.thread_type = "AUTO"
        self._pictures = Pictures(av)
        self.ring = keep_packets(av, self._stream, keep_s)
        self.fps = rate_of(self._stream)
        self.num_frames = self._announced_frames()
        # Formats in which recordings are joined by appending one to another.
        flags = av.format.Flags
        self.may_jump = bool(self._container.format.flags & flags.ts_discont.value)
        self.creation_time = str(self._container.metadata.get("creation_time", ""))  # ISO 8601
        self.is_cut = is_cut(film)
        self.damaged = 0  # packets that could not be read or decoded as a whole
        self._structure = Structure(film)
        self._footing = Footing(self._stream.codec_context)
        self._doubtful: set[int] = set()  # times of pictures whose packets are not whole
        # JPEGs end with a mark, as the first does; some cameras leave it out.
        self._jpegs_end: bool | None = None
        self._packets = 0  # of the video
        self._end_s = 0.0  # of what was read so far, on the container's clock
        self._frames = self._decode()

    def go_to(self, stream_s: float) -> None:
        """Read on from a keyframe before a time of the stream, if there is a way; before the first read."""
        time_base = self._stream.time_base
        if time_base:
            with suppress(self._av.FFmpegError):
                self._container.seek(int(stream_s / time_base), stream=self._stream)
                self._structure.jump()

    def read(self) -> Picture | None:
        """Decode the next frame; None at the end."""
        for frame in self._frames:
            try:
                image = self._pictures.to_bgr(frame)
            except (self._av.FFmpegError, ValueError) as error:  # a format that nobody converts
                self._require_threads(error)
                self.damaged += 1
                continue
            if self.ring is not None:
                self.ring.size_wh = frame.width, frame.height
            is_known = frame.pts in self._doubtful
            self.damaged += frame.is_corrupt and not is_known
            is_whole = self._footing.holds(frame, is_whole=not (frame.is_corrupt or is_known))
            ticks = frame.dts if self._container.format.name == _ONLY_ORDER else frame.pts
            return Picture(image, seconds(ticks, frame.time_base), is_whole)
        if self.ring is not None:
            self.ring.end(was_read_ahead=True)
        return None

    def missing_s(self) -> float:
        """Seconds that the container announces and that no stream of it holds; once it was read."""
        announced_s = (self._container.duration or 0) * _MICRO
        start_s = (self._container.start_time or 0) * _MICRO
        if self._container.format.name in _FROM_ZERO:
            start_s = min(start_s, 0.0)
        missing_s = start_s + announced_s - self._end_s if self._end_s else 0.0
        # The times of a cut AVI are those that are left, and its header still counts all frames; an
        # MP4 counts those that its edit list leaves out, too.
        if self._container.format.name == _ONLY_ORDER and self.fps:
            frames = self._stream.frames
            if frames * _LEAST_FRAME_BYTES > self._container.size:  # it was written to a pipe
                return 0.0
            announced_s = frames / self.fps
            # Empty frames are counted, too, and have their time.
            missing_s = announced_s - max(self._packets / self.fps, self._end_s - start_s)
        return missing_s if missing_s > max(_LEAST_MISSING_S, _MISSING_SHARE * announced_s) else 0.0

    def close(self) -> None:
        """Release the file."""
        if self.ring is not None:
            self.ring.end(was_read_ahead=True)
        self._container.close()
        self._structure.close()

    def _announced_frames(self) -> int | None:
        if self._stream.frames > 0:
            return int(self._stream.frames)
        duration_s = (self._container.duration or 0) * _MICRO
        duration_s = seconds(self._stream.duration, self._stream.time_base) or duration_s
        count = round(duration_s * (self.fps or 0))
        return count if 0 < count < 2**53 else None

    def _decode(self) -> Iterator[Any]:
        yield from self._frames_of(self._demux())
        self.is_cut |= self.missing_s() > 0

    def _frames_of(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Decode packets up to the end of the file."""
        for packet, following in _with_next(packets):
            self._note(packet)
            before = self.damaged
            is_last, has_hole = packet.size and not following, self._has_hole(packet, following)
            if has_hole or self._is_partial(packet, following) or (is_last and self.is_cut):
                self.damaged += 1
                self._doubtful |= {packet.pts} - {None}
            yield from self._decoded(packet)
            if has_hole:
                self._footing.lose(in_decoder=False)
            self.damaged = min(self.damaged, before + 1)  # whatever was found in it
        with suppress(self._av.FFmpegError):  # at a clean end nothing is left
            yield from self._stream.codec_context.decode(None)
        if self._footing.lacks_end():
            self.damaged = max(self.damaged, 1)

    def _note(self, packet: Any) -> None:
        """Look at the next packet before it is decoded."""
        if self.ring is not None:
            shown = packet.dts if packet.pts is None else packet.pts
            time_s = seconds(shown, packet.time_base)
            self.ring.add(packet, time_s, is_key=packet.is_keyframe)

    def _has_hole(self, packet: Any, following: Sequence[Any]) -> bool:
        """Whether something is lost in the file behind the beginning of a packet, up to the next."""
        if following:
            return not self._structure.leads_to(following[0].pos)
        return bool(packet.size) and not self.is_cut and not self._structure.ends()

    def _is_partial(self, packet: Any, following: Sequence[Any]) -> bool:
        """Whether a part of a packet is missing, or what follows it, as far as can be told."""
        # Formats that join recordings say the same of a joint: behind it a key picture follows.
        may_be_joint = self.may_jump and self._container.format.name != _NUMBERS_PARTS
        may_be_joint |= self.may_jump and any(item.is_keyframe for item in following)
        if packet.is_corrupt and not may_be_joint:
            return True
        if self._stream.codec_context.name != "mjpeg" or not packet.size:
            return False
        ends = _JPEG_END in bytes(memoryview(packet)[-_JPEG_TAIL:])
        if self._jpegs_end is None:
            self._jpegs_end = ends
        return self._jpegs_end and not ends

    def _decoded(self, packet: Any) -> Sequence[Any]:
        self._footing.take(packet)
        try:
            frames: Sequence[Any] = packet.decode()
        except self._av.FFmpegError as error:
            if not self._stream.codec_context.is_open:
                self._require_threads(error)
            self.damaged += 1
            has = getattr(packet, "has_sidedata", None)
            self.is_encrypted |= has is not None and has("encryption_info")
            self._footing.lose(in_decoder=True)
            return ()
        return frames

    def _require_threads(self, error: Exception) -> None:
        """Tell what the machine lacks from what is wrong with a film."""
        if isinstance(error, BlockingIOError):
            name = redact(printable(self._container.name.removeprefix("file:")))
            raise CaptureError(f"{name}: {NO_THREAD}") from error

    def _demux(self) -> Iterator[Any]:
        """Yield the packets of the video; note where those of all streams end."""
        bad_reads = 0
        packets = packets_of(self._container)
        while True:
            try:
                packet = next(packets, None)
            except self._av.FFmpegError:
                self.damaged += not bad_reads
                bad_reads += 1
                self._footing.lose(in_decoder=False)
                if bad_reads > _BAD_READS:
                    return
                packets = packets_of(self._container)
                continue
            if packet is None:
                self.damaged -= bool(bad_reads) and self._container.format.name == _FAILS_AT_END
                return
            if packet.size:  # empties the decoder, and may come behind an error at the very end
                bad_reads = 0
            self.is_cut |= packet.is_corrupt and not self.may_jump  # of sound, too
            end_s = seconds(packet.pts, packet.time_base, packet.duration or 0)
            self._end_s = max(self._end_s, end_s or 0.0)
            is_empty = not packet.size and packet.dts is not None  # the picture before is shown on
            if packet.stream.index == self._stream.index and not is_empty:
                self._packets += 1
                yield packet
