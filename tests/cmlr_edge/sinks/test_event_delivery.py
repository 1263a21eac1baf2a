"""Events over the network: a real MQTT broker and a real web server that fail, hang and recover."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import threading
import time
from contextlib import suppress
from http.client import BadStatusLine, RemoteDisconnected
from pathlib import Path

import pytest

from cmlr_edge.errors import OutputError
from cmlr_edge.sinks.mqtt import MqttEvents
from cmlr_edge.sinks.tls import reason_of
from cmlr_edge.sinks.webhook import Webhook
from tests.cmlr_edge.cli.command import read_lines
from tests.cmlr_edge.cli.long_label import count_lines, start_label, terminate
from tests.cmlr_edge.sinks.broker import Broker
from tests.cmlr_edge.sinks.receiver import Receiver
from tests.cmlr_edge.sinks.results import of_events
from tests.cmlr_edge.sinks.samples import event
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def test_events_arrive_once_and_in_order_though_the_server_fails_and_hangs(
    receiver: Receiver,
) -> None:
    receiver.answers = [500, 503, "hang", 429, 200, 500]
    hook = Webhook(receiver.url, timeout_s=0.2, random=lambda: 0.0)
    for i in range(5):
        hook.write(of_events(event(i)))
    hook.close()
    assert receiver.taken == ["0", "1", "2", "3", "4"]
    keys = [request["Idempotency-Key"] for request in receiver.requests]
    assert keys[:5] == [keys[0]] * 5
    assert len(set(keys)) == 5
    assert receiver.requests[0]["Authorization"] == "Basic dXNlcjpwQHNz"  # user:p@ss


@pytest.mark.parametrize("status", [302, 400, 404])
def test_an_event_that_is_refused_is_counted_and_the_next_one_goes(
    receiver: Receiver, status: int
) -> None:
    receiver.answers = [status]
    hook = Webhook(receiver.url)
    hook.write(of_events(event(0)))
    hook.write(of_events(event(1)))
    with pytest.raises(OutputError, match="1 event not delivered") as caught:
        hook.close()
    assert receiver.taken == ["1"]
    assert "p%40ss" not in str(caught.value)
    assert "token=t" not in str(caught.value)
    hook.close()


def test_an_answer_that_leads_to_no_address_is_a_refusal_like_any_other(receiver: Receiver) -> None:
    receiver.location, receiver.answers = "http://[", [302, 308]
    sink = Webhook(receiver.url)
    sink.write(of_events(*map(event, range(3))))
    with pytest.raises(OutputError, match="2 events not delivered"):
        sink.close()
    assert receiver.taken == ["2"]


def test_bytes_that_are_no_http_are_told_as_such_and_not_shown() -> None:
    assert reason_of(BadStatusLine("\0\x1b[31m")) == "what answers there speaks no HTTP/1.1"
    assert "closed" in reason_of(RemoteDisconnected("it closed the connection"))


def test_a_proxy_without_an_address_is_an_error_that_may_pass(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http:/nowhere")
    monkeypatch.setenv("no_proxy", "")
    sink = Webhook(receiver.url, flush_s=0.01)
    sink.write(of_events(event(1)))
    with pytest.raises(OutputError, match="1 event not delivered"):
        sink.close()
    assert sink.attempts
    assert not sink._thread.is_alive()


def test_a_webhook_that_is_down_never_blocks_and_holds_a_bounded_queue() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        hook = Webhook(url, max_queue=3, flush_s=0.1, timeout_s=1)
        start = time.monotonic()
        for i in range(3):
            hook.write(of_events(event(i)))
        with pytest.raises(OutputError, match="wait already"):
            hook.write(of_events(event(3)))
        assert time.monotonic() - start < 0.5
        with pytest.raises(OutputError, match="3 events not delivered"):
            hook.close()


def test_events_reach_a_server_within_2_s_of_its_return() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = int(unused.getsockname()[1])
    hook = Webhook(f"http://127.0.0.1:{port}/", random=lambda: 1.0)  # the longest delays
    for i in range(5):
        hook.write(of_events(event(i)))
    wait_until(lambda: hook.attempts >= 5)  # by now the delays are at their longest
    receiver = Receiver(port)
    returned_s = time.monotonic()
    wait_until(lambda: len(receiver.taken) == 5)
    assert time.monotonic() - returned_s < 2.0
    hook.close()
    receiver.close()
    assert receiver.taken == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/",
        "http://",
        "http://x:port/",
        "x",
        "http://a b/",
        "http://a/b c",
        "http://a:s@x:y@:1/",
        "http://broker..local/",
        f"http://{'a' * 64}.local/",
        "http://a/\udcff",
        "http://\udcff:s@a/",
        "http://a/b\nc",
    ],
)
def test_addresses_that_cannot_be_read_are_refused(url: str) -> None:
    with pytest.raises(OutputError, match="expected http"):
        Webhook(url)
    with pytest.raises(OutputError, match="expected mqtt"):
        MqttEvents(url)
    if url != "http://a/b c":  # a topic may have a blank
        with pytest.raises(OutputError, match="expected mqtt"):
            MqttEvents(url.replace("http://", "mqtt://"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho's own socket
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
def test_a_port_that_speaks_tls_or_does_not_names_the_other_scheme(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As a broker answers what it takes for no TLS, or for no MQTT: by hanging up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    caller = server.accept()[0]
                    reset = struct.pack("ii", scheme == "mqtts", 0)
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    caller.recv(1)
                    caller.close()

        threading.Thread(target=hang_up, daemon=True).start()
        sink = MqttEvents(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/door", flush_s=0)
        wait_until(lambda: caplog.messages)
        server.shutdown(socket.SHUT_RDWR)
    sink.close()
    other = {"mqtt": "write mqtts://", "mqtts": "write mqtt://"}[scheme]
    assert other in caplog.messages[0]


def test_a_password_that_has_to_be_written_otherwise_is_told_so() -> None:
    with pytest.raises(OutputError, match="%2F"):
        MqttEvents("mqtt://user:a/b@c@127.0.0.1/door")
    with pytest.raises(OutputError, match="%2F"):
        Webhook("https://user:a/b@c@127.0.0.1/door")


def test_a_topic_longer_than_any_message_takes_is_refused() -> None:
    with pytest.raises(OutputError, match="expected mqtt"):
        MqttEvents(f"mqtt://127.0.0.1/{'a' * 2**16}")


def test_an_address_with_letters_beyond_ascii_is_posted_to(receiver: Receiver) -> None:
    hook = Webhook(receiver.url.replace("/hook?token=t", "/küche%20🚗?x=ü%2F"))
    hook.write(of_events(event(0)))
    hook.close()
    assert receiver.taken == ["0"]
    assert receiver.paths == ["/k%C3%BCche%20%F0%9F%9A%97?x=%C3%BC%2F"]


def test_events_reach_the_broker_in_order_between_online_and_offline(broker: Broker) -> None:
    sink = MqttEvents(f"mqtt://127.0.0.1:{broker.port}/door")
    for i in range(20):
        sink.write(of_events(event(i)))
    sink.close()
    wait_until(lambda: broker.availability()[-1:] == ["offline"] and len(broker.ids()) == 20)
    assert broker.ids() == [str(i) for i in range(20)]
    assert broker.availability() == ["online", "offline"]


def test_events_wait_while_the_broker_is_down_and_none_is_lost_or_doubled(broker: Broker) -> None:
    sink = MqttEvents(f"mqtt://127.0.0.1:{broker.port}/door", flush_s=10)
    sink.write(of_events(event(0)))
    wait_until(lambda: broker.ids() == ["0"])
    # "online" and the event; what was not acknowledged would rightly be sent again.
    wait_until(sink._is_done)
    broker.stop()
    for i in range(1, 6):
        sink.write(of_events(event(i)))
    broker.start()
    wait_until(broker.listens)
    returned_s = time.monotonic()
    wait_until(sink._client.is_connected)
    assert time.monotonic() - returned_s < 2.0
    sink.close()
    wait_until(lambda: len(broker.ids()) >= 6)
    assert broker.ids() == [str(i) for i in range(6)]


def test_label_starts_without_its_broker_and_loses_no_event(
    broker: Broker, engine: Path, tmp_path: Path
) -> None:
    broker.stop()
    folder = tmp_path / "out"
    folder.mkdir()
    url = f"mqtt://127.0.0.1:{broker.port}/door"
    process = start_label(engine, folder, "test://?fps=50", "--mqtt", url)
    wait_until(lambda: count_lines(folder / "o.jsonl") >= 10, process)
    broker.start()
    wait_until(lambda: len(broker.ids()) >= 3)
    terminate(process, 10)
    wait_until(lambda: broker.availability()[-1:] == ["offline"])
    written = [str(line["id"]) for line in read_lines(folder / "e.jsonl")]
    assert sorted(broker.ids()) == sorted(written)
    assert len(written) == 1 + 6  # that the source begins, and three visits
    assert len(set(written)) == 1 + 3
    (run,) = {json.loads(text)["run"] for topic, text in broker.seen if topic == "door/events"}
    assert {text for topic, text in broker.seen if topic == "door/run"} == {run}


def test_a_broker_that_never_comes_costs_the_events_and_says_so(tmp_path: Path) -> None:
    sink = MqttEvents("mqtt://user:hunter2@127.0.0.1:9/door", max_queue=2, flush_s=0.1)
    sink.write(of_events(event(0)))
    sink.write(of_events(event(1)))
    with pytest.raises(OutputError, match="wait for the broker") as full:
        sink.write(of_events(event(2)))
    with pytest.raises(OutputError, match="2 events not taken") as closed:
        sink.close()
    assert "hunter2" not in str(full.value) + str(closed.value)
    assert not list(tmp_path.iterdir())


def test_a_broker_that_is_away_is_named_once_and_at_once(caplog: pytest.LogCaptureFixture) -> None:
    sink = MqttEvents("mqtt://user:hunter2@127.0.0.1:9/door", flush_s=0.1)
    wait_until(lambda: caplog.messages)
    threading.Event().wait(2.5)  # it tries again every second
    sink.close()
    (said,) = caplog.messages
    assert "***@127.0.0.1:9/door cannot be reached (Connection refused); trying again" in said


def test_a_broker_that_refuses_the_password_is_named_once_and_not_called_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed, so MQTT IS NOT TESTED: apt install mosquitto")
    broker = Broker(tmp_path)
    text = broker.config.read_text()
    broker.config.write_text(text.replace("allow_anonymous true", "allow_anonymous false"))
    broker.start()
    wait_until(broker.listens)
    sink = MqttEvents(f"mqtt://user:hunter2@127.0.0.1:{broker.port}/door", flush_s=0.1)
    wait_until(lambda: caplog.messages)
    threading.Event().wait(2.5)
    sink.close()
    broker.stop()
    (said,) = caplog.messages
    assert "refuses us: Not authorized; check user and password" in said


def test_events_that_the_broker_lets_nobody_write_are_lost_and_counted(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    rules = broker.config.with_name("rules")
    rules.write_text("topic write door/availability\ntopic write door/run\n")
    with broker.config.open("a") as config:
        config.write(f"acl_file {rules}\n")
    broker.stop()
    broker.start()
    sink = MqttEvents(f"mqtt://127.0.0.1:{broker.port}/door")
    sink.write(of_events(event(0), event(1)))
    wait_until(lambda: sink._refused == 2)
    with pytest.raises(
        OutputError, match=r"refused 2 events: let this user write to door/#"
    ) as told:
        sink.write(of_events())
    assert told.value.lost == 2
    sink.write(of_events(event(2)))
    with pytest.raises(OutputError, match="1 event not taken") as told:
        sink.close()
    assert told.value.lost == 1
    assert sum("refuses a message (Not authorized)" in line for line in caplog.messages) == 1


def test_the_broker_tells_that_we_died(broker: Broker) -> None:
    sink = MqttEvents(f"mqtt://127.0.0.1:{broker.port}/door")
    wait_until(lambda: broker.availability() == ["online"])
    sink._client.loop_stop()
    connection = sink._client.socket()
    assert connection is not None
    connection.close()  # as if the process had been killed: no farewell
    wait_until(lambda: broker.availability() == ["online", "offline"])
