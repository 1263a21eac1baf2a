"""Brokers that know another version, bear less than others, or are replaced while a run goes on."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from cmlr_edge.errors import OutputError
from cmlr_edge.sinks.mqtt import MqttEvents
from tests.cmlr_edge.sinks.results import of_events
from tests.cmlr_edge.sinks.samples import event

WELL_5, WELL_3 = b"\x20\x03\0\0\0", b"\x20\x02\0\0"
ALL = "run|availability|events"
_SENT = rb"[\x32\x33\x3a\x3b][\x80-\xff]*[\0-\x7f]\0.door/(?:%b)(..)"  # topics are asked for, too
NOT_5 = b"\x20\x02\x00\x01"  # of a broker of MQTT 3.1.1 alone


class StandIn:
    """A broker that serves one connection a call, as it is told."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(20)
        self.url = f"mqtt://127.0.0.1:{self.server.getsockname()[1]}/door"

    def serve(
        self, connack: bytes, confirms: str = "", then: bytes = b"", *, bears_wishes: bool = True
    ) -> tuple[int, list[str]]:
        """The version it was asked in, and the events that were sent; it hangs up after a while.

        Args:
            connack: Its answer.
            confirms: What it confirms, as an expression of topics.
            then: Sent once a greeting is confirmed, before it hangs up.
            bears_wishes: Else it hangs up on whoever wants to be told anything.
        """
        peer, _ = self.server.accept()
        with peer:
            version, said, confirmed = peer.recv(1024)[8], b"", 0
            peer.sendall(connack)
            peer.settimeout(0.4)
            with suppress(OSError):
                while came := peer.recv(65536):
                    said += came
                    if not bears_wishes and re.search(rb"\x82.{4,6}door/run", said, re.DOTALL):
                        break
                    numbers = re.findall(_SENT % confirms.encode(), said, re.DOTALL)
                    for number in numbers[confirmed:] if confirms else ():
                        peer.sendall(b"\x40\x02" + number)
                        confirmed += 1
                    if then and confirmed >= 2:
                        peer.sendall(then)
                        break
        return version, re.findall(r'"id": "(\d+)"', said.decode(errors="replace"))


@pytest.fixture
def broker() -> Iterator[StandIn]:
    made = StandIn()
    yield made
    made.server.close()


def opened(broker: StandIn) -> MqttEvents:
    sink = MqttEvents(broker.url, flush_s=0.1)
    sink._client.reconnect_delay_set(0, 0)
    return sink


@pytest.mark.parametrize("answer", [NOT_5, b""], ids=["refuses", "hangs up"])
def test_a_broker_of_another_version_that_takes_the_place_of_one_gets_all_that_was_not_confirmed(
    broker: StandIn, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    sink = opened(broker)
    sink.write(of_events(event(0), event(1)))
    greeted = broker.serve(WELL_5, ALL)
    sink.write(of_events(event(2)))
    asked = broker.serve(answer)
    served = broker.serve(WELL_3, ALL)
    sink.close()
    assert [greeted, asked[0], served] == [(5, ["0", "1"]), 5, (4, ["2"])]
    assert "password" not in caplog.text


def test_a_broker_that_hung_up_once_is_asked_in_mqtt_5_again(broker: StandIn) -> None:
    sink = opened(broker)
    versions = [broker.serve(answer)[0] for answer in (b"", WELL_3, WELL_5, NOT_5, WELL_3, WELL_3)]
    sink.close()
    assert versions == [5, 4, 5, 5, 4, 4]


def test_a_broker_that_bears_few_unconfirmed_messages_is_sent_no_more(broker: StandIn) -> None:
    sink = opened(broker)
    few = b"\x20\x06\0\0\3\x21\0\x05"
    sink.write(of_events(*map(event, range(9))))
    served = [broker.serve(WELL_5, "run|availability"), broker.serve(few), broker.serve(few, ALL)]
    sink.close()
    assert served == [(5, [*map(str, range(count))]) for count in (9, 3, 9)]


@pytest.mark.parametrize("bears", [1, 2])
def test_a_broker_that_bears_hardly_any_is_sent_on_where_it_left_before_it_confirmed(
    broker: StandIn, bears: int
) -> None:
    sink = opened(broker)
    few = b"\x20\x06\0\0\3\x21\0" + bytes([bears])
    sink.write(of_events(event(0), event(1)))
    served = [broker.serve(few), broker.serve(few, ALL)]
    sink.close()
    assert served == [(5, []), (5, ["0", "1"])]


def test_a_message_longer_than_a_broker_takes_is_lost_and_no_other(broker: StandIn) -> None:
    sink = opened(broker)
    sink.write(of_events(event(0), replace(event(1), source="long" * 500), event(2)))
    assert broker.serve(b"\x20\x08\0\0\5\x27\0\0\3\xe8", ALL) == (5, ["0", "2"])
    with pytest.raises(OutputError, match="1 event: let it take more than 1000 bytes") as told:
        sink.write(of_events())
    assert told.value.lost == 1
    sink.close()


def test_a_broken_packet_costs_a_broker_the_connection_and_us_nothing(broker: StandIn) -> None:
    sink = opened(broker)
    no_text = b"\x31\x06\0\x02\xff\xfe\0x"  # the topic of a message
    assert broker.serve(WELL_5, "run|availability", then=no_text)[0] == 5
    sink.write(of_events(event(0)))
    assert broker.serve(WELL_5, ALL) == (5, ["0"])
    sink.close()


def test_a_broker_that_takes_no_greeting_is_told_of(
    broker: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    sink = opened(broker)
    assert broker.serve(b"\x20\x08\0\0\5\x27\0\0\0\x20", ALL) == (5, [])
    sink.close()
    assert "takes no message of more than 32 bytes: not even a greeting" in caplog.text


@pytest.mark.parametrize(
    ("connack", "said"),
    [
        (b"\x20\x03\0\x9a\0", "refuses us: Retain not supported; let it retain messages, trying"),
        (b"\x20\x03\0\x86\0", "refuses us: Bad user name or password; check user and password, tr"),
        (b"\x20\x03\0\x89\0", "refuses us: Server busy, trying again"),
    ],
)
def test_a_broker_that_refuses_us_is_told_with_what_helps(
    broker: StandIn, connack: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink = opened(broker)
    broker.serve(connack)
    broker.serve(connack)
    sink.close()
    (line,) = caplog.messages
    assert said in line


def test_a_broker_that_takes_us_and_throws_us_out_for_ever_does_not_fill_the_log(
    broker: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    sink = opened(broker)
    for _ in range(9):
        assert broker.serve(WELL_5, ALL, then=b"\xe0\x01\x8e")[0] == 5
    sink.close()
    said = [line.partition("/door ")[2] for line in caplog.messages]
    assert said == ["lost: Session taken over; connecting again", "connected again"] * 5


def test_a_broker_that_throws_out_whoever_wants_to_listen_gets_the_events_all_the_same(
    broker: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    sink = opened(broker)
    sink.write(of_events(event(0)))
    served = [broker.serve(WELL_5, ALL, bears_wishes=False)[1] for _ in range(4)]
    sink.close()
    assert served == [[], [], [], ["0"]]
    said = [line.partition("/door ")[2] for line in caplog.messages]
    assert said[:2] == ["lost: it closed the connection; connecting again", "connected again"]
    assert len(said) <= 3  # the stand-in hangs up in the end
