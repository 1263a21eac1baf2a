"""Events to an MQTT broker: one topic for events, and what is retained for those who come later."""

from __future__ import annotations

import json
import logging
import ssl
import sys
import threading
from collections.abc import Sequence
from typing import Any

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import RUN
from cmlr_edge.machine.rarely import Rarely
from cmlr_edge.redaction import redact_source
from cmlr_edge.sinks.base import Result, SourceHealth, Takes
from cmlr_edge.sinks.home_assistant import HomeAssistant, Topics
from cmlr_edge.sinks.mqtt_client import client_of, paho_client, parse_address
from cmlr_edge.sinks.mqtt_sharing import Sharing
from cmlr_edge.sinks.room import EventQueue
from cmlr_edge.sinks.tls import reason_of
from cmlr_edge.sinks.untold import Untold
from cmlr_edge.wording import counted

_UNDER_WAY = 20  # messages that the broker has not acknowledged; no more are sent meanwhile
_GREETINGS = 2  # messages that begin each connection
_ASKS = 3  # connections in a row that end instead of letting us listen; some punish the wish
_LOOK_S = 1.0  # between looks at what others write under our topic
_LONGEST_MESSAGE = 2**28 - 1  # bytes; the protocol takes no longer ones
_AROUND = 16  # bytes of a packet, beside topic and payload, at most
_CHECK = "check user and password"
_WHAT_TO_DO = {  # where it says why it refuses us
    "Bad user name or password": f"; {_CHECK}",
    "Not authorized": f"; {_CHECK}",
    "Retain not supported": "; let it retain messages",
    "QoS not supported": "; let it take QoS 1",
}
_log = logging.getLogger(__name__)


class MqttEvents:
    """Publishes each event as JSON, at least once, to `TOPIC/events`; see `Sink`.

    Retained, `TOPIC/run` holds the run whose events are now told: events of any other are over. So does
    `TOPIC/availability` "online", and the broker turns it to "offline" when we are gone without a word.
    While the broker is away events wait, up to a limit, and are published afterwards; where too many
    wait, updates are left out first and ends last. What the broker refuses, by its rules of who may write
    where, is lost and counted with MQTT 5; brokers of MQTT 3.1.1 alone confirm what they throw away.

    The topic is one program's. What another one writes to what is retained there is told, and answered.
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
        mqtt = paho_client()
        parts, port, self._topic = parse_address(uri)
        self._flush_s, self._max_queue = flush_s, max_queue
        self._home = HomeAssistant(self._topic, home_assistant) if home_assistant else None
        self._own = {f"{self._topic}/run": RUN, f"{self._topic}/availability": "online"}
        self._retained: dict[str, str] = {}  # what else is, or is to be, retained by topic
        self._sharing, self._asks = Sharing(self.name, self._topic), 0
        self._untold = Untold()  # topics of it that the broker does not hold yet
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
        # Whether that was; two devices may fight over a name for days.
        self._is_said, self._log = False, Rarely()
        self._said = ""  # by TLS, since the connection before
        self._mqtt, self._is_secret = mqtt, parts.scheme == "mqtts"
        self._is_answered = self._refuses_5 = False  # this connection; the broker, in words
        self._most_bytes = _LONGEST_MESSAGE  # of a message, as the broker says
        self._client = client = client_of(mqtt, parts, tls)
        client.will_set(f"{self._topic}/availability", "offline", qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_log = self._on_log
        client.on_message, client.on_subscribe = self._on_message, self._on_subscribe
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
            for topic, payload in (self._home.end() if self._home is not None else {}).items():
                if self._retained.get(topic) == "ON":
                    self._publish(topic, payload, self._states)
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
            self._untold.add(new)
            self._changed.notify_all()

    def _keep_states(self) -> None:
        """Tell the broker what it is to retain, and all of it again when it comes back."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue.closed or self._may_tell(), _LOOK_S)
                self._look_around()
                if not self._may_tell():
                    if self._queue.closed:
                        return
                    continue
                topic = self._untold.take()  # devices before their states
                payload = self._own.get(topic) or self._retained[topic]
                if not payload:
                    del self._retained[topic]
                self._handed_on += 1
            self._publish(topic, payload, self._states)
            self._handed()

    def _may_tell(self) -> bool:
        return self._connected and bool(self._untold) and len(self._states) < _UNDER_WAY

    def _look_around(self) -> None:
        """See whether others make it necessary to tell again, or nobody else runs; with the lock held."""
        if not self._connected or self._queue.closed:
            return
        if asked := self._sharing.answer():
            again = [*self._own, *(self._retained if asked == "all" else ())]
            self._untold.add(again)
        if self._home is not None and self._sharing.is_alone():
            self._keep(self._home.clear_former())

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
            self._untold = Untold(self._retained)
            self._sharing.come()
        self._listen()
        if greets_again:
            return
        self._retain("run", RUN)
        # What is published before paho is done with this call is sent twice.
        self._greeting = self._retain("availability", "online")
        if not self._greeting:
            self._tell(
                f"takes no message of more than {self._most_bytes} bytes: not even a greeting"
            )

    def _listen(self) -> None:
        """Ask for what others write where we do; before the greeting, to find how it was before us."""
        if self._asks >= _ASKS:
            return
        self._asks += 1
        topics = [*self._own, *([self._home.index] if self._home is not None else ())]
        self._client.subscribe([(topic, 0) for topic in topics])

    def _on_subscribe(self, *_: Any) -> None:
        self._asks = 0  # also where it lets us hear nothing: all goes on without

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        said = bytes(message.payload).decode(errors="replace")
        with self._changed:
            if message.topic in self._own:
                what = str(message.topic).rpartition("/")[2]
                self._sharing.take(what, said, is_retained=message.retain)
            elif self._home is not None and message.topic == self._home.index:
                self._keep(self._home.take_index(said, is_retained=message.retain))
            self._changed.notify_all()

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
            if mid == self._greeting:
                self._connected = True
                self._sharing.greet()
            waiting = (self._events, self._states, self._once)
            numbers = next((numbers for numbers in waiting if mid in numbers), None)
            if numbers is None:
                self._early[mid] = reason.is_failure
            else:
                numbers.remove(mid)
                self._refused += reason.is_failure and numbers is self._events
            self._changed.notify_all()
