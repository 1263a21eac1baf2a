"""A camera of RTP over TCP on loopback that sends what a test gives it, packet by packet."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import av

_PIECE = 400  # bytes of a unit that go into one packet
_PARTS = {"h264": 28, "hevc": 49}  # kind of a unit that holds a part of another
_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 {}/90000\r\na=control:t\r\n"
)
_TCP = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"


def units_of(data: bytes) -> list[bytes]:
    """What lies between start codes."""
    return [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1") if unit.strip(b"\0")]


def payloads(codec: str, picture: bytes) -> Iterator[bytes]:
    """Cut a picture as RFC 6184 and RFC 7798 say."""
    head = 1 if codec == "h264" else 2
    for unit in units_of(picture):
        if len(unit) <= _PIECE + head:
            yield unit
            continue
        if codec == "h264":
            first, kind = bytes([unit[0] & 0xE0 | _PARTS[codec]]), unit[0] & 31
        else:
            first, kind = bytes([unit[0] & 0x81 | _PARTS[codec] << 1, unit[1]]), unit[0] >> 1 & 63
        for at in range(head, len(unit), _PIECE):
            marks = 128 * (at == head) | 64 * (at + _PIECE >= len(unit))
            yield first + bytes([marks | kind]) + unit[at : at + _PIECE]


def pictures_of(film: Path) -> tuple[str, list[bytes]]:
    """Codec and packets of a film."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        sent = [bytes(packet) for packet in container.demux(stream) if packet.size]
        return str(stream.codec_context.name), sent


def _send(caller: socket.socket, codec: str, pictures: Sequence[bytes], fps: float) -> None:
    number, start_s = 0, time.monotonic()
    for count, picture in enumerate(pictures):
        time.sleep(max(0.0, start_s + count / fps - time.monotonic()))
        content, parts = b"", [*payloads(codec, picture)]
        for index, part in enumerate(parts):
            mark = 128 * (index == len(parts) - 1)
            ticks = round(count * 90_000 / fps)
            packet = struct.pack(">BBHII", 128, mark | 96, number, ticks, 7) + part
            content += struct.pack(">cBH", b"$", 0, len(packet)) + packet
            number += 1
        caller.sendall(content)


def _talk(caller: socket.socket, codec: str, pictures: Sequence[bytes], fps: float) -> None:
    name = {"h264": "H264", "hevc": "H265"}[codec]
    with caller, suppress(OSError):
        while request := caller.recv(4096).decode("latin-1"):
            body, head = "", "Session: 1\r\nPublic: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            if request.startswith("DESCRIBE"):
                body, head = _SDP.format(name), "Content-Type: application/sdp\r\n"
            head += _TCP * request.startswith("SETUP") + f"Content-Length: {len(body)}\r\n"
            number = re.search(r"CSeq: *\d+", request)
            assert number is not None
            caller.sendall(f"RTSP/1.0 200 OK\r\n{number[0]}\r\n{head}\r\n{body}".encode())
            if request.startswith("PLAY"):
                _send(caller, codec, pictures, fps)
                return


@contextmanager
def rtp_camera(codec: str, pictures: Sequence[bytes], *, fps: float = 50.0) -> Iterator[str]:
    """Send pictures to everybody who asks, settings in their packets alone; its address."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                caller, _ = listening.accept()
                threading.Thread(
                    target=_talk, args=(caller, codec, pictures, fps), daemon=True
                ).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"rtsp://127.0.0.1:{listening.getsockname()[1]}/"
        listening.shutdown(socket.SHUT_RDWR)
