"""The live page's server, visited over real connections on loopback."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from cmlr_edge import Explain, Recognizer
from cmlr_edge.cli.words import split_name
from cmlr_edge.page.running import LiveServer
from tests.cmlr_edge.cli.command import COMMAND, run
from tests.cmlr_edge.page.live_page import (
    PATTERN,
    TOKEN,
    follow,
    get,
    get_json,
    post,
    serving,
    states,
)
from tests.cmlr_edge.pipeline.stand_ins import NanBackend, SlowBackend, recognizer_of
from tests.conftest import LABELS, Image, make_spec, mean_color_model
from tests.explained_engine import write_explained_engine
from tests.waiting import wait_until


def take_frame(viewer: ClientConnection) -> bytes:
    """Wait for the next frame."""
    while isinstance(packet := viewer.recv(timeout=20), str):
        pass
    return packet


def read_frame(packet: bytes) -> tuple[dict[str, Any], Image]:
    length = int.from_bytes(packet[:4], "big")
    return json.loads(packet[4 : 4 + length]), read_jpeg(packet[4 + length :])


def read_jpeg(content: bytes) -> Image:
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture.astype(np.uint8)


def ended_events(server: LiveServer) -> set[str]:
    """The labels whose events have ended."""
    return {event["label"] for event in get_json(server, "/api/events?lasting=false")}


def frames_of(server: LiveServer) -> int:
    """How many frames of the first source have a result."""
    return int(get_json(server, "/api/state")["sources"][0]["status"]["frames"])


def test_state_and_events_are_what_the_clip_shows(engine: Path, clip: Path) -> None:
    with serving(engine, {"clip": clip}, policy="newest") as server:
        wait_until(lambda: states(server) == ["ended"] and ended_events(server) == {"red", "blue"})
        state, events = get_json(server, "/api/state"), get_json(server, "/api/events")
        assert state["model"]["labels"] == list(LABELS)
        assert state["model"]["provider"] == "cpu"
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        assert state["machine"]["memory_total_bytes"] == pytest.approx(total, rel=0.1)
        (source,) = state["sources"]
        best = source["frame"]["scores"][0]
        assert best["label"] == "blue"
        assert best["score"] == pytest.approx(250 / 255, abs=0.02)
        assert best["threshold"] == 0.5
        assert {event["label"] for event in events} == {"red", "blue"}
        assert all(event["end_at"] >= event["start_at"] for event in events)
        only = get_json(server, "/api/events?label=red&lasting=false&source=clip")
        assert [event["label"] for event in only] == ["red"]
        assert get_json(server, "/api/events?lasting=true") == []
        status, headers, jpeg = get(server, "/api/sources/0/frame.jpg")
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        assert read_jpeg(jpeg).mean((0, 1)) == pytest.approx((250, 5, 5), abs=8)


def test_metrics_and_health_agree_with_the_state(page: LiveServer) -> None:
    before = get_json(page, "/api/state")["sources"][0]["status"]["frames"]
    _, headers, text = get(page, "/metrics")
    families = text_string_to_metric_families(text.decode())
    found = {(s.name, *sorted(s.labels.values())): s.value for f in families for s in f.samples}
    assert found["cmlr_frames_total", "door", "true"] >= before
    assert found["cmlr_source_ok", "yard"] == 1
    assert headers["content-type"].startswith("text/plain")
    assert get_json(page, "/healthz") == {"status": "ok", "sources": 2, "sources_ok": 2}


@pytest.mark.slow
def test_health_sees_a_lost_source_and_a_model_that_hangs() -> None:
    healthy = threading.Event()
    healthy.set()
    model = recognizer_of(SlowBackend(lambda _: healthy.wait(60)))
    sources = {"door": PATTERN, "lost": f"{PATTERN}&none=100:60"}
    with serving(model, sources, answered_within_s=0.5) as server:
        try:
            wait_until(lambda: get_json(server, "/healthz")["sources_ok"] == 2)
            wait_until(lambda: get_json(server, "/healthz")["status"] == "degraded")
            wait_until(lambda: get_json(server, "/healthz")["sources_ok"] == 1)
            healthy.clear()
            wait_until(lambda: get_json(server, "/healthz")["sources_ok"] == 0)
            assert states(server)[0] == "ok"
        finally:
            healthy.set()
        wait_until(lambda: get_json(server, "/healthz")["sources_ok"] == 1)


def test_a_viewer_gets_the_state_and_then_frames_with_every_score(page: LiveServer) -> None:
    with follow(page) as viewer:
        first = json.loads(viewer.recv(timeout=20))
        assert [source["status"]["name"] for source in first["sources"]] == ["door", "yard"]
        about, picture = read_frame(take_frame(viewer))
        assert picture.shape == {0: (96, 128, 3), 1: (240, 320, 3)}[about["source"]]
        # The tiny model's scores are the mean red, green and blue.
        means = picture.mean((0, 1))[::-1] / 255
        assert about["scores"] == pytest.approx(means, abs=0.03)


def count_frames(viewer: ClientConnection, seconds: float) -> int:
    """How many frames come in this time."""
    count, deadline = 0, time.monotonic() + seconds
    with suppress(TimeoutError):
        while (left := deadline - time.monotonic()) > 0:
            count += isinstance(viewer.recv(timeout=left), bytes)
    return count


def test_a_viewer_that_paints_nothing_gets_two_frames_and_no_more(engine: Path) -> None:
    with serving(engine, {"door": PATTERN}) as server, follow(server) as viewer:
        take_frame(viewer)
        take_frame(viewer)
        assert count_frames(viewer, 1.0) == 0
        for answer in ("0", "not a number", "99999", b"\xff"):
            viewer.send(answer)
        take_frame(viewer)
        assert count_frames(viewer, 1.0) == 0


@pytest.mark.slow
def test_viewers_that_stop_reading_never_slow_the_recognition(engine: Path) -> None:
    source = "test://?fps=30&frames=90&size=640x480"
    with ExitStack() as stack, serving(engine, {"door": source}, policy="every") as server:
        for _ in range(12):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            request = f"GET /api/sources/0/video HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n"
            connection.sendall(request.encode())
        # A camera that has ended may have frames under way.
        wait_until(lambda: states(server) == ["ended"] and frames_of(server) >= 90)
        assert frames_of(server) == 90
        stack.close()


def test_a_model_gone_wrong_leaves_valid_json() -> None:
    with (
        serving(Recognizer(NanBackend(), make_spec(mean_color_model())), {"x": PATTERN}) as server,
        follow(server) as viewer,
    ):
        wait_until(lambda: get_json(server, "/api/state")["sources"][0]["frame"])
        frame = get_json(server, "/api/state")["sources"][0]["frame"]
        assert frame["valid"] is False
        assert frame["scores"] == []
        assert read_frame(take_frame(viewer))[0]["scores"] == []


def test_mjpeg_serves_other_programs(page: LiveServer) -> None:
    capture = cv2.VideoCapture(f"{page.url}api/sources/0/video", cv2.CAP_FFMPEG)
    ok, picture = capture.read()
    capture.release()
    assert ok
    assert picture.shape == (96, 128, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/../state.py",
        "/../../../../../../../../etc/passwd",
        "/%2e%2e/%2e%2e/state.py",
        "/style.css/../../state.py",
        "/..%2fstate.py",
        "/page/index.html",
        "//etc/passwd",
        "/api/sources/..%2f..%2f0/frame.jpg",
        "/api/sources/-1/frame.jpg",
        "/api/sources/2/frame.jpg",
        "/api/sources/99999999999999999999/frame.jpg",
        "/docs",
    ],
)
def test_nothing_is_served_but_what_has_an_address(page: LiveServer, path: str) -> None:
    status, _, body = get(page, path)
    assert status in {404, 422}
    assert b"root:" not in body
    assert b"import" not in body


def test_the_page_names_no_other_host(page: LiveServer) -> None:
    for path in ("/", "/style.css", "/live.js", "/icon.svg"):
        status, _, body = get(page, path)
        assert status == 200
        text = body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "//cdn" not in text
        assert "http://" not in text
        assert "https://" not in text


@pytest.mark.parametrize("path", ["/api/state", "/api/events", "/metrics", "/api/openapi.json",
                                  "/api/sources/0/frame.jpg", "/api/sources/0/video", "/live.js"])  # fmt: skip
def test_nothing_is_told_without_the_token(guarded: LiveServer, path: str) -> None:
    wait_until(lambda: get(guarded, "/api/sources/0/frame.jpg", Authorization=f"Bearer {TOKEN}")[0] == 200)  # fmt: skip
    wrong = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"},
             {"Authorization": "Bearer t\xf6ken"}, {"Cookie": f"cmlr_token_{guarded.port}=wrong"},
             {"Cookie": "\x7f=;;="}]  # fmt: skip
    for headers in wrong:
        status, answer, body = get(guarded, path, **headers)
        assert status == 401
        assert answer["www-authenticate"] == "Bearer"
        assert b"door" not in body
    assert get(guarded, f"{path}?token={TOKEN}")[0] == 401  # an address is kept in too many places
    if not path.endswith("video"):  # which has no end
        assert get(guarded, path, Authorization=f"Bearer {TOKEN}")[0] == 200
        pair = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
        assert get(guarded, path, Authorization=f"Basic {pair}")[0] == 200


def test_a_token_in_the_form_becomes_a_cookie_and_one_in_the_address_nothing(
    guarded: LiveServer,
) -> None:
    status, _, body = get(guarded, "/")
    assert status == 401
    assert b'method="post"' in body
    assert b"not the token" not in body
    assert get(guarded, f"/?token={TOKEN}")[0] == 401
    status, _, body = post(guarded, "/login", "token=wrong")
    assert (status, b"not the token" in body) == (401, True)
    assert post(guarded, "/login", "\xff=%&&;")[0] == 401
    assert post(guarded, "/", f"token={TOKEN}")[0] == 401
    status, headers, _ = post(guarded, "/login", f"token={TOKEN}")
    assert (status, headers["location"]) == (303, "/")
    assert "httponly" in headers["set-cookie"].lower()
    assert TOKEN not in headers["set-cookie"]
    cookie = headers["set-cookie"].split(";")[0]
    assert get(guarded, "/", Cookie=cookie)[0] == 200
    with follow(guarded, Cookie=cookie) as viewer:
        assert viewer.recv(timeout=20)
    with pytest.raises(InvalidStatus):
        follow(guarded)
    assert get(guarded, "/", Host="camera.example", Cookie=cookie)[0] == 200
    assert get_json(guarded, "/healthz")["sources"] == 1


def test_a_source_may_be_given_a_name(clip: Path) -> None:
    odd = clip.rename(clip.with_name("a=b.avi"))
    given = ["door=test://?fps=5&size=128x96", "test://?fps=5", str(odd), f"my clip={odd}"]
    named = [split_name(text) for text in given]
    assert [name for name, _ in named] == ["door", "", "", "my clip"]
    assert named[0][1] == "test://?fps=5&size=128x96"
    assert [uri for _, uri in named[1:]] == ["test://?fps=5", str(odd), str(odd)]
    pipeline = "v4l2src device=/dev/video0 ! video/x-raw,format=BGR ! appsink"
    assert split_name(pipeline) == ("", pipeline)
    assert split_name(f"door={pipeline}") == ("door", pipeline)


@pytest.mark.slow
def test_serve_without_its_packages_says_what_to_install(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "fastapi.py").write_text("raise ImportError('no fastapi')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    done = run("serve", PATTERN, "--engine", engine)
    assert done.returncode == 2
    assert "cmlr-edge[serve]" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_with_its_viewers_and_open_events(
    engine: Path, tmp_path: Path, number: signal.Signals
) -> None:
    events = tmp_path / "events.jsonl"
    arguments = ["serve", "door=test://?fps=20", "--engine", engine, "--port", "0"]
    arguments += ["--threshold", "0.2", "--events", events]
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], text=True, stderr=subprocess.PIPE, env=os.environ
    )
    try:
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        player = cv2.VideoCapture(f"{url}api/sources/0/video", cv2.CAP_FFMPEG)
        assert player.read()[0]
        with connect(f"{url.replace('http', 'ws')}api/live", max_size=2**24) as viewer:
            wait_until(lambda: events.exists() and events.read_text().count('"start"') > 0)
            start = time.monotonic()
            process.send_signal(number)
            errors = process.communicate(timeout=20)[1]
            assert time.monotonic() - start < 5
            with pytest.raises(ConnectionClosed):
                count_frames(viewer, 20)
        player.release()
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    started = {line["id"] for line in lines if line["kind"] == "start"}
    assert started == {line["id"] for line in lines if line["kind"] == "end"}
    assert all(line["source"] == "door" for line in lines)


@pytest.mark.slow
def test_fuzzed_requests_never_break_the_server(page: LiveServer, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{page.url}api/openapi.json",
        "--max-examples", "10", "--seed", "1", "--phases", "examples,coverage,fuzzing",
        "--checks", "not_a_server_error,content_type_conformance,response_schema_conformance",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert get_json(page, "/healthz")["sources_ok"] == 2


def test_a_viewer_asks_why_of_one_label_and_gets_no_more_than_that(tmp_path: Path) -> None:
    engine = write_explained_engine(tmp_path / "explained")
    with serving(engine, {"door": PATTERN}, explain=Explain(40)) as server:
        assert get_json(server, "/api/state")["model"]["explains"]
        with follow(server) as viewer:
            about, _ = read_frame(take_frame(viewer))
            assert "why" not in about
            for text in ("why 99999 1", "why 0 999999", "why 0 1 2", "why -1 0", "why", "why 0 x"):
                viewer.send(text)
            viewer.send("why 0 2")
            why: dict[str, Any] = {}
            while why.get("label") != 2:
                about, _ = read_frame(take_frame(viewer))
                why = about.get("why", {})
                viewer.send("0")
            assert why["own"] + why["surroundings"] + why["bias"] == pytest.approx(
                why["logit"], abs=1e-3
            )
            assert set(about["flagged"]) <= {"red", "green", "blue"}
            viewer.send("why 0")
            while "why" in about:
                about, _ = read_frame(take_frame(viewer))
                viewer.send("0")
            for _ in range(50):  # no more frames than are painted
                viewer.send("why 0 1")
            assert count_frames(viewer, 1.0) <= 2


def test_of_an_engine_that_is_not_asked_nothing_is_told(page: LiveServer) -> None:
    assert not get_json(page, "/api/state")["model"]["explains"]
    with follow(page) as viewer:
        viewer.send("why 0 1")
        for _ in range(2):
            about, _ = read_frame(take_frame(viewer))
            assert not {"why", "flagged"} & {*about}
