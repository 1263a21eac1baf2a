"""Events to an MQTT broker: one topic for events, and what is retained for those who come later."""

from __future__ import annotations

import json
import logging
import ssl
import sys
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import RUN
from cmlr_edge.machine.addresses import HOW_TO_WRITE_PASSWORDS, is_host
from cmlr_edge.machine.needed import needed
from cmlr_edge.machine.rarely import Rarely
from cmlr_edge.redaction import redact_source
from cmlr_edge.sinks.base import Result, SourceHealth, Takes
from cmlr_edge.sinks.home_assistant import HomeAssistant, Topics
from cmlr_edge.sinks.room import EventQueue
from cmlr_edge.sinks.tls import reason_of, tls_context
from cmlr_edge.wording import counted

_UNDER_WAY = 20  # messages that the broker has not acknowledged; no more are sent meanwhile
_GREETINGS = 2  # messages that begin each connection
_LONGEST_TOPIC = 2**15  # bytes; the protocol takes twice as many, and topics of ours begin with it
_LONGEST_MESSAGE = 2**28 - 1  # bytes; the protocol takes no longer ones
_AROUND = 16  # bytes of a packet, beside topic and payload, at most
_CHECK = "check user and password"
_WHAT_TO_DO = {  # where it says why it refuses us
    "Bad user name or password": f"; {_CHECK}",
    "Not authorized": f"; {_CHECK}",
    "Retain not supported": "; let it retain messages",
    "QoS not supported": "; let it take QoS 1",
}
_FORM = "mqtt://user:password@host:1883/topic (mqtts:// with TLS)"
_log = logging.getLogger(__name__)


