"""Visitors who want nothing but to be in the way, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from logging.handlers import BufferingHandler
from pathlib import Path

import pytest
import uvicorn
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from cmlr_edge.errors import OutputError
from cmlr_edge.page import connections
from cmlr_edge.page.connections import FOR_HEALTH, MAX_CONNECTIONS, MAX_PER_ADDRESS, RareLines
from cmlr_edge.page.running import LiveServer, MetricsServer
from tests.cmlr_edge.page.live_page import get, get_json, post, serving
from tests.waiting import wait_until

TOKEN = "a-token-of-some-length"


@pytest.fixture
def page(engine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    monkeypatch.setattr(connections, "REQUEST_S", 1.0)
    with serving(engine, {"door": "test://?fps=5&size=128x96"}) as server:
        yield server


@pytest.fixture
def patient(engine: Path) -> Iterator[LiveServer]:
    with serving(engine, {"door": "test://?fps=5&size=128x96"}, token=TOKEN) as server:
        yield server


def visit(server: LiveServer, number: int = 1) -> socket.socket:
    """A connection from the loopback address of that number."""
    return socket.create_connection(("127.0.0.1", server.port), 20, (f"127.0.0.{number}", 0))


def crowd(server: LiveServer, stack: ExitStack, count: int, addresses: int) -> list[socket.socket]:
    """So many idle visits, in parties that fit into the queue: whom it has no room for tries again a second later."""
    idle = []
    for number in range(count):
        idle.append(stack.enter_context(visit(server, number % addresses + 1)))
        if number % 50 == 49:
            assert get(server, "/healthz")[0] == 200
    return idle


def is_closed(connection: socket.socket, within_s: float) -> bool:
    """Whether the server hangs up; what it says until then is thrown away."""
    deadline_s = time.monotonic() + within_s
    with suppress(ConnectionError):
        while (left_s := deadline_s - time.monotonic()) > 0:
            connection.settimeout(left_s)
            try:
                if not connection.recv(2**16):
                    return True
            except TimeoutError:
                return False
        return False
    return True


def count_open(visitors: list[socket.socket]) -> int:
    """How many the server has not hung up on, a moment later."""
    threading.Event().wait(0.2)
    return sum(not is_closed(visitor, 1e-4) for visitor in visitors)


@pytest.mark.slow
@pytest.mark.parametrize("addresses", [1, 50, 200])
def test_idle_connections_keep_nobody_out(patient: LiveServer, addresses: int) -> None:
    with ExitStack() as stack:
        idle = crowd(patient, stack, 300, addresses)
        slowest_s = 0.0
        for _ in range(20):
            began_s = time.monotonic()
            assert get_json(patient, "/healthz")["sources"] == 1
            assert get(patient, "/", Authorization=f"Bearer {TOKEN}")[0] == 200
            slowest_s = max(slowest_s, time.monotonic() - began_s)
        assert slowest_s < 2
        most = MAX_PER_ADDRESS if addresses == 1 else MAX_CONNECTIONS
        assert count_open(idle) <= most


@pytest.mark.slow
def test_more_connections_than_files_may_be_open_neither_stop_the_server_nor_fill_the_log(
    patient: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this user may not open 4096 files, so A FLOOD IS NOT TESTED")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))  # both ends are in this process
    try:
        with ExitStack() as stack:
            idle = crowd(patient, stack, 1500, 200)
            resource.setrlimit(resource.RLIMIT_NOFILE, (1600, hard))
            with suppress(OSError):
                idle += [stack.enter_context(visit(patient, i % 200 + 1)) for i in range(1500)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
            assert get_json(patient, "/healthz")["sources"] == 1
            assert any(count_open(idle[:1000]) == 0 for _ in range(10))  # within a while
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(caplog.records) <= 10
    assert "Traceback" not in caplog.text


def test_a_visitor_who_is_served_is_never_displaced_and_health_is_told_beyond(
    patient: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 6)
    url = f"ws://127.0.0.1:{patient.port}/api/live"
    token = {"Authorization": f"Bearer {TOKEN}"}
    with ExitStack() as stack:
        viewers = [
            stack.enter_context(connect(url, additional_headers=token, max_size=2**24))
            for _ in range(6)
        ]
        assert get(patient, "/healthz")[0] == 200
        status, headers, _ = get(patient, "/", **token)
        assert (status, headers["retry-after"]) == (503, "10")
        with pytest.raises(InvalidStatus):
            connect(url, additional_headers=token, max_size=2**24)
        idle = [stack.enter_context(visit(patient)) for _ in range(40)]
        assert get(patient, "/healthz")[0] == 200
        assert count_open(idle) <= FOR_HEALTH
        for viewer in viewers:
            assert viewer.recv(timeout=20)


SLOW = {
    "nothing": (b"", b""),
    "a request line": (b"GET / HT", b"T"),
    "a header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"x"),
    "headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X-A: 1\r\n"),
    "a form": (b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n", b"x"),
    "a body that nobody wants": (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n", b"x"),
    "line breaks": (b"\r\n", b"\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("what", SLOW)
def test_a_request_that_comes_drop_by_drop_is_given_up_in_its_time(
    page: LiveServer, what: str
) -> None:
    begin, drop = SLOW[what]
    over = threading.Event()
    with visit(page) as connection:
        connection.sendall(begin)

        def drip() -> None:
            with suppress(OSError):
                while drop and not over.wait(0.1):
                    connection.sendall(drop)

        dripping = threading.Thread(target=drip)
        dripping.start()
        began_s = time.monotonic()
        assert is_closed(connection, 5)
        over.set()
        dripping.join()
        assert time.monotonic() - began_s < 3
    assert get(page, "/healthz")[0] == 200


def test_a_visitor_who_asks_again_and_again_has_time_for_each_request(page: LiveServer) -> None:
    with visit(page) as connection:
        for _ in range(4):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while b"}" not in answer:
                more = connection.recv(2**16)
                assert more
                answer += more
            threading.Event().wait(0.4)
        assert is_closed(connection, 5)


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000, b"400"),
        (b"GET /" + b"x" * 200_000, b"400"),
        (b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 9999, b"413"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),  # TLS
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", b"200"),
    ],
    ids=["header", "address", "body", "chunks", "negative", "TLS", "upgrade"],
)  # fmt: skip
def test_what_is_too_large_or_no_request_is_refused(
    page: LiveServer, request_text: bytes, status: bytes
) -> None:
    with visit(page) as connection:
        with suppress(ConnectionError):
            connection.sendall(request_text)
        with suppress(ConnectionError):
            assert status in (connection.recv(64) or status)
        assert is_closed(connection, 8)
    assert get(page, "/healthz")[0] == 200


def test_requests_sent_ahead_are_answered_one_by_one(page: LiveServer) -> None:
    with visit(page) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        seen = b""
        while seen.count(b" 200 OK") < 50 and (more := connection.recv(2**16)):
            seen += more
    assert seen.count(b" 200 OK") == 50


def test_a_visitor_who_does_not_read_is_given_up(
    page: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_STALL_S", 1.0)
    wait_until(lambda: get(page, "/api/sources/0/frame.jpg")[0] == 200)
    with visit(page) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        with suppress(OSError):  # answers that nobody takes
            for _ in range(4000):
                connection.settimeout(5)
                connection.sendall(b"GET /live.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: is_closed(connection, 0.2))


def test_visitors_that_hang_up_at_once_leave_no_line_in_the_log(
    page: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for number in range(200):
        with visit(page) as connection:
            if number % 2:
                connection.sendall(b"rubbish\r\n\r\n")
            reset = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    assert get(page, "/healthz")[0] == 200
    assert len(caplog.records) <= 6


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.168.1.5", "192.168.1.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:10.0.0.7", "::ffff:10.0.0.7"),
        ("::1", "::/64"),
    ],
)
def test_a_visitor_of_ipv6_counts_by_its_network(host: str, network: str) -> None:
    assert connections.network_of(host) == network


def test_metrics_for_others_ask_for_the_token() -> None:
    with pytest.raises(OutputError, match=r"\[metrics\] host 0.0.0.0 .*token"):
        MetricsServer(lambda: b"", host="0.0.0.0", port=0, token=None)
    server = MetricsServer(lambda: b"cmlr_frames 1\n", host="0.0.0.0", port=0, token=TOKEN)
    with server:
        assert get(server, "/metrics")[0] == 401
        assert get(server, f"/metrics?token={TOKEN}")[0] == 401
        assert post(server, "/metrics", "x" * 5000)[0] == 413
        status, _, text = get(server, "/metrics", Authorization=f"Bearer {TOKEN}")
        assert (status, text) == (200, b"cmlr_frames 1\n")


def test_a_web_socket_that_sends_no_text_as_text_leaves_no_traceback(
    page: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(f"ws://localhost:{page.port}/api/live") as socket:
        socket.send(b"\xff\xfe", text=True)
        with pytest.raises(ConnectionClosedError):
            list(socket)
    assert get(page, "/healthz")[0] == 200
    assert "Invalid UTF-8" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_request_that_breaks_while_it_is_answered_leaves_no_traceback(
    patient: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for size in (b"ZZ", b"-1", b"F" * 40, b""):
        with visit(patient) as connection:
            connection.sendall(head + size + b"\r\nabc\r\n")
            assert is_closed(connection, 8)
    assert get(patient, "/healthz")[0] == 200
    assert "Traceback" not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)


def test_visitors_who_are_cut_off_at_the_end_are_no_line_in_the_log() -> None:
    config = uvicorn.Config(
        lambda _scope, _receive, _send: None,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=0,
    )
    config.load()
    server = uvicorn.Server(config)
    server.servers, server.lifespan = [], config.lifespan_class(config)
    log, handler = logging.getLogger("uvicorn.error"), BufferingHandler(100)
    handler.addFilter(RareLines())
    handler.setLevel(logging.WARNING)  # as the page has it

    async def end() -> None:
        server.server_state.tasks.add(asyncio.create_task(asyncio.sleep(60)))
        await server.shutdown()
        log.error("another line")

    log.addHandler(handler)
    try:
        asyncio.run(end())
    finally:
        log.removeHandler(handler)
    assert [record.getMessage() for record in handler.buffer] == ["another line"]
