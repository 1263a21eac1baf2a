"""What is hidden of addresses, in messages and in names, and what stays for people."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import cv2
import pytest

from cmlr_edge import open_source
from cmlr_edge.capture.live import LiveSettings
from cmlr_edge.errors import CaptureError, SpecError
from cmlr_edge.redaction import redact, redact_paths, redact_source, source_name
from cmlr_edge.session.config import (
    EngineSettings,
    PageSettings,
    SessionConfig,
    SourceSettings,
    load_config,
)
from cmlr_edge.session.session import Session
from cmlr_edge.sinks.opening import SinkSettings
from tests.cmlr_edge.web import Quiet, serving
from tests.conftest import solid

SECRETS = [
    "rtsp://admin:hunter2@cam/stream",
    "rtsp://admin:p@ss:hunter2@cam:554/stream",
    "rtsp://admin:a/hunter2@cam/stream?x=1",
    "rtsp://admin:a?hunter2#x@cam/stream",
    "rtsp://hunter2@cam/stream",
    "RTSP://admin:with hunter2@cam/",
    "rtsp://admin:%68hunter2%40@[::1]:554/",
    "http://cam/video?user=admin&password=hunter2&x=1",
    "http://cam/video?x=1&access_token=hunter2",
    "http://cam/video?PWD=hunter2",
    "admin:hunter2@cam/stream",
    "rtsp:/admin:hunter2@cam/stream",
    "rtsp//admin:hunter2@cam/stream",
    "rtspsrc location=rtsp://cam/1 user-id=admin user-pw=hunter2 ! decodebin",
    "cannot open 'rtsp://admin:hunter2@cam/1': 401; tried http://root:hunter2@cam/2",
    "rtsp://admin:line\nhunter2@cam/",
    "https://server/hook?hunter2",
    "https://server/hook?k=1&anything=hunter2;other=hunter2",
    "https://server/hook?a=b#hunter2",
    "rtsp://cam/live/hunter2",
    "rtsp://cam/hunter2/live",
    "rtmp://cam/app/live_hunter2",
    "rtmp://cam/live/stream-hunter2-1",
    "https://cdn/hls/hunter2/index.m3u8",
    "https://cdn/live;jsessionid=hunter2",
    "https://cdn/live;jsessionid=hunter2/index.m3u8?x=1",
    "https://cdn;hunter2",
    "https://cdn/live#hunter2",
    "http://cam/test://hunter2?x",
    "http://cam//hunter2",
    "http://cam/%68hunter2",
    "rtspsrc location=rtsp://cam/live/hunter2 latency=100 ! decodebin",
    "tried rtsp://cam/hunter2, then (http://cam/hunter2): 404",
    "mine://place/hunter2",
    "mytest://place/hunter2",
    "S3://key:hunter2@bucket/x",
    "hf://user:hunter2@host/x",
    "hf://user:a/hunter2@host/x",
    "hf://hunter2@host/x",
    "hf://hunter2/a/b/c@host/x",
    "hf://owner/hunter2@x@host/x",
    "hf://owner/a@b,hunter2@host/x",
    "x-hf://owner/hunter2@host",
    "hf://owner/name@main/x, then rtsp://admin:with hunter2@cam/1",
    "hf://owner/name@main/x, then admin:hunter2@cam/1",
]


@pytest.mark.parametrize("text", SECRETS)
def test_no_password_survives_redaction(text: str) -> None:
    assert "hunter2" not in redact(text)
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://cam:554/stream",
        "is it there? no",
        "/dev/video0",
        "test://?fps=20",
        "a/b:c.mp4",
        "rtsp://nvr:554/Streaming/Channels/101",
        "rtsp://nvr/h264Preview_01_main",
        "rtsp://cam/axis-media/media.amp",
        "http://cam/axis-cgi/mjpg/video.cgi",
        "rtsp://cam/cam/realmonitor",
        "rtsp://cam/onvif1",
        "http://cdn/live_ch1_0.m3u8",
        "v4l2:///dev/video0",
        "mqtt://broker/house/door",
        "there is no s3://bucket/night/of the.jpg, nor gs://bucket/a1b2c3d4e5",
        "hf://datasets/owner/name/train-00000-of-00001.parquet",
        "rtspsrc location=rtsp://door/1 latency=100 ! decodebin",
        "C:\\x",
        "hf://datasets/owner/name@main/train.parquet",
        "hf://owner/name@refs/pr/1 and (HF://owner/name@refs%2Fpr%2F1/x.png): 404",
        "hf:/datasets/owner/name@main/train.parquet",
        "S3://bucket/night/of and MQTT://broker/house/door",
        "TEST://?fps=20",
    ],
)
def test_redaction_leaves_alone_what_holds_no_password(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "part", ["x", "a:", "://", "a@", "a:b@ ", "token=", "token", "?", 'pw="', "pass-", "a ", "&?="]
)
def test_a_message_without_end_is_cut_and_redacted_in_no_time(part: str) -> None:
    began_s = time.monotonic()
    found = redact(f"it says {part * (100_000 // len(part))} rtsp://admin:hunter2@cam")
    assert time.monotonic() - began_s < 0.5
    assert found.startswith("it says")
    assert "hunter2" not in found
    assert len(found) < 6000


def test_the_scheme_and_the_address_stay_readable() -> None:
    assert redact("rtsp://admin:hunter2@cam:554/1") == "rtsp://***@cam:554/1"
    assert redact("cannot post to '/hook?a=hunter2'") == "cannot post to '/hook?a=***"
    assert redact("mqtt://admin:p@ss:hunter2@broker/a") == "mqtt://***@broker/a"


@pytest.mark.parametrize(
    "number",
    ["1234", "123456", "123-456-789", "1/2345", "4.5.6.7.8.9", "ABCD", "cam12345", "live1234"],
)
def test_a_number_as_long_as_a_pin_is_none_of_a_channel(number: str) -> None:
    assert number not in redact(f"rtsp://cam/live/{number}")


@pytest.mark.parametrize("scheme", ["pkgs", "dvbs3", "xhf", "(https"])
def test_a_scheme_that_ends_as_a_storage_hides_its_path(scheme: str) -> None:
    assert "hunter2" not in redact(f"{scheme}://host/hunter2")


def test_an_address_that_became_a_path_is_hidden_however_long_the_message_is() -> None:
    assert "hunter2" not in redact_paths("cannot read 's3:/user:hunter2@host/x'")
    assert "hunter2" not in redact_paths("s3:/bucket/x?X-Amz-Signature=hunter2")
    assert redact_paths("cannot read /a/b@c, line 3") == "cannot read /a/b@c, line 3"
    started = time.thread_time()
    redact("hf:" * 1000 + "//a/" * 100)
    redact_paths("a" * 100_000)  # looked through from each letter it takes 15 s
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("cannot open C:/my films/a.mp4; write to me@home", None),
        ("C:/films/a@b.mp4", None),
        ("hf:/datasets/a/b@main/x", "hf://datasets/a/b@main/x"),
        ("C:/a.mp4 of s3:/user:hunter2@host/x", "C:/a.mp4 of s3://***@host/x"),
        ("C:/user:hunter2@host/1", "C://***@host/1"),
        ("C:/a.mp4?token=hunter2", "C://a.mp4?token=***"),
    ],
)
def test_a_drive_is_no_scheme(message: str, shown: str | None) -> None:
    assert redact_paths(message) == (shown or message)


def test_a_blank_in_an_address_ends_nothing() -> None:
    assert redact_source("rtsp://cam/with hunter2 in it/1") == "rtsp://cam/***/1"
    assert redact_source("v4l2src ! appsink") == "v4l2src ! appsink"
    assert source_name("my film token=a.mp4") == "my film token=a.mp4"


@pytest.mark.parametrize("uri", [text for text in SECRETS if "location" not in text])
def test_no_password_reaches_an_error_a_log_or_a_name(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = LiveSettings(open_timeout_s=0.3, first_frame_timeout_s=0.0)
    said = ""
    try:
        with open_source(uri.replace("cam", "127.0.0.1:9"), live=settings) as source:
            said = source.name
            list(source)
    except CaptureError as error:
        said += str(error)
    assert said
    assert "hunter2" not in said + caplog.text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('uri = "rtsp://camera/1"', 'uri = ["rtsp://u:hunter2@camera/hunter2"]'),
        ('uri = "rtsp://camera/1"', 'uri = 3\npassword = "hunter2"'),
        ("[page]", '[page]\ntoken = ["hunter2"]'),
    ],
)
def test_a_configuration_that_is_refused_tells_no_secret(
    tmp_path: Path, before: str, after: str
) -> None:
    path = tmp_path / "a.toml"
    text = '[engine]\npath = "model.onnx"\n[[sources]]\nname = "a"\nuri = "rtsp://camera/1"\n[page]\nport = 1\n'
    path.write_text(text.replace(before, after))
    with pytest.raises(SpecError) as caught:
        load_config(path)
    assert "hunter2" not in str(caught.value)


class Camera(Quiet):
    """Pictures one after another at any path."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
        self.end_headers()
        encoded = cv2.imencode(".jpg", solid(250, 5, 5))[1].tobytes()
        with suppress(OSError):
            for _ in range(600):
                self.wfile.write(b"--b\r\nContent-Type: image/jpeg\r\n\r\n" + encoded + b"\r\n")
                time.sleep(0.05)


