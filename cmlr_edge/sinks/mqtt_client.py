"""Addresses of MQTT brokers, and a client of paho's for one."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from cmlr_edge.errors import OutputError
from cmlr_edge.machine.addresses import HOW_TO_WRITE_PASSWORDS, is_host
from cmlr_edge.machine.needed import needed
from cmlr_edge.redaction import redact_source
from cmlr_edge.sinks.tls import tls_context

_LONGEST_TOPIC = 2**15  # bytes; the protocol takes twice as many, and topics of ours begin with it
_FORM = "mqtt://user:password@host:1883/topic (mqtts:// with TLS)"


def parse_address(uri: str) -> tuple[Any, int, str]:
    """The parts of a broker's address, its port and the topic.

    Raises:
        OutputError: It is none.
    """
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


def paho_client() -> Any:
    """The module of paho-mqtt.

    Raises:
        DependencyError: It is not installed.
    """
    with needed("MQTT needs paho-mqtt 2", "pip install 'cmlr-edge[mqtt]'"):
        from paho.mqtt import client
    return client


def client_of(mqtt: Any, parts: Any, tls: ssl.SSLContext | None) -> Any:
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
    client._packet_handle = partial(_handled, client._packet_handle, mqtt.MQTT_ERR_PROTOCOL)
    return client


def _handled(handle: Callable[[], Any], broken: Any) -> Any:
    """Take a packet, by which a broken one costs the connection and not paho's thread."""
    try:
        return handle()
    except Exception:  # noqa: BLE001 (paho lets many through, such as a topic that is no text)
        return broken
