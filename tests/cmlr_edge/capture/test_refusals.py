"""Cameras that refuse: told apart, and not asked so often that they lock an account."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from cmlr_edge import open_source
from cmlr_edge.capture.live import LiveSettings, LiveSource
from cmlr_edge.capture.refusal import why_refused
from cmlr_edge.errors import CaptureError
from tests.waiting import wait_until

_SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm={} 0 RTP/AVP {}\r\na=rtpmap:{} {}\r\na=control:track1\r\n"  # fmt: skip
_VIDEO = _SDP.format("video", 96, 96, "H264/90000")
_AUDIO = _SDP.format("audio", 0, 0, "PCMU/8000")
_TCP = "Session: 1\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n"
CAMERAS = {
    "wrong password": {"DESCRIBE": ("401 Unauthorized", 'WWW-Authenticate: Digest realm="x", nonce="y"\r\n', "")},
    "forbidden": {"DESCRIBE": ("403 Forbidden", "", "")},
    "wrong path": {"DESCRIBE": ("404 Not Found", "", "")},
    "sound alone": {"DESCRIBE": ("200 OK", "Content-Type: application/sdp\r\n", _AUDIO), "SETUP": ("200 OK", _TCP, "")},
    "UDP alone": {"DESCRIBE": ("200 OK", "Content-Type: application/sdp\r\n", _VIDEO), "SETUP": ("461 Unsupported Transport", "", "")},
    "busy": {"DESCRIBE": ("503 Service Unavailable", "", "")},
}  # fmt: skip
REASONS = {
    "wrong password": "401: it does not accept",
    "forbidden": "403: it refuses",
    "wrong path": "404: it has no such stream",
    "sound alone": "holds no video",
    "UDP alone": "UDP only",
    "busy": "5XX",
}


@contextmanager
def camera(answers: dict[str, tuple[str, str, str]]) -> Iterator[tuple[int, list[str]]]:
    """An RTSP server that answers every method as it is told; port, and the methods it was asked."""
    asked: list[str] = []

    def talk(caller: socket.socket) -> None:
        text = ""
        with caller, suppress(ConnectionError):
            while more := caller.recv(4096).decode():
                text += more
                while "\r\n\r\n" in text:
                    request, text = text.split("\r\n\r\n", 1)
                    method, lines = request.split()[0], request.splitlines()
                    asked.append(method)
                    number = next(line for line in lines if line.lower().startswith("cseq"))
                    status, head, body = answers.get(method, ("200 OK", "", ""))
                    head += f"Content-Length: {len(body)}\r\n\r\n{body}"
                    caller.sendall(f"RTSP/1.0 {status}\r\n{number}\r\n{head}".encode())

    def serve(listening: socket.socket) -> None:
        try:
            while True:
                caller, _ = listening.accept()
                threading.Thread(target=talk, args=(caller,), daemon=True).start()
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield int(listening.getsockname()[1]), asked
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("what", CAMERAS)
def test_what_a_camera_refuses_is_told_apart(what: str) -> None:
    pytest.importorskip("av")
    with camera(CAMERAS[what]) as (port, _):
        url = f"rtsp://admin:hunter2@127.0.0.1:{port}/1"

        settings = LiveSettings(first_frame_timeout_s=0.0)
        with open_source(url, live=settings) as source:
            assert isinstance(source, LiveSource)
            assert source.next_frame(timeout_s=20) is None
            assert REASONS[what] in source.reason
            assert "hunter2" not in source.reason


def test_a_wrong_password_is_tried_seldom_and_other_refusals_soon() -> None:
    counts = dict.fromkeys(("401 Unauthorized", "403 Forbidden", "404 Not Found", "no route"), 0)
    settings = LiveSettings(backoff_first_s=0.01, backoff_max_s=0.02)
    sources = []
    for said in counts:

        def refuse(said: str = said) -> Any:
            counts[said] += 1
            raise CaptureError(f"cannot open rtsp://camera:401/: {said}")

        sources.append(LiveSource("camera", refuse, settings))
    threading.Event().wait(1.0)
    for source in sources:
        source.close()
    assert (counts["401 Unauthorized"], counts["403 Forbidden"]) == (1, 1)
    assert min(counts["404 Not Found"], counts["no route"]) > 10
    assert settings.refused_first_s >= 60
    assert settings.refused_max_s >= 600


def test_a_camera_that_refuses_us_after_it_was_away_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = iter(["no route", "404 Not Found", "no route", "404 Not Found", "401 Unauthorized"])
    quick = LiveSettings(backoff_first_s=0.01, backoff_max_s=0.02)

    def refuse() -> Any:
        raise CaptureError(next(said))

    with caplog.at_level("WARNING"), LiveSource("camera", refuse, quick) as source:
        wait_until(lambda: "401" in source.reason)
    told = [text for text in caplog.messages if "reconnecting" in text]
    assert [next(word for word in ("route", "404", "401") if word in text) for text in told] == [
        "route",
        "404",
        "401",
    ]


def test_a_camera_that_accepts_the_password_again_is_asked_in_time() -> None:
    attempts: list[int] = []

    def refuse() -> Any:
        attempts.append(0)
        raise CaptureError("401")

    quick = replace(LiveSettings(), refused_first_s=0.1, refused_max_s=0.2)
    with LiveSource("camera", refuse, quick):
        threading.Event().wait(1.5)
    assert 3 <= len(attempts) <= 20


@pytest.mark.parametrize(
    "said", ["", "rtsp://10.0.0.1:401/404?x=403", "timed out after 401 s"[:9], "no frame for 5 s"]
)
def test_what_is_no_refusal_is_left_as_it_is(said: str) -> None:
    assert why_refused(said) is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":554/x",
        "camera:99999/x",
        "camera:0/x",
        "[::1",
        "::1/x",
        "a camera/x",
        "user:p/ss@camera/x",
        "camera..local/x",
        f"{'a' * 64}.local/x",
    ],
)
@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_what_can_never_be_an_address_is_not_tried_for_ever(scheme: str, address: str) -> None:
    with pytest.raises(CaptureError, match="cannot read"):
        open_source(f"{scheme}://{address}")


@pytest.mark.parametrize(
    "address", ["[::1]:1/x", "u:p[1]:@127.0.0.1:1/a b?c=d", "u@[::1]", "cam_1.local."]
)
def test_odd_addresses_are_tried(address: str) -> None:
    open_source(f"rtsp://{address}").close()


def test_a_wrong_scheme_and_an_unknown_host_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    peer.close()

        threading.Thread(target=answer, daemon=True).start()
        port = server.getsockname()[1]
        expected = {f"https://127.0.0.1:{port}/video": "no TLS", "rtsp://nobody.invalid/1": "name"}
        for uri, words in expected.items():
            with open_source(uri, live=replace(LiveSettings(), backoff_first_s=9.0)) as source:
                assert isinstance(source, LiveSource)
                deadline_s = time.monotonic() + 20
                while not source.reason and time.monotonic() < deadline_s:
                    time.sleep(0.02)
                assert words in source.reason


def test_what_speaks_no_http_is_called_so() -> None:
    def answer(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                peer, _ = server.accept()
                with peer:
                    peer.recv(1024)
                    peer.sendall(bytes(range(128, 256)) * 20)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/video"
        settings = LiveSettings(first_frame_timeout_s=0.1)
        with (
            open_source(address, live=settings) as source,
            pytest.raises(CaptureError, match="speaks no HTTP"),
        ):
            next(iter(source))
