"""A live page on a free port, for tests that visit it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from cmlr_edge import Explain, Recognizer, open_source
from cmlr_edge.capture import Policy
from cmlr_edge.page.running import LiveServer, Server
from cmlr_edge.page.state import LiveState
from cmlr_edge.pipeline import Streams, StreamsSettings

Answer = tuple[int, dict[str, str], bytes]
TOKEN = "a-token-of-some-length"
PATTERN = "test://?fps=20&size=128x96"


@contextmanager
def serving(
    engine: Path | Recognizer,
    sources: Mapping[str, str | Path],
    *,
    token: str | None = None,
    policy: Policy = "newest",
    answered_within_s: float = 10.0,
    explain: Explain | None = None,
) -> Iterator[LiveServer]:
    """Recognise sources, given by name, and serve their page."""
    with ExitStack() as stack:
        recognizer = Recognizer.from_engine(engine) if isinstance(engine, Path) else engine
        stack.enter_context(recognizer)
        streams = stack.enter_context(Streams(recognizer, StreamsSettings(explain=explain)))
        live = LiveState(streams, recognizer, answered_within_s=answered_within_s, explain=explain)
        for name, source in sources.items():
            live.watch(name)
            opened = open_source(source, policy=policy)
            streams.add(opened, name=name, sinks=[live.visits, live.metrics.of_source(name)])
        server = LiveServer(live, token=token)
        stack.enter_context(server)
        streams.start()
        yield server


def get(server: Server, path: str, **headers: str) -> Answer:
    """Ask for `path` exactly as it is written; no client tidies it up."""
    return ask(server, "GET", path, None, headers)


def post(server: Server, path: str, body: str | bytes, **headers: str) -> Answer:
    """Send a form, or anything else."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return ask(server, "POST", path, body, form | headers)


def ask(
    server: Server, method: str, path: str, body: str | bytes | None, headers: Mapping[str, str]
) -> Answer:
    """Send anything."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(
            method, path, body, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, answer.read()
    finally:
        connection.close()


def get_json(server: Server, path: str, **headers: str) -> Any:
    status, _, body = get(server, path, **headers)
    assert status == 200, body
    return json.loads(body)


def states(server: LiveServer) -> list[str]:
    return [item["status"]["state"] for item in get_json(server, "/api/state")["sources"]]


def follow(server: LiveServer, **headers: str) -> ClientConnection:
    url = f"ws://127.0.0.1:{server.port}/api/live"
    return connect(url, additional_headers=headers, max_size=2**24, open_timeout=20)
