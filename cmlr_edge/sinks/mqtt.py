"""Events to an MQTT broker: one topic for events, one that tells whether we are there."""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import unquote, urlsplit

from cmlr_edge.errors import DependencyError, OutputError
from cmlr_edge.redaction import redact
from cmlr_edge.sinks.base import Result, Takes

_FORM = "mqtt://user:password@host:1883/topic (mqtts:// with TLS)"
_log = logging.getLogger(__name__)


class MqttEvents:
    """Publishes each event as JSON, at least once, to `TOPIC/events`; see `Sink`.

    `TOPIC/availability` holds "online", retained, and the broker turns it to "offline" when we are gone
    without a word. While the broker is away events wait, up to a limit, and are published afterwards.
    """

    takes: Takes = "events"
    pictures = False

    def __init__(self, uri: str, *, max_queue: int = 1000, flush_s: float = 5.0) -> None:
        """Start to connect; nothing here waits.

        Args:
            uri: `mqtt://user:password@host:1883/topic`; port 1883, or 8883 with `mqtts`, and topic
                "cmlr_edge" by default. Characters like @ and / in a password are %-encoded.
            max_queue: Events that wait for the broker at most.
            flush_s: How long `close` waits for them.

        Raises:
            OutputError: The URI cannot be read.
            DependencyError: paho-mqtt is not installed.
        """
        self.name = redact(uri)
        mqtt = _paho()
        parts, port, self._topic = _parse(uri)
        self._flush_s, self._max_queue = flush_s, max_queue
        self._pending: set[int] = set()
        self._acknowledged: SimpleQueue[int] = SimpleQueue()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if parts.username is not None:
            password = None if parts.password is None else unquote(parts.password)
            self._client.username_pw_set(unquote(parts.username), password)
        if parts.scheme == "mqtts":
            self._client.tls_set()
        self._client.max_queued_messages_set(max_queue + 2)  # and our own "online" and "offline"
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)  # whole seconds
        self._client.will_set(self._availability, "offline", qos=1, retain=True)
        self._trouble = ""  # what was said of the broker last; empty while it is there
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.connect_async(str(parts.hostname), port, keepalive=15)
        self._client.loop_start()

    @property
    def _availability(self) -> str:
        return f"{self._topic}/availability"

    def write(self, result: Result) -> None:
        """Publish its events, or keep them until the broker is back; see `Sink`."""
        while not self._acknowledged.empty():
            self._pending.discard(self._acknowledged.get())
        for number, event in enumerate(result.events):
            if len(self._pending) >= self._max_queue:
                error = OutputError(
                    f"{self.name}: {len(self._pending)} events wait for the broker already; is it "
                    "running?"
                )
                error.lost = len(result.events) - number
                raise error
            payload = json.dumps(event.to_record(), allow_nan=False, ensure_ascii=False)
            info = self._client.publish(f"{self._topic}/events", payload, qos=1)
            self._pending.add(info.mid)

    def close(self) -> None:
        """Wait for the last events, say farewell and disconnect; see `Sink`.

        Raises:
            OutputError: Some events were not taken by the broker in time.
        """
        deadline = time.monotonic() + self._flush_s
        self._await_acknowledgements(deadline)
        unsent = len(self._pending)
        if self._client.is_connected():
            # After the events: a farewell queued before would be followed by our own "online".
            farewell = self._client.publish(self._availability, "offline", qos=1, retain=True)
            self._pending.add(farewell.mid)
            self._await_acknowledgements(deadline + 1)
        self._client.disconnect()
        self._client.loop_stop()
        self._pending.clear()
        if unsent:
            error = OutputError(f"{self.name}: {unsent} events were not taken by the broker")
            error.lost = unsent
            raise error

    def _await_acknowledgements(self, deadline: float) -> None:
        with suppress(Empty):
            while self._pending:
                left_s = max(0.0, deadline - time.monotonic())
                self._pending.discard(self._acknowledged.get(timeout=left_s))

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _props: Any) -> None:
        if reason.is_failure:
            self._tell(f"refuses us: {reason}; check user and password, trying again")
            return
        self._trouble = ""
        _log.info("%s connected", self.name)
        client.publish(self._availability, "online", qos=1, retain=True)

    def _on_disconnect(
        self, _client: Any, _data: Any, _flags: Any, reason: Any, _props: Any
    ) -> None:
        if reason.is_failure and not self._trouble:
            self._tell(f"lost: {reason}; connecting again")

    def _on_connect_fail(self, _client: Any, _data: Any) -> None:
        if not self._trouble:
            self._tell("cannot be reached; trying again, and keeping events meanwhile")

    def _tell(self, trouble: str) -> None:
        """Say once what repeats every second."""
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("%s %s", self.name, trouble)

    def _on_publish(self, _client: Any, _data: Any, mid: int, _reason: Any, _props: Any) -> None:
        # Called with paho's locks held: a lock of our own here could wait for ever.
        self._acknowledged.put(mid)


def _parse(uri: str) -> tuple[Any, int, str]:
    try:
        parts = urlsplit(uri)
        port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
    except ValueError:
        parts, port = urlsplit(""), 0
    topic = parts.path.strip("/") or "cmlr_edge"
    is_usable = parts.scheme in {"mqtt", "mqtts"} and parts.hostname
    if not is_usable or parts.query or parts.fragment or set(topic) & set("+#\0"):
        raise OutputError(f"cannot read {redact(uri)}: expected {_FORM}")
    return parts, port, topic


def _paho() -> Any:
    try:
        from paho.mqtt import client
    except ImportError as error:
        raise DependencyError(
            f"MQTT needs paho-mqtt 2 ({error}): pip install 'cmlr-edge[mqtt]'"
        ) from error
    return client
