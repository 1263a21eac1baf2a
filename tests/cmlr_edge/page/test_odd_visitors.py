"""Visitors who send many pictures at once, or ask for the headers alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from cmlr_edge.errors import OutputError
from cmlr_edge.page import looking
from cmlr_edge.page.running import LiveServer, MetricsServer
from tests.cmlr_edge.page.live_page import TOKEN, ask, follow, get, post
from tests.waiting import wait_until


def test_pictures_that_wait_hold_up_no_viewer(
    page: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go, begun = threading.Event(), list[object]()

    def hang(*given: Any, **_: Any) -> dict[str, str]:
        begun.append(given)
        may_go.wait(20)
        return {}

    monkeypatch.setattr(looking, "_WAIT_S", 30.0)
    monkeypatch.setattr(page._live.desk, "_told", hang)
    with ThreadPoolExecutor(40) as pool, follow(page) as viewer:
        sent = [pool.submit(post, page, "/api/recognize", b"x") for _ in range(40)]
        wait_until(lambda: len(begun) == 2)
        threading.Event().wait(0.3)  # for the others to wait
        try:
            for _ in range(6):
                viewer.recv(timeout=5)
        finally:
            may_go.set()
    assert {item.result()[0] for item in sent} == {200}


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/metrics", "/api/sources/0/frame.jpg", "/api/sources/0/video"]
)
def test_the_headers_alone_are_told_to_who_asks_for_them(page: LiveServer, path: str) -> None:
    status, headers, body = ask(page, "HEAD", path, None, {})
    assert (status, body) == (200, b"")
    if not path.endswith("video"):
        assert headers["content-type"] == get(page, path)[1]["content-type"]


def test_headers_of_what_is_refused_are_those_of_the_refusal(guarded: LiveServer) -> None:
    known = {"Authorization": f"Bearer {TOKEN}"}
    asked = [("/api/state", {}), ("/nothing", known), ("/api/recognize", known), ("/login", known)]
    statuses = [ask(guarded, "HEAD", path, None, given)[0] for path, given in asked]
    assert statuses == [401, 404, 405, 404]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_page_at_all_addresses_is_told_at_one_that_can_be_opened(host: str) -> None:
    try:
        server = MetricsServer(lambda: b"cmlr_frames 1\n", host=host, port=0, token=TOKEN)
    except OutputError as error:
        pytest.skip(f"no such addresses here: {error}")
    assert urlsplit(server.url).hostname not in {host, None}
    request = Request(f"{server.url}metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    with server, urlopen(request, timeout=10) as answer:
        assert answer.read() == b"cmlr_frames 1\n"
