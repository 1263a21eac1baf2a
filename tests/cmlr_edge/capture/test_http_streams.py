"""A real HTTP server as a camera: stopped, stalled, started again, or one that hands out a file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import cv2
import pytest

from cmlr_edge import open_source
from cmlr_edge.capture.live import LiveSettings, LiveSource, SourceState
from cmlr_edge.capture.pattern import draw_pattern, read_number
from tests.cmlr_edge.capture.films import write_film
from tests.cmlr_edge.web import Quiet, serving, start, stop
from tests.conftest import solid, write_video


@contextmanager
def opened(uri: str, settings: LiveSettings, **options: object) -> Iterator[LiveSource]:
    with open_source(uri, live=settings, **options) as source:  # type: ignore[arg-type]
        assert isinstance(source, LiveSource)
        yield source


class MjpegServer:
    """A network camera on loopback that can be stopped, started, and told to stall."""

    def __init__(self) -> None:
        self.stalled = threading.Event()
        self.number = 0
        self.size_hw = (120, 160)
        self.port = 0
        self.server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        camera = self

        class Handler(Quiet):
            def do_GET(self) -> None:
                server = self.server
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
                self.end_headers()
                while camera.server is server:
                    if not camera.stalled.is_set():
                        picture = draw_pattern(camera.number, camera.size_hw)
                        data = cv2.imencode(".jpg", picture)[1].tobytes()
                        head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        camera.number += 1
                        try:
                            self.wfile.write(head.encode() + data + b"\r\n")
                        except OSError:
                            return
                    threading.Event().wait(0.02)

        self.server = start(Handler, self.port)
        self.port = self.server.server_port

    def stop(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            stop(server)


@pytest.fixture
def mjpeg() -> Iterator[MjpegServer]:
    server = MjpegServer()
    server.start()
    yield server
    server.stop()


def take_until(source: LiveSource, number: int, limit_s: float = 20) -> list[int]:
    got: list[int] = []
    deadline = time.monotonic() + limit_s
    while not got or got[-1] < number:
        assert time.monotonic() < deadline, (got[-3:], source.state, source.reason)
        if (frame := source.next_frame(0.2)) is not None:
            got.append(read_number(frame.image_bgr))
    return got


NETWORK = LiveSettings(read_timeout_s=0.3, hang_timeout_s=0.8)


def test_a_network_camera_that_is_stopped_and_started_again_is_back_within_2_s(
    mjpeg: MjpegServer,
) -> None:
    with opened(f"http://user:hunter2@127.0.0.1:{mjpeg.port}/video", NETWORK) as source:
        got = take_until(source, 10)
        mjpeg.stop()
        while source.state is SourceState.OK:
            source.next_frame(0.05)
        mjpeg.size_hw = (240, 320)
        mjpeg.start()
        returned, next_number = time.monotonic(), mjpeg.number
        got += take_until(source, next_number)
        assert time.monotonic() - returned < 2.0
        assert source.stats.reconnects >= 1
    assert got == sorted(set(got))


def test_a_network_camera_that_stalls_is_opened_again(mjpeg: MjpegServer) -> None:
    with opened(f"http://127.0.0.1:{mjpeg.port}/video", NETWORK) as source:
        got = take_until(source, 10)
        mjpeg.stalled.set()
        while source.state is not SourceState.RECONNECTING:
            source.next_frame(0.05)
        mjpeg.stalled.clear()
        returned = time.monotonic()
        got += take_until(source, got[-1] + 5)
        assert time.monotonic() - returned < 2.0
    assert got == sorted(set(got))


@pytest.mark.parametrize("name", ["clip.avi", "clip.mkv"])
def test_a_video_file_on_a_web_server_ends(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "clip.avi":
        write_video(path, [solid(9, 9, 9)] * 12)
    else:  # the decoder holds frames back, to bring them in order
        write_film(path, [solid(9, 9, 9, (48, 64))] * 12, options={"bf": "3"})

    class Handler(Quiet):
        def do_GET(self) -> None:
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with serving(Handler) as port:
        uri = f"http://127.0.0.1:{port}/{name}"
        with opened(uri, LiveSettings(), policy="every") as source:
            assert len(list(source)) == 12
    assert source.state is SourceState.ENDED
