"""Cameras over HTTP: JPEGs with and without lengths, behind passwords, hostile ones, and MPEG-TS."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image as PilImage

from cmlr_edge import open_source
from cmlr_edge.capture.live import LiveSettings, LiveSource, SourceState
from cmlr_edge.capture.mjpeg import _end_of_picture
from cmlr_edge.capture.pattern import draw_pattern, read_number
from cmlr_edge.sinks.clips import remux
from tests.cmlr_edge import web
from tests.cmlr_edge.capture.ages import Watch
from tests.cmlr_edge.capture.films import write_film

Send = Callable[[BaseHTTPRequestHandler], None]
LIVE = LiveSettings(read_timeout_s=0.5, hang_timeout_s=1.5, backoff_first_s=0.05, backoff_max_s=0.1)


def jpeg(number: int) -> bytes:
    return bytes(cv2.imencode(".jpg", draw_pattern(number, (120, 160)))[1].tobytes())


@contextmanager
def serving(
    send: Send, *, content_type: str = "multipart/x-mixed-replace; boundary=cut"
) -> Iterator[str]:
    class Handler(web.Quiet):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                if content_type:
                    self.send_response(200)
                    self.send_header("Content-Type", content_type)
                    self.send_header("Connection", "close")
                    self.end_headers()
                send(self)
            except OSError:
                pass
            self.close_connection = True

    with web.serving(Handler) as port:
        yield f"127.0.0.1:{port}/video"


def frames_at(fps: float, *, with_length: bool, started_s: float) -> Send:
    def send(handler: BaseHTTPRequestHandler) -> None:
        number = int((time.monotonic() - started_s) * fps) + 1
        while True:
            time.sleep(max(0.0, started_s + number / fps - time.monotonic()))
            data = jpeg(number)
            length = f"Content-Length: {len(data)}\r\n" if with_length else ""
            head = f"--cut\r\nContent-Type: image/jpeg\r\n{length}\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")
            number += 1

    return send


@pytest.mark.slow
@pytest.mark.parametrize("with_length", [True, False])
@pytest.mark.parametrize("fps", [1, 5, 25])
def test_a_picture_is_new_though_the_next_one_is_far(fps: int, with_length: bool) -> None:
    started_s, watch = time.monotonic(), Watch()
    send = frames_at(fps, with_length=with_length, started_s=started_s)
    with serving(send) as place, open_source(f"http://{place}") as source:
        assert isinstance(source, LiveSource)
        ages: list[float] = []
        while len(ages) < (3 if fps == 1 else 12):
            assert time.monotonic() - started_s < 20
            if (frame := source.next_frame(0.2)) is not None:
                assert frame.status == "ok"
                age_s = time.monotonic() - started_s - read_number(frame.image_bgr) / fps
                ages.append(age_s - watch.longest_s())
    assert sorted(ages)[-2] < 0.3


def test_packets_without_times_are_kept_by_their_arrival(tmp_path: Path) -> None:
    send = frames_at(20, with_length=True, started_s=time.monotonic())
    with (
        serving(send) as place,
        open_source(f"http://{place}", keep_packets_s=1.0, policy="every") as source,
    ):
        frames = [frame for frame, _ in zip(source, range(12), strict=False)]
        ring, times_s = frames[0].ring, [frame.stream_s for frame in frames]
        assert ring is not None
        assert ring.codec == "mjpeg"
        begin_s, end_s = times_s[3], times_s[9]
        assert begin_s is not None
        assert end_s is not None
        packets = ring.finish(ring.excerpt(begin_s, end_s))
        path = tmp_path / "clip.mkv"
        path.write_bytes(remux(ring, packets, begin_s, end_s))
    with av.open(str(path)) as film:
        shown = [read_number(image.to_ndarray(format="bgr24")) for image in film.decode(video=0)]
    assert shown == [read_number(frame.image_bgr) for frame in frames[3:9]]


def read_some(uri: str, count: int = 3) -> list[int]:
    with open_source(uri, live=LIVE) as source:
        assert isinstance(source, LiveSource)
        got: list[int] = []
        until_s = time.monotonic() + 10
        while len(got) < count:
            assert time.monotonic() < until_s, source.reason
            if (frame := source.next_frame(0.2)) is not None:
                got.append(read_number(frame.image_bgr))
        return got


def test_an_address_with_letters_beyond_ascii_is_asked_for() -> None:
    asked: list[str] = []

    def send(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        all_at_once(handler)

    with serving(send) as place:
        assert read_some(f"http://{place}/küche?ü=%20")
    assert asked == ["/video/k%C3%BCche?%C3%BC=%20"]


def all_at_once(handler: BaseHTTPRequestHandler) -> None:
    for number in range(10_000):
        handler.wfile.write(b"--cut\r\n\r\n" + jpeg(number) + b"\r\n")
        time.sleep(0.02)


def test_the_password_is_sent_as_the_camera_asks_for_it() -> None:
    def basic(handler: BaseHTTPRequestHandler) -> None:
        given = handler.headers.get("Authorization", "")
        if given != "Basic " + base64.b64encode(b"admin:p@ss:w/rd").decode():
            refuse(handler, 'Basic realm="camera"')
            return
        accept(handler)

    def digest(handler: BaseHTTPRequestHandler) -> None:
        given = handler.headers.get("Authorization", "")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', given))
        one = hashlib.md5(b"admin:camera:p@ss:w/rd").hexdigest()
        two = hashlib.md5(f"GET:{fields.get('uri')}".encode()).hexdigest()
        if fields.get("response") != hashlib.md5(f"{one}:n1:{two}".encode()).hexdigest():
            refuse(handler, 'Digest realm="camera", nonce="n1"')
            return
        accept(handler)

    def refuse(handler: BaseHTTPRequestHandler, challenge: str) -> None:
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", challenge)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def accept(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
        handler.send_header("Connection", "close")
        handler.end_headers()
        all_at_once(handler)

    for way in (basic, digest):
        with serving(way, content_type="") as place:
            assert len(read_some(f"http://admin:p%40ss:w%2Frd@{place}")) == 3
            with open_source(f"http://admin:wrong@{place}", live=LIVE) as source:
                assert isinstance(source, LiveSource)
                wait_for_reason(source, "401")


def test_ways_of_asking_for_a_password_that_are_not_known_are_a_401() -> None:
    offered: list[str] = []

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Authorization") == "Basic " + base64.b64encode(b"me:pw").decode():
            handler.send_response(200)
            handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
            handler.send_header("Connection", "close")
            handler.end_headers()
            all_at_once(handler)
            return
        handler.send_response(401)
        for challenge in offered:
            handler.send_header("WWW-Authenticate", challenge)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with serving(refuse, content_type="") as place:
        for offered[:] in (["Bearer"], ["Negotiate", "NTLM"], ["Digest nonsense"]):
            with open_source(f"http://me:pw@{place}", live=LIVE) as source:
                assert isinstance(source, LiveSource)
                wait_for_reason(source, "401")
        offered[:] = ["Negotiate", 'Basic realm="camera"']
        assert len(read_some(f"http://me:pw@{place}")) == 3


def wait_for_reason(source: LiveSource, text: str) -> None:
    until_s = time.monotonic() + 10
    while text not in source.reason:
        assert time.monotonic() < until_s, source.reason
        assert source.next_frame(0.05) is None


HOSTILE: dict[str, tuple[bytes, bytes, str]] = {
    "a picture of 2 GB": (
        b"--cut\r\nContent-Length: 2000000000\r\n\r\n\xff\xd8",
        b"",
        "2000000000 bytes",
    ),
    "a picture without an end": (b"--cut\r\n\r\n\xff\xd8", bytes(2**16), "bytes or more"),
    "no picture": (b"--cut\r\n", b"a" * 2**16, "sends no JPEGs"),
    "a picture that drips": (b"--cut\r\n\r\n\xff\xd8", b"\0", "in time"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_server_costs_little_and_is_named(kind: str) -> None:
    start, more, word = HOSTILE[kind]

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(start)
        while more:
            handler.wfile.write(more)
            if len(more) == 1:
                time.sleep(0.1)
        time.sleep(5)

    live = LIVE if len(more) == 1 else replace(LIVE, hang_timeout_s=10.0)  # much takes its time
    with serving(send) as place, open_source(f"http://{place}", live=live) as source:
        assert isinstance(source, LiveSource)
        wait_for_reason(source, word)
        assert source.state is not SourceState.OK


def test_headers_without_end_are_one_short_reason() -> None:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 \x1b[31mfine\r\n")
        while True:
            handler.wfile.write(b"X: " + b"a" * 60_000 + b"\r\n")

    with (
        serving(send, content_type="") as place,
        open_source(f"http://{place}", live=LIVE) as source,
    ):
        assert isinstance(source, LiveSource)
        wait_for_reason(source, "cannot be opened")
        assert len(source.reason) < 300
        assert "\x1b" not in source.reason


def test_a_redirection_to_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", (tmp_path / "secret.jpg").as_uri())
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with (
        serving(send, content_type="") as place,
        open_source(f"http://{place}", live=LIVE) as source,
    ):
        assert isinstance(source, LiveSource)
        wait_for_reason(source, "cannot be opened")


def test_the_end_of_a_picture_is_found_behind_its_thumbnail_and_its_scans() -> None:
    thumbnail = io.BytesIO()
    PilImage.new("RGB", (16, 16)).save(thumbnail, "JPEG")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 1}):
        file = io.BytesIO()
        exif = b"Exif\0\0" + thumbnail.getvalue() + b"\0\0"
        PilImage.fromarray(noise).save(file, "JPEG", exif=exif, quality=90, **options)
        content = file.getvalue()
        for whole in (content, b"--cut\r\n\r\n" + content):
            assert _end_of_picture(bytearray(whole + b"\r\n--cut")) == len(whole)
            for length in range(0, len(whole), 7):
                assert _end_of_picture(bytearray(whole[:length])) is None


@pytest.mark.slow
def test_a_stream_joined_in_the_middle_begins_with_its_next_key_picture(tmp_path: Path) -> None:
    pictures = [draw_pattern(number, (120, 160)) for number in range(200)]
    options = {"g": "75", "bf": "0", "x264-params": "scenecut=0"}
    path = write_film(tmp_path / "a.ts", pictures, fps=25, options=options)
    content = path.read_bytes()
    part = len(content) // 200 // 188 * 188 + 188  # about a picture

    def send(handler: BaseHTTPRequestHandler) -> None:
        for at in range(20 * part, len(content), part):
            handler.wfile.write(content[at : at + part])
            time.sleep(0.04)

    live = replace(LIVE, hang_timeout_s=0.8)
    with (
        serving(send, content_type="video/mp2t") as place,
        open_source(f"http://{place}", live=live) as source,
    ):
        assert isinstance(source, LiveSource)
        frame = source.next_frame(10)
        assert frame is not None
        assert frame.status == "ok"
        assert 75 <= read_number(frame.image_bgr) < 100
        assert source.stats.reconnects == 0
