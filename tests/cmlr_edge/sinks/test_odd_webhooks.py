"""Web servers that answer in ways of their own: hints before an answer, pauses, redirects, moods."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from email.message import Message
from email.utils import formatdate
from http.client import UnknownProtocol
from urllib.parse import urlsplit

import pytest

from cmlr_edge.errors import OutputError
from cmlr_edge.sinks.tls import reason_of
from cmlr_edge.sinks.webhook import Webhook, _pause_of
from tests.cmlr_edge.sinks.results import of_events
from tests.cmlr_edge.sinks.samples import event

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[str, list[float]]]:
    """A server that answers each request with the next of these; its address, and when it was asked."""
    asked_s: list[float] = []

    def serve(server: socket.socket) -> None:
        with suppress(OSError):
            for answer in answers:
                peer, _ = server.accept()
                with peer:
                    said = b""
                    while b'"run"' not in said:  # the end of the event
                        said += peer.recv(65536)
                    asked_s.append(time.monotonic())
                    peer.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/hook", asked_s
        server.shutdown(socket.SHUT_RDWR)


def test_what_comes_before_an_answer_is_none() -> None:
    with answering(EARLY * 2 + OK, b"HTTP/1.1 102 Processing\r\n\r\n" + OK) as (url, asked_s):
        hook = Webhook(url)
        hook.write(of_events(event(0), event(1)))
        hook.close()
    assert len(asked_s) == hook.attempts == 2


def test_a_server_that_asks_for_a_pause_is_left_alone() -> None:
    busy = b"HTTP/1.1 429 Too Many\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    with answering(busy, OK) as (url, asked_s):
        hook = Webhook(url, random=lambda: 0.0)
        hook.write(of_events(event(0)))
        hook.close()
    assert asked_s[1] - asked_s[0] >= 1.0


def test_a_pause_is_read_from_seconds_or_a_date_and_bounded() -> None:
    def pause_s(text: str) -> float:
        headers = Message()
        headers["Retry-After"] = text
        return _pause_of(headers)

    assert [pause_s("7"), pause_s("9" * 500)] == [7, 60]
    dates = [formatdate(time.time() + ahead_s, usegmt=True) for ahead_s in (50, -50, 1e8)]
    assert 1 <= pause_s(dates[0]) <= 50
    assert [pause_s(date) for date in dates[1:]] == [0, 60]
    odd = ("", "-3", "soon", "1.5", "nan", "Mon, 99 Foo 2026 25:00:00")
    assert {pause_s(text) for text in odd} == {0}


def test_a_server_of_moods_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    bad = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
    with answering(*[bad, OK] * 8) as (url, _):
        hook = Webhook(url, random=lambda: -1.0)
        hook.write(of_events(*map(event, range(8))))
        hook.close()
    assert hook.attempts == 16
    assert len(caplog.messages) == 5


def test_a_redirect_is_told_with_what_helps(caplog: pytest.LogCaptureFixture) -> None:
    with answering(b"HTTP/1.1 308 Moved\r\nLocation: file:///etc/passwd\r\n\r\n") as (url, _):
        hook = Webhook(url)
        hook.write(of_events(event(0)))
        with pytest.raises(OutputError, match="1 event not delivered"):
            hook.close()
    assert "answered 308, which leads elsewhere: give that address" in caplog.text


def test_a_certificate_that_the_clock_refuses_is_told_with_the_time() -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = 9, "certificate is not yet valid"
    assert f"not yet valid; by this machine's clock it is {time.strftime('%Y-')}" in reason_of(
        error
    )
    error.verify_code, error.verify_message = 62, "Hostname mismatch"
    assert "see ca_file and the name" in reason_of(error)
    assert reason_of(UnknownProtocol("HTTP/2")) == "what answers there speaks no HTTP/1.1"


def test_a_host_whose_first_address_is_dead_gets_the_event_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        dead = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # nobody accepts: whoever comes next waits
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(dead.getsockname())
        url, asked_s = stack.enter_context(answering(OK, OK))
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
            for port in (dead.getsockname()[1], urlsplit(url).port)
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **_by_name: found)
        hook = Webhook(url, timeout_s=1.0, random=lambda: 0.0)
        hook.write(of_events(event(0)))
        hook.close()
    assert len(asked_s) == hook.attempts == 1


def test_a_machine_without_ipv6_reaches_the_other_address_of_a_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering(OK) as (url, asked_s):
        found = [
            (family, socket.SOCK_STREAM, 0, "", ("127.0.0.1", urlsplit(url).port))
            for family in (-2, socket.AF_INET)  # which no kernel knows
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **_by_name: found)
        hook = Webhook(url, flush_s=1.0)
        hook.write(of_events(event(0)))
        hook.close()
    assert len(asked_s) == hook.attempts == 1
