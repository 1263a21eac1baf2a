"""A colour that is only under a mask leaves by no output: an output that is not named here fails the test."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from websockets.sync.client import connect

from cmlr_edge.page.app import create_app
from cmlr_edge.session import Session, SessionConfig
from cmlr_edge.session.config import EngineSettings, PageSettings, SourceSettings
from cmlr_edge.session.editing import SourceEditing
from cmlr_edge.sinks.collect import CollectSettings
from cmlr_edge.sinks.opening import _KINDS, SinkSettings
from tests.cmlr_edge.capture.films import write_film
from tests.cmlr_edge.page.live_page import get, post
from tests.cmlr_edge.sinks.broker import Broker
from tests.cmlr_edge.sinks.receiver import Receiver
from tests.conftest import Image, make_spec, mean_color_model, write_engine
from tests.waiting import wait_until

RIGHT = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
HEADS = {b"\xff\xd8\xff": None, b"\x89PNG": None, b"RIFF": None}  # JPEG, PNG, WebP and AVI
FILMS = (b"ftyp", b"\x1a\x45\xdf\xa3")  # MP4, Matroska


def secret(image: Image) -> int:
    """How green the greenest pixel is; outside the mask nothing is."""
    pixels = image.astype(int)
    return int((pixels[..., 1] - pixels[..., [0, 2]].max(axis=2)).max())


def pictures_in(stream: bytes, folder: Path) -> list[Image]:
    """Every picture in a stream of bytes, be it a film, a part of something, or Base64 in a text."""
    found: list[Image] = []
    if any(mark in stream[:16] for mark in FILMS) or stream[:4] == b"RIFF":
        path = folder / "stream"
        path.write_bytes(stream)
        with av.open(str(path)) as film:
            found += [frame.to_ndarray(format="bgr24") for frame in film.decode(video=0)]
        return found
    for head in HEADS:
        at = stream.find(head)
        while at >= 0:
            data = np.frombuffer(stream, np.uint8, offset=at)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
            found += [] if image is None else [np.asarray(image, np.uint8)]
            at = stream.find(head, at + 3)
    for text in re.findall(rb"[A-Za-z0-9+/]{200,}={0,2}", stream):
        inner = base64.b64decode(text[: len(text) // 4 * 4])
        if any(inner.startswith(head) for head in HEADS):
            found += pictures_in(inner, folder)
    return found


@dataclass
class Run:
    """What a session wrote and answered, while the masked half of its one source was green."""

    folder: Path
    server: Any = None
    streams: dict[str, list[bytes]] = field(default_factory=dict)

    def answered(self, path: str) -> list[bytes]:
        status, _, body = get(self.server, path)
        assert status == 200, path
        return [body]


def files(pattern: str) -> Callable[[Run], list[bytes]]:
    return lambda run: [path.read_bytes() for path in run.folder.glob(pattern) if path.is_file()]


def told(name: str) -> Callable[[Run], list[bytes]]:
    return lambda run: run.streams[name]


def answer(path: str) -> Callable[[Run], list[bytes]]:
    return told(path)


# Where an output's bytes are, and whether there have to be pictures among them.
PICTURES: dict[str, Callable[[Run], list[bytes]]] = {
    "overlay": files("o.mp4"),
    "contact_sheet": files("s.png"),
    "snapshots": files("snapshots/*/*"),
    "collect": files("frames/*/*"),
    "/api/sources/{source_id}/frame.jpg": told("frame"),
    "/api/sources/{source_id}/video": told("video"),
    "/api/live": told("live"),
    "/api/events/{visit_id}/{what}": told("evidence"),
}
OTHERS: dict[str, Callable[[Run], list[bytes]]] = {
    "jsonl": files("lines.jsonl"),
    "events": files("events.jsonl"),
    "csv": files("table.csv"),
    "mqtt": told("mqtt"),
    "webhook": told("webhook"),
    "/api/recognize": told("recognize"),
    "/api/state": told("/api/state"),
    "/api/events": told("/api/events"),
    "/metrics": told("/metrics"),
    "/healthz": told("/healthz"),
    "/api/sources/{source_id}/settings": told("settings"),
}
NONE = {"clips": files("clips/**/*")}  # packets cannot be painted over: there are none
CHANGES = {"/api/sources", "/api/sources/{source_id}"}  # answered with an id and a name
FIXED = {
    "/",
    "/style.css",
    "/live.js",
    "/events.js",
    "/small.js",
    "/edit.js",
    "/shapes.js",
    "/icon.svg",
    "/api/openapi.json",
}


def converse(run: Run, url: str) -> None:
    """Ask the page for everything it gives."""
    run.streams["frame"] = run.answered("/api/sources/0/frame.jpg")
    run.streams["settings"] = run.answered("/api/sources/0/settings")
    for path in ("/api/state", "/api/events", "/metrics", "/healthz"):
        run.streams[path] = run.answered(path)
    visits = json.loads(run.streams["/api/events"][0])
    assert {visit["label"] for visit in visits} == {"red"}  # nor does the model see the other half
    run.streams["evidence"] = run.answered(f"/api/events/{visits[0]['id']}/picture")
    assert get(run.server, f"/api/events/{visits[0]['id']}/clip")[0] == 404
    sent = bytes(cv2.imencode(".png", np.full((40, 40, 3), 99, np.uint8))[1].tobytes())
    run.streams["recognize"] = [post(run.server, "/api/recognize?scores=1", sent)[2]]
    with connect(f"{url.replace('http', 'ws')}api/live", max_size=2**24) as viewer:
        messages = [viewer.recv(timeout=10) for _ in range(2)]
    run.streams["live"] = [item if isinstance(item, bytes) else item.encode() for item in messages]


def follow_video(run: Run, port: int) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", port), 10) as caller:
        caller.sendall(b"GET /api/sources/0/video HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        body, until_s = b"", time.monotonic() + 1
        while time.monotonic() < until_s:
            body += caller.recv(2**16)
            if body.count(b"\xff\xd9") > 0:
                break
    run.streams["video"] = [body]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("masked")
    content = mean_color_model()
    engine = write_engine(folder, content, make_spec(content))
    image = np.zeros((80, 160, 3), np.uint8)
    image[:, :80, 2], image[:, 80:, 1] = 250, 250
    film = write_film(folder / "film.mp4", [image] * 30)
    receiver, run = Receiver(), Run(folder)
    broker = Broker(folder) if shutil.which("mosquitto") else None
    given = {
        "jsonl": "lines.jsonl", "events": "events.jsonl", "csv": "table.csv", "overlay": "o.mp4",
        "contact_sheet": "s.png", "snapshots": "snapshots", "clips": "clips",
    }  # fmt: skip
    sinks = [SinkSettings(kind, path=str(folder / name)) for kind, name in given.items()]
    sinks.append(SinkSettings("webhook", url=receiver.url))
    every = CollectSettings(random_share=1.0)
    sinks.append(SinkSettings("collect", path=str(folder / "frames"), collect=every))
    if broker is not None:
        broker.start()
        broker.subscriber.connect_async("127.0.0.1", broker.port)
        broker.subscriber.loop_start()
        assert broker.subscribed.wait(20)
        url = f"mqtt://127.0.0.1:{broker.port}/door"
        sinks.append(SinkSettings("mqtt", url=url, home_assistant="homeassistant"))
    source = SourceSettings(
        str(film), "door", masks=(RIGHT,), thresholds={"red": 0.2, "green": 0.35}
    )
    config = SessionConfig(
        EngineSettings(path=str(engine)), (source,), tuple(sinks), page=PageSettings(port=0)
    )
    with Session(config) as session:
        run.server = SimpleNamespace(port=int(session.page_url.rstrip("/").rpartition(":")[2]))
        session.take_changes(SourceEditing(session, None, None))
        session.streams.start()
        assert session.streams.wait(60)
        wait_until(lambda: [*folder.glob("snapshots/*/*.jpg")])
        converse(run, session.page_url)
        follow_video(run, run.server.port)
    assert session.lost == 0
    run.streams["webhook"] = receiver.bodies
    receiver.close()
    if broker is not None:
        broker.subscriber.disconnect()
        broker.subscriber.loop_stop()
        broker.stop()
        run.streams["mqtt"] = [text.encode() for _, text in broker.seen]
    return run


def test_every_output_and_every_address_is_looked_at() -> None:
    """Name a new one in `PICTURES`, or in `OTHERS` if it is to hold none."""
    given = create_app(SimpleNamespace()).routes  # type: ignore[arg-type]
    parts = [
        getattr(route, "original_router", None) for route in given
    ]  # where they are kept apart
    routes = [*given, *(route for part in parts if part is not None for route in part.routes)]
    addresses = {str(path) for route in routes if (path := getattr(route, "path", ""))}
    own = {
        path for path in addresses if not path.startswith("/v2")
    }  # KServe's: of visitors' pictures
    assert {*_KINDS} | own == {*PICTURES, *OTHERS, *NONE} | FIXED | CHANGES


@pytest.mark.parametrize("output", [*PICTURES, *OTHERS, *NONE])
def test_what_is_masked_leaves_by_no_output(masked: Run, tmp_path: Path, output: str) -> None:
    if output == "mqtt" and "mqtt" not in masked.streams:
        pytest.skip("mosquitto is not installed, so MQTT IS NOT TESTED: apt install mosquitto")
    streams = (PICTURES | OTHERS | NONE)[output](masked)
    found = [image for stream in streams for image in pictures_in(stream, tmp_path)]
    assert bool(streams) is (output not in NONE)
    for image in found:
        assert secret(image) < 90
        assert image[..., 2].max() > 200  # the other half is there
    assert bool(found) is (output in PICTURES)


def test_the_search_finds_what_it_should(tmp_path: Path) -> None:
    """A test that could not find a leak would hold nothing."""
    image = np.zeros((40, 40, 3), np.uint8)
    image[..., 1] = 250
    jpeg = bytes(cv2.imencode(".jpg", image)[1].tobytes())
    film = write_film(tmp_path / "f.mp4", [image] * 3).read_bytes()
    text = json.dumps({"picture": base64.b64encode(jpeg).decode()}).encode()
    for stream in (jpeg, b"--frame\r\n" + jpeg + b"\r\n--frame" + jpeg, film, text):
        leaks = pictures_in(stream, tmp_path)
        assert leaks
        assert min(map(secret, leaks)) > 150
