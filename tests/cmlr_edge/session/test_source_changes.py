"""Sources that are added and removed by REST while a run goes on."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cmlr_edge.session import Session, SessionConfig
from cmlr_edge.session.config import EngineSettings, PageSettings, SourceSettings
from cmlr_edge.session.runner import Runner
from cmlr_edge.sinks.opening import SinkSettings
from tests.conftest import make_spec, mean_color_model, solid, write_engine, write_video

TOKEN = "a token of many letters"
FAST = "test://?fps=50&size=128x96"
Answer = tuple[int, Any]


class Visitor:
    """Asks the page of a session."""

    def __init__(self, session: Session) -> None:
        self.host = urlsplit(session.page_url).netloc

    def ask(self, method: str, path: str, value: Any = None, **headers: str) -> Answer:
        headers = {"Authorization": f"Bearer {TOKEN}"} | headers
        body = None if value is None else json.dumps(value)
        connection = http.client.HTTPConnection(self.host, timeout=40)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def sources(self) -> dict[str, Any]:
        return {s["status"]["name"]: s for s in self.ask("GET", "/api/state")[1]["sources"]}

    def wait_for(self, names: set[str]) -> dict[str, Any]:
        deadline_s = time.monotonic() + 30
        while True:
            found = self.sources()
            if set(found) == names and all(s["frame"] for s in found.values()):
                return found
            assert time.monotonic() < deadline_s, found
            time.sleep(0.05)


@contextmanager
def running(engine: Path, folder: Path, *, token: str | None = TOKEN) -> Iterator[Visitor]:
    config = SessionConfig(
        EngineSettings(path=str(engine)),
        (SourceSettings(FAST, "door"),),
        (SinkSettings("jsonl", path="lines.jsonl"),),
        page=PageSettings(port=0, token=token, source_folder="clips"),
    )
    with Session(config, folder=folder) as session:
        runner = Runner(session, until_over=False)
        thread = threading.Thread(target=runner.run)
        thread.start()
        try:
            yield Visitor(session)
        finally:
            runner.request_end()
            thread.join(20)
            assert not thread.is_alive()


def test_a_source_is_added_recognised_written_and_removed(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "street.avi", [solid(255, 0, 0)] * 10)
    with running(engine, tmp_path) as visitor:
        yard = {"name": "yard", "uri": "street.avi", "policy": "newest", "loop": True}
        status, added = visitor.ask("POST", "/api/sources", {**yard, "labels": ["red"]})
        assert (status, added) == (201, {"id": 1, "name": "yard"})
        found = visitor.wait_for({"door", "yard"})
        assert found["yard"]["labels"] == ["red"]
        status, answer = visitor.ask("POST", "/api/sources", yard)
        assert (status, "already" in answer["detail"]) == (422, True)
        assert visitor.ask("DELETE", "/api/sources/1")[0] == 204
        before = visitor.wait_for({"door"})["door"]["status"]["frames"]
        assert visitor.ask("DELETE", "/api/sources/1")[0] == 404
        status, again = visitor.ask("POST", "/api/sources", yard)
        assert (status, again["id"]) == (201, 2)  # an id is never given again
        assert visitor.wait_for({"door", "yard"})["door"]["status"]["frames"] >= before
        assert visitor.ask("DELETE", "/api/sources/0")[0] == 204
        status, answer = visitor.ask("DELETE", "/api/sources/2")
        assert (status, "only source" in answer["detail"]) == (409, True)
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert {line["source"] for line in lines} == {"door", "yard"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "should be an object"),
        ({"name": "x"}, "lacks ['uri']"),
        ({"name": "x", "uri": "rtsp://a/1", "surprise": 1}, "surprise"),
        ({"name": "x", "uri": "rtsp://a/1", "every": 0}, "every"),
        ({"name": "x", "uri": "rtsp://a/1", "labels": ["unicorn"]}, "unicorn"),
        ({"name": "x", "uri": "/etc/passwd"}, "source_folder"),
        ({"name": "x", "uri": "../secret.avi"}, "source_folder"),
        ({"name": "x", "uri": "link.avi"}, "source_folder"),
        ({"name": "x", "uri": "pipe"}, "no file"),
        ({"name": "x", "uri": "x" * 5000}, "there is no"),
        ({"name": "x", "uri": "album"}, "links out of source_folder"),
        ({"name": "x", "uri": "*.avi"}, "source_folder"),
        ({"name": "x", "uri": "."}, "source_folder"),
        ({"name": "x", "uri": "file:///etc/passwd"}, "rtsp://"),
        ({"name": "x", "uri": "test://"}, "rtsp://"),
        ({"name": "x", "uri": "v4l2:///dev/video0"}, "rtsp://"),
        ({"name": "x", "uri": "0"}, "source_folder"),
        ({"name": "x", "uri": "csi://0"}, "rtsp://"),
        ({"name": "x", "uri": "filesrc location=/etc/passwd ! appsink"}, "source_folder"),
        ({"name": "x", "uri": "rtsp://a/1 ! filesink location=/tmp/x ! appsink"}, "rtsp://"),
        ({"name": "x", "uri": "http://a/${file:/etc/passwd}"}, "secrets"),
        ({"name": "x", "uri": "http://a/${HOME}"}, "secrets"),
        ({"name": "../x", "uri": "rtsp://a/1"}, "name should be"),
        ({"name": "x\n", "uri": "rtsp://a/1"}, "printable"),
        ({"name": "", "uri": "rtsp://a/1"}, "name should be"),
        ({"name": "x" * 65, "uri": "rtsp://a/1"}, "name should be"),
        ({"name": "x", "uri": "http://:99999/"}, "99999"),
    ],
)
def test_what_may_not_be_added_is_refused_and_the_run_goes_on(
    settings: Any, message: str, visitor: Visitor
) -> None:
    status, answer = visitor.ask("POST", "/api/sources", settings)
    assert status == 422
    assert message in answer["detail"]
    assert "root:" not in answer["detail"]
    assert set(visitor.sources()) == {"door"}


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    folder = tmp_path_factory.mktemp("run")
    (folder / "clips").mkdir()
    (folder / "secret.avi").write_bytes(b"")
    (folder / "clips" / "link.avi").symlink_to(folder / "secret.avi")
    os.mkfifo(folder / "clips" / "pipe")
    (folder / "clips" / "album").mkdir()
    (folder / "clips" / "album" / "one.jpg").symlink_to(folder / "secret.avi")
    (folder / "engine").mkdir()
    content = mean_color_model()
    engine = write_engine(folder / "engine", content, make_spec(content))
    with running(engine, folder) as found:
        yield found


def test_other_sites_and_visitors_without_the_token_change_nothing(visitor: Visitor) -> None:
    camera = {"name": "x", "uri": "rtsp://127.0.0.1:9/1"}
    assert visitor.ask("POST", "/api/sources", camera, Authorization="Bearer wrong")[0] == 401
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null"):
        assert visitor.ask("POST", "/api/sources", camera, Origin=origin)[0] == 403
        assert visitor.ask("DELETE", "/api/sources/0", Origin=origin)[0] == 403
    assert visitor.ask("POST", "/api/sources", {**camera, "name": "y" * 70_000})[0] == 413
    assert visitor.ask("DELETE", "/api/sources/-1")[0] == 404
    assert set(visitor.sources()) == {"door"}


def test_without_a_token_nobody_changes_sources(engine: Path, tmp_path: Path) -> None:
    with running(engine, tmp_path, token=None) as visitor:
        status, answer = visitor.ask("POST", "/api/sources", {"name": "x", "uri": "rtsp://a/1"})
        assert (status, "give --token" in answer["detail"]) == (403, True)
        assert visitor.ask("DELETE", "/api/sources/0")[0] == 403