class MqttEvents:
    """Publishes each event as JSON, at least once, to `TOPIC/events`; see `Sink`.

    Retained, `TOPIC/run` holds the run whose events are now told: events of any other are over. So does
    `TOPIC/availability` "online", and the broker turns it to "offline" when we are gone without a word.
    While the broker is away events wait, up to a limit, and are published afterwards; where too many
    wait, updates are left out first and ends last. What the broker refuses, by its rules of who may write
    where, is lost and counted with MQTT 5; brokers of MQTT 3.1.1 alone confirm what they throw away.
    """

    takes: Takes = "events"
    pictures = False

    def __init__(
        self,
        uri: str,
        *,
        tls: ssl.SSLContext | None = None,
        home_assistant: str = "",
        max_queue: int = 1000,
        flush_s: float = 5.0,
    ) -> None:
        """Start to connect; nothing here waits.

        Args:
            uri: `mqtt://user:password@host:1883/topic`; port 1883, or 8883 with `mqtts`, and topic
                "cmlr_edge" by default. Characters like @ and / in a password are %-encoded.
            tls: For `mqtts`, see `tls_context`; None trusts the authorities of the system.
            home_assistant: Where Home Assistant looks for devices, usually "homeassistant": each source
                and label is then found there by itself. "" for not at all.
            max_queue: Events that wait for the broker at most.
            flush_s: How long `close` waits for them.

        Raises:
            OutputError: The URI cannot be read.
            DependencyError: paho-mqtt is not installed.
        """
        self.name = redact_source(uri)
        mqtt = _paho()
        parts, port, self._topic = _parse(uri)
        self._flush_s, self._max_queue = flush_s, max_queue
        self._home = HomeAssistant(self._topic, home_assistant) if home_assistant else None
        self._retained: dict[str, str] = {}  # what is, or is to be, retained by topic
        # Topics of it that the broker does not hold yet, in order.
        self._untold: dict[str, None] = {}
        self._queue = EventQueue(max_queue)
        self._changed = self._queue.changed  # never held while paho is called, which has locks too
        self._connected = False
        # Numbers of what the broker has not confirmed yet: events, what it is to retain, what is sent once.
        self._events: set[int] = set()
        self._states: set[int] = set()
        self._once: set[int] = set()
        # Answered before we learnt the number: whether it was refused.
        self._early: dict[int, bool] = {}
        self._handed_on = 0  # taken out of a queue, and not given to paho yet
        self._greeting = 0  # the number of our last "online"
        self._refused = 0  # events, since that was told
        self._remedies: dict[str, None] = {}  # for what was refused, each told once
        self._trouble = ""  # what was said of the broker last; empty while it is there
        self._is_said, self._log = (
            False,
            Rarely(),
        )  # that; two devices may fight over a name for days
        self._said = ""  # by TLS, since the connection before
        self._mqtt, self._is_secret = mqtt, parts.scheme == "mqtts"
        self._is_answered = self._refuses_5 = False  # this connection; the broker, in words
        self._most_bytes = _LONGEST_MESSAGE  # of a message, as the broker says
        self._client = client = _client(mqtt, parts, tls)
        client.will_set(f"{self._topic}/availability", "offline", qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_log = self._on_log
        client.connect_async(str(parts.hostname), port, keepalive=15)
        client.loop_start()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (("mqtt", self._deliver), ("mqtt states", self._keep_states))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def trouble(self) -> str:
        """Why the broker takes nothing now, while events are kept for it; empty if it does."""
        return self._trouble

    def watch(self, sources: Sequence[SourceHealth]) -> None:
        """Let Home Assistant know how the sources are; see `Sink`."""
        if self._home is not None:
            with self._changed:
                self._keep(self._home.watch(sources))

    def write(self, result: Result) -> None:
        """Publish its events, or keep them until the broker is back; see `Sink`."""
        if self._home is not None:
            with self._changed:
                for event in result.events:
                    self._keep(self._home.take(event))
        if lost := self._queue.put(result.events):
            error = OutputError(
                f"{self.name}: {self._max_queue} events wait for the broker already; is it running?"
            )
            error.lost = lost + self._take_refused()
            raise error
        if refused := self._take_refused():
            error = OutputError(
                f"{self.name}: the broker refused {counted(refused, 'event')}: "
                + " and ".join(self._remedies)
            )
            error.lost = refused
            raise error

    def close(self) -> None:
        """Wait for the last events, say farewell and disconnect; see `Sink`.

        Raises:
            OutputError: Some events were not taken by the broker in time.
        """
        with self._changed:
            self._changed.wait_for(self._is_done, self._flush_s)
            is_there, unsent = self._connected, self._queue.close()
        for thread in self._threads:
            thread.join()
        if is_there:
            # After the events: a farewell queued before would be followed by our own "online".
            self._retain("availability", "offline")
            with self._changed:
                self._changed.wait_for(self._is_done, 1.0)
        with self._changed:
            unsent += len(self._events)
        unsent += self._take_refused()
        self._client.disconnect()
        self._client.loop_stop()
        if unsent:
            error = OutputError(f"{self.name}: {counted(unsent, 'event')} not taken by the broker")
            error.lost = unsent
            raise error

    def _deliver(self) -> None:
        def may_go() -> bool:
            return self._connected and len(self._events) < _UNDER_WAY

        while True:
            with self._changed:
                event = self._queue.take(may_go)
                self._handed_on += event is not None
            if event is None:
                return
            payload = json.dumps(event.to_record(), allow_nan=False, ensure_ascii=False)
            self._publish(f"{self._topic}/events", payload, self._events)
            if self._home is not None and event.is_visit:
                topic = self._home.event_topic(event.source)
                self._publish(topic, self._home.event_payload(event), self._once)
            self._handed()

    def _keep(self, topics: Topics) -> None:
        """Remember what is to be retained, with the lock held."""
        new = [topic for topic, payload in topics.items() if self._retained.get(topic) != payload]
        self._retained |= topics
        if new:
            self._untold |= dict.fromkeys(new)
            self._changed.notify_all()

    def _keep_states(self) -> None:
        """Tell the broker what it is to retain, and all of it again when it comes back."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._queue.closed or (self._connected and self._untold)
                )
                if self._queue.closed and not (self._connected and self._untold):
                    return
                topic = next(iter(self._untold))  # devices before their states
                del self._untold[topic]
                payload = self._retained[topic]
                if not payload:
                    del self._retained[topic]
                self._handed_on += 1
            self._publish(topic, payload, self._states)
            self._handed()

    def _retain(self, topic: str, payload: str) -> int:
        return self._publish(f"{self._topic}/{topic}", payload, self._states)

    def _publish(self, topic: str, payload: str, unconfirmed: set[int]) -> int:
        """Hand a message to paho; its number is among `unconfirmed` until the broker has it."""
        is_once, is_state = unconfirmed is self._once, unconfirmed is self._states
        if len(topic.encode()) + len(payload.encode()) + _AROUND > self._most_bytes:
            self._refuse("Packet too large", f"let it take more than {self._most_bytes} bytes")
            with self._changed:
                self._refused += unconfirmed is self._events
            return 0
        info = self._client.publish(topic, payload, qos=0 if is_once else 1, retain=is_state)
        number = int(info.mid)
        with self._changed:
            if number in self._early:
                self._refused += self._early.pop(number) and unconfirmed is self._events
            elif not is_once or info.rc == 0:  # what is sent once is lost without a connection
                unconfirmed.add(number)
        return number

    def _handed(self) -> None:
        with self._changed:
            self._handed_on -= 1
            self._changed.notify_all()

    def _is_done(self) -> bool:
        waits = self._queue or self._untold or self._handed_on
        return not waits and not self._events and not self._states

    def _take_refused(self) -> int:
        with self._changed:
            refused, self._refused = self._refused, 0
        return refused

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, props: Any) -> None:
        self._is_answered = True
        if reason == "Unsupported protocol version":  # MQTT 3.1.1 is spoken by every broker
            client._protocol, self._refuses_5 = self._mqtt.MQTTv311, True
            return
        # paho does not heed what a broker of MQTT 5 bears, which else leaves us.
        bears = min(getattr(props, "ReceiveMaximum", _UNDER_WAY), _UNDER_WAY)
        client._max_inflight_messages = bears
        with self._changed:
            greets_again = self._greeting in self._states  # paho does, as of all unconfirmed
        room = bears if greets_again else max(0, bears - _GREETINGS)
        for message in [*client._out_messages.values()][room:]:
            message.state = self._mqtt.mqtt_ms_queued  # would all be sent again at once
        self._most_bytes = getattr(props, "MaximumPacketSize", _LONGEST_MESSAGE)
        if self._queue.closed:  # whoever came now would never say farewell
            return
        if reason.is_failure:
            what_to_do = _WHAT_TO_DO.get(str(reason), "")
            self._tell(f"refuses us: {reason}{what_to_do}, trying again")
            return
        with self._changed:
            self._untold = dict.fromkeys(self._retained)
        if greets_again:
            return
        self._retain("run", RUN)
        # What is published before paho is done with this call is sent twice.
        self._greeting = self._retain("availability", "online")

    def _on_disconnect(
        self, client: Any, _data: Any, _flags: Any, reason: Any, _props: Any
    ) -> None:
        # Whoever hangs up without an answer may know the other version alone, or be about to end.
        mqtt, is_5 = self._mqtt, client._protocol == self._mqtt.MQTTv5
        if not self._is_answered or not (is_5 or self._refuses_5):
            client._protocol = mqtt.MQTTv311 if is_5 else mqtt.MQTTv5
        self._is_answered = False
        with self._changed:
            self._connected = False
        if reason.is_failure and (not self._trouble or self._said):
            closed = self._closed_so()  # which paho calls unspecified
            why = reason_of(OSError(self._said)) if self._said else str(reason)
            why = closed if why == "Unspecified error" else why
            self._tell(f"lost: {why}; connecting again")
        self._said = ""

    def _on_log(self, _client: Any, _data: Any, level: int, text: str) -> None:
        """With TLS 1.3 a refusal comes after the handshake, and paho tells it to its log alone."""
        if level == self._mqtt.MQTT_LOG_ERR and "[SSL:" in text:
            self._said = text

    def _closed_so(self) -> str:
        """Why a broker may have closed the connection without a word."""
        said = "it closed the connection"
        if self._greeting or self._is_secret:
            return said
        return f"{said} before it answered; if it speaks TLS at this port, write mqtts://"

    def _on_connect_fail(self, _client: Any, _data: Any) -> None:
        error = sys.exc_info()[1]  # which paho handles, and does not hand on
        why = f" ({reason_of(error)})" if error is not None else ""
        if isinstance(error, ConnectionResetError) and self._is_secret:
            why = f" ({reason_of(error)}; if it speaks no TLS at this port, write mqtt://)"
        self._tell(f"cannot be reached{why}; trying again, and keeping events meanwhile")

    def _tell(self, trouble: str) -> None:
        """Say once what repeats every second."""
        if trouble == self._trouble:
            return
        self._trouble, self._is_said = trouble, self._log.may_say()
        if self._is_said:
            _log.warning("%s %s", self.name, trouble)

    def _refuse(self, reason: str, remedy: str) -> None:
        if remedy not in self._remedies:
            self._remedies[remedy] = None
            _log.warning("%s refuses a message (%s): %s", self.name, reason, remedy)

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: Any, _props: Any) -> None:
        if mid == self._greeting:  # only now: some brokers greet, and close the connection at once
            if self._trouble and self._is_said:  # who was told of it is told of its end
                _log.warning("%s connected again", self.name)
            self._trouble = ""
        if reason.is_failure:
            remedy = f"let this user write to {self._topic}/#, and where Home Assistant looks"
            self._refuse(str(reason), remedy)
        with self._changed:
            self._connected |= mid == self._greeting
            waiting = (self._events, self._states, self._once)
            numbers = next((numbers for numbers in waiting if mid in numbers), None)
            if numbers is None:
                self._early[mid] = reason.is_failure
            else:
                numbers.remove(mid)
                self._refused += reason.is_failure and numbers is self._events
            self._changed.notify_all()


def _parse(uri: str) -> tuple[Any, int, str]:
    try:
        parts = urlsplit(uri)
        port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
    except ValueError:
        parts, port = urlsplit(""), 0
    topic = parts.path.strip("/") or "cmlr_edge"
    is_usable = parts.scheme in {"mqtt", "mqtts"} and parts.hostname and is_host(parts.hostname)
    is_usable = is_usable and uri.isprintable() and len(topic.encode()) <= _LONGEST_TOPIC
    if not is_usable or parts.query or parts.fragment or set(topic) & set("+#\0"):
        raise OutputError(
            f"cannot read {redact_source(uri)}: expected {_FORM}; {HOW_TO_WRITE_PASSWORDS}"
        )
    return parts, port, topic


def _paho() -> Any:
    with needed("MQTT needs paho-mqtt 2", "pip install 'cmlr-edge[mqtt]'"):
        from paho.mqtt import client
    return client


def _client(mqtt: Any, parts: Any, tls: ssl.SSLContext | None) -> Any:
    """A client of paho's that is to log in as the URI says, in MQTT 5 at first."""
    # As paho itself goes over to older versions: another client would have to take over what waits.
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    client._protocol = mqtt.MQTTv5
    if parts.username is not None:
        password = None if parts.password is None else unquote(parts.password)
        client.username_pw_set(unquote(parts.username), password)
    if parts.scheme == "mqtts":
        client.tls_set_context(tls or tls_context())
    client.reconnect_delay_set(min_delay=1, max_delay=1)  # whole seconds
    return client
