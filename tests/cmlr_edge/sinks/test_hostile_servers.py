"""Servers that drip, hang, fill queues, or speak TLS with certificates of their own."""

from __future__ import annotations

import getpass
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cmlr_edge.errors import OutputError, SpecError
from cmlr_edge.sinks import Result
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.mqtt import MqttEvents
from cmlr_edge.sinks.opening import SinkSettings, open_sink
from cmlr_edge.sinks.room import EventQueue
from cmlr_edge.sinks.tls import tls_context
from cmlr_edge.sinks.webhook import Webhook
from tests.cmlr_edge.sinks.authority import Authority
from tests.cmlr_edge.sinks.receiver import Receiver
from tests.cmlr_edge.sinks.results import of_events
from tests.cmlr_edge.sinks.samples import event
from tests.conftest import free_port
from tests.waiting import wait_until

KINDS = ["start", "update", "update", "end", "start", "update", "end", "update", "start", "end"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def test_a_full_queue_gives_up_updates_first_then_starts_and_ends_last() -> None:
    queue = EventQueue(5)
    assert queue.put([event(i, kind) for i, kind in enumerate(KINDS)]) == 5
    kept = [queue.take() for _ in range(5)]
    assert [item.kind for item in kept if item] == ["end", "start", "end", "start", "end"]
    assert queue.put([event(i, "end") for i in range(7)]) == 2
    assert [len(queue), len(kept)] == [5, 5]
    assert queue.put([event(7, "update"), event(8, "start")]) == 2
    assert queue.close() == 5


@pytest.mark.parametrize("kind", ["webhook", "mqtt"])
def test_ends_outlast_updates_while_the_server_is_away(receiver: Receiver, kind: str) -> None:
    events = [event(i, kind) for i, kind in enumerate(KINDS)]
    sink: Webhook | MqttEvents
    if kind == "webhook":
        receiver.answers = ["hang"]
        sink = Webhook(receiver.url, max_queue=3, timeout_s=0.3, random=lambda: 0.0)
        sink.write(of_events(event(99)))
        wait_until(lambda: receiver.requests)
    else:
        sink = MqttEvents("mqtt://127.0.0.1:9/x", max_queue=3, flush_s=0.1)
    with pytest.raises(OutputError, match="wait") as full:
        sink.write(of_events(*events))
    assert full.value.lost == 7
    if kind == "webhook":
        sink.close()
        taken = dict.fromkeys(receiver.taken)  # after a late answer one is sent twice
        assert [*taken] == ["99", "3", "6", "9"]
    else:
        assert [item.kind for item in sink._queue._waiting] == ["end"] * 3
        with pytest.raises(OutputError, match="3 events"):
            sink.close()


def test_a_guard_before_an_output_that_hangs_keeps_ends() -> None:
    class Hanging:
        takes = "events"
        pictures = False

        def __init__(self) -> None:
            self.may, self.kinds = threading.Event(), list[str]()

        def write(self, result: Result) -> None:
            self.may.wait(20)
            self.kinds += [item.kind for item in result.events]

        def close(self) -> None:
            pass

    inner = Hanging()
    guard = GuardedSink(inner, "hanging", max_waiting=4)
    for number, kind in enumerate(KINDS):
        guard.write(of_events(event(number, kind)), wait=False)
    inner.may.set()
    guard.close()
    assert inner.kinds == ["start", "end", "end", "end"]
    assert guard.lost == 6


@contextmanager
def dripping(drop: bytes, *, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that answers every caller with a byte now and then, for ever."""
    over = threading.Event()

    def drip(caller: socket.socket) -> None:
        try:
            with caller if tls is None else tls.wrap_socket(caller, server_side=True) as speaking:
                speaking.sendall(b"HTTP/1.1 200 OK\r\n" if drop else b"")
                while not over.wait(0.05):
                    speaking.sendall(drop)
        except OSError:
            return

    def serve(listening: socket.socket) -> None:
        while not over.is_set():
            try:
                caller, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(caller,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield int(listening.getsockname()[1])
        over.set()
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
@pytest.mark.parametrize("drop", [b"", b"x", b"X-Drop: 1\r\n"], ids=["nothing", "byte", "header"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_request_is_over_in_its_time_whatever_the_server_drips(
    authority: Authority, caplog: pytest.LogCaptureFixture, drop: bytes, scheme: str
) -> None:
    tls = None
    if scheme == "https":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*authority.certificate("server"))
    with dripping(drop, tls=tls) as port:
        trusted = tls_context(authority.ca)
        hook = Webhook(f"{scheme}://127.0.0.1:{port}/", tls=trusted, timeout_s=0.4, flush_s=0.1)
        began_s = time.monotonic()
        hook.write(of_events(event(0)))
        wait_until(lambda: hook.attempts >= 1)
        assert time.monotonic() - began_s < 1.5
        with pytest.raises(OutputError, match="1 event not"):
            hook.close()
    assert "no answer in 0.4 s" in caplog.text


def test_a_handshake_that_never_ends_is_over_in_its_time(authority: Authority) -> None:
    with dripping(b"") as port:
        url = f"https://127.0.0.1:{port}/"
        hook = Webhook(url, tls=tls_context(authority.ca), timeout_s=0.4, flush_s=0.1)
        began_s = time.monotonic()
        hook.write(of_events(event(0)))
        wait_until(lambda: hook.attempts >= 1)
        assert time.monotonic() - began_s < 1.5
        with pytest.raises(OutputError, match="1 event not"):
            hook.close()


class Broker:
    """mosquitto with TLS, in a folder of its own."""

    def __init__(self, folder: Path, authority: Authority, *, host: str = "127.0.0.1", asks: bool = False) -> None:  # fmt: skip
        if shutil.which("mosquitto") is None:
            pytest.skip("mosquitto is not installed, so MQTT IS NOT TESTED: apt install mosquitto")
        certificate, key = authority.certificate("broker", host=host)
        self.port = free_port()
        config = folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser {getpass.getuser()}\n"
            f"cafile {authority.ca}\ncertfile {certificate}\nkeyfile {key}\n"
            f"require_certificate {str(asks).lower()}\n"
        )
        self._process = subprocess.Popen(
            ["mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL
        )
        wait_until(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.mark.slow
def test_a_broker_with_a_private_authority_and_client_certificates_takes_events(
    tmp_path: Path, authority: Authority
) -> None:
    broker = Broker(tmp_path, authority, asks=True)
    certificate, key = authority.certificate("device")
    folder = authority.ca.parent
    settings = SinkSettings(
        "mqtt",
        url=f"mqtts://127.0.0.1:{broker.port}/door",
        ca_file="ca.pem",  # relative to the configuration
        cert_file=certificate.name,
        key_file=key.name,
    )
    for number in range(2):
        guard = open_sink(settings, folder=folder, labels=(), name_source=False)
        guard.write(of_events(event(number)))
        guard.close()
        assert guard.lost == 0
    listener = [
        "mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-t", "door/#", "-v", "-W", "2",
        "--cafile", str(authority.ca), "--cert", str(certificate), "--key", str(key),
    ]  # fmt: skip
    if shutil.which("mosquitto_sub") is not None:
        seen = subprocess.run(listener, capture_output=True, text=True, check=False).stdout
        retained = dict(line.split(" ", 1) for line in seen.splitlines())
        assert retained["door/availability"] == "offline"
        assert len(retained["door/run"]) == 16
    broker.stop()


@pytest.mark.slow
# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("the system's authorities", "certificate is not accepted: .*self.signed|unable to get"),
        ("another name", "certificate is not accepted: .*mismatch"),
        ("no TLS", "speaks no TLS|handshake failed|reset"),
        ("no certificate", "does not accept our certificate"),
        ("somebody else's certificate", "does not accept our certificate"),
        ("nobody", "cannot be reached .*refused"),
    ],
)
def test_a_handshake_that_fails_is_told_once_with_its_reason(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture, case: str, said: str
) -> None:
    host = "broker.example" if case == "another name" else "127.0.0.1"
    broker = Broker(tmp_path, authority, host=host, asks="certificate" in case)
    trusted = tls_context(authority.ca)
    if case == "the system's authorities":
        trusted = tls_context()
    elif case.startswith("somebody"):
        stranger = Authority(tmp_path / "stranger").certificate("stranger")
        trusted = tls_context(authority.ca, *stranger)
    url = f"mqtts://user:hunter2@127.0.0.1:{broker.port}/door"
    if case == "nobody":
        broker.stop()
    with dripping(b"220 hello") if case == "no TLS" else socket.socket() as other:
        if isinstance(other, int):
            url = f"mqtts://127.0.0.1:{other}/door"
        sink = MqttEvents(url, tls=trusted, flush_s=0.1)
        wait_until(lambda: caplog.messages)
        threading.Event().wait(2.5)  # it tries again every second
        sink.close()
    broker.stop()
    (line,) = caplog.messages
    assert "\n" not in line
    assert "hunter2" not in line
    assert re.search(said, line), line


@pytest.mark.parametrize("case", ["missing", "no PEM", "passphrase", "alone", "other key"])
def test_files_of_tls_that_cannot_be_used_are_named_in_one_line(
    tmp_path: Path, authority: Authority, case: str
) -> None:
    certificate, key = authority.certificate("device")
    (tmp_path / "text").write_text("no PEM")
    locked = tmp_path / "locked.key"
    command = [
        "openssl",
        "ec",
        "-in",
        str(key),
        "-aes256",
        "-passout",
        "pass:x",
        "-out",
        str(locked),
    ]
    subprocess.run(command, check=True, capture_output=True)
    arguments: dict[str, tuple[Path | None, ...]] = {
        "missing": (tmp_path / "none.pem",),
        "no PEM": (tmp_path / "text",),
        "passphrase": (None, certificate, locked),  # which OpenSSL would ask the terminal for
        "alone": (None, None, key),
        "other key": (None, certificate, authority.certificate("other")[1]),
    }
    with pytest.raises(OutputError, match=r"(ca_file|cert_file|key_file) .*(cannot be used|given)") as caught:  # fmt: skip
        tls_context(*arguments[case])
    assert "\n" not in str(caught.value)


def test_tls_files_belong_to_outputs_with_tls(authority: Authority) -> None:
    with pytest.raises(SpecError, match=r"ca_file.* leave them out"):
        SinkSettings("jsonl", path="x", ca_file="ca.pem")
    settings = SinkSettings("mqtt", url="mqtt://broker/x", ca_file="ca.pem")
    with pytest.raises(OutputError, match="need an mqtts"):
        open_sink(settings, folder=authority.ca.parent, labels=(), name_source=False)


def test_a_webhook_with_a_private_authority_is_reached(authority: Authority) -> None:
    receiver = Receiver()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("server"))
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    settings = SinkSettings(
        "webhook", url=receiver.url.replace("http:", "https:"), ca_file="ca.pem"
    )
    guard = open_sink(settings, folder=authority.ca.parent, labels=(), name_source=False)
    guard.write(of_events(event(7)))
    guard.close()
    receiver.close()
    assert (receiver.taken, guard.lost) == (["7"], 0)
    assert "hook" not in guard.name
    deque(map(json.dumps, receiver.requests), maxlen=0)


def test_a_broker_that_greets_and_leaves_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    greeted = []

    def greet(server: socket.socket) -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.recv(1024)
                peer.sendall(b"\x20\x02\x00\x00")
                greeted.append(peer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=greet, args=(server,), daemon=True).start()
        sink = MqttEvents(f"mqtt://127.0.0.1:{server.getsockname()[1]}", flush_s=0.1)
        wait_until(lambda: len(greeted) >= 3)
        assert "lost" in sink.trouble
        sink.close()
    assert len(caplog.records) == 1, caplog.text


def confirming(peer: socket.socket, *, unless: str) -> None:
    """Be a broker that takes everything, and never confirms what goes to a topic that ends so."""
    with suppress(OSError, IndexError), peer, peer.makefile("rb") as stream:
        while head := stream.read(1):
            length, shift = 0, 0
            while True:
                byte = stream.read(1)[0]
                length, shift = length | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
            body, kind, qos = stream.read(length), head[0] >> 4, head[0] >> 1 & 3
            if kind == 1:
                peer.sendall(b"\x20\x02\x00\x00")
            size = int.from_bytes(body[:2], "big")
            if kind == 3 and qos and not body[2 : 2 + size].decode().endswith(unless):
                peer.sendall(b"\x40\x02" + body[2 + size : 4 + size])


@pytest.mark.parametrize("home_assistant", ["", "homeassistant"])
def test_events_that_a_broker_does_not_confirm_are_lost_and_nothing_else(
    home_assistant: str,
) -> None:
    def serve(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                confirming(server.accept()[0], unless="cmlr_edge/events")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        uri = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        sink = MqttEvents(uri, flush_s=1.0, home_assistant=home_assistant)
        for number, kind in enumerate(("start", "end", "start", "end")):
            sink.write(of_events(event(number, kind)))
        with pytest.raises(OutputError, match="4 events not taken"):
            sink.close()


def test_a_broker_that_confirms_nothing_is_owed_no_more_by_and_by() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = MqttEvents(f"mqtt://127.0.0.1:{server.getsockname()[1]}", flush_s=0.1)
        for _ in range(4):  # it greets, and leaves
            peer, _ = server.accept()
            with peer:
                peer.recv(1024)
                peer.sendall(b"\x20\x03\0\0\0")
                assert peer.recv(1024)
        assert len(sink._client._out_messages) <= 2
        sink.close()
