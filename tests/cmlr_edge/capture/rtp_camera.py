"""A camera of RTP on loopback that sends what a test gives it, packet by packet, on a network that loses some."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

import av

from cmlr_edge.capture.network import NetworkReader
from cmlr_edge.capture.readers import Grab
from cmlr_edge.errors import CaptureError

# Of the number of a picture and its packets: those that come, in their order.
Network: TypeAlias = Callable[[int, list[bytes]], list[bytes]]
_PIECE = 400  # bytes of a unit that go into one packet
_PARTS = {"h264": 28, "hevc": 49}  # kind of a unit that holds a part of another
_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 {}/90000\r\na=control:t\r\n"
)
_UDP = "Transport: RTP/AVP/UDP;unicast;client_port={}-{};server_port={}-{}\r\n"
_FIRST = 65_400  # number of the first packet: they soon begin anew
_LINGER_S = 0.2
_TICKS = 9000  # time of the first picture: of 0 FFmpeg makes the second one's, too
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


def _send(
    send: Callable[[bytes], object],
    codec: str,
    pictures: Sequence[bytes],
    fps: float,
    network: Network,
    ranks: Sequence[int],
) -> None:
    number, start_s = _FIRST, time.monotonic()
    for count, picture in enumerate(pictures):
        time.sleep(max(0.0, start_s + count / fps - time.monotonic()))
        packets, parts = [], [*payloads(codec, picture)]
        for index, part in enumerate(parts):
            mark = 128 * (index == len(parts) - 1)
            ticks = _TICKS + round((ranks[count] if ranks else count) * 90_000 / fps)
            packets.append(struct.pack(">BBHII", 128, mark | 96, number % 2**16, ticks, 7) + part)
            number += 1
        for packet in network(count, packets):
            send(packet)


def _talk(
    caller: socket.socket,
    codec: str,
    pictures: Sequence[bytes],
    fps: float,
    network: Network,
    ranks: Sequence[int],
    over: str,
) -> None:
    name = {"h264": "H264", "hevc": "H265"}[codec]
    with caller, suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        while request := caller.recv(4096).decode("latin-1"):
            body, head = "", "Session: 1\r\nPublic: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            if request.startswith("DESCRIBE"):
                body, head = _SDP.format(name), "Content-Type: application/sdp\r\n"
            port = re.search(r"client_port=(\d+)", request)
            refuses = request.startswith("SETUP") and (port is None) != (over == "TCP")
            if port is not None:
                datagrams.connect(("127.0.0.1", int(port[1])))
                head += _UDP.format(port[1], int(port[1]) + 1, *2 * datagrams.getsockname()[1:])
            head += _TCP * (request.startswith("SETUP") and port is None)
            head += f"Content-Length: {len(body)}\r\n"
            sequence = re.search(r"CSeq: *\d+", request)
            assert sequence is not None
            status = "461 Unsupported Transport" if refuses else "200 OK"
            caller.sendall(f"RTSP/1.0 {status}\r\n{sequence[0]}\r\n{head}\r\n{body}".encode())
            if request.startswith("PLAY"):
                send = datagrams.send if over == "UDP" else partial(_send_between, caller)
                _send(send, codec, pictures, fps, network, ranks)
                time.sleep(_LINGER_S * (over == "UDP"))  # its end must not overtake what was sent
                return


def _send_between(caller: socket.socket, packet: bytes) -> None:
    """Send a packet between what else is said on a connection."""
    caller.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)


@contextmanager
def rtp_camera(
    codec: str,
    pictures: Sequence[bytes],
    *,
    fps: float = 50.0,
    over: str = "TCP",
    network: Network = lambda _, packets: packets,
    ranks: Sequence[int] = (),
) -> Iterator[str]:
    """Send pictures to everybody who asks, settings in their packets alone; its address.

    Args:
        codec: h264 or hevc.
        pictures: Packets of each, in the order in which they are decoded.
        fps: How many in a second.
        over: TCP or UDP; the other is refused.
        network: What becomes of the packets.
        ranks: Of the pictures in the order in which they are shown, if it is another.
    """

    def serve() -> None:
        with suppress(OSError):
            while True:
                caller, _ = listening.accept()
                threading.Thread(
                    target=_talk,
                    args=(caller, codec, pictures, fps, network, ranks, over),
                    daemon=True,
                ).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"rtsp://127.0.0.1:{listening.getsockname()[1]}/"
        listening.shutdown(socket.SHUT_RDWR)


def grabs_of(url: str) -> list[Grab]:
    """All that a camera gives until it is lost."""
    reader = NetworkReader(
        av, url, open_timeout_s=5.0, read_timeout_s=2.0, newest=False, keep_s=5.0
    )
    grabs: list[Grab] = []
    try:
        while (grab := reader.read()) is not None:
            grabs.append(grab)
    except CaptureError:  # some close without a word
        pass
    finally:
        reader.close()
    return grabs