@pytest.fixture
def camera() -> Iterator[str]:
    with serving(Camera) as port:
        yield f"http://admin:hunter2@127.0.0.1:{port}/live/hunter2;id=hunter2?x=hunter2#hunter2"


@pytest.mark.slow
def test_no_secret_of_an_address_reaches_outputs_the_page_or_metrics(
    camera: str, engine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sinks = tuple(SinkSettings(kind, str(tmp_path / kind)) for kind in ("jsonl", "events", "csv"))
    away = "rtsp://127.0.0.1:9/hunter2/live/1"
    config = SessionConfig(
        EngineSettings(path=str(engine)),
        sources=(SourceSettings(camera), SourceSettings(away)),
        sinks=sinks,
        page=PageSettings(port=0),
    )
    with Session(config) as session:
        session.streams.start()
        deadline_s = time.monotonic() + 30
        while not (status := session.status()[0]).frames:
            assert time.monotonic() < deadline_s, status
            time.sleep(0.05)
        base = session.page_url.rstrip("/")
        pages = [urlopen(base + path, timeout=10).read().decode() for path in ("/", "/api/state", "/api/events", "/metrics", "/healthz")]  # fmt: skip
        told = repr(session.status()) + repr(session.output_status())
        session.request_end()
        session.streams.wait(10)
    files = [path.read_text() for path in tmp_path.iterdir() if path.is_file()]
    everything = "".join([*pages, *files, told, caplog.text])
    assert "hunter2" not in everything
    name = re.sub(r"//.*?@(.*?)/.*", r"//***@\1/live/***;***?x=***#***", camera)
    assert name in (tmp_path / "jsonl").read_text()
    assert "rtsp://127.0.0.1:9/***/live/1" in told
